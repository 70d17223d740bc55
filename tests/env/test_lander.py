import math

import pytest
import torch

from rl8.env import Lander


def at(*states, **constants):
    """Return an environment in given states x, y, x', y'."""
    env = Lander(len(states), **constants)
    env.reset()
    env.state["state"] = torch.tensor(states)
    return env


def test_one_step_by_hand():
    env = at([1.0, 10.0, 0.5, -1.0], [0.0, 10.0, 0.0, 0.0], [0.0, 10.0, 0.0, 0.0], [0.0, 10.0, 0.0, 0.0])
    out = env.step(torch.tensor([0, 1, 2, 3]))
    # 0 falls: y' = -1 - 0.16 = -1.16, y = 10 - 0.116; x = 1 + 0.05. 1 fires: y' = 0.1 * (4 - 1.6) = 0.24, y = 10.024.
    expected = [
        [1.05, 9.884, 0.5, -1.16],
        [0.0, 10.024, 0.0, 0.24],
        [-0.01, 9.984, -0.1, -0.16],
        [0.01, 9.984, 0.1, -0.16],
    ]
    torch.testing.assert_close(env.current, torch.tensor(expected))
    torch.testing.assert_close(out["obs"], env.current / 10)
    # 0: |1| + |10| + |0.5| + |-1| = 12.5 became 12.594; 1: 10 became 10.264; 2 and 3: 10 became 10.254.
    torch.testing.assert_close(out["rewards"], torch.tensor([-0.0094, -0.0264 - 0.01, -0.0254 - 0.01, -0.0254 - 0.01]))
    assert not out["terminated"].any()
    assert out["metrics", "landed"].isnan().all()


ENDS = {
    "landing": ([1.9, 0.01, 0.0, -0.5], True),
    "beside the pad": ([2.1, 0.01, 0.0, -0.5], False),
    "too fast down": ([0.0, 0.01, 0.0, -1.0], False),
    "too fast to the side": ([0.0, 0.01, 1.1, -0.5], False),
    "out at the side": ([20.0, 5.0, 1.0, 0.0], False),
    "out at the top": ([0.0, 20.0, 0.0, 5.0], False),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_is_a_landing(name):
    state, landed = ENDS[name]
    env = at(state)
    out = env.step(torch.tensor([0]))
    assert out["terminated"].item()
    assert out["metrics", "landed"].item() == landed
    assert (out["rewards"].item() > 0.5) == landed
    assert abs(env.current[0, 0].item()) <= 5  # the next one has begun
    assert 8 <= env.current[0, 1].item() <= 12


def test_starts_are_spread_as_described():
    env = Lander(4000)
    env.reset()
    low, high = env.current.amin(0), env.current.amax(0)
    torch.testing.assert_close(low, torch.tensor([-5.0, 8.0, -1.0, -1.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(high, torch.tensor([5.0, 12.0, 1.0, 1.0]), atol=0.05, rtol=0)


def test_the_picture_follows_the_rocket():
    env = at([0.0, 10.0, 0.0, 0.0], [5.0, 2.0, 0.0, 0.0])
    first, second = env.render(0), env.render(1)
    assert first.shape == second.shape == (400, 600, 3)
    assert (first != second).any()
    with pytest.raises(ValueError, match=r"index=2 is out of range"):
        env.render(2)


def test_a_rocket_that_falls_takes_as_long_as_physics_says():
    env = at([0.0, 10.0, 0.0, 0.0])
    steps = 0
    ended = False
    while not ended:
        ended = env.step(torch.tensor([0]))["terminated"].item()
        steps += 1
    assert steps == pytest.approx(math.sqrt(2 * 10 / 1.6) / 0.1, abs=2)
