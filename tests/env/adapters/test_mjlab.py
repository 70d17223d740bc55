"""Where mjlab is installed: it wants other versions than the rest is tested with, so an environment of its own."""

import pytest

pytest.importorskip("mjlab", reason="the extra rl8[mjlab] is not installed", exc_type=ImportError)

from rl8.env.adapters.mjlab import MjlabEnv
from rl8.ppo.algorithm import Algorithm
from rl8.specs import Unbounded

# of its own and of what it is built on
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def algorithm():
    algorithm = Algorithm(MjlabEnv, num_envs=16, horizon=16, num_sgd_iters=2)
    yield algorithm
    algorithm.env.close()


def test_a_task_trains(algorithm):
    assert algorithm.env.observation_spec == Unbounded(5)
    assert algorithm.env.action_spec == Unbounded(1)
    for _ in range(3):
        metrics = algorithm.collect() | algorithm.step()
    assert 0 <= metrics["rewards/mean"] <= 0.05  # the most that the task pays
    assert algorithm.rollout.is_last is not None  # random ages: some episode ended


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"Unknown task in env.task 'Mjlab-Cartpole-Balnce'. Did you mean"):
        MjlabEnv(2, task="Mjlab-Cartpole-Balnce")
