import csv
import functools
import itertools
import math
import os
import socket

import pytest
from mlflow.exceptions import MlflowException

from rl8.tracking import run as tracking
from rl8.tracking import sweeps
from rl8.tracking.run import Tracker
from rl8.tracking.store import open_store
from rl8.tracking.sweeps import SweepRun, SweepSummary, _has_choices, finish_sweep, parent_from_environment, start_sweep

METRIC = "eval/returns/mean"


@pytest.fixture(autouse=True)
def _no_sweep_left_over(monkeypatch):
    for name in ("RL8_SWEEP_RUN", "RL8_SWEEP_STORE"):
        monkeypatch.delenv(name, raising=False)


def job(params, result, status="FINISHED", error=None, overrides=(), experiment="study", metric=METRIC):
    """Record a run as a job of the sweep would."""
    tracker = Tracker.start(experiment_name=experiment, params=params, overrides=overrides)
    tracker.log_metrics({"returns/mean": -1.0}, step=1)
    if result is not None:
        tracker.log_metrics({metric: result}, step=2)
    tracker.finish(status, error)
    return tracker


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_from_start_to_finish(store_dir):
    run_id = start_sweep("study", ["algo.gamma=0.9,0.99", "seed=1,2", "algo.horizon=64"], device="cpu")
    assert parent_from_environment() == run_id
    jobs = [
        job({"algo": {"gamma": gamma, "horizon": 64}, "seed": seed, "folder": f"{gamma}/{seed}"}, 10 * gamma + seed)
        for gamma in (0.9, 0.99)
        for seed in (1, 2)
    ]
    summary = finish_sweep(run_id, METRIC, jobs=4, folder=store_dir / "sweep")
    assert parent_from_environment() is None
    assert "RL8_SWEEP_STORE" not in os.environ
    assert [run.run_id for run in summary.runs] == [tracker.run_id for tracker in jobs]
    assert [run.settings for run in summary.runs] == [
        {"algo.gamma": gamma, "seed": seed} for gamma in ("0.9", "0.99") for seed in ("1", "2")
    ]
    assert [run.result for run in summary.runs] == pytest.approx([10.0, 11.0, 10.9, 11.9])
    assert summary.failed == 0
    assert summary.best is summary.runs[3]
    assert summary.table().splitlines()[:2] == [
        "algo.gamma  eval/returns/mean  95% interval    seeds",
        "0.99        11.4               5.047 to 17.75  2",
    ]
    assert summary.where.startswith("mlflow ui  then  http://127.0.0.1:5000/#/experiments/")
    rows = table(store_dir / "sweep" / "sweep.csv")
    assert list(rows[0])[:5] == ["run", "status", "algo.gamma", "seed", METRIC]
    assert [row["folder"] for row in rows] == ["0.9/1", "0.9/2", "0.99/1", "0.99/2"]
    assert "algo.horizon" not in rows[0]
    assert (store_dir / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")

    client = open_store().client
    parent = client.get_run(run_id)
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "sweep of algo.gamma, seed")
    assert parent.data.params == {"algo.gamma": "0.9,0.99", "seed": "1,2", "algo.horizon": "64"}
    assert parent.data.metrics == {"sweep/runs": 4.0, "sweep/failed": 0.0, "sweep/best": pytest.approx(11.9)}
    assert parent.data.tags["best_run"] == f"{jobs[3].run_name} ({jobs[3].run_id})"
    assert "0.99        11.4" in parent.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(run_id)] == ["sweep.csv", "sweep.png"]
    assert all(client.get_run(tracker.run_id).data.tags["mlflow.parentRunId"] == run_id for tracker in jobs)


def test_jobs_that_fail_fail_the_sweep(store_dir):
    run_id = start_sweep("study", ["model=mlp,lstm,transformer", "env=cartpole"], run_name="mine")
    job({"model": {"_target_": "a.MLP"}}, 1.0, overrides=["model=mlp", "env=cartpole"])
    job(
        {"model": {"_target_": "a.LSTM"}},
        None,
        "FAILED",
        "Traceback\n  line\nValueError: too long\n",
        ["model=lstm", "env=cartpole"],
        experiment="another study",
    )
    left = Tracker.start(experiment_name="study", params={}, overrides=["model=transformer", "env=cartpole"])
    open_store().client.get_run(left.run_id)  # killed so fast that it could not say so: it stays RUNNING
    summary = finish_sweep(run_id, METRIC, jobs=5, folder=store_dir)
    assert summary.failed == 4  # two have a run, two never had one
    assert [(run.settings, run.status, run.error) for run in summary.runs] == [
        ({"model": "mlp"}, "FINISHED", ""),
        ({"model": "lstm"}, "FAILED", "ValueError: too long"),
        ({"model": "transformer"}, "KILLED", ""),
    ]
    assert math.isnan(summary.runs[2].seconds)
    assert summary.runs[0].seconds >= 0
    assert [row["status"] for row in table(store_dir / "sweep.csv")] == ["FINISHED", "FAILED", "KILLED"]
    client = open_store().client
    assert (client.get_run(run_id).info.status, client.get_run(run_id).info.run_name) == ("FAILED", "mine")
    assert client.get_run(left.run_id).info.status == "KILLED"
    left.finish()


def test_without_overrides_of_the_jobs_the_group_is_told_by_its_target(store_dir):
    run_id = start_sweep("study", ["+model=mlp,lstm"])
    for target in ("a.MLP", "a.LSTM"):
        job({"model": {"_target_": target}}, 1.0)
    assert [run.settings for run in finish_sweep(run_id, METRIC).runs] == [{"model": "a.MLP"}, {"model": "a.LSTM"}]


def test_where_nothing_typed_differs_any_parameter_may(store_dir):
    run_id = start_sweep("study", ["seed=1"])
    for gamma in (0.9, 0.99):
        job({"algo": {"gamma": gamma}, "seed": 1}, 1.0)
    assert [run.settings for run in finish_sweep(run_id, METRIC).runs] == [
        {"algo.gamma": "0.9"},
        {"algo.gamma": "0.99"},
    ]


def test_two_settings_make_an_overview_without_what_was_pruned(store_dir, monkeypatch):
    drawn = []
    monkeypatch.setitem(
        sweeps.FILES, "sweep-overview.png", functools.partial(sweeps._draw, lambda *a, **k: drawn.append(a))
    )
    run_id = start_sweep("study", ["algo.gamma=0.9,0.99", "algo.horizon=8,16", "seed=1,2"])
    for gamma, horizon, seed in itertools.product((0.9, 0.99), (8, 16), (1, 2)):
        tracker = Tracker.start(
            experiment_name="study", params={"algo": {"gamma": gamma, "horizon": horizon}, "seed": seed}
        )
        tracker.log_metrics({METRIC: gamma + horizon}, step=64)
        if (gamma, horizon, seed) == (0.99, 16, 2):
            tracker.set_tag("stop_reason", "pruned: it was worse")
        tracker.finish("FAILED" if (gamma, horizon) == (0.9, 16) else "FINISHED")
    rows = [line.split() for line in finish_sweep(run_id, METRIC, folder=store_dir).table().splitlines()]
    assert ["0.99", "16", "pruned", "0"] in rows  # and not unfinished as well
    assert [row[-1] for row in rows if row[:2] == ["0.9", "16"]] == ["2"]
    ((settings, results, path),) = drawn
    assert path == store_dir / "sweep-overview.png"
    assert len(settings) == 6
    assert results == [8.9, 8.9, None, None, 8.99, 8.99]


def test_a_metric_that_no_run_has_is_replaced_by_the_training_return(store_dir):
    run_id = start_sweep("study", ["seed=1,2"])
    for seed in (1, 2):
        job({"seed": seed}, None)
    summary = finish_sweep(run_id, "eval/nothing")
    assert summary.metric == "returns/mean"
    assert [run.result for run in summary.runs] == [-1.0, -1.0]


def test_a_sweep_of_which_no_run_is_left(store_dir):
    run_id = start_sweep("study", ["seed=1,2"])
    summary = finish_sweep(run_id, METRIC, jobs=2, folder=store_dir)
    assert (summary.runs, summary.failed, summary.best) == ((), 2, None)
    assert summary.table() == f"{summary.metric}  status  run"
    assert open_store().client.get_run(run_id).info.status == "FAILED"
    assert not (store_dir / "sweep.png").exists()


def test_jobs_in_other_folders_find_the_sweeps_store(store_dir, monkeypatch):
    run_id = start_sweep("study", ["seed=1,2"])
    for seed in (1, 2):
        (store_dir / str(seed)).mkdir()
        monkeypatch.chdir(store_dir / str(seed))
        job({"seed": seed}, float(seed))
    monkeypatch.chdir(store_dir)
    assert [run.result for run in finish_sweep(run_id, METRIC).runs] == [1.0, 2.0]
    assert not list(store_dir.glob("*/mlflow.db"))


def test_a_store_that_is_absent_costs_the_table_only(workdir, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
    said = []
    assert start_sweep("study", ["seed=1,2"], notify=said.append) is None
    assert "The sweep's jobs will be runs of their own" in said[0]
    assert parent_from_environment() is None
    assert finish_sweep(None, METRIC, notify=said.append) == SweepSummary(None, METRIC)
    monkeypatch.setattr(tracking, "PATIENCE_S", 0.05)
    assert finish_sweep("some-run", METRIC, notify=said.append) == SweepSummary("some-run", METRIC)
    assert len(said) == 2
    assert "The sweep's table can't be made" in said[1]


def test_a_store_that_fails_while_the_table_is_stored(store_dir, monkeypatch):
    run_id = start_sweep("study", ["seed=1,2"])
    job({"seed": 1}, 1.0)

    def broken(*args, **kwargs):
        raise MlflowException("disk full")

    monkeypatch.setattr(sweeps, "sweep_csv", broken)
    said = []
    summary = finish_sweep(run_id, METRIC, notify=said.append)
    assert said == ["sweep.csv can't be made: disk full. The sweep is recorded without it."]
    assert len(summary.runs) == 1
    assert summary.where.startswith("mlflow ui  then")
    assert open_store().client.get_run(run_id).info.status == "FINISHED"


def test_what_is_refused_is_refused_before_any_job(store_dir):
    client = open_store().client
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(ValueError, match="'gone' is an experiment that was deleted"):
        start_sweep("gone", ["seed=1,2"])


@pytest.mark.parametrize(
    ("value", "swept"),
    [
        ("1,2", True),
        ("range(1,4)", True),
        ("choice(a,b)", True),
        ("[64,64]", False),
        ("[1,2],[3,4]", True),
        ("0.9", False),
    ],
)
def test_values_that_stand_for_several(value, swept, store_dir):
    run_id = start_sweep("study", [f"x={value}"])
    finish_sweep(run_id, METRIC)
    name = open_store().client.get_run(run_id).info.run_name
    assert name == ("sweep of x" if swept else "sweep of one job")


def test_nan_ranks_last_and_is_never_the_best():
    values = [3.0, math.nan, -math.inf, 5.0, None, math.inf]
    runs = tuple(SweepRun(str(i), f"run{i}", "FINISHED", 1.0, {}, value, {}, {}) for i, value in enumerate(values))
    summary = SweepSummary("p", "m", runs)
    assert summary.best.name == "run3"
    assert [line.split()[-1] for line in summary.table().splitlines()[1:4]] == ["run3", "run0", "run2"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=1,2", True),
        ("a=range(1,4)", True),
        ("a=[64,64],[32]", True),
        ("a=[[0,1],[2,3]]", False),
        ("a={b: [1, 2]}", False),
        ("a='x,y'", False),
        ("a='it\\'s','b'", True),
        ("a=shuffle(1,2)", True),
    ],
)
def test_what_is_swept_is_what_hydra_says(override, expected):
    assert _has_choices(override) == expected
