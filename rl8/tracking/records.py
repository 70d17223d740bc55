"""Everything that a run is recorded by, as one: MLflow, unless that is off, and other writers beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl8.tracking.run import NOTE, Status, Tracker
from rl8.tracking.store import first_line
from rl8.tracking.writers import Writer


class Records:
    """A run's records, of which there may be none.

    Args:
        tracker: The run in MLflow; None if it is not recorded there.
        writers: What records it besides.

    Attributes:
        notify: Called with each message to the user.
    """

    def __init__(self, tracker: Tracker | None = None, writers: Sequence[Writer] = ()) -> None:
        self.tracker = tracker
        self._writers = list(writers)
        self._lock = threading.Lock()  # films come from a thread of their own
        self.notify: Callable[[str], None] = lambda message: None

    def tell(self, notify: Callable[[str], None]) -> None:
        """Set who is called with each message."""
        self.notify = notify
        if self.tracker is not None:
            self.tracker.notify = notify

    @property
    def run_id(self) -> str | None:
        """The MLflow run."""
        return None if self.tracker is None else self.tracker.run_id

    @property
    def where(self) -> dict[str, str]:
        """How to look at each record, by its name."""
        found = {} if self.tracker is None else {"recorded in": self.tracker.where}
        return found | {writer.title: writer.where for writer in self._writers}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics at some env steps."""
        if self.tracker is not None:
            self.tracker.log_metrics(metrics, step)
        self._each(lambda writer: writer.log_metrics(metrics, step))

    def unsent(self) -> list[Any]:
        """Let writers write what they hold; return the values that MLflow has not got yet, for a checkpoint."""
        self._each(lambda writer: writer.flush())
        return [] if self.tracker is None else self.tracker.unsent()

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Record a file, in a folder of the run's.

        Raises:
            OSError: If no copy can be made for MLflow.
        """
        self._each(lambda writer: writer.log_artifact(path, folder))
        if self.tracker is not None:
            self.tracker.log_artifact(path, folder)

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag in MLflow; others get the run's description alone."""
        if self.tracker is not None:
            self.tracker.set_tag(name, value)
        if name == NOTE:
            self._each(lambda writer: writer.describe(value))

    def finish(self, status: Status, error: str | None = None) -> None:
        """End the run in all of them."""
        if self.tracker is not None:
            self.tracker.finish(status, error)
        self._each(lambda writer: writer.finish(status))

    def _each(self, do: Callable[[Writer], None]) -> None:
        with self._lock:
            for writer in tuple(self._writers):
                try:
                    do(writer)
                except Exception as error:
                    self._writers.remove(writer)
                    reason = f"{type(error).__name__}: {first_line(error).rstrip('.')}"
                    self.notify(f"{writer.title} failed: {reason}. Training goes on; it gets nothing more.")
