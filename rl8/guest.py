"""What a run changes in its process, and puts back: signals, logging, environment variables, torch's settings."""

from __future__ import annotations

import _thread
import gc
import io
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ANSWER = "the iteration at hand is being finished, then the policy is saved and evaluated."


@contextmanager
def stop_signals(tell: Callable[[str], None], *, passed_on: bool = False) -> Iterator[list[str]]:
    """Yield a list that SIGINT and SIGTERM append their names to; a second one does what it would otherwise.

    The first is answered at once: an iteration may take minutes. `tell` is called with the answer in a thread of its
    own, because the signal may have come while this one was printing.

    A signal that is ignored (`nohup`, a shell's background job) or has a handler that Python did not set stays as it
    is. Outside the main thread, where handlers can't be set, the list stays empty.

    Args:
        tell: Takes the answer.
        passed_on: Whether a launcher passes signals on, so that one may come twice: a second one is like the first, and
            the launcher ends who takes too long.
    """
    received: list[str] = []

    def note(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        received.append(name)
        once_more = "Ctrl-C" if name == "SIGINT" else name
        if passed_on:
            answer = f"{once_more}: {ANSWER}"
        else:
            put_back()
            answer = f"{once_more}: {ANSWER} A second {once_more} stops now."
        if len(received) == 1 and not (passed_on and name == "SIGTERM"):  # a launcher's way to end those that are left
            _thread.start_new_thread(tell, (answer,))

    # A launcher's signal to those that are left would end them before they say why.
    with _handled(SIGNALS, note, also_after_errors=not passed_on) as put_back:
        yield received


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, unless it is ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled([signal.SIGTERM], stop):
        yield


@contextmanager
def _handled(
    numbers: Sequence[signal.Signals],
    handler: Callable[[int, FrameType | None], None],
    *,
    also_after_errors: bool = True,
) -> Iterator[Callable[[], None]]:
    """Let signals call `handler` in the block; yield what puts back what was there, which may be called before.

    Args:
        numbers: The signals.
        handler: What they call.
        also_after_errors: Whether it is put back after a block that raises.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: other for number, other in before.items() if other not in (signal.SIG_IGN, None)}

    def put_back() -> None:
        for number, other in before.items():
            if signal.getsignal(number) is handler:  # else somebody has set another meanwhile
                signal.signal(number, other)

    for number in before:
        signal.signal(number, handler)
    try:
        yield put_back
    except BaseException:
        if also_after_errors:
            put_back()
        raise
    put_back()


@contextmanager
def command_line(*, alone: bool) -> Iterator[None]:
    """Set the process up for the command line, and put it back: a notebook or a test may call it.

    Streams show escaped what they can't print. Garbage is not looked for: imports make a million objects and hardly
    any, and looking takes a sixth of the start-up. `launch.run` looks again.

    Args:
        alone: Whether the process ends with the block: then no garbage need be looked for afterwards.
    """
    streams = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    looks, frozen = gc.isenabled(), gc.get_freeze_count()
    for stream, _ in streams:
        stream.reconfigure(errors="backslashreplace")
    gc.disable()
    try:
        # Read when torch loads OpenMP. By default a thread spins for milliseconds at each barrier, so that one other
        # busy process costs two threads a factor of seven; experiments/LOG.md has figures.
        with variables({"GOMP_SPINCOUNT": "10000"}):
            yield
    finally:
        if not (alone or frozen):
            gc.unfreeze()
        if looks:
            gc.enable()
        else:
            gc.disable()
        for stream, errors in streams:
            with suppress(ValueError):  # closed meanwhile
                stream.reconfigure(errors=errors)


@contextmanager
def variables(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block where there are none; those that are still so are taken away after it."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in added.items():
            if os.environ.get(name) == value:
                del os.environ[name]


@contextmanager
def arguments(words: Sequence[str]) -> Iterator[None]:
    """Let the process seem to have been started with other words in the block: Hydra reads them there."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable in the block, or unset it for None, and put it back."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


@contextmanager
def root_logging() -> Iterator[None]:
    """Put the root logger's level and handlers back after the block; those that came to it there are closed."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def log_levels(names: Sequence[str], level: int) -> Iterator[None]:
    """Let loggers say only what is as grave as `level` in the block."""
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    for logger, _ in before:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, own in before:
            logger.setLevel(own)


@contextmanager
def torch_settings() -> Iterator[None]:
    """Put random numbers, and torch's default dtype, threads and precision, back after the block.

    The random numbers are torch's and Python's own, from which MLflow takes the names of runs.
    """
    import torch

    drawn = random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(drawn)
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(precision)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
