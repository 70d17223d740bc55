"""Where MuJoCo Playground is installed; JAX compiles a task for most of a minute."""

import pytest
import torch

pytest.importorskip("mujoco_playground", reason="the extra rl8[playground] is not installed", exc_type=ImportError)

from rl8.env.adapters.playground import PlaygroundEnv
from rl8.ppo.algorithm import Algorithm
from rl8.specs import Bounded, Unbounded

# of its own and of what it is built on
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def test_a_task_trains():
    algorithm = Algorithm(PlaygroundEnv, num_envs=16, horizon=16, num_sgd_iters=2, random_initial_ages=True)
    env = algorithm.env
    assert env.observation_spec == Unbounded(5)
    assert env.action_spec == Bounded(-1.0, 1.0, (1,))
    assert env.task.episode_length == 1000
    env._ages = env.task.take(torch.full((16,), 990, dtype=torch.int32))
    metrics = algorithm.collect() | algorithm.step()
    assert 0.2 <= metrics["rewards/mean"] <= 1  # the most that the task pays
    assert 0 <= metrics["env/reward/upright"] <= 1
    env.reset()
    env._ages = env.task.take(torch.full((16,), 999, dtype=torch.int32))
    out = env.step(torch.zeros(16, 1))
    assert out["truncated"].all()
    assert not out["terminated"].any()
    assert out["obs"].ne(out["final_obs"]).any(1).all()
    # a reset draws the cart within 0.1 of the middle, the pole within 0.034 of upright
    assert out["obs"][:, 0].abs().max() <= 0.1
    assert out["obs"][:, 1].min() >= torch.tensor(0.034).cos()
    assert env._state.obs.unsafe_buffer_pointer() == env._observed(env._state.obs).data_ptr()
    env.close()


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"Unknown task in env.task 'CartpolBalance'. Did you mean 'CartpoleBalance'"):
        PlaygroundEnv(2, task="CartpolBalance")
