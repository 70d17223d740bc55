import math

import pytest
import torch
from tensordict import TensorDict

from rl8 import Algorithm, Trainer
from rl8.conditions import HitsUpperBound
from rl8.env import ContinuousDummyEnv
from rl8.rollout.env_metrics import EnvMetrics


def report(**numbers):
    metrics = {name: torch.as_tensor(series) for name, series in numbers.items()}
    return TensorDict({"metrics": metrics} if metrics else {}, [2])


def test_means_are_over_all_numbers_of_a_horizon_that_are_known():
    metrics = EnvMetrics()
    metrics.add(report(speed=[1.0, 3.0], hit=[True, False], level=[1, 2]), first=True)
    metrics.add(report(speed=[5.0, math.nan]), first=False)
    means = metrics.means()
    assert {name: mean.item() for name, mean in means.items()} == {"env/speed": 3.0, "env/hit": 0.5, "env/level": 1.5}
    addresses = [total.data_ptr() for total in metrics.sums.values()]
    metrics.add(report(speed=[8.0, 8.0]), first=True)
    metrics.add(report(), first=False)
    means = metrics.means()
    assert means["env/speed"] == 8.0
    assert means["env/hit"].isnan()
    assert [total.data_ptr() for total in metrics.sums.values()] == addresses


class Reports(ContinuousDummyEnv):
    """Reports its number of steps since the reset, [N, 1], and a number that is never known."""

    def reset(self, *, config=None):
        self.state = torch.zeros(self.num_envs, 1)
        return self.state

    def step(self, action):
        out = super().step(torch.ones_like(action))
        metrics = {"height": self.state.clone(), "unknown": torch.full((self.num_envs,), math.nan)}
        return out.set("metrics", TensorDict(metrics, [self.num_envs]))


QUIET = {"num_envs": 4, "horizon": 4, "track": False, "view": "none", "render": False, "model_config": {"hiddens": [8]}}


def test_collect_and_evaluations_average_them(workdir):
    trainer = Trainer(Reports, **QUIET, eval_num_envs=3, eval_horizon=9)
    values = trainer.step()
    assert values["env/height"] == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert "env/unknown" not in values
    assert trainer.eval()["eval/env/height"] == pytest.approx(5.0)
    assert trainer.algorithm.env.metric_names == {"height", "unknown"}


def test_conditions_may_watch_them(workdir):
    trainer = Trainer(Reports, **QUIET, horizons_per_env_reset=-1)
    trainer.run(stop_conditions=[HitsUpperBound("env/height", 10.0)])
    assert trainer.algorithm.iterations == 3  # means of 2.5, 6.5 and 10.5
    with pytest.raises(ValueError, match=r"Unknown metric 'env/hight'. Did you mean 'env/height'"):
        trainer.run(stop_conditions=[HitsUpperBound("env/hight", 10.0)])


def test_they_are_zero_of_the_last_horizon():
    algorithm = Algorithm(Reports, num_envs=2, horizon=4, model_config={"hiddens": [8]})
    for _ in range(3):
        assert algorithm.collect()["env/height"] == pytest.approx(2.5)
        algorithm.step()
