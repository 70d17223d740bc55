"""What a run still has to send to MLflow: parameters, tags, metrics and files, in the sizes that a store accepts."""

from __future__ import annotations

import csv
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rl8.atomic import atomic
from rl8.tracking.provenance import TAG_LIMIT, clean_name, cut
from rl8.tracking.secrets import redacted
from rl8.tracking.store import first_line, is_final

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

# MLflow's limits per request.
METRICS_PER_BATCH: Final = 1000
PARAMS_PER_BATCH: Final = 100


@dataclass(frozen=True)
class _File:
    """A queued artifact: a private copy, so that the caller may overwrite its own file at once."""

    copy: Path
    folder: str | None


class Outbox:
    """Queues that any thread fills and one thread empties.

    Nothing leaves a queue before the store has taken it, so that a failed sending is simply repeated. What the store
    refuses for good is dropped, and said.

    Attributes:
        sent: Number of metric values and files that the store has taken.
        recorded: By metric, the step up to which the store has values: they are not sent again.
    """

    def __init__(self, params: Mapping[str, str], refused: Callable[[str], None], folder: Path | None = None) -> None:
        """Begin with the parameters.

        Args:
            params: Parameters by name, within MLflow's limits.
            refused: Called with a message when the store refuses something for good.
            folder: Where copies of files wait; None takes the system's temporary folder, which is emptied below a
                process that runs for days.
        """
        self.sent = 0
        self.params = dict(params)
        self.recorded: dict[str, int] = {}
        self._refused = refused
        self._lock = threading.Lock()
        self._tags: dict[str, str] = {}
        self._incoming: deque[tuple[dict[str, float], int, int]] = deque()  # values by name, step, time in ms
        self._batch: list[Metric] = []  # what the next request takes; of the sending thread alone
        self._files: deque[_File] = deque()
        self._names: dict[str, str] = {}
        self._copies = 0
        self._folder = folder
        self._spool: tempfile.TemporaryDirectory[str] | None = None  # made for the first file

    def add_metrics(self, metrics: Mapping[str, float], step: int, milliseconds: int | None = None) -> None:
        """Queue metrics of one moment; a copy and an append, so that training loses about a microsecond."""
        self._incoming.append((dict(metrics), step, milliseconds or time.time_ns() // 1_000_000))

    def add_tag(self, name: str, value: str) -> None:
        """Queue a tag; a later value of the same name replaces it."""
        with self._lock:
            self._tags[clean_name(name)] = cut(value, TAG_LIMIT)

    def add_file(self, path: Path, folder: str | None) -> None:
        """Queue a copy of a file, or of a folder with all that is in it."""
        copy = self._copy_path(path.name)
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copyfile(path, copy)
        self._files.append(_File(copy, folder))

    def add_text(self, text: str, name: str) -> None:
        """Queue a text as the file `name`, which may be in a folder (`"notes/first.txt"`)."""
        folder, _, file = name.rpartition("/")
        copy = self._copy_path(file)
        copy.write_text(redacted(text), encoding="utf-8")
        self._files.append(_File(copy, folder or None))

    def _copy_path(self, name: str) -> Path:
        with self._lock:
            self._copies += 1
            if self._spool is None:
                self._spool = tempfile.TemporaryDirectory(
                    prefix=".unsent-", dir=self._folder, ignore_cleanup_errors=True
                )
            folder = Path(self._spool.name) / str(self._copies)
        folder.mkdir(parents=True)  # with its parents: somebody may have tidied up
        return folder / name

    def send(self, client: MlflowClient, run_id: str) -> None:
        """Send everything once; files last, so that a store that can't take files still gets the metrics.

        Raises:
            Exception: What MLflow raised for a request that may succeed later; the rest stays queued.
        """
        self._send_params(client, run_id)
        self._send_tags(client, run_id)
        self._send_metrics(client, run_id)
        self._send_files(client, run_id)

    def unsent(self) -> str:
        """Return what is still queued, e.g. `1,200 metric values and 2 files`, or an empty string."""
        values = len(self._batch) + sum(len(metrics) for metrics, _, _ in list(self._incoming))
        parts = {"parameters": len(self.params), "tags": len(self._tags), "metric values": values}
        parts["files"] = len(self._files)
        return " and ".join(f"{count:,} {what if count > 1 else what[:-1]}" for what, count in parts.items() if count)

    def pending(self) -> list[tuple[str, int, float, int]]:
        """Return each metric value that is still queued, as name, step, value and time in ms."""
        queued = list(self._incoming)  # first: what moves on meanwhile is found below too
        found = {(metric.key, metric.step): (metric.value, metric.timestamp) for metric in list(self._batch)}
        for metrics, step, milliseconds in queued:
            for name, value in metrics.items():
                found[clean_name(name), step] = (value, milliseconds)
        return [(name, step, *rest) for (name, step), rest in found.items()]

    def save_metrics(self, path: Path) -> bool:
        """Write the metrics that are still queued as CSV; return whether there were any."""
        rows = [(step, name, value, milliseconds) for name, step, value, milliseconds in self.pending()]
        if rows:
            with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("step", "metric", "value", "timestamp_ms"), *rows])
        return bool(rows)

    def close(self) -> None:
        """Remove the copies of files."""
        if self._spool is not None:
            self._spool.cleanup()

    def _send_params(self, client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Param

        while self.params:
            names = list(self.params)[:PARAMS_PER_BATCH]
            params = [Param(name, self.params[name]) for name in names]
            self._ask("parameters", client.log_batch, run_id, params=params)
            for name in names:
                del self.params[name]

    def _send_tags(self, client: MlflowClient, run_id: str) -> None:
        with self._lock:
            tags = list(self._tags.items())
        for name, value in tags:
            self._ask(f"the tag {name}", client.set_tag, run_id, name, value)
            with self._lock:
                if self._tags[name] == value:  # else a newer value came meanwhile
                    del self._tags[name]

    def _send_metrics(self, client: MlflowClient, run_id: str) -> None:
        while self._fill_batch():
            batch = self._batch[:METRICS_PER_BATCH]
            if self._ask("metrics", client.log_batch, run_id, metrics=batch):
                self.sent += len(batch)
            del self._batch[:METRICS_PER_BATCH]

    def _fill_batch(self) -> bool:
        """Turn queued metrics into MLflow's own objects, about one request's worth; return whether there are any."""
        from mlflow.entities import Metric

        while self._incoming and len(self._batch) < METRICS_PER_BATCH:
            metrics, step, milliseconds = self._incoming.popleft()
            for name, value in metrics.items():
                if not isinstance(value, (int, float)):
                    self._refused(f"MLflow takes numbers only; the metric {name}={value!r} is left out.")
                    continue
                key = self._names.get(name)
                if key is None:
                    key = self._names[name] = clean_name(name)
                if step <= self.recorded.get(key, -1):
                    continue
                self._batch.append(Metric(key, float(value), milliseconds, step))
        return bool(self._batch)

    def _send_files(self, client: MlflowClient, run_id: str) -> None:
        while self._files:
            file = self._files[0]
            try:
                if self._ask(f"the file {file.copy.name}", client.log_artifact, run_id, str(file.copy), file.folder):
                    self.sent += 1
            except Exception:
                self._files.rotate(-1)  # others may pass next time
                raise
            self._files.popleft()
            shutil.rmtree(file.copy.parent, ignore_errors=True)

    def _ask(self, what: str, request: Callable[..., object], *arguments: object, **named: object) -> bool:
        """Make a request; return whether the store took it. Only errors that may pass are raised."""
        try:
            request(*arguments, **named)
        except Exception as error:
            if not is_final(error):
                raise
            self._refused(f"MLflow refuses {what}: {first_line(error)}")
            return False
        return True
