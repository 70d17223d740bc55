"""One MLflow run, sent by a background thread that never stops training.

`Tracker.start` creates the run. `log_metrics` and the others only queue; a daemon thread sends what is queued about
once a second. When the store fails, all stays queued and is tried again, so that a server may be restarted midway or
be absent at the start. `finish` sends the rest, gives up after a while without an answer, and says what is lost.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from rl8.tracking import pages, provenance
from rl8.tracking.outbox import Outbox
from rl8.tracking.store import (
    JOB_VARIABLE,
    SWEEP_VARIABLE,
    Store,
    StoreUnreachableError,
    check_answers,
    client_defaults,
    experiment_id,
    first_line,
    is_final,
    open_store,
    public_uri,
    sqlite_file,
    store_uri,
    typed_uri,
)

Status = Literal["FINISHED", "FAILED", "KILLED"]

# Sending costs CPU time that training wants (about 50 us a metric): the pause between two sendings is this many times
# the CPU time that the last one took, within the bounds in seconds.
PAUSE_FACTOR: Final = 200
PAUSE_S: Final = (1.0, 5.0)
#: Longest pause between two attempts while the store fails, in seconds; the first is a second and each doubles it.
RETRY_S: Final = 30.0
#: Seconds that `finish` goes on trying while the store does not answer.
PATIENCE_S: Final = 10.0

#: Tags: the sweep's run, and the env steps of the run's last checkpoint.
PARENT: Final = "mlflow.parentRunId"
SAVED_AT: Final = "checkpoint.env_steps"
#: Tag: the description of a run on its page, in Markdown.
NOTE: Final = "mlflow.note.content"
#: Tag of a sweep's run: which of its jobs it is.
JOB: Final = "sweep.job"

_logger = logging.getLogger(__name__)


class Tracker:
    """One MLflow run. Built by `Tracker.start`; also a context manager, which finishes the run when left.

    All methods may be called from any thread.

    Attributes:
        run_id: Id of the run; None until the store could be reached.
        run_name: Name of the run; None until it is known.
        notify: Called with each message to the user; a warning in the log unless it is set.
    """

    def __init__(
        self,
        *,
        experiment_name: str,
        run_name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        env_steps: int | None = None,
        notify: Callable[[str], None] | None = None,
        folder: str | Path | None = None,
        uri: str | None = None,
    ) -> None:
        self.run_id = run_id
        self._env_steps = env_steps
        self.run_name = run_name
        self.notify: Callable[[str], None] = notify if notify is not None else _logger.warning
        self._uri = uri or store_uri()
        self._start_ms = time.time_ns() // 1_000_000
        self._experiment_name = experiment_name
        self._experiment_id = ""
        self._folder = Path(folder or ".").absolute()
        spool = self._folder if folder is not None and self._folder.is_dir() else None
        self._tags = dict(tags or {})
        self._outbox = Outbox(provenance.flatten(params or {}), lambda message: self.notify(message), spool)
        self._store: Store | None = None
        self._created = False
        self._failures = 0  # in a row
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._defaults = ExitStack()  # of MLflow's client, as long as the run is sent
        self._status: Status | None = None
        self._thread = threading.Thread(target=self._work, name="rl8-tracking", daemon=True)

    @classmethod
    def start(
        cls,
        *,
        experiment_name: str,
        run_name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        config_yaml: str | None = None,
        overrides: Sequence[str] = (),
        device: str | None = None,
        parent_run_id: str | None = None,
        run_id: str | None = None,
        env_steps: int | None = None,
        notify: Callable[[str], None] | None = None,
        folder: str | Path | None = None,
        uri: str | None = None,
    ) -> Tracker:
        """Create a run, or go on with one, and start sending.

        A store that does not answer does not stop the caller: a message says so, and the run is created as soon as
        it does.

        Args:
            experiment_name: MLflow experiment; created if it does not exist.
            run_name: Name of the run; None lets MLflow choose one.
            params: The nested config, recorded as dotted names (`algo.gamma`).
            tags: More tags.
            config_yaml: The resolved config as text, stored as the file `config.yaml`; None writes `params`.
            overrides: What was typed, e.g. `["algo.gamma=0.9"]`; a sweep's table takes the swept names from it.
            device: Where the run computes, e.g. `"cuda:0"`.
            parent_run_id: The run that this one is nested under; None takes the sweep that this process is a job of.
            run_id: A run to go on with; its name, parameters and tags stay as they were, and what it has recorded is
                not recorded again. Where the store does not know it, or this process is a job of a sweep that the run
                is none of, a new run begins, with the tag `resumed.from`.
            env_steps: Env steps at which it goes on; a run that was saved later is refused.
            notify: Called with each message to the user; a warning in the log by default.
            folder: Where files wait to be sent, and metrics go that could not be sent in the end; by default the
                system's temporary folder and the working directory.
            uri: Address of the store; None takes `store_uri()`.

        Raises:
            ValueError: If the store, the experiment or the run can't be used, with what to do about it.
        """
        all_tags = provenance.provenance(device)
        for name, value in (tags or {}).items():
            all_tags[provenance.clean_name(name)] = provenance.cut(str(value), provenance.TAG_LIMIT)
        if overrides:
            all_tags["overrides"] = provenance.cut("\n".join(overrides), provenance.TAG_LIMIT)
        parent_run_id = parent_run_id or os.environ.get(SWEEP_VARIABLE)
        if parent_run_id:
            all_tags[PARENT] = parent_run_id
            if JOB_VARIABLE in os.environ:
                all_tags[JOB] = os.environ[JOB_VARIABLE]
        tracker = cls(
            experiment_name=experiment_name,
            run_name=run_name,
            params=params,
            tags=all_tags,
            run_id=run_id,
            env_steps=env_steps,
            notify=notify,
            folder=folder,
            uri=uri,
        )
        if config_yaml is None and params:
            config_yaml = provenance.as_yaml(params)
        if config_yaml:
            tracker.log_text(config_yaml, "config.yaml")
        tracker._begin()
        return tracker

    @property
    def url(self) -> str:
        """Address of the run in a browser: the server's own, or that of an `mlflow ui` with its default port."""
        return pages.run_page(self._base, self._experiment_id, str(self.run_id)) if self._created else self._base

    @property
    def table_url(self) -> str:
        """Address of all runs of the experiment, in a table with the columns that one compares them by."""
        return pages.runs_page(self._base, self._experiment_id) if self._created else self._base

    @property
    def _base(self) -> str:
        parts = urlsplit(self._uri if self._uri.startswith("http") else "http://127.0.0.1:5000")
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")

    @property
    def place(self) -> str:
        """Where the run is recorded, in a few words, e.g. `mlflow.db, run bold-ape-7`."""
        return f"{public_uri(self._uri)}, run {self.run_name or 'not created yet'}"

    @property
    def record(self) -> dict[str, str | None]:
        """What the run's folder keeps about where it is recorded."""
        return {"run_id": self.run_id, "run_name": self.run_name, "store": public_uri(self._uri)}

    @property
    def where(self) -> str:
        """How to look at the run: the address, after the command that serves it if one is needed."""
        if self._uri.startswith("http"):
            return self.url
        default = sqlite_file(self._uri) == Path.cwd() / "mlflow.db"
        command = "mlflow ui" if default else f"mlflow ui --backend-store-uri {typed_uri(self._uri)}"
        return f"{command}  then  {self.url}"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics, and return in microseconds.

        Args:
            metrics: Values by name.
            step: Env steps taken so far; the x axis of MLflow's charts.
        """
        self._outbox.add_metrics(metrics, step)

    def unsent(self) -> list[tuple[str, int, float, int]]:
        """Return the metric values that are still queued, to be kept in a checkpoint: a killed process loses them."""
        return self._outbox.pending()

    def send_again(self, unsent: Sequence[Sequence[Any]]) -> None:
        """Queue what `unsent` gave in the process before; what the store has got meanwhile is left out."""
        for name, step, value, milliseconds in unsent:
            self._outbox.add_metrics({name: value}, step, milliseconds)

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Queue a file or a whole folder to be stored with the run. A copy is made: the original may change at once.

        Args:
            path: The file or folder.
            folder: Folder inside the run's artifacts; None takes the top.

        Raises:
            ValueError: If there is no such file.
        """
        if not Path(path).exists():
            raise ValueError(f"log_artifact: path={str(path)!r} does not exist. Accepted: a file or a folder.")
        self._outbox.add_file(Path(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Queue a text to be stored as the file `name` (`"notes.txt"`, or `"folder/notes.txt"`)."""
        self._outbox.add_text(text, name)

    def set_tag(self, name: str, value: str) -> None:
        """Queue a tag."""
        self._outbox.add_tag(name, value)

    def metric_history(self, name: str) -> list[tuple[int, float]]:
        """Return what the store holds of a metric as (env steps, value), in their order.

        What is still queued is missing. Empty if the store does not answer, after a message.
        """
        if self._store is None or self.run_id is None:
            return []
        try:
            history = self._store.client.get_metric_history(self.run_id, provenance.clean_name(name))
        except Exception as error:
            self.notify(f"The history of {name} can't be read from MLflow: {first_line(error)}")
            return []
        return sorted((metric.step, metric.value) for metric in history)

    def finish(self, status: Status = "FINISHED", error: str | None = None) -> None:
        """Send what is queued and end the run. Calling it again does nothing.

        Args:
            status: What became of the run: `"FINISHED"`, `"FAILED"`, or `"KILLED"` (stopped from outside).
            error: What went wrong, e.g. a traceback; kept as the tag `error` and the file `error.txt`.
        """
        with self._lock:
            if self._status is not None:
                return
            self._status = status
        if error is not None:
            self.set_tag("error", error.strip())
            with suppress(OSError):  # the disk may be full; the tag says the same
                self.log_text(error, "error.txt")
        self._closing.set()
        self._thread.join()
        atexit.unregister(self._abandon)
        self._close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif isinstance(error, Exception):
            self.finish("FAILED", "".join(traceback.format_exception(error)))
        else:  # Ctrl-C, sys.exit
            self.finish("KILLED", f"Stopped by {type(error).__name__}.")

    def _abandon(self) -> None:
        """Finish at the interpreter's exit: a caller that forgot to would leave the run RUNNING for ever."""
        self.finish("KILLED", "The process ended before the run was finished.")
        self._thread.join(PATIENCE_S)  # a finish() that Ctrl-C interrupted gets this much more time

    def _begin(self) -> None:
        """Create the run now if the store answers, else leave it to the thread; start the thread."""
        self._defaults.enter_context(client_defaults())
        try:
            self._create()
        except Exception as error:
            if is_final(error):
                self._close()
                if isinstance(error, ValueError):
                    raise
                raise ValueError(f"The MLflow store {public_uri(self._uri)} refuses: {first_line(error)}") from error
            self._failed(error)
        atexit.register(self._abandon)
        self._thread.start()

    def _close(self) -> None:
        self._outbox.close()
        self._defaults.close()

    def _create(self) -> Store:
        """Open the store and create the run, or take up the one that was named; return the store."""
        store = self._store = self._store or open_store(self._uri)
        if not self._created:
            if self.run_id is None or not self._resume(store, self.run_id):
                self._experiment_id = experiment_id(store, self._experiment_name)
                info = store.client.create_run(
                    self._experiment_id, start_time=self._start_ms, tags=self._tags, run_name=self.run_name
                ).info
                self.run_id, self.run_name = info.run_id, info.run_name
            self._created = True
        return store

    def _resume(self, store: Store, run_id: str) -> bool:
        """Take a run up; return whether it is there and this process's to go on with."""
        from mlflow.exceptions import MlflowException

        try:
            run = store.client.get_run(run_id)
        except MlflowException as error:
            if not is_final(error):
                raise
            run = None
        parent = self._tags.get(PARENT)
        if run is None or (parent is not None and run.data.tags.get(PARENT) != parent):
            self._tags["resumed.from"] = run_id
            if run is None:
                self.notify(
                    f"The MLflow store {public_uri(self._uri)} does not know the run {run_id}: a new one begins."
                )
            return False
        saved = int(run.data.tags.get(SAVED_AT, "0"))
        if self._env_steps is not None and self._env_steps < saved:
            raise ValueError(
                f"The run {run.info.run_name} was saved at {saved:,} env steps, and this checkpoint is of "
                f"{self._env_steps:,}: going on from it would record other values for the same steps. Accepted: the "
                "run's last checkpoint. Try trainer.branch=<the same> for a new run from this one."
            )
        self.run_name, self._experiment_id = run.info.run_name, run.info.experiment_id
        self._outbox.recorded = {metric.key: metric.step for metric in run.data._metric_objs}
        # parameters can't be changed once they are stored: what differs now is kept as a tag
        stored, given = run.data.params, self._outbox.params
        changed = [f"{name}={value}" for name, value in given.items() if stored.get(name, value) != value]
        self._outbox.params = {name: value for name, value in given.items() if name not in stored}
        if changed:
            self.set_tag("resumed.with", "\n".join(changed))
        if "error" in run.data.tags:  # what failed is tried again
            store.client.delete_tag(run_id, "error")
        store.client.update_run(run_id, status="RUNNING")
        return True

    def _work(self) -> None:
        """Send, in the thread, until the run is finished."""
        pause = PAUSE_S[0]
        while not self._closing.wait(pause):
            before = time.thread_time()
            try:
                self._send()
            except Exception as error:
                self._failed(error)
                pause = min(2.0 ** (self._failures - 1), RETRY_S)
            else:
                pause = min(max(PAUSE_FACTOR * (time.thread_time() - before), PAUSE_S[0]), PAUSE_S[1])
        self._drain()

    def _send(self) -> Store:
        if self._failures > 0:
            check_answers(self._uri)  # a server that hangs would hold each request for MLflow's whole timeout
        store = self._create()
        assert self.run_id is not None
        self._outbox.send(store.client, self.run_id)
        if self._failures > 1:
            self.notify(f"The MLflow store {public_uri(self._uri)} answers again; nothing is lost.")
        self._failures = 0
        return store

    def _failed(self, error: Exception) -> None:
        """Count a failure, and say so once; a single lost request among successes is not worth a word."""
        absent = isinstance(error, StoreUnreachableError)
        self._failures += 1
        if absent and self._failures == 1:
            self._failures = 2
        if self._failures == 2:
            shown = public_uri(self._uri)
            what = str(error) if absent else f"The MLflow store {shown} fails: {first_line(error).rstrip('.')}."
            self.notify(f"{what} Training goes on; metrics and files are kept and sent when it answers.")

    def _drain(self) -> None:
        """Send what is left and end the run; give up when the store stays silent."""
        silent_since = time.monotonic()
        while True:
            sent = self._outbox.sent
            try:
                store = self._send()
                store.client.set_terminated(str(self.run_id), self._status)
                return
            except Exception as error:
                if self._outbox.sent > sent:
                    silent_since = time.monotonic()
                if is_final(error) or time.monotonic() - silent_since >= PATIENCE_S:
                    self._report(error)
                    return
                self._failures = max(self._failures, 1)
            time.sleep(min(0.5, PATIENCE_S))

    def _report(self, error: Exception) -> None:
        """Say what could not be sent, and keep the metrics in a file."""
        lost = self._outbox.unsent() or "the end of the run"
        message = f"MLflow at {public_uri(self._uri)} did not take {lost}: {first_line(error).rstrip('.')}."
        path = self._folder / f"unsent-metrics-{self.run_name or 'run'}-{self._start_ms}.csv"
        try:
            if self._outbox.save_metrics(path):
                message += f" The metrics are in {path}."
        except OSError as problem:
            message += f" {problem}"
        self.notify(message)
