import math
from functools import partial

import pytest
import torch
from envs import Endless, Episodes, Steering
from short_runs import BATCH, QUIET, comparable

from rl8 import Trainer
from rl8.conditions import EnvSteps
from rl8.reported import EVAL_METRICS, METRICS

pytestmark = pytest.mark.usefixtures("workdir")


def test_eval_is_deterministic_and_of_its_own_size():
    trainer = Trainer(Steering, **{**QUIET, "eval_horizon": 3, "eval_num_envs": 5})
    first = trainer.eval()
    assert set(first) == set(EVAL_METRICS)
    assert trainer.eval()["eval/returns/mean"] == first["eval/returns/mean"]
    assert trainer.eval(deterministic=False)["eval/returns/mean"] != first["eval/returns/mean"]
    assert trainer._evaluation.evaluator.rollout.rewards.shape == (3, 5)
    sampling = Trainer(Steering, eval_deterministic=False, **QUIET)
    assert sampling.eval()["eval/rewards/std"] > 0


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


def test_evaluating_more_often_does_not_change_training():
    histories = []
    for steps_per_eval in (None, 1):
        torch.manual_seed(1)
        trainer = Trainer(Episodes, normalize_obs=True, horizons_per_env_reset=-1, **QUIET)
        trainer.run(stop_conditions=[EnvSteps(4 * BATCH)], steps_per_eval=steps_per_eval)
        histories.append(comparable([{k: v for k, v in m.items() if k in METRICS} for m in trainer.history]))
    assert histories[0] == histories[1]


class Long(Episodes):
    """`Episodes`, of which environment 0's have 70 steps."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.lengths[0] = 70


@pytest.mark.parametrize(("slow", "times"), [(0.0, 1), (1e9, 0)])
def test_what_an_evaluation_waits_for_is_said_once(monkeypatch, slow, times):
    monkeypatch.setattr("rl8.training.evaluation.SLOW_S", slow)
    trainer = Trainer(Long, **{**QUIET, "eval_num_envs": 8})
    said = []
    trainer._evaluation._messages.say = said.append
    trainer.eval()
    assert said == times * [
        "Evaluation goes on: of 8 environments, each of which plays one whole episode, 7 have ended after 32 steps. "
        "trainer.eval_horizon=32 would end all there, trainer.eval_num_envs=2 would play fewer."
    ]


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
    with pytest.raises(ValueError, match=r"^The evaluation's environment is refused: eval_horizon=16 is out"):
        Trainer(Short, **{**QUIET, "eval_horizon": 16}).run()
    refused = r"is refused with eval_env_config={noise: .*}: eval_env_config.noise has shape \(3,\).*\(4,\)"
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
