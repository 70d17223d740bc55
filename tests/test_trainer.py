import math
import signal
import threading
from pathlib import Path

import pytest
import torch
from comparing import assert_same, weights
from envs import Endless, GoesBad, Steering
from PIL import Image
from short_runs import BATCH, QUIET, artifacts, runs_of

from rl8 import Algorithm, DeviceSettings, RecurrentTrainer, Trainer, data
from rl8.checkpoint import load_checkpoint, load_policy
from rl8.conditions import EnvSteps, HitsLowerBound, HitsUpperBound, Plateaus
from rl8.env import DiscreteDummyEnv
from rl8.models import MLPModel
from rl8.reported import EVAL_METRICS, METRICS
from rl8.training.evaluation import Evaluation

pytestmark = pytest.mark.usefixtures("workdir")


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
            "^resume=nowhere.pt is no run. Accepted: a run's folder, its policy.pt",
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


def test_a_ready_algorithm_is_trained():
    algorithm = Algorithm(Endless, num_envs=8, horizon=8, model_config={"hiddens": [4]})
    trainer = Trainer(algorithm, view="none", track=False, render=False)
    trainer.run(stop_conditions=[EnvSteps(1)])
    assert trainer.algorithm is algorithm
    assert algorithm.iterations == 1
    policy = load_policy(trainer.output_dir / "policy.pt")  # it knows how the model was built
    assert torch.equal(weights(algorithm), torch.nn.utils.parameters_to_vector(policy.parameters()))


# ------------------------------------------------------------------------------------------------------------- runs


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
        ("returns/men", None, "^key=returns/men: Unknown metric 'returns/men'. Did you mean 'returns/mean'"),
        ("eval/returns/mean", None, r"evaluated only at the end. Try steps_per_eval=10\."),
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


def test_a_term_of_ones_own_that_is_not_finite_is_named():
    trainer = Trainer(
        Endless, **QUIET, extra_losses={"mine": (0.1, lambda policy, batch: batch.logp.mean() * math.nan)}
    )
    with pytest.raises(FloatingPointError, match=r"losses/mine is nan: look at extra_losses\['mine'\]"):
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
    message = r"^output_dir=here holds a run already \(config.yaml.*Try output_dir='here-2', or resume='here' to"
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
    with pytest.raises(ValueError, match=r"^output_dir=outputs/x can't be written: Not a directory. Accepted"):
        Trainer(Endless, output_dir="outputs/x", **QUIET).run(stop_conditions=[EnvSteps(BATCH)])


def test_files_go_to_a_folder_of_the_day_by_default():
    assert Trainer(Endless, **QUIET).output_dir.parts[0] == "outputs"


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


# ----------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_iteration_with_everything_saved(number, store_dir):
    def send(metrics):
        if metrics["algorithm/steps"] == 3:
            signal.raise_signal(number)
        return False

    trainer = Trainer(Steering, output_dir="run", seconds_per_log=0, **{**QUIET, "track": True})
    trainer.run(stop_conditions=[send])
    assert trainer.stopped_by == number.name
    client, (run,) = runs_of(store_dir)
    assert (run.info.status, run.info.run_name) == ("KILLED", "steering-ppo")
    assert run.data.tags["stop_reason"] == f"stopped by {number.name}"
    assert run.data.metrics["env/steps"] == trainer.history[-1]["env/steps"] == 3 * BATCH
    history = client.get_metric_history(run.info.run_id, "returns/mean")
    assert [metric.step for metric in history] == [BATCH, 2 * BATCH, 3 * BATCH]
    assert "eval/returns/mean" in run.data.metrics
    assert load_policy("run/policy.pt").action_spec.shape == (1,)
    algorithm = Algorithm(Steering, num_envs=8, horizon=8, model_config={"hiddens": [16]})
    load_checkpoint("run/checkpoint.pt", algorithm)
    assert algorithm.env_steps == 3 * BATCH
    assert (artifacts(run) / "policy.pt").is_file()


def test_a_signal_while_files_are_written_does_not_stop_them(monkeypatch):
    trainer = Trainer(Endless, **QUIET)
    film = Evaluation.film
    monkeypatch.setattr(Evaluation, "film", lambda *arguments: signal.raise_signal(signal.SIGTERM) or film(*arguments))
    trainer.run(stop_conditions=[EnvSteps(1)])
    assert trainer.stopped_by is None
    assert (trainer.output_dir / "policy.pt").is_file()


def test_a_run_may_go_on_without_what_is_not_finite(workdir, monkeypatch):
    monkeypatch.setattr(GoesBad, "reward", float("nan"))
    trainer = Trainer(GoesBad, horizons_per_env_reset=-1, **QUIET, on_nonfinite="skip")
    metrics = trainer.run(stop_conditions=[EnvSteps(12 * BATCH)])
    assert max(entry["monitors/nonfinite_envs"] for entry in trainer.history) > 0
    assert trainer.algorithm.resets > 1
    assert all(weight.isfinite().all() for weight in trainer.algorithm.parameters)
    assert metrics["env/steps"] <= 12 * BATCH
