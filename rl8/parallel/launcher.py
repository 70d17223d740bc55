"""torch's own launcher, started from this program: `device.processes=4` is torchrun's `--nproc-per-node=4`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rl8.parallel import launched
from rl8.settings import DeviceSettings

#: Names the file in which the processes leave how their run ended.
OUTCOME: Final = "RL8_OUTCOME"
#: What a user typed of what the processes are told, as JSON.
TYPED: Final = "RL8_TYPED"


def is_wanted(settings: DeviceSettings) -> bool:
    """Return whether processes are to be started that do the work; never in one of them.

    Raises:
        ValueError: If this is a process of a launcher that started another number.
    """
    if not launched.is_worker():
        return settings.processes > 1 or settings.max_restarts > 0
    _, here = launched.place() or (None, settings.processes)
    if settings.processes not in (1, here):
        raise ValueError(
            f"device.processes={settings.processes} contradicts the launcher, which started {here} on this machine. "
            f"Accepted: {here}, or 1, which leaves it to the launcher. Try device.processes=1."
        )
    return False


def launch(
    words: Sequence[str],
    settings: DeviceSettings,
    *,
    outcome: Path | None = None,
    typed: Sequence[str] | None = None,
) -> int:
    """Run this program with `words` in several processes of this machine; return the exit code.

    Args:
        words: What comes after the program's name.
        settings: How many processes, and how often they are started again.
        outcome: File in which the processes are to leave how the run ended; see `leave`.
        typed: Those of the words that a user typed, which are recorded; None: all of them.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # of the launcher, which would tell its own story of each failure
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // settings.processes, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=settings.max_restarts,
        # a last evaluation, a film and an upload may come after Ctrl-C
        shutdown_timeout=600,
    )
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}  # torch keeps its own
    told = {} if outcome is None else {OUTCOME: str(outcome.absolute())}
    os.environ |= told if typed is None else {**told, TYPED: json.dumps(list(typed))}
    try:
        elastic_launch(config, sys.executable)("-m", "rl8", *words)
    except ChildFailedError as error:
        codes = [int(failure.exitcode) for failure in error.failures.values()]
        return next((code for code in codes if code > 0), 1)
    except SignalException as error:
        return 128 + signal.Signals(error.sigval)
    finally:
        for name in (OUTCOME, TYPED):
            os.environ.pop(name, None)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        logging.disable(logging.NOTSET)
    return 0


def typed(words: Sequence[str]) -> Sequence[str]:
    """Return what a user typed, of the overrides that this process was started with."""
    told: list[str] | None = json.loads(os.environ.get(TYPED, "null"))
    return words if told is None else told


def leave(**outcome: Any) -> None:
    """Leave how the run ended for the program that started this process, if it wants to know."""
    if OUTCOME in os.environ:
        Path(os.environ[OUTCOME]).write_text(json.dumps(outcome), encoding="utf-8")


def left(file: Path) -> Mapping[str, Any]:
    """Return what `leave` was last given, once; nothing if it was not called."""
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    return found
