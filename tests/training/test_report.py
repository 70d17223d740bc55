import contextlib
import shutil

import pytest
from envs import Endless, GoesBad
from short_runs import BATCH, QUIET, artifacts, runs_of

from rl8 import Trainer, data
from rl8.checkpoint import load_policy
from rl8.conditions import EnvSteps
from rl8.reported import EVAL_METRICS, METRICS

pytestmark = pytest.mark.usefixtures("workdir")


def test_where_the_run_is_recorded_need_not_be_noted(empty_store, monkeypatch):
    shutil.copyfile(empty_store, "mlflow.db")
    trainer = Trainer(Endless, output_dir="here", **{**QUIET, "track": True})
    monkeypatch.setattr(trainer.files, "record", lambda content: (_ for _ in ()).throw(OSError("no room")))
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert {"Noting the MLflow run in the run's folder failed: OSError: no room. All else goes on."} == {
        *trainer.warnings
    }
    assert runs_of(".")[1][0].info.status == "FINISHED"


@pytest.mark.usefixtures("store_dir")
def test_a_run_is_recorded_and_a_resumed_one_goes_on_in_it(workdir):
    options = {**QUIET, "track": True, "gamma": 0.9, "run_name": "mine", "steps_per_eval": 2}
    trainer = Trainer(Endless, output_dir="first", **options)
    trainer.run(stop_conditions=[EnvSteps(3 * BATCH)])
    resumed = Trainer(Endless, output_dir="second", resume="first/checkpoint.pt", **options)
    resumed.run(stop_conditions=[EnvSteps(4 * BATCH)])
    client, (run,) = runs_of(workdir)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mine"
    assert run.data.params["algo.gamma"] == "0.9"
    assert run.data.params["model.hiddens"] == "[16]"
    assert run.data.params["env._target_"] == "envs.Endless"
    assert "env/steps" in run.data.tags["stop"]
    assert "env/steps" in run.data.tags["stop_reason"]
    assert {*METRICS, *EVAL_METRICS} <= set(run.data.metrics)
    for name in ("returns/mean", "losses/total"):
        recorded = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        history = trainer.history + resumed.history
        assert recorded == [(metrics[data.ENV_STEPS], pytest.approx(metrics[name])) for metrics in history]
    evaluations = client.get_metric_history(run.info.run_id, "eval/returns/mean")
    assert [metric.step for metric in evaluations] == [2 * BATCH, 3 * BATCH, 4 * BATCH]
    names = {file.name for file in artifacts(run).iterdir()}
    assert {"policy.pt", "checkpoint.pt", "learning_curve.png"} <= names
    assert load_policy(artifacts(run) / "policy.pt").recurrent is False


def test_a_run_that_is_resumed_elsewhere_goes_on_in_its_own_store(empty_store, workdir, monkeypatch):
    shutil.copyfile(empty_store, "mlflow.db")
    options, folder = {**QUIET, "track": True}, str(workdir / "outputs" / "first")
    Trainer(Endless, output_dir=folder, **options).run(stop_conditions=[EnvSteps(BATCH)])
    (workdir / "other").mkdir()
    monkeypatch.chdir(workdir / "other")
    Trainer(Endless, output_dir=folder, resume=folder, **options).run(stop_conditions=[EnvSteps(2 * BATCH)])
    client, (run,) = runs_of(workdir)
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "losses/total")]
    assert steps == [BATCH, 2 * BATCH]
    assert not list((workdir / "other").iterdir())


@pytest.mark.usefixtures("store_dir")
def test_branches_and_new_starts_are_runs_that_say_where_they_come_from(workdir):
    options = {**QUIET, "track": True}
    Trainer(Endless, output_dir="a", run_name="first", **options).run(stop_conditions=[EnvSteps(2 * BATCH)])
    Trainer(Endless, branch="a", run_name="branch", **options).run(stop_conditions=[EnvSteps(3 * BATCH)])
    Trainer(Endless, init_from="a", run_name="start", **options).run(stop_conditions=[EnvSteps(BATCH)])
    shutil.copy("a/checkpoint.pt", "copy.pt")
    Trainer(Endless, resume="a", **options).run(stop_conditions=[EnvSteps(3 * BATCH)])
    copied = Trainer(Endless, resume="copy.pt", **options)
    with pytest.raises(ValueError, match=r"was saved at 192 env steps, and this checkpoint is of 128.*Try branch="):
        copied.run(stop_conditions=[EnvSteps(4 * BATCH)])
    client, found = runs_of(workdir)
    by_name = {run.info.run_name: run.data for run in found}
    assert set(by_name) == {"first", "branch", "start"}
    assert by_name["branch"].tags["branched.from"] == "a/checkpoint.pt"
    assert by_name["start"].tags["initialized.from"] == "a/policy.pt"
    steps = {run.info.run_name: client.get_metric_history(run.info.run_id, "losses/total") for run in found}
    assert {name: [m.step // BATCH for m in metrics] for name, metrics in steps.items()} == {
        "first": [1, 2, 3],
        "branch": [3],
        "start": [1],
    }


@pytest.mark.usefixtures("store_dir")
def test_a_failing_run_is_marked_with_its_error(workdir):
    trainer = Trainer(GoesBad, horizons_per_env_reset=-1, **{**QUIET, "track": True})
    with pytest.raises(FloatingPointError, match="returns/mean is nan"):
        trainer.run(stop_conditions=[EnvSteps(10 * BATCH)])
    _, (run,) = runs_of(workdir)
    assert run.info.status == "FAILED"
    assert "FloatingPointError: returns/mean is nan after 128 env steps" in run.data.tags["error"]
    assert run.data.metrics["env/steps"] == BATCH
    assert (artifacts(run) / "error.txt").is_file()


@pytest.mark.usefixtures("store_dir")
@pytest.mark.parametrize("fails", [False, True])
def test_most_of_many_short_iterations_are_not_recorded(fails, workdir, monkeypatch):
    monkeypatch.setattr("rl8.tracking.thinning.SHARE", 1e12)
    trainer = Trainer(Endless, seconds_per_log=1e6, steps_per_eval=4, **{**QUIET, "track": True})

    def stop(metrics):
        if fails and metrics[data.ITERATIONS] == 8:
            raise RuntimeError("simulated crash")
        return metrics[data.ITERATIONS] == 7 and not fails

    with pytest.raises(RuntimeError, match="simulated") if fails else contextlib.nullcontext():
        trainer.run(stop_conditions=[stop])
    client, (run,) = runs_of(workdir)
    recorded = [metric.step / BATCH for metric in client.get_metric_history(run.info.run_id, "losses/total")]
    assert recorded == [1, 4, 7]  # the first, an evaluated one, the last
    evaluated = [metric.step / BATCH for metric in client.get_metric_history(run.info.run_id, "eval/returns/mean")]
    assert evaluated == ([4] if fails else [4, 7])
    assert len(trainer.history) == (8 if fails else 7)
