import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from comparing import assert_same, weights
from envs import Endless, Episodes, GoesBad, Steering
from PIL import Image

from rl8 import Algorithm, DeviceSettings, RecurrentTrainer, Trainer, data
from rl8.checkpoint import load_checkpoint, load_policy, read_checkpoint
from rl8.conditions import EnvSteps, HitsLowerBound, HitsUpperBound, Plateaus
from rl8.env import DiscreteDummyEnv
from rl8.models import MLPModel
from rl8.reported import EVAL_METRICS, METRICS
from rl8.rollout.rollout import Rollout
from rl8.tracking.run import Tracker
from rl8.tracking.store import open_store
from rl8.training.evaluation import Evaluation

SMALL = {"num_envs": 8, "horizon": 8, "model_config": {"hiddens": [16]}, "eval_num_envs": 4}
QUIET = {**SMALL, "track": False, "view": "none", "render": False}
BATCH = 64  # env steps per iteration
MEASURED = ("profiling/", "memory/")  # metrics that no two runs share


@pytest.fixture(autouse=True)
def _workdir(workdir):
    """Write files in a folder of the test's own."""


def runs_of(folder):
    """Return a client of the store in a folder, and its runs."""
    client = open_store(f"sqlite:///{folder}/mlflow.db").client
    experiment = client.get_experiment_by_name("rl8")
    return client, client.search_runs([experiment.experiment_id])


def artifacts(run):
    """Return the folder of a run's files."""
    return Path(run.info.artifact_uri.removeprefix("file://"))


def comparable(history):
    return [{name: v for name, v in metrics.items() if not name.startswith(MEASURED)} for metrics in history]


# ------------------------------------------------------------------------------------------------ options and parts


@pytest.mark.parametrize(
    ("env", "options", "error", "message"),
    [
        (Endless, {"gama": 0.9}, TypeError, "Unknown option 'gama'. Did you mean 'gamma'"),
        (Endless, {"steps_per_evl": 3}, TypeError, "Unknown option 'steps_per_evl'. Did you mean 'steps_per_eval'"),
        (Endless, {"optimizer": "sgd"}, TypeError, "Unknown option 'optimizer'. Did you mean 'optimizer_c"),
        (Endless, {"steps_per_eval": 0}, ValueError, "^steps_per_eval=0 is out of range"),
        (
            Endless,
            {"resume": "nowhere.pt"},
            ValueError,
            "^trainer.resume=nowhere.pt is no run. Accepted: a run's folder, its policy.pt",
        ),
        (
            Algorithm(Endless, num_envs=2, horizon=2),
            {"gamma": 0.9},
            TypeError,
            "ready-made, so gamma would have no effec",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(env, options, error, message):
    with pytest.raises(error, match=message):
        Trainer(env, **{"track": False, "view": "none", **options})


def test_step_returns_all_metrics_as_numbers():
    trainer = Trainer(Endless, **QUIET)
    for iteration in (1, 2):
        metrics = trainer.step()
        assert set(metrics) == set(METRICS)
        assert all(type(value) is float and math.isfinite(value) for value in metrics.values())
        assert metrics[data.ENV_STEPS] == iteration * BATCH
        assert metrics[data.ITERATIONS] == metrics[data.ENV_RESETS] == iteration
        speed = BATCH / (metrics[data.COLLECT_MS] + metrics[data.STEP_MS]) * 1e3
        assert metrics[data.TRANSITIONS_PER_S] == pytest.approx(speed)
    assert len(trainer.history) == 2


def test_every_metric_has_one_name():
    names = [value for name, value in vars(data).items() if name.isupper() and isinstance(value, str) and "/" in value]
    assert set(names) <= {*METRICS, *EVAL_METRICS, *data.EPISODE_METRICS, *data.EVAL_EPISODES}


def test_eval_is_deterministic_and_of_its_own_size():
    trainer = Trainer(Steering, **{**QUIET, "eval_horizon": 3, "eval_num_envs": 5})
    first = trainer.eval()
    assert set(first) == set(EVAL_METRICS)
    assert trainer.eval()["eval/returns/mean"] == first["eval/returns/mean"]
    assert trainer.eval(deterministic=False)["eval/returns/mean"] != first["eval/returns/mean"]
    assert trainer._evaluation.evaluator.rollout.rewards.shape == (3, 5)
    sampling = Trainer(Steering, eval_deterministic=False, **QUIET)
    assert sampling.eval()["eval/rewards/std"] > 0


def test_a_ready_algorithm_is_trained():
    algorithm = Algorithm(Endless, num_envs=8, horizon=8, model_config={"hiddens": [4]})
    trainer = Trainer(algorithm, view="none", track=False, render=False)
    trainer.run(stop_conditions=[EnvSteps(1)])
    assert trainer.algorithm is algorithm
    assert algorithm.iterations == 1
    policy = load_policy(trainer.output_dir / "policy.pt")  # it knows how the model was built
    assert torch.equal(weights(algorithm), torch.nn.utils.parameters_to_vector(policy.parameters()))


# ------------------------------------------------------------------------------------------------- settings of resets


def noises(trainer):
    """Return a list that the noise of each reset is added to: (training's, evaluation's)."""
    seen = {"train": [], "eval": []}
    for kind, env in (("train", trainer.algorithm.env), ("eval", trainer._evaluation.evaluator.env)):

        def reset(*, config=None, kind=kind, env=env):
            obs = type(env).reset(env, config=config)
            seen[kind].append(round(env.noise.item(), 3))
            return obs

        env.reset = reset
    return seen


def test_settings_of_a_run_and_of_a_step():
    trainer = Trainer(Endless, env_config={"noise": 2.0}, eval_env_config={"noise": 3.0}, **QUIET)
    seen = noises(trainer)
    trainer.step()
    trainer.step({"noise": 4.0})
    trainer.step()
    trainer.eval()
    trainer.eval({"noise": 5.0})
    trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    trainer.run(
        stop_conditions=[EnvSteps(7 * BATCH)],
        env_config={"noise": 6.0},
        eval_env_config={"noise": 7.0},
        steps_per_eval=1,
    )
    assert seen == {
        "train": [2.0, 4.0, 2.0, 2.0, 2.0, 6.0, 6.0],
        "eval": [3.0, 5.0, 3.0, 7.0, 7.0, 7.0],
    }  # tried once before the run


# ------------------------------------------------------------------------------------------------------------- runs


def test_run_evaluates_every_k_iterations_and_at_the_end():
    trainer = Trainer(Endless, steps_per_eval=2, **QUIET)
    metrics = trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    evaluated = ["eval/returns/mean" in each for each in trainer.history]
    assert evaluated == [False, True, False, True, True]
    assert metrics == trainer.history[-1]
    assert set(metrics) == {*METRICS, *EVAL_METRICS}
    trainer = Trainer(Endless, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert ["eval/returns/mean" in each for each in trainer.history] == [False, False, True]


def test_a_long_history_is_thinned_out(monkeypatch):
    monkeypatch.setattr("rl8.training.curve.MAX_HISTORY", 5)
    trainer = Trainer(Endless, steps_per_eval=2, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(7 * BATCH)])
    # when 6 comes, 3 is dropped of 1, 3, 5, and 4 of 2, 4, which were evaluated
    assert [metrics[data.ITERATIONS] for metrics in trainer.history] == [1, 2, 5, 6, 7]


def test_evaluating_more_often_does_not_change_training():
    histories = []
    for steps_per_eval in (None, 1):
        torch.manual_seed(1)
        trainer = Trainer(Episodes, normalize_obs=True, horizons_per_env_reset=-1, **QUIET)
        trainer.run(stop_conditions=[EnvSteps(4 * BATCH)], steps_per_eval=steps_per_eval)
        histories.append(comparable([{k: v for k, v in m.items() if k in METRICS} for m in trainer.history]))
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("conditions", "iterations"),
    [
        ([EnvSteps(2 * BATCH + 1)], 3),
        ([EnvSteps(1000), HitsUpperBound("returns/mean", -1e9)], 1),
        ([HitsLowerBound("eval/returns/mean", 1e9)], 2),  # evaluated every second iteration
        ([lambda metrics: metrics["algorithm/steps"] >= 4], 4),
        ([Plateaus("coefficients/vf", patience=3)], 4),
    ],
)
def test_a_run_ends_when_any_condition_is_met(conditions, iterations):
    trainer = Trainer(Endless, steps_per_eval=2, stop_conditions=conditions, **QUIET)
    trainer.run()
    assert trainer.algorithm.iterations == iterations
    assert trainer.stopped_by is None


def test_a_second_run_goes_on_and_counts_its_conditions_anew():
    trainer = Trainer(Endless, **QUIET)
    condition = Plateaus("coefficients/vf", patience=2)
    for iterations in (3, 6):
        trainer.run(stop_conditions=[condition])
        assert trainer.algorithm.iterations == iterations
    trainer.run(stop_conditions=[EnvSteps(8 * BATCH), condition])
    assert [metrics[data.ENV_STEPS] for metrics in trainer.history] == [BATCH * n for n in range(1, 9)]


@pytest.mark.parametrize(
    ("key", "steps_per_eval", "message"),
    [
        ("returns/men", None, "stop.key=returns/men: Unknown metric 'returns/men'. Did you mean 'returns/mean'"),
        ("eval/returns/mean", None, r"evaluated only at the end. Try trainer.steps_per_eval=10\."),
        ("eval/return/mean", 2, "Did you mean 'eval/returns/mean'"),
    ],
)
def test_conditions_on_metrics_that_there_are_not_are_refused(key, steps_per_eval, message):
    trainer = Trainer(Endless, **QUIET)
    with pytest.raises(ValueError, match=message):
        trainer.run(stop_conditions=[HitsUpperBound(key, 0.0)], steps_per_eval=steps_per_eval)
    with pytest.raises(ValueError, match=r"steps_per_eval=0 is out of range.*Try steps_per_eval=10"):
        trainer.run(stop_conditions=[EnvSteps(1)], steps_per_eval=0)
    assert trainer.history == []


@pytest.mark.parametrize("reward", ["nan", "inf", "-inf"])
def test_rewards_that_are_not_finite_end_the_run_with_the_reason(reward, monkeypatch):
    monkeypatch.setattr(GoesBad, "reward", float(reward))
    trainer = Trainer(GoesBad, horizons_per_env_reset=-1, **QUIET)
    message = "returns/mean is nan after 128 env steps.* The reward is -?(nan|inf) at step 4 of 8 in environment 0. The"
    with pytest.raises(FloatingPointError, match=message):
        trainer.run(stop_conditions=[EnvSteps(10 * BATCH)])
    assert len(trainer.history) == 1


def test_a_loss_that_is_not_finite_ends_the_run_with_advice():
    trainer = Trainer(Endless, **QUIET)
    with torch.no_grad():
        next(trainer.algorithm.policy.model.value_head.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"losses/total is nan after 64 env steps.*Try a lower learning rate"):
        trainer.run(stop_conditions=[EnvSteps(10 * BATCH)])


@pytest.mark.parametrize("trainer_cls", [Trainer, RecurrentTrainer])
def test_files_of_a_run(trainer_cls):
    options = {**QUIET, "render": True}
    if trainer_cls is RecurrentTrainer:
        options["model_config"] = {"hidden_size": 4}
    trainer = trainer_cls(DiscreteDummyEnv, output_dir="here", steps_per_checkpoint=1, **options)
    trainer.run(stop_conditions=[EnvSteps(2 * BATCH)])
    files = {file.name: file for file in Path("here").iterdir()}
    assert sorted(files) == [
        "checkpoint.1.pt",
        "checkpoint.pt",
        "config.yaml",
        "learning_curve.png",
        "policy.gif",
        "policy.png",
        "policy.pt",
    ]
    for name in ("learning_curve.png", "policy.gif", "policy.png"):
        with Image.open(files[name]) as image:
            image.verify()
    policy = load_policy(files["policy.pt"])
    assert_same(dict(policy.state_dict()), dict(trainer.algorithm.policy.state_dict()))
    assert policy.recurrent == (trainer_cls is RecurrentTrainer)
    assert load_checkpoint(files["checkpoint.pt"], trainer.algorithm)["run_id"] is None


def test_checkpoints_are_written_every_k_iterations(monkeypatch):
    trainer = Trainer(Endless, steps_per_checkpoint=2, **QUIET)
    saved = []
    monkeypatch.setattr(
        "rl8.files.save_checkpoint", lambda path, algorithm, *rest, **more: saved.append(algorithm.iterations)
    )
    trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    assert saved == [2, 4, 5]


def test_a_run_saves_what_it_has_by_the_clock(monkeypatch):
    now = [0.0]
    trainer = Trainer(Endless, minutes_per_checkpoint=5, keep_checkpoints=2, **QUIET)
    trainer.files._clock = lambda: now[0]
    trainer.files._saved = 0.0
    seen = []

    def tick(metrics):
        seen.append((trainer.output_dir / "checkpoint.pt").exists())
        now[0] += 100
        return metrics[data.ITERATIONS] == 5

    trainer.run(stop_conditions=[tick])
    assert seen == [False, False, False, True, True]  # at 300 s, after the third iteration
    names = sorted(file.name for file in trainer.output_dir.glob("*.pt"))
    assert names == ["checkpoint.1.pt", "checkpoint.pt", "policy.pt"]


def test_the_best_checkpoint_by_evaluation_is_kept(monkeypatch):
    values = iter([1.0, 3.0, float("nan"), 2.0])
    trainer = Trainer(Endless, steps_per_eval=1, output_dir="here", **QUIET)
    evaluate = trainer.eval
    monkeypatch.setattr(trainer, "eval", lambda config: {**evaluate(config), "eval/returns/mean": next(values)})
    trainer.run(stop_conditions=[EnvSteps(4 * BATCH)])
    assert read_checkpoint("here/best.pt").algorithm["counters"]["iterations"] == 2
    assert read_checkpoint("here/checkpoint.pt").extra["best"] == 3.0
    with pytest.raises(
        ValueError, match=r"^trainer.resume=here/best.pt is not its run's last.*Try trainer.resume=here, "
    ):
        Trainer(Endless, resume="here/best.pt", **QUIET)
    assert Trainer(Endless, branch="here/best.pt", **QUIET).algorithm.iterations == 2


# ------------------------------------------------------------------------------------------------- what else may fail


class Undrawable(DiscreteDummyEnv):
    def render(self, index=0):
        raise RuntimeError("could not open display\nmore")


@pytest.mark.usefixtures("store_dir")
def test_what_is_optional_never_fails_a_run(workdir, monkeypatch):
    monkeypatch.setattr("rl8.view.plots.learning_curve", lambda *a, **k: (_ for _ in ()).throw(OSError("no fonts")))
    monkeypatch.setattr(Tracker, "log_artifact", lambda *a: (_ for _ in ()).throw(OSError("no space")))
    trainer = Trainer(Undrawable, output_dir="here", **{**QUIET, "track": True, "render": True})
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert trainer.warnings == [
        "The learning curve failed: OSError: no fonts. What was trained is saved.",
        "The film failed: RuntimeError: could not open display. What was trained is saved.",
        "Storing checkpoint.pt with the run failed: OSError: no space. What was trained is saved.",
        "Storing policy.pt with the run failed: OSError: no space. What was trained is saved.",
    ]
    _, (run,) = runs_of(workdir)
    assert run.info.status == "FINISHED"
    assert "could not open display" in run.data.tags["warnings"]
    assert load_policy("here/policy.pt").recurrent is False


def test_a_final_evaluation_that_fails_costs_nothing(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", **QUIET)
    monkeypatch.setattr(trainer, "eval", lambda config: (_ for _ in ()).throw(RuntimeError("no luck")))
    metrics = trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert metrics[data.ENV_STEPS] == BATCH
    assert trainer.warnings == ["The final evaluation failed: RuntimeError: no luck. What was trained is saved."]
    assert load_policy("here/policy.pt").recurrent is False


def test_an_evaluation_that_fails_midway_ends_the_run_with_everything_saved(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", steps_per_eval=2, **QUIET)
    monkeypatch.setattr(trainer, "eval", lambda config: (_ for _ in ()).throw(RuntimeError("no luck")))
    with pytest.raises(RuntimeError, match="no luck"):
        trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    assert load_policy("here/policy.pt").recurrent is False
    assert Trainer(Endless, resume="here", **QUIET).algorithm.iterations == 2


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_a_policy_is_not(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", steps_per_checkpoint=1, **QUIET)
    monkeypatch.setattr(torch, "save", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"here/checkpoint.pt can't be written: No space left on device"):
        trainer.run(stop_conditions=[EnvSteps(2 * BATCH)])
    assert len(trainer.warnings) == 2
    assert trainer.warnings[0].endswith("is whole. Training goes on; the next one is tried at its time.")


def test_where_there_is_no_room_for_the_checkpoint_there_may_be_for_the_policy(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", **QUIET)
    monkeypatch.setattr("rl8.files.save_checkpoint", lambda *a, **k: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert load_policy("here/policy.pt").recurrent is False


def test_where_the_run_is_recorded_need_not_be_noted(empty_store, monkeypatch):
    shutil.copyfile(empty_store, "mlflow.db")
    trainer = Trainer(Endless, output_dir="here", **{**QUIET, "track": True})
    monkeypatch.setattr(trainer.files, "record", lambda content: (_ for _ in ()).throw(OSError("no room")))
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert {"Noting the MLflow run in the run's folder failed: OSError: no room. All else goes on."} == {
        *trainer.warnings
    }
    assert runs_of(".")[1][0].info.status == "FINISHED"


def test_an_evaluation_without_a_value_is_said_and_never_the_best(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", **QUIET)
    evaluate = trainer._evaluation.evaluator.run
    monkeypatch.setattr(
        trainer._evaluation.evaluator, "run", lambda **k: {**evaluate(**k), "returns/mean": torch.tensor(math.inf)}
    )
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert "has the return inf: the environment gave such a reward. It is no best checkpoint." in trainer.warnings[0]
    assert not trainer.files.is_best({"eval/returns/mean": math.inf})
    assert not trainer.files.is_best({"eval/returns/mean": math.nan})
    assert trainer.files.is_best({"eval/returns/mean": 1.0})


class Short(Endless):
    max_horizon = 8


def test_what_the_evaluation_refuses_is_known_before_training(workdir):
    with pytest.raises(ValueError, match=r"^The evaluation's environment is refused: trainer.eval_horizon=16 is out"):
        Trainer(Short, **{**QUIET, "eval_horizon": 16}).run()
    refused = (
        r"is refused with trainer.eval_env_config={noise: .*}: trainer.eval_env_config.noise has shape \(3,\).*\(4,\)"
    )
    with pytest.raises(ValueError, match=refused):
        Trainer(Endless, **{**QUIET, "eval_env_config": {"noise": [1.0, 2.0, 3.0]}}).run()
    assert list(workdir.iterdir()) == []


def test_constants_per_environment_are_evaluated_in_as_many_environments(capsys):
    options = {**QUIET, "view": "plain", "eval_num_envs": 5}
    trainer = Trainer(partial(Endless, noise=[1.0] * 8), **options)
    metrics = trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert trainer._evaluation.evaluator.rollout.num_envs == 8
    assert "eval/returns/mean" in metrics
    assert "takes place in 8 environments, as many as training, rather than 5" in capsys.readouterr().out


def test_dictionaries_are_handed_to_environments_as_copies():
    class Greedy(Endless):
        def reset(self, *, config=None):
            if config:
                config.pop("noise").clear()
            return super().reset()

    config = {"noise": {"low": 1.0, "high": 2.0}}
    trainer = Trainer(Greedy, env_config=config, eval_env_config=config, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(2 * BATCH)])
    assert config == {"noise": {"low": 1.0, "high": 2.0}}


def test_no_checkpoint_holds_a_password():
    class Asking(Endless):
        def reset(self, *, config=None):
            return super().reset()

    config = {"password": "s3cret", "url": "https://me:s3cret@host"}
    trainer = Trainer(Asking, env_config=config, eval_env_config=config, output_dir="here", **QUIET)
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    for file in ("checkpoint.pt", "policy.pt"):
        assert b"s3cret" not in Path("here", file).read_bytes()


def test_what_no_file_can_hold_is_refused_when_the_trainer_is_built():
    class Own(MLPModel):
        def __init__(self, *specs, hook=None, **config):
            super().__init__(*specs, **config)

    with pytest.raises(TypeError, match=r"^model_config.hook=<function .* can't be saved: no import gives it back"):
        Trainer(Endless, model_cls=Own, **{**QUIET, "model_config": {"hook": lambda: None, "hiddens": [4]}})


# ----------------------------------------------------------------------------------------------------------- folders


def test_trainers_of_one_second_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "outputs/2026-01-01/12-00-00")
    trainers = [Trainer(Endless, **QUIET) for _ in range(3)]
    for trainer in trainers:
        trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert [trainer.output_dir.name for trainer in trainers] == ["12-00-00", "12-00-00-2", "12-00-00-3"]


def test_a_folder_that_holds_a_run_is_refused(workdir):
    both = [Trainer(Endless, output_dir="here", **QUIET) for _ in range(2)]
    both[0].run(stop_conditions=[EnvSteps(BATCH)])
    message = (
        r"^trainer.output_dir=here holds a run already \(config.yaml.*Try trainer.output_dir=here-2, or trainer.res"
    )
    with pytest.raises(ValueError, match=message):
        both[1].run(stop_conditions=[EnvSteps(BATCH)])
    with pytest.raises(ValueError, match=message):
        Trainer(Endless, output_dir="here", **QUIET)
    both[0].run(stop_conditions=[EnvSteps(2 * BATCH)])  # its own


def test_a_folder_that_cannot_be_made_is_one_message(workdir):
    (workdir / "outputs").write_text("a file")
    with pytest.raises(
        ValueError, match=r"^The folder outputs/.* for the run's files can't be made: .*Start in another"
    ):
        Trainer(Endless, **QUIET).run(stop_conditions=[EnvSteps(BATCH)])
    with pytest.raises(ValueError, match=r"^trainer.output_dir=outputs/x can't be written: Not a directory. Accepted"):
        Trainer(Endless, output_dir="outputs/x", **QUIET).run(stop_conditions=[EnvSteps(BATCH)])


def test_files_go_to_a_folder_of_the_day_by_default():
    assert Trainer(Endless, **QUIET).output_dir.parts[0] == "outputs"


def test_the_memory_of_a_large_rollout_is_stated(capsys, monkeypatch):
    monkeypatch.setattr(Rollout, "megabytes", lambda self: 1234.0)
    Trainer(Endless, **{**QUIET, "view": "plain"}).run(stop_conditions=[EnvSteps(BATCH)])
    assert "8 envs x 8 steps, 1.2 GB" in capsys.readouterr().out


def test_a_run_outside_the_main_thread(capsys):
    trainer = Trainer(Endless, **{**QUIET, "view": "plain"})
    thread = threading.Thread(target=trainer.run, kwargs={"stop_conditions": [EnvSteps(BATCH)]})
    thread.start()
    thread.join()
    assert trainer.algorithm.iterations == 1
    shown = capsys.readouterr().out
    assert "Endless" in shown
    assert "8 envs x 8 steps\n" in shown
    assert "policy.pt" in shown


# ------------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("trainer_cls", [Trainer, RecurrentTrainer])
def test_trap_11_a_run_resumed_through_the_settings_equals_an_unbroken_one(trainer_cls):
    options = {**QUIET, "normalize_obs": True, "horizons_per_env_reset": 3, "steps_per_eval": 2}
    options["lr_schedule"] = [[0, 1e-3], [4 * BATCH, 1e-4]]
    if trainer_cls is RecurrentTrainer:
        options["model_config"] = {"hidden_size": 8}
    torch.manual_seed(1)
    unbroken = trainer_cls(Episodes, **options)
    unbroken.run(stop_conditions=[EnvSteps(5 * BATCH)])
    torch.manual_seed(1)
    first = trainer_cls(Episodes, output_dir="first", **options)
    first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    torch.manual_seed(2)
    second = trainer_cls(Episodes, resume="first/checkpoint.pt", **options)
    second.run(stop_conditions=[EnvSteps(5 * BATCH)])
    assert comparable(first.history + second.history) == comparable(unbroken.history)
    assert_same(second.algorithm.state_dict(), unbroken.algorithm.state_dict())


def test_a_resumed_run_counts_on_where_its_stop_condition_stood(capsys):
    first = Trainer(Endless, output_dir="first", **QUIET)
    first.run(stop_conditions=[Plateaus("coefficients/vf", patience=3), EnvSteps(2 * BATCH)])
    second = Trainer(Endless, resume="first/checkpoint.pt", output_dir="second", **QUIET)
    second.run(stop_conditions=[Plateaus("coefficients/vf", patience=3), EnvSteps(9 * BATCH)])
    assert second.algorithm.iterations == 4
    third = Trainer(Endless, resume="second/checkpoint.pt", **{**QUIET, "view": "plain"})
    third.run(stop_conditions=[Plateaus("coefficients/vf", patience=1)])
    assert third.algorithm.iterations == 6
    assert "The stop condition is another than the checkpoint's, so it counts from here on" in capsys.readouterr().out


def test_a_run_whose_condition_is_met_only_finishes_what_is_missing(monkeypatch):
    first = Trainer(Endless, output_dir="first", steps_per_checkpoint=1, **QUIET)
    monkeypatch.setattr(first, "eval", lambda config: (_ for _ in ()).throw(KeyboardInterrupt))  # killed
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    for condition in (EnvSteps(2 * BATCH), EnvSteps(BATCH)):
        second = Trainer(Endless, resume="first", **QUIET)
        metrics = second.run(stop_conditions=[condition])
        assert second.algorithm.iterations == 2
        assert metrics[data.ENV_STEPS] == 2 * BATCH
        assert "eval/returns/mean" in metrics
        assert second.output_dir == Path("first")
        assert (second.output_dir / "learning_curve.png").is_file()
    third = Trainer(Endless, resume="first", **QUIET)
    third.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert third.algorithm.iterations == 3


def test_a_run_with_nothing_left_says_where_it_stands(capsys):
    Trainer(Endless, output_dir="first", **QUIET).run(stop_conditions=[EnvSteps(2 * BATCH)])
    Trainer(Endless, resume="first", **{**QUIET, "view": "plain"}).run(stop_conditions=[EnvSteps(2 * BATCH)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "  eval " in line]
    assert line.startswith("100%     128 steps  ")


def test_a_resumed_run_draws_all_of_its_curve(monkeypatch):
    drawn = []
    monkeypatch.setattr("rl8.view.plots.learning_curve", lambda history, *a, **k: drawn.append(history))
    monkeypatch.setattr("rl8.training.curve.MAX_CURVE", 4)
    Trainer(Endless, output_dir="first", **QUIET).run(stop_conditions=[EnvSteps(4 * BATCH)])
    Trainer(Endless, resume="first", **QUIET).run(stop_conditions=[EnvSteps(6 * BATCH)])
    Trainer(Endless, resume="first", **QUIET).run(stop_conditions=[EnvSteps(7 * BATCH)])
    assert [[m[data.ITERATIONS] for m in history] for history in drawn] == [
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6],
        [1, 3, 5, 7],
    ]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(capsys):
    Trainer(Endless, output_dir="first", steps_per_checkpoint=1, **QUIET).run(stop_conditions=[EnvSteps(3 * BATCH)])
    file = Path("first/checkpoint.pt")
    file.write_bytes(file.read_bytes()[:5000])
    second = Trainer(Endless, resume="first", **{**QUIET, "view": "plain"})
    assert second.algorithm.iterations == 2
    second.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert "it is damaged or of another kind. Going on from checkpoint.1.pt." in capsys.readouterr().out
    assert Trainer(Endless, resume="first", **QUIET).algorithm.iterations == 3


def test_settings_of_resets_that_changed_act_at_once():
    options = {**QUIET, "horizons_per_env_reset": -1}
    Trainer(Endless, output_dir="a", env_config={"noise": 2.0}, **options).run(stop_conditions=[EnvSteps(BATCH)])
    assert Trainer(Endless, resume="a", env_config={"noise": 2.0}, **options).algorithm.env.noise == 2.0
    assert Trainer(Endless, resume="a", env_config={"noise": 3.0}, **options).algorithm.env.noise == 3.0


@pytest.mark.parametrize(("steps", "said"), [(BATCH, False), (3 * BATCH, True)])
def test_a_rate_that_falls_to_0_before_the_end_is_worth_a_line(capsys, steps, said):
    trainer = Trainer(Endless, lr_schedule=[[0, 1e-3], [2 * BATCH, 0.0]], **{**QUIET, "view": "plain"})
    trainer.run(stop_conditions=[EnvSteps(steps)])
    assert ("learning rate is 0 from 128 env steps on" in capsys.readouterr().out) is said


def test_a_run_begins_from_one_thing():
    with pytest.raises(ValueError, match=r"resume=a and init_from=b exclude one another. Accepted: resume to"):
        Trainer(Endless, resume="a", init_from="b", **QUIET)


def test_a_branch_is_a_run_of_its_own():
    Trainer(Endless, output_dir="a", **QUIET).run(stop_conditions=[EnvSteps(2 * BATCH)])
    branch = Trainer(Endless, branch="a", **QUIET)
    branch.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert branch.algorithm.iterations == 3
    assert branch.output_dir != Path("a")
    assert read_checkpoint("a/checkpoint.pt").algorithm["counters"]["iterations"] == 2


def begun(how, seed=None, env=Endless):
    trainer = Trainer(env, **{how: "a"}, seed=seed, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(4 * BATCH)])
    return trainer


def test_a_seed_acts_on_what_begins_from_another_run():
    first = Trainer(Endless, output_dir="a", seed=3, **QUIET)
    first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    runs = {(how, seed): begun(how, seed) for how in ("branch", "init_from") for seed in (5, 6)}
    last = [weights(run.algorithm) for run in (*runs.values(), begun("branch"))]
    assert len({tuple(each.tolist()) for each in last}) == 5
    assert torch.equal(weights(begun("branch", 5).algorithm), last[0])
    assert torch.equal(weights(begun("branch").algorithm), last[-1])
    ready = Trainer(Algorithm(Endless, num_envs=8, horizon=8, model_config={"hiddens": [16]}), branch="a", seed=5)
    assert torch.initial_seed() == 5
    assert ready.config["seed"] == 5
    assert [begun("branch", seed).config["seed"] for seed in (5, None)] == [5, 3]
    with pytest.raises(ValueError, match=r"^seed=5 would have no.*no seed, or seed=3, .*try branch=a seed=5"):
        Trainer(Endless, resume="a", seed=5, **QUIET)
    Trainer(Endless, output_dir="none", **QUIET).run(stop_conditions=[EnvSteps(BATCH)])
    with pytest.raises(ValueError, match=r"^seed=5 would have no.* Accepted: no seed\. For a new run"):
        Trainer(Endless, resume="none", seed=5, **QUIET)
    resumed = Trainer(Endless, resume="a", seed=3, **QUIET)  # the command that began it, typed again
    resumed.run(stop_conditions=[EnvSteps(4 * BATCH)])
    assert resumed.config["seed"] == begun("resume").config["seed"] == 3
    assert torch.equal(weights(resumed.algorithm), last[-1])


def test_a_run_starts_from_a_policy_in_other_physics():
    first = Trainer(Endless, output_dir="a", normalize_obs=True, **QUIET)
    first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    options = {**QUIET, "normalize_obs": True, "num_envs": 4}
    second = Trainer(partial(Endless, noise=3.0), init_from="a", gamma=0.5, **options)
    assert torch.equal(weights(second.algorithm), weights(first.algorithm))
    second.run(stop_conditions=[EnvSteps(BATCH)])
    assert second.algorithm.env.noise == 3.0
    assert second.algorithm.iterations == 2
    assert second.output_dir != Path("a")
    with pytest.raises(
        ValueError, match=r"^trainer.init_from=a/policy.pt does not fit .*\[16, 3\] there, \[8, 3\] here"
    ):
        Trainer(Endless, init_from="a", normalize_obs=True, **{**QUIET, "model_config": {"hiddens": [8]}})


def test_threads_and_precision_are_those_of_each_algorithm():
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    settings = DeviceSettings(num_threads=2, matmul_precision="medium")
    seen = []

    class Watching(Endless):
        def step(self, action):
            seen.append((torch.get_num_threads(), torch.get_float32_matmul_precision()))
            return super().step(action)

    first = Trainer(Watching, device=settings, **QUIET)
    second = Trainer(Watching, **QUIET)
    seen.clear()
    first.step()
    second.step()
    assert (seen[0], seen[-1]) == ((2, "medium"), (before[0], "high"))
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


# ------------------------------------------------------------------------------------------------------------ MLflow


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


@pytest.mark.usefixtures("store_dir")
def test_branches_and_new_starts_are_runs_that_say_where_they_come_from(workdir):
    options = {**QUIET, "track": True}
    Trainer(Endless, output_dir="a", run_name="first", **options).run(stop_conditions=[EnvSteps(2 * BATCH)])
    Trainer(Endless, branch="a", run_name="branch", **options).run(stop_conditions=[EnvSteps(3 * BATCH)])
    Trainer(Endless, init_from="a", run_name="start", **options).run(stop_conditions=[EnvSteps(BATCH)])
    shutil.copy("a/checkpoint.pt", "copy.pt")
    Trainer(Endless, resume="a", **options).run(stop_conditions=[EnvSteps(3 * BATCH)])
    copied = Trainer(Endless, resume="copy.pt", **options)
    with pytest.raises(ValueError, match=r"was saved at 192 env steps, and this checkpoint is of 128.*trainer.branch="):
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


# ----------------------------------------------------------------------------------------------------------- signals

SCRIPT = """
    import json, sys
    sys.path.insert(0, {tests!r})
    from envs import Steering
    from rl8 import Trainer

    trainer = Trainer(
        Steering,
        num_envs=8,
        horizon=8,
        model_config={{"hiddens": [16]}},
        output_dir="run",
        view="plain",
        seconds_per_log=0,
    )
    trainer.run()
    print("LAST " + json.dumps([trainer.stopped_by, trainer.history[-1]]))
"""


@pytest.fixture(scope="module")
def interrupted(empty_store, tmp_path_factory):
    """Start two endless runs, send each its signal once it trains; return their folders and what they printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    script = textwrap.dedent(SCRIPT.format(tests=str(Path(__file__).parent)))
    started = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path_factory.mktemp(number.name)
        shutil.copy(empty_store, folder / "mlflow.db")
        started[number] = (
            folder,
            subprocess.Popen(
                [sys.executable, "-c", script],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ),
        )
    results = {}
    try:
        for number, (folder, process) in started.items():
            for line in process.stdout:
                if "/s" in line and "steps" in line:  # the first iteration's line
                    process.send_signal(number)
                    break
            out, err = process.communicate(timeout=120)
            results[number] = folder, process.returncode, out, err
    finally:  # none outlives a test that fails
        for _, process in started.values():
            process.kill()
            process.communicate()
    return results


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_iteration_with_everything_saved(number, interrupted):
    folder, returncode, out, err = interrupted[number]
    assert returncode == 0, err
    assert re.search(r"^(Ctrl-C|SIGTERM): the iteration at hand is being finished.* A second \1 stops now\.", out, re.M)
    stopped_by, last = json.loads(out.split("LAST ")[1])
    assert stopped_by == number.name
    client, (run,) = runs_of(folder)
    assert (run.info.status, run.info.run_name) == ("KILLED", "steering-ppo")
    assert run.data.tags["stop_reason"] == f"stopped by {number.name}"
    assert run.data.metrics["env/steps"] == last["env/steps"] == BATCH * last["algorithm/steps"]
    history = client.get_metric_history(run.info.run_id, "returns/mean")
    assert [metric.step for metric in history] == [BATCH * n for n in range(1, int(last["algorithm/steps"]) + 1)]
    assert "eval/returns/mean" in run.data.metrics
    assert load_policy(folder / "run" / "policy.pt").action_spec.shape == (1,)
    algorithm = Algorithm(Steering, num_envs=8, horizon=8, model_config={"hiddens": [16]})
    load_checkpoint(folder / "run" / "checkpoint.pt", algorithm)
    assert algorithm.env_steps == last["env/steps"]
    assert (artifacts(run) / "policy.pt").is_file()


def test_a_signal_while_files_are_written_does_not_stop_them(monkeypatch):
    trainer = Trainer(Endless, **QUIET)
    film = Evaluation.film
    monkeypatch.setattr(Evaluation, "film", lambda *arguments: signal.raise_signal(signal.SIGTERM) or film(*arguments))
    trainer.run(stop_conditions=[EnvSteps(1)])
    assert trainer.stopped_by is None
    assert (trainer.output_dir / "policy.pt").is_file()


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        (Episodes, {"horizons_per_env_reset": 2}, True),
        (Episodes, {}, False),
        (Endless, {"horizons_per_env_reset": 2}, False),
    ],
)
def test_a_reset_that_cuts_episodes_off_is_said_at_the_start(env, options, said, workdir, capsys):
    trainer = Trainer(env, **{**QUIET, "view": "plain"}, **options)
    trainer.run(stop_conditions=[EnvSteps(1)])
    steps = 2 * trainer.algorithm.hparams.horizon
    text = f"a reset every {steps} steps cuts them off. algo.horizons_per_env_reset=-1 lets them go on."
    assert (text in capsys.readouterr().out) == said


def test_a_run_that_meets_no_number_leaves_evidence_and_no_wrong_weights(workdir, monkeypatch):
    monkeypatch.setattr(GoesBad, "reward", float("nan"))
    trainer = Trainer(GoesBad, horizons_per_env_reset=-1, **QUIET, output_dir="run")
    with pytest.raises(FloatingPointError, match="The reward is nan at step"):
        trainer.run(stop_conditions=[EnvSteps(10**6)])
    kept = torch.load(workdir / "run" / "nonfinite.pt", weights_only=True)
    assert kept["reason"].startswith("returns/mean is nan after")
    assert kept["rewards"].isnan().any()


def test_a_run_may_go_on_without_what_is_not_finite(workdir, monkeypatch):
    monkeypatch.setattr(GoesBad, "reward", float("nan"))
    trainer = Trainer(GoesBad, horizons_per_env_reset=-1, **QUIET, on_nonfinite="skip")
    metrics = trainer.run(stop_conditions=[EnvSteps(12 * BATCH)])
    assert max(entry["monitors/nonfinite_envs"] for entry in trainer.history) > 0
    assert trainer.algorithm.resets > 1
    assert all(weight.isfinite().all() for weight in trainer.algorithm.parameters)
    assert metrics["env/steps"] <= 12 * BATCH
