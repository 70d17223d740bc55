"""What a run changes in its process, and puts back: signal handlers, threads, precision, random numbers."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ANSWER = "the iteration at hand is being finished, then the policy is saved and evaluated."


@contextmanager
def stop_signals(tell: Callable[[str], None]) -> Iterator[list[str]]:
    """Yield a list that SIGINT and SIGTERM append their names to; a second one does what it would otherwise.

    The first is answered at once: an iteration may take minutes. `tell` is called with the answer in a thread of its
    own, because the signal may have come while this one was printing.

    A signal that is ignored (`nohup`, a shell's background job) or has a handler that Python did not set stays as it
    is. Outside the main thread, where handlers can't be set, the list stays empty.
    """
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def put_back() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is note:  # else somebody has set another meanwhile
                signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        received.append(name)
        put_back()
        once_more = "Ctrl-C" if name == "SIGINT" else name
        _thread.start_new_thread(tell, (f"{once_more}: {ANSWER} A second {once_more} stops now.",))

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        put_back()


@contextmanager
def torch_settings() -> Iterator[None]:
    """Put torch's random numbers, default dtype, threads and precision back after the block, also after an error."""
    import torch

    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(precision)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
