"""What a sweep's folder keeps, so that a sweep which was interrupted goes on: what was typed, and each job's result."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from rl8 import runs
from rl8.atomic import atomic
from rl8.jobs import quoted, say

#: In the sweep's folder: what was typed.
SWEEP: Final = "sweep.json"
#: In each job's folder: what became of it.
RESULT: Final = "result.json"
#: Where sweeps are looked for.
SWEEPS: Final = runs.OUTPUTS / "sweeps"
# Held by the process that is at the sweep, and at the job.
_LOCK: Final = ".sweep.lock"
_JOB_LOCK: Final = ".job.lock"


@dataclass(frozen=True)
class Command:
    """A sweep as it was typed.

    Attributes:
        words: Overrides, `hydra.sweep.dir` left out.
        config_name: The root file.
        config_dirs: Folders with more options.
        run_id: The parent run in MLflow; None before there is one, or without.
        ended: Whether every job finished or failed; what was interrupted goes on.
    """

    words: tuple[str, ...]
    config_name: str = "config"
    config_dirs: tuple[str, ...] = ()
    run_id: str | None = None
    ended: bool = False

    def is_same(self, other: Command | None) -> bool:
        """Return whether another command asks for the same jobs."""
        return other is not None and replace(other, run_id=self.run_id, ended=self.ended) == self

    def __str__(self) -> str:
        return shlex.join(["rl8", "-m", *self.words])


@dataclass(frozen=True)
class Result:
    """What became of one job of a sweep; kept as a file in its folder, because jobs may run in other processes.

    Attributes:
        number: Of the job, from 0.
        overrides: What the job was told.
        objective: Value of `goal.metric` at the end; NaN if there is none.
        error: What went wrong; empty if nothing did.
        stopped_by: The signal that ended it early, or None.
        pruned: Whether a search ended it early.
    """

    number: int
    overrides: list[str]
    objective: float = math.nan
    error: str = ""
    stopped_by: str | None = None
    pruned: bool = False


def load(folder: Path) -> Command | None:
    """Return what was typed for the sweep in a folder; None if it holds no sweep."""
    try:
        content = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
        return Command(**content | {name: tuple(content[name]) for name in ("words", "config_dirs")})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save(folder: Path, command: Command) -> None:
    """Keep what was typed."""
    _replace(folder / SWEEP, asdict(command))


def save_result(folder: Path, result: Result) -> None:
    """Keep what became of a job in its folder. Where that fails the job counts as failed, and the others go on."""
    try:
        _replace(folder / RESULT, asdict(result))
    except OSError as error:
        say(str(error))


def _replace(path: Path, content: object) -> None:
    with atomic(path) as file:
        file.write_text(json.dumps(content), encoding="utf-8")


def result(folder: Path) -> Result | None:
    """Return what became of the job in a folder; None if it has not come to an end."""
    try:
        return Result(**json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def results(folder: Path) -> list[Result]:
    """Return the results that the jobs left in a sweep's folder, in order of their numbers."""
    found = (result(path.parent) for path in folder.rglob(RESULT))
    return sorted((one for one in found if one is not None), key=lambda one: one.number)


def clear(folder: Path, *, goes_on: bool, retry: bool) -> None:
    """Forget the results of jobs that are to be done: all of them, or where a sweep goes on those that did not end.

    Args:
        folder: The sweep's.
        goes_on: Whether finished jobs are to be skipped.
        retry: Whether failed jobs are tried again.
    """
    for path in folder.rglob(RESULT):
        found = result(path.parent)
        open_ = found is None or found.stopped_by is not None or (retry and found.error)
        if open_ or not goes_on:
            path.unlink()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let no other process go on with the sweep in a folder while the block runs.

    Raises:
        ValueError: If one is at it.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"The sweep in {folder} is running in another process. Accepted: a sweep that was interrupted or has "
            f"ended. Stop it first, or begin another: hydra.sweep.dir={folder}-2."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Let no other process do the job in a folder while the block runs; wait for one that does."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / _JOB_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{name} is running in another process already, and is waited for.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_held(folder: Path) -> bool:
    try:
        with held(folder):
            return False
    except ValueError:
        return True


def begun(command: Command, *, retry: bool) -> Path | None:
    """Return the folder of the newest sweep by the same command that was interrupted; None if there is none.

    Args:
        command: What is typed now.
        retry: Whether one with failed jobs is meant too.
    """
    for folder in _sweeps():
        kept = load(folder)
        if kept is None or not command.is_same(kept):
            continue
        failed = retry and any(one.error for one in results(folder))
        if (failed or not kept.ended) and not _is_held(folder):
            return folder
    return None


def check_own(folder: Path, command: Command) -> bool:
    """Return whether a folder that was asked for holds this very sweep, which then goes on.

    Raises:
        ValueError: If it holds another.
    """
    kept = load(folder)
    if kept is None:
        return False
    if not command.is_same(kept):
        raise ValueError(
            f"hydra.sweep.dir={folder} holds another sweep: {kept}. Accepted: a folder without one. Try "
            f"hydra.sweep.dir={folder}-2, or rl8 resume {folder} to go on with that one."
        )
    return True


def find(run: str) -> Path | None:
    """Return the folder of the sweep that RUN names: the folder itself or its parent run's id; None if it is none."""
    if load(Path(run)) is not None:
        return Path(run)
    if len(run) != len("0" * 32):
        return None
    return next((folder for folder in _sweeps() if getattr(load(folder), "run_id", None) == run), None)


def _sweeps() -> Sequence[Path]:
    return sorted((path.parent for path in SWEEPS.rglob(SWEEP)), key=lambda path: path.stat().st_mtime, reverse=True)


def again(run: str, overrides: Sequence[str], flags: Sequence[str]) -> list[str] | None:
    """Return the command line that goes on with a sweep; None if RUN is no sweep.

    Args:
        run: RUN as typed.
        overrides: What was typed besides.
        flags: Flags that act on how it goes on.

    Raises:
        ValueError: If overrides are typed too.
    """
    sweep = find(run)
    command = load(sweep) if sweep is not None else None
    if sweep is None or command is None:
        return None
    if overrides:
        raise ValueError(
            f"{overrides[0]!r} would make it another sweep. Accepted: rl8 resume {run}, with --retry and --jobs. To "
            f"change one of its runs, try rl8 resume {sweep / '0'} {overrides[0]}."
        )
    folders = [part for folder in command.config_dirs for part in ("--config-dir", folder)]
    where = f"hydra.sweep.dir={quoted(sweep)}"
    return ["-m", *flags, "--config-name", command.config_name, *folders, *command.words, where]
