"""Atomic writes: files that are there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a place to write to; what was written there is called `path` after the block, also after a power cut.

    If the block fails, what was there before is untouched, and nothing else is left.

    Raises:
        OSError: If the file can't be written, with its name and the reason.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        first = error.__context__ if isinstance(error.__context__, OSError) else error  # torch puts its own on top
        if not isinstance(first, OSError):
            raise
        reason = first.strerror or (str(first).splitlines() or [type(first).__name__])[0]
        raise OSError(f"{path} can't be written: {reason}. What was there before is whole.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the names in a folder last, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(number)
    finally:
        os.close(number)
