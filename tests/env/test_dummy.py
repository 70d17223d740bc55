import numpy as np
import pytest
import torch

from rl8.env import ContinuousDummyEnv, DiscreteDummyEnv


def test_discrete_moves_are_one_unit_left_or_right():
    env = DiscreteDummyEnv(3)
    env.reset()
    env.state = torch.tensor([[0.5], [0.5], [-7.0]])
    result = env.step(torch.tensor([[0], [1], [1]]))
    assert result["obs"].tolist() == [[-0.5], [1.5], [-6.0]]
    assert result["rewards"].tolist() == [[-0.5], [-1.5], [-6.0]]
    assert torch.equal(env.state, result["obs"])


def test_continuous_moves_are_of_any_size():
    env = ContinuousDummyEnv(2)
    env.reset()
    env.state = torch.tensor([[64.0], [-1.0]])
    result = env.step(torch.tensor([[-64.0], [0.25]]))
    assert result["obs"].tolist() == [[0.0], [-0.75]]
    assert result["rewards"].tolist() == [[0.0], [-0.75]]


@pytest.mark.parametrize("cls", [DiscreteDummyEnv, ContinuousDummyEnv])
def test_starts_are_uniform_within_bounds(cls):
    torch.manual_seed(0)
    env = cls(10_000)
    position = env.reset()
    assert position.shape == (10_000, 1)
    assert 99 < position.max() <= 100
    assert -100 <= position.min() < -99
    torch.testing.assert_close(position.std(), torch.tensor(100 / 3**0.5), rtol=0.02, atol=0)
    assert env.reset(config={"bounds": 3.0}).abs().max() <= 3
    assert env.reset().abs().max() <= 3  # a setting stays until it is changed


@pytest.mark.parametrize("cls", [DiscreteDummyEnv, ContinuousDummyEnv])
def test_every_environment_may_have_its_own_bounds(cls):
    env = cls(3, bounds=[0.0, 1.0, 1000.0])
    draws = torch.stack([env.reset().squeeze(-1).abs() for _ in range(200)]).amax(0)
    assert draws[0] == 0
    assert 0.9 < draws[1] <= 1
    assert 900 < draws[2] <= 1000


def test_an_observation_is_not_overwritten_by_the_next_step():
    env = ContinuousDummyEnv(2)
    obs = env.reset()
    kept = obs.clone()
    env.step(torch.ones(2, 1))
    assert torch.equal(obs, kept)


@pytest.mark.parametrize("bounds", [0.0, 0.3, 3.0, 40.0, 100.0, 2500.0])
def test_render_shows_the_position(bounds):
    env = DiscreteDummyEnv(3, bounds=bounds)
    env.reset()
    reach = max(bounds, 1.0)
    env.state = torch.tensor([[reach], [-reach], [1e9]])  # the last is far off the picture
    right, left, off = (env.render(index) for index in range(3))
    blue = np.array([58, 110, 190])
    assert right.shape == (400, 600, 3)
    assert right.dtype == np.uint8
    assert np.array_equal(right[220, round(300 + 300 / 1.15)], blue)
    assert np.array_equal(left[220, round(300 - 300 / 1.15)], blue)
    assert np.array_equal(off[220, 597], blue)
    with pytest.raises(ValueError, match="index=3 is out of range"):
        env.render(3)
