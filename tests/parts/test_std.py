import pytest

from rl8.env import CartPole, Pendulum
from rl8.parts.std import ScheduledStd

from .running import run


class Watching(ScheduledStd):
    def __init__(self, points):
        super().__init__(points)
        self.seen = []

    def on_collect(self, trainer, metrics):
        self.seen.append(trainer.algorithm.policy.model.policy_head.log_stds[0].exp().item())


def test_a_horizon_is_collected_with_the_schedules_std(tmp_path):
    watching = Watching([[0, 1.0], [32, 0.5]])
    run(tmp_path, Pendulum, watching, steps=64)
    assert watching.seen == pytest.approx([1.0, 0.75, 0.5, 0.5])


def test_a_std_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reach 0"):
        ScheduledStd([[0, 1.0], [32, 0.0]])
    with pytest.raises(ValueError, match=r"has no log_std of its own here"):
        run(tmp_path, CartPole, ScheduledStd([[0, 1.0]]))
