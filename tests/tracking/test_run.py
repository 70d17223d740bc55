import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from rl8.tracking import run as tracking
from rl8.tracking.run import Tracker
from rl8.tracking.store import open_store

ROOT = Path(tracking.__file__).parents[1]


class Messages(list):
    """What a tracker says, and when."""

    def __init__(self):
        super().__init__()
        self.new = threading.Condition()

    def __call__(self, text):
        with self.new:
            self.append(text)
            self.new.notify_all()

    def await_one(self, part):
        """Return the first message with `part` in it, waiting for it if need be."""
        with self.new:
            assert self.new.wait_for(lambda: any(part in text for text in self), timeout=60), list(self)
        return next(text for text in self if part in text)


@pytest.fixture
def messages():
    return Messages()


@pytest.fixture
def hasty(monkeypatch):
    """Send at once, so that tests need not wait a second."""
    monkeypatch.setattr(tracking, "PAUSE_S", (0.01, 0.01))
    monkeypatch.setattr(tracking, "RETRY_S", 0.05)


@pytest.fixture
def impatient(hasty, monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.05)


def stored(tracker):
    return open_store().client.get_run(tracker.run_id)


def artifact(run, name):
    return Path(run.info.artifact_uri, name).read_text()


CONFIG = {"algo": {"gamma": 0.99, "sizes": [64, 64]}, "seed": 1}


def test_a_run_from_start_to_finish(store_dir, messages):
    tracker = Tracker.start(
        experiment_name="study",
        run_name="first",
        params=CONFIG,
        tags={"stop": "never"},
        overrides=["algo.gamma=0.99", "seed=1"],
        device="cpu",
        notify=messages,
    )
    for step in range(3):
        tracker.log_metrics({"returns/mean": float(step), "losses/vf": 0.5}, step=10 * step)
    (store_dir / "policy.pt").write_text("weights")
    tracker.log_artifact("policy.pt")
    tracker.log_text("remark", "notes/remark.txt")
    tracker.set_tag("stop_reason", "done")
    tracker.finish()
    tracker.finish("FAILED", "too late to matter")
    run = stored(tracker)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.info.end_time >= run.info.start_time
    assert run.data.params == {"algo.gamma": "0.99", "algo.sizes": "[64, 64]", "seed": "1"}
    assert run.data.metrics == {"returns/mean": 2.0, "losses/vf": 0.5}
    assert tracker.metric_history("returns/mean") == [(0, 0.0), (10, 1.0), (20, 2.0)]
    tags = run.data.tags
    assert (tags["stop"], tags["stop_reason"], tags["device"]) == ("never", "done", "cpu")
    assert tags["overrides"] == "algo.gamma=0.99\nseed=1"
    assert {"version.torch", "version.mlflow", "command", "hardware"} <= set(tags)
    assert "error" not in tags
    assert yaml.safe_load(artifact(run, "config.yaml")) == CONFIG
    assert artifact(run, "policy.pt") == "weights"
    assert artifact(run, "notes/remark.txt") == "remark"
    assert messages == []
    assert not tracker._thread.is_alive()


def test_metrics_arrive_while_the_run_goes_on(store_dir, hasty):
    with Tracker.start(experiment_name="rl8") as tracker:
        arrived = threading.Event()
        send = tracker._outbox.send

        def note(client, run_id):
            send(client, run_id)
            if tracker._outbox.sent:
                arrived.set()

        tracker._outbox.send = note
        tracker.log_metrics({"x": 1.0}, step=1)
        assert arrived.wait(30)
        assert stored(tracker).info.status == "RUNNING"
        assert tracker.metric_history("x") == [(1, 1.0)]
    assert stored(tracker).info.status == "FINISHED"


def test_logging_metrics_returns_in_microseconds(store_dir):
    metrics = {f"group/metric_{i}": float(i) for i in range(30)}
    with Tracker.start(experiment_name="rl8") as tracker:
        took = []
        for step in range(300):
            before = time.perf_counter()
            tracker.log_metrics(metrics, step)
            took.append(time.perf_counter() - before)
    assert sorted(took)[150] < 50e-6
    assert len(tracker.metric_history("group/metric_7")) == 300


def test_several_threads_may_log(store_dir, hasty):
    def log(name):
        for step in range(200):
            tracker.log_metrics({name: float(step)}, step)

    with Tracker.start(experiment_name="rl8") as tracker:
        threads = [threading.Thread(target=log, args=(f"metric_{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [len(tracker.metric_history(f"metric_{i}")) for i in range(4)] == [200] * 4


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("the env is broken"), "FAILED", "ValueError: the env is broken"),
        (KeyboardInterrupt(), "KILLED", "Stopped by KeyboardInterrupt."),
        (SystemExit(3), "KILLED", "Stopped by SystemExit."),
    ],
)
def test_a_run_that_ends_badly_says_why(store_dir, error, status, text):
    tracker = Tracker.start(experiment_name="rl8")
    with contextlib.suppress(type(error)), tracker:
        tracker.log_metrics({"x": 1.0}, 1)
        raise error
    run = stored(tracker)
    assert run.info.status == status
    assert run.data.metrics == {"x": 1.0}
    assert run.data.tags["error"].endswith(text)
    assert artifact(run, "error.txt").rstrip().endswith(text)


def test_an_error_that_can_not_be_kept_as_a_file_is_a_tag(store_dir, monkeypatch):
    tracker = Tracker.start(experiment_name="rl8")
    monkeypatch.setattr(tracker._outbox, "add_text", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    tracker.finish("FAILED", "ValueError: no luck")
    assert stored(tracker).info.status == "FAILED"
    assert stored(tracker).data.tags["error"] == "ValueError: no luck"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_where_to_look(store_dir, monkeypatch):
    with Tracker.start(experiment_name="rl8", run_name="one") as tracker:
        link = f"http://127.0.0.1:5000/#/experiments/1/runs/{tracker.run_id}?workflowType=machine_learning"
        assert tracker.url == link
        assert tracker.where == f"mlflow ui  then  {link}"
        assert tracker.place == "mlflow.db, run one"
        (store_dir / "below").mkdir()
        monkeypatch.chdir("below")
        uri = f"sqlite:///{store_dir / 'mlflow.db'}"
        assert tracker.where == f"mlflow ui --backend-store-uri {uri}  then  {link}"
        assert tracker.place == f"{store_dir / 'mlflow.db'}, run one"


def test_resuming_goes_on_with_the_run(store_dir):
    with Tracker.start(experiment_name="rl8", run_name="one", params={"a": 1, "b": 2}) as first:
        first.log_metrics({"x": 1.0}, 10)
    with Tracker.start(
        experiment_name="other", run_name="two", params={"a": 1, "b": 3, "c": 4}, run_id=first.run_id
    ) as again:
        assert (again.run_id, again.run_name, again.url) == (first.run_id, "one", first.url)
        assert stored(again).info.status == "RUNNING"
        assert again.metric_history("x") == [(10, 1.0)]
        again.log_metrics({"x": 2.0}, 20)
    run = stored(again)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a": "1", "b": "2", "c": "4"}
    assert run.data.tags["resumed.with"] == "b=3"
    assert again.metric_history("x") == [(10, 1.0), (20, 2.0)]


def test_what_is_recorded_already_is_not_recorded_again(store_dir):
    with Tracker.start(experiment_name="rl8") as first:
        first.log_metrics({"x": 1.0, "y": 1.0}, 10)
        first.log_metrics({"x": 2.0}, 20)
    with Tracker.start(experiment_name="rl8", run_id=first.run_id) as again:
        again.send_again([("x", 20, 2.0, 5), ("y", 15, 3.0, 5)])
        again.log_metrics({"x": 2.0, "y": 2.0}, 20)
        again.log_metrics({"x": 3.0}, 30)
    assert again.metric_history("x") == [(10, 1.0), (20, 2.0), (30, 3.0)]
    assert again.metric_history("y") == [(10, 1.0), (15, 3.0), (20, 2.0)]


def test_what_is_queued_can_be_kept(store_dir):
    tracker = Tracker(experiment_name="rl8")
    tracker.log_metrics({"a b!": 1.0, "c": 2.0}, 3)
    assert [entry[:3] for entry in tracker.unsent()] == [("a b_", 3, 1.0), ("c", 3, 2.0)]


def test_a_run_that_the_store_does_not_know_begins_anew(store_dir):
    messages = []
    with Tracker.start(experiment_name="rl8", run_id="0123", notify=messages.append) as tracker:
        assert tracker.run_id != "0123"
    assert stored(tracker).data.tags["resumed.from"] == "0123"
    assert messages == ["The MLflow store mlflow.db does not know the run 0123: a new one begins."]


def test_jobs_that_resume_one_run_get_a_run_each(store_dir):
    with Tracker.start(experiment_name="rl8") as first:
        pass
    with Tracker.start(experiment_name="rl8", run_id=first.run_id, parent_run_id="abc") as job:
        assert job.run_id != first.run_id
    assert stored(job).data.tags["resumed.from"] == first.run_id
    with Tracker.start(experiment_name="rl8", run_id=job.run_id, parent_run_id="abc") as again:  # a requeued job
        assert again.run_id == job.run_id


def test_going_on_from_an_earlier_checkpoint_is_refused(store_dir):
    with Tracker.start(experiment_name="rl8") as first:
        first.set_tag("checkpoint.env_steps", "2000")
    with Tracker.start(experiment_name="rl8", run_id=first.run_id, env_steps=2000):
        pass
    with pytest.raises(
        ValueError, match=r"was saved at 2,000 env steps, and this checkpoint is of 1,000.*trainer.bran"
    ):
        Tracker.start(experiment_name="rl8", run_id=first.run_id, env_steps=1000)
    assert stored(first).info.status == "FINISHED"


SECRETS = ["postgresql://me:s3cret@host/db", "https://s3cret@host/x"]


def test_no_secret_leaves_the_process(store_dir):
    params = {"store": SECRETS[0], "wandb": {"api_key": "s3cret", "token": None}, "list": [SECRETS[1]]}
    with Tracker.start(experiment_name="rl8", params=params, overrides=["+db.password=s3cret"]) as tracker:
        tracker.set_tag("note", SECRETS[1])
        tracker.finish("FAILED", f"OperationalError: can't reach {SECRETS[0]}, password='s3cret'")
    run = stored(tracker)
    kept = "\n".join(file.read_text() for file in Path(run.info.artifact_uri.removeprefix("file://")).iterdir())
    assert run.data.params["wandb.token"] == "null"
    assert run.data.params["store"] == "postgresql://me:***@host/db"
    assert "s3cret" not in f"{run.data.params} {run.data.tags} {kept}"


@pytest.mark.parametrize("uri", SECRETS)
def test_addresses_are_shown_without_their_secrets(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(experiment_name="x")
    assert "s3cret" not in f"{tracker.where} {tracker.place} {tracker.url} {tracker.record}"


def test_what_cannot_be_used_is_refused_at_the_start(store_dir, monkeypatch):
    with pytest.raises(ValueError, match=r"The MLflow store mlflow\.db refuses: .*name"):
        Tracker.start(experiment_name="")
    with (
        Tracker.start(experiment_name="rl8") as tracker,
        pytest.raises(ValueError, match=r"path='gone\.pt' does not exist"),
    ):
        tracker.log_artifact("gone.pt")


def test_a_job_finds_its_sweep(store_dir, monkeypatch):
    monkeypatch.setenv("RL8_SWEEP_RUN", "abc")
    with Tracker.start(experiment_name="rl8") as tracker:
        pass
    assert stored(tracker).data.tags["mlflow.parentRunId"] == "abc"
    with Tracker.start(experiment_name="rl8", parent_run_id="def") as tracker:
        pass
    assert stored(tracker).data.tags["mlflow.parentRunId"] == "def"


def test_a_store_that_fails_now_and_then_is_not_worth_a_word(store_dir, hasty, messages):
    tracker = Tracker.start(experiment_name="rl8", notify=messages)
    client, failures = tracker._store.client, [MlflowException("busy")]
    log_batch, sent = client.log_batch, threading.Event()

    def flaky(*args, **kwargs):
        if failures:
            raise failures.pop()
        log_batch(*args, **kwargs)
        sent.set()

    client.log_batch = flaky
    tracker.log_metrics({"x": 1.0}, 1)
    assert sent.wait(30)
    tracker.finish()
    assert stored(tracker).data.metrics == {"x": 1.0}
    assert messages == []


def test_a_store_that_goes_on_failing_is_named_and_so_is_what_is_lost(store_dir, impatient, messages):
    tracker = Tracker.start(experiment_name="rl8", notify=messages, folder=store_dir, run_name="one")

    def broken(*args, **kwargs):
        raise MlflowException("disk full")

    tracker._store.client.log_batch = broken
    tracker.log_metrics({"x": 1.0, "y": 2.0}, 7)
    messages.await_one("The MLflow store mlflow.db fails: disk full. Training goes on")
    tracker.finish()
    lost = messages.await_one("did not take 2 metric values: disk full. The metrics are in")
    (path,) = store_dir.glob("unsent-metrics-one-*.csv")
    assert str(path) in lost
    assert path.read_text().splitlines()[1].startswith("7,x,1.0,")
    assert len(messages) == 2
    assert tracker.metric_history("x") == []


def test_metrics_that_cannot_even_be_written_to_a_file(store_dir, impatient, messages):
    (store_dir / "file").touch()
    tracker = Tracker.start(experiment_name="rl8", notify=messages, folder=store_dir / "file")

    def broken(*args, **kwargs):
        raise MlflowException("disk full")

    tracker._store.client.log_batch = broken
    tracker.log_metrics({"x": 1.0}, 7)
    tracker.finish()
    messages.await_one("can't be written")


def test_a_run_that_is_deleted_meanwhile(store_dir, messages, impatient):
    tracker = Tracker.start(experiment_name="rl8", notify=messages)
    open_store().client.delete_run(tracker.run_id)
    tracker.log_metrics({"x": 1.0}, 1)
    tracker.finish()
    assert "MLflow refuses metrics: The run" in messages[0]
    assert "did not take the end of the run" in messages[1]


def test_a_history_that_cannot_be_read(store_dir, messages):
    with Tracker.start(experiment_name="rl8", notify=messages) as tracker:

        def broken(*args):
            raise MlflowException("busy", error_code=INVALID_PARAMETER_VALUE)

        tracker._store.client.get_metric_history = broken
        assert tracker.metric_history("x") == []
    assert messages == ["The history of x can't be read from MLflow: busy"]


def test_messages_are_warnings_in_the_log_by_default(store_dir, caplog):
    with caplog.at_level(logging.WARNING, logger="rl8.tracking.run"), Tracker.start(experiment_name="rl8") as tracker:
        tracker.log_metrics({"x": "text"}, 1)
    assert [record.message for record in caplog.records] == [
        "MLflow takes numbers only; the metric x='text' is left out."
    ]


JOB = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
from rl8.tracking.run import Tracker
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append("SIGTERM"))
name = sys.argv[1]
tracker = Tracker.start(experiment_name="rl8", run_name=name)
for step in range(300):
    tracker.log_metrics({"x": float(step)}, step)
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
if name == "terminated":
    tracker.finish("KILLED", error=f"stopped by {received[0]}")
elif name == "finished":
    tracker.finish()
"""


def test_processes_that_make_one_fresh_store_at_once_and_end_in_different_ways(workdir):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    jobs = {
        name: subprocess.Popen(
            [sys.executable, "-c", JOB, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in ("finished", "terminated", "forgotten", "killed")
    }
    for name, job in jobs.items():
        assert job.stdout.readline() == "ready\n", job.stderr.read()
        job.send_signal({"terminated": signal.SIGTERM, "killed": signal.SIGKILL}.get(name, signal.SIGUSR1))
        if name != "killed":
            job.send_signal(signal.SIGUSR1)
    for name, job in jobs.items():
        _, errors = job.communicate()
        assert (job.returncode, errors) == (-signal.SIGKILL if name == "killed" else 0, "")
    client = open_store().client
    runs = {run.info.run_name: run for run in client.search_runs(["1"])}
    assert {name: run.info.status for name, run in runs.items()} == {
        "finished": "FINISHED",
        "terminated": "KILLED",
        "forgotten": "KILLED",
        "killed": "RUNNING",
    }
    assert runs["terminated"].data.tags["error"] == "stopped by SIGTERM"
    assert runs["forgotten"].data.tags["error"] == "The process ended before the run was finished."
    for name in ("finished", "terminated", "forgotten"):
        assert len(client.get_metric_history(runs[name].info.run_id, "x")) == 300
    assert sorted(path.name for path in workdir.iterdir()) == ["mlflow.db", "mlruns"]


def test_the_interpreters_exit_finishes_a_run_that_was_forgotten(store_dir):
    tracker = Tracker.start(experiment_name="rl8")
    tracker._abandon()
    assert stored(tracker).info.status == "KILLED"


def test_files_that_cannot_be_stored_are_named(store_dir, impatient, messages):
    tracker = Tracker.start(experiment_name="rl8", notify=messages)

    def broken(*args):
        raise MlflowException("bucket is gone")

    tracker._store.client.log_artifact = broken
    tracker.log_text("text", "text.txt")
    tracker.log_metrics({"x": 1.0}, 1)
    tracker.finish()
    messages.await_one("did not take 1 file: bucket is gone.")
    assert stored(tracker).data.metrics == {"x": 1.0}


def test_a_store_that_fails_at_the_start_of_a_resumed_run_is_tried_again(store_dir, hasty, monkeypatch):
    with Tracker.start(experiment_name="rl8") as first:
        pass
    failures, get_run = [MlflowException("busy")], MlflowClient.get_run

    def flaky(*args):
        if failures:
            raise failures.pop()
        return get_run(*args)

    monkeypatch.setattr(MlflowClient, "get_run", flaky)
    with Tracker.start(experiment_name="rl8", run_id=first.run_id) as again:
        again.log_metrics({"x": 1.0}, 1)
    assert stored(again).data.metrics == {"x": 1.0}


class Server:
    """A real MLflow server in a folder of its own, which can be killed and started again."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "ui", "--port", str(self.port), "--workers", "1"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        up = threading.Event()

        def read():
            for line in self.process.stdout:
                if "Uvicorn running" in line:
                    up.set()

        self.reader = threading.Thread(target=read)
        self.reader.start()
        assert up.wait(120)

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.reader.join()
            self.process.stdout.close()
            self.process = None

    def get(self, path):
        with urllib.request.urlopen(f"{self.uri}/{path}", timeout=30) as answer:
            return answer.read().decode()


@pytest.fixture
def server(store_dir):
    server = Server(store_dir)
    yield server
    server.kill()


def test_a_server_may_be_absent_at_first_and_killed_midway(server, store_dir, monkeypatch, messages, hasty):
    """A run recorded without a server is shown by `mlflow ui` in its folder; one recorded through it survives it."""
    with Tracker.start(experiment_name="direct", params=CONFIG) as direct:
        direct.log_metrics({"x": 1.0}, 1)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    began = time.monotonic()
    tracker = Tracker.start(experiment_name="rl8", run_name="one", params=CONFIG, notify=messages)
    assert time.monotonic() - began < 10
    assert "does not answer" in messages[0]
    assert "Training goes on" in messages[0]
    assert tracker.run_id is None
    assert (tracker.url, tracker.place) == (server.uri, f"{server.uri}, run one")
    tracker.log_metrics({"x": 1.0, "bad": float("nan"), "huge": float("inf")}, 1)
    assert tracker.metric_history("x") == []

    server.start()
    messages.await_one("answers again; nothing is lost")
    page = f"{server.uri}/#/experiments/{tracker._experiment_id}/runs/{tracker.run_id}"
    assert tracker.where == f"{page}?workflowType=machine_learning"
    assert tracker.metric_history("x") == [(1, 1.0)]

    run = json.loads(server.get(f"api/2.0/mlflow/runs/get?run_id={direct.run_id}"))["run"]
    assert {param["key"]: param["value"] for param in run["data"]["params"]}["algo.gamma"] == "0.99"
    assert yaml.safe_load(server.get(f"get-artifact?path=config.yaml&run_uuid={direct.run_id}")) == CONFIG

    server.kill()
    del messages[:]
    tracker.log_metrics({"x": 2.0}, 2)
    messages.await_one("does not answer")
    tracker.log_metrics({"x": 3.0}, 3)
    tracker.log_text("text", "notes/text.txt")
    server.start()
    tracker.finish()
    assert len(messages) == 2
    run = json.loads(server.get(f"api/2.0/mlflow/runs/get?run_id={tracker.run_id}"))["run"]
    assert run["info"]["status"] == "FINISHED"
    assert [value for _, value in tracker.metric_history("x")] == [1.0, 2.0, 3.0]
    assert server.get(f"get-artifact?path=notes/text.txt&run_uuid={tracker.run_id}") == "text"
    assert yaml.safe_load(server.get(f"get-artifact?path=config.yaml&run_uuid={tracker.run_id}")) == CONFIG


def test_a_server_that_never_comes(workdir, monkeypatch, messages, impatient):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker.start(experiment_name="rl8", params=CONFIG, notify=messages)
    tracker.log_metrics({"x": 1.0}, 1)
    tracker.finish()
    assert f"MLflow at {uri} did not take 3 parameters and 1 metric value and 1 file" in messages[-1]
    (path,) = workdir.glob("unsent-metrics-run-*.csv")
    assert "1,x,1.0," in path.read_text()
