import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from rl8.env import Pendulum
from rl8.specs import Bounded

N = 1500


def random_states(n: int) -> torch.Tensor:
    return (2 * torch.rand(2, n) - 1) * torch.tensor([[10.0], [8.0]])  # some turns away from the first


def gymnasium_steps(env: Pendulum, states: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Gymnasium's next observations [N, 3] and rewards [N]."""
    peer = PendulumEnv()
    obs, rewards = [], []
    for i, (state, action) in enumerate(zip(states.t().double().numpy(), actions.double().numpy(), strict=True)):
        peer.g, peer.m, peer.l, peer.dt = (env.number(name, i) for name in ("gravity", "mass", "length", "tau"))
        peer.max_torque, peer.max_speed = env.number("max_torque", i), env.number("max_speed", i)
        peer.state = state
        after, reward, *_ = peer.step(action)
        obs.append(after)
        rewards.append(reward)
    return torch.tensor(np.stack(obs)), torch.tensor(rewards, dtype=torch.float32)


def test_steps_and_costs_are_gymnasiums():
    torch.manual_seed(0)
    env = Pendulum(N)
    env.reset()
    env.state = states = random_states(N)
    actions = 3 * torch.randn(N, 1)  # some beyond the limit
    result = env.step(actions)
    obs, rewards = gymnasium_steps(env, states, actions)
    torch.testing.assert_close(result["obs"], obs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result["rewards"], rewards, rtol=1e-5, atol=1e-4)


def test_a_long_run_follows_gymnasiums():
    torch.manual_seed(1)
    env, peer = Pendulum(1), PendulumEnv()
    env.reset()
    peer.reset(seed=0)
    for _ in range(1000):
        env.state = torch.tensor(peer.state, dtype=torch.float32).unsqueeze(-1)
        action = env.action_spec.rand(1)
        result = env.step(action)
        obs, reward, *_ = peer.step(action[0].numpy())
        torch.testing.assert_close(result["obs"], torch.from_numpy(obs).unsqueeze(0), rtol=1e-5, atol=1e-4)
        assert result["rewards"].item() == pytest.approx(reward, rel=1e-4, abs=1e-4)


def test_every_environment_has_its_own_constants():
    torch.manual_seed(2)
    env = Pendulum(N)
    env.reset(
        config={
            "gravity": {"low": 1.0, "high": 20.0},
            "mass": {"low": 0.3, "high": 3.0},
            "length": {"low": 0.3, "high": 3.0},
            "max_torque": {"low": 0.5, "high": 3.0},
            "max_speed": {"low": 4.0, "high": 12.0},
            "tau": {"low": 0.01, "high": 0.1},
        }
    )
    env.state = states = random_states(N)
    actions = 3 * torch.randn(N, 1)
    result = env.step(actions)
    obs, rewards = gymnasium_steps(env, states, actions)
    torch.testing.assert_close(result["obs"], obs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(result["rewards"], rewards, rtol=1e-5, atol=1e-4)


def test_rewards_by_hand():
    env = Pendulum(3)
    env.reset()
    env.state = torch.tensor([[0.0, 2 * math.pi + 1.0, -2.0], [0.0, 2.0, 0.0]])
    # upright at rest; (1 rad)^2 + 0.1 * 2^2; (2 rad)^2 + 0.001 * 2^2, the torque of 50 being clipped
    rewards = env.step(torch.tensor([[0.0], [0.0], [50.0]]))["rewards"]
    torch.testing.assert_close(rewards, torch.tensor([0.0, -1.4, -4.004]), rtol=1e-5, atol=1e-6)


def test_the_angle_stays_near_one_turn_however_long_it_spins():
    env = Pendulum(1, gravity=0.0)
    env.reset()
    env.state = torch.tensor([[0.0], [8.0]])
    for _ in range(200):
        env.step(torch.tensor([[2.0]]))
    assert abs(env.state[0].item()) < 2 * math.pi


def test_the_action_spec_has_the_constructors_torque():
    assert Pendulum(2).action_spec == Bounded(-2.0, 2.0, shape=1)
    assert Pendulum(2, max_torque=[1.0, 3.0]).action_spec == Bounded(-3.0, 3.0, shape=1)


def test_starts_are_uniform():
    torch.manual_seed(0)
    env = Pendulum(20_000)
    obs = env.reset()
    theta, theta_dot = env.state
    assert 3.13 < theta.max() <= math.pi
    assert -math.pi <= theta.min() < -3.13
    assert theta_dot.abs().max() <= 1.0
    torch.testing.assert_close(theta.std(), torch.tensor(math.pi / 3**0.5), rtol=0.02, atol=0)
    torch.testing.assert_close(obs[:, 0].square() + obs[:, 1].square(), torch.ones(20_000))


def test_render_shows_the_rod_and_its_speed():
    env = Pendulum(2)
    env.reset()
    env.state = torch.tensor([[0.0, math.pi / 2], [0.0, 4.0]])
    up, right = env.render(0), env.render(1)
    orange, blue = (232, 128, 48), (58, 110, 190)
    assert up.shape == (400, 600, 3)
    assert up.dtype == np.uint8
    assert tuple(up[120, 300]) == orange != tuple(up[200, 380])
    assert tuple(right[200, 380]) == orange != tuple(right[120, 300])
    # half of full speed is 75 degrees of arc, clockwise from the top at radius 174
    at = math.radians(40)
    spot = round(200 - 174 * math.cos(at)), round(300 + 174 * math.sin(at))
    assert tuple(right[spot]) == blue != tuple(up[spot])
    with pytest.raises(TypeError, match="index='0' is not an integer"):
        env.render("0")
