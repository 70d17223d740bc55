import csv

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from rl8.tracking.outbox import METRICS_PER_BATCH, Outbox
from rl8.tracking.store import experiment_id, open_store

DOWN = MlflowException("the server is restarting")
REFUSED = MlflowException("the run must be active\nmore", error_code=INVALID_PARAMETER_VALUE)


class Flaky:
    """MLflow's client, with requests that fail on demand."""

    def __init__(self, client):
        self._client = client
        self.fail = {}
        self.calls = []

    def __getattr__(self, name):
        def request(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            if name in self.fail:
                raise self.fail[name]
            return getattr(self._client, name)(*args, **kwargs)

        return request


@pytest.fixture
def client(store_dir):
    return Flaky(open_store().client)


@pytest.fixture
def run_id(client):
    return client._client.create_run(experiment_id(open_store(), "rl8")).info.run_id


@pytest.fixture
def refusals():
    return []


@pytest.fixture
def outbox(refusals):
    box = Outbox({f"p{i}": str(i) for i in range(250)}, refusals.append)
    yield box
    box.close()


def stored(client, run_id):
    return client._client.get_run(run_id).data


def test_everything_arrives(outbox, client, run_id, tmp_path, refusals):
    outbox.add_metrics({"a(%)": 1.5, "n": float("nan"), "count": 3}, step=10)
    outbox.add_metrics({"a(%)": 2.5}, step=20)
    outbox.add_tag("what?", "x" * 6000)
    outbox.add_text("hello", "notes/one.txt")
    outbox.add_text("", "empty.txt")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"\0\1")
    outbox.add_file(tmp_path / "model", "policy")
    outbox.send(client, run_id)
    data = stored(client, run_id)
    assert len(data.params) == 250
    assert data.metrics["a___"] == 2.5
    assert data.metrics["count"] == 3.0
    assert data.metrics["n"] != data.metrics["n"]
    history = client._client.get_metric_history(run_id, "a___")
    assert [(metric.step, metric.value) for metric in history] == [(10, 1.5), (20, 2.5)]
    assert len(data.tags["what_"]) == 5000
    folder = tmp_path / "mlruns" / "1" / run_id / "artifacts"
    assert (folder / "notes" / "one.txt").read_text() == "hello"
    assert (folder / "empty.txt").read_text() == ""
    assert (folder / "policy" / "model" / "weights").read_bytes() == b"\0\1"
    assert (outbox.unsent(), refusals, outbox.sent) == ("", [], 4 + 3)


def test_batches_are_as_large_as_the_store_allows(outbox, client, run_id):
    outbox.add_metrics({f"m{i}": 0.0 for i in range(1500)}, step=0)
    for step in range(1000):
        outbox.add_metrics({"x": float(step)}, step)
    outbox.send(client, run_id)
    sizes = [len(kwargs.get("metrics", kwargs.get("params", ()))) for name, _, kwargs in client.calls]
    assert sizes == [100, 100, 50, METRICS_PER_BATCH, METRICS_PER_BATCH, 500]
    assert len(client._client.get_metric_history(run_id, "x")) == 1000


def test_a_file_may_change_once_it_is_queued(outbox, client, run_id, tmp_path):
    (tmp_path / "policy.pt").write_text("first")
    outbox.add_file(tmp_path / "policy.pt", None)
    (tmp_path / "policy.pt").write_text("second")
    outbox.send(client, run_id)
    assert (tmp_path / "mlruns" / "1" / run_id / "artifacts" / "policy.pt").read_text() == "first"


def test_nothing_is_lost_when_a_request_fails(outbox, client, run_id, tmp_path):
    outbox.add_metrics({"x": 1.0, "y": 2.0}, step=1)
    outbox.add_tag("tag", "value")
    outbox.add_text("text", "text.txt")
    client.fail["log_batch"] = DOWN
    with pytest.raises(MlflowException, match="restarting"):
        outbox.send(client, run_id)
    assert outbox.unsent() == "250 parameters and 1 tag and 2 metric values and 1 file"
    outbox.params.clear()
    with pytest.raises(MlflowException, match="restarting"):
        outbox.send(client, run_id)
    outbox.add_metrics({"x": 3.0}, step=2)
    assert outbox.unsent() == "3 metric values and 1 file"
    assert outbox.save_metrics(tmp_path / "rest.csv")
    with (tmp_path / "rest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["metric"], row["value"]) for row in rows] == [
        ("1", "x", "1.0"),
        ("1", "y", "2.0"),
        ("2", "x", "3.0"),
    ]
    client.fail.clear()
    outbox.send(client, run_id)
    outbox.send(client, run_id)
    assert stored(client, run_id).metrics == {"x": 3.0, "y": 2.0}
    assert not outbox.save_metrics(tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_files_that_fail_hold_nothing_else_up(outbox, client, run_id):
    client.fail["log_artifact"] = DOWN
    for name in ("one.txt", "two.txt"):
        outbox.add_text(name, name)
    outbox.add_metrics({"x": 1.0}, step=1)
    for _ in range(2):
        with pytest.raises(MlflowException, match="restarting"):
            outbox.send(client, run_id)
    assert stored(client, run_id).metrics == {"x": 1.0}
    tried = [args[1].rpartition("/")[2] for name, args, _ in client.calls if name == "log_artifact"]
    assert tried == ["one.txt", "two.txt"]
    assert outbox.unsent() == "2 files"


def test_what_is_refused_for_good_is_said_and_dropped(outbox, client, run_id, refusals):
    outbox.params = {"a": "1"}
    outbox.add_metrics({"x": 1.0, "text": "high"}, step=1)
    outbox.add_tag("tag", "value")
    outbox.add_text("text", "text.txt")
    client.fail = dict.fromkeys(("log_batch", "set_tag", "log_artifact"), REFUSED)
    outbox.send(client, run_id)
    assert refusals == [
        "MLflow refuses parameters: the run must be active",
        "MLflow refuses the tag tag: the run must be active",
        "MLflow takes numbers only; the metric text='high' is left out.",
        "MLflow refuses metrics: the run must be active",
        "MLflow refuses the file text.txt: the run must be active",
    ]
    assert (outbox.unsent(), outbox.sent) == ("", 0)


def test_a_tag_that_changes_while_it_is_sent_is_sent_again(outbox, client, run_id):
    outbox.add_tag("stage", "one")
    send = client._client.set_tag

    def change(run_id, name, value):
        if value == "one":
            outbox.add_tag("stage", "two")
        send(run_id, name, value)

    client._client.set_tag = change
    outbox.send(client, run_id)
    assert stored(client, run_id).tags["stage"] == "one"
    outbox.send(client, run_id)
    assert stored(client, run_id).tags["stage"] == "two"
    assert outbox.unsent() == ""
