"""Films of a policy at work that are written while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rl8.view import movies

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Pictures, and what is written on each.
Film = Sequence[tuple["NDArray[np.uint8]", str]]


def write(film: Film, path: Path) -> Path:
    """Write a film as a GIF, texts on its pictures; return the file."""
    return movies.gif([movies.mosaic([picture], [text], width=picture.shape[1]) for picture, text in film], path)


class Films:
    """Writes films in a thread of its own, one after another."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._written: list[Future[None]] = []

    def add(self, film: Film, path: Path, keep: Callable[[Path, str], None]) -> None:
        """Queue a film.

        Args:
            film: The film.
            path: The file to write.
            keep: Called with the file and the name of its folder once it is written.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "rl8-films")
        self._written.append(self._thread.submit(_write, film, path, keep))

    def close(self) -> list[str]:
        """Wait for what is queued, and return what went wrong, a line each."""
        if self._thread is not None:
            self._thread.shutdown()
        found = [done.exception() for done in self._written]
        self._thread, self._written = None, []
        return [f"{type(error).__name__}: {error}" for error in found if error is not None]


def _write(film: Film, path: Path, keep: Callable[[Path, str], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(film, path)
    keep(path, path.parent.name)
