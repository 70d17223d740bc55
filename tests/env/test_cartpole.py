import math

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from rl8.env import CartPole

N = 1500


def random_states(n: int) -> torch.Tensor:
    spread = torch.tensor([2.0, 3.0, math.pi, 4.0]).unsqueeze(-1)
    return (2 * torch.rand(4, n) - 1) * spread


def gymnasium_steps(env: CartPole, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Return Gymnasium's next states [4, N], each computed with that environment's own constants."""
    peer = CartPoleEnv()
    peer.kinematics_integrator = env.integrator
    after = []
    for i, (state, action) in enumerate(zip(states.t().double().numpy(), actions.tolist(), strict=True)):
        peer.reset(seed=0)
        peer.gravity, peer.tau = env.number("gravity", i), env.number("tau", i)
        peer.masscart, peer.masspole = env.number("cart_mass", i), env.number("pole_mass", i)
        peer.length = env.number("length", i)
        peer.total_mass = peer.masscart + peer.masspole
        peer.polemass_length = peer.masspole * peer.length
        peer.force_mag = 0.0 if action == 1 else env.number("force_mag", i)  # it cannot choose not to push
        peer.state = state
        peer.step(int(action == 2))
        after.append(np.asarray(peer.state))
    return torch.tensor(np.stack(after, -1), dtype=torch.float32)


@pytest.mark.parametrize("integrator", ["euler", "semi-implicit"])
@pytest.mark.parametrize("force_mag", [5.0, 10.0])
def test_steps_are_gymnasiums(integrator, force_mag):
    torch.manual_seed(0)
    env = CartPole(N, integrator=integrator, force_mag=force_mag)
    env.reset()
    env.state = states = random_states(N)
    actions = env.action_spec.rand(N)
    env.step(actions)
    torch.testing.assert_close(env.state, gymnasium_steps(env, states, actions), rtol=1e-5, atol=1e-5)


def test_a_long_run_follows_gymnasiums():
    torch.manual_seed(1)
    env, peer = CartPole(1, force_mag=10.0), CartPoleEnv()
    env.reset()
    peer.reset(seed=0)
    peer.theta_threshold_radians = peer.x_threshold = math.inf
    for _ in range(1000):
        env.state = torch.tensor(np.asarray(peer.state), dtype=torch.float32).unsqueeze(-1)
        action = int(torch.randint(2, ()))
        result = env.step(torch.tensor([2 * action]))
        x, x_dot, theta, theta_dot = peer.step(action)[0].tolist()
        expected = torch.tensor([[x, x_dot, math.cos(theta), math.sin(theta), theta_dot]])
        torch.testing.assert_close(result["obs"], expected, rtol=1e-5, atol=1e-4)


def test_every_environment_has_its_own_constants():
    torch.manual_seed(2)
    draws = {
        "force_mag": {"low": 1.0, "high": 20.0},
        "gravity": {"low": 1.0, "high": 25.0},
        "cart_mass": {"low": 0.5, "high": 3.0},
        "pole_mass": {"low": 0.05, "high": 1.0},
        "length": {"low": 0.2, "high": 2.0},
        "tau": {"low": 0.005, "high": 0.05},
    }
    env = CartPole(N)
    env.reset(config=draws)
    assert all(getattr(env, name).unique().numel() > N / 2 for name in draws)
    env.state = states = random_states(N)
    actions = env.action_spec.rand(N)
    env.step(actions)
    torch.testing.assert_close(env.state, gymnasium_steps(env, states, actions), rtol=1e-5, atol=1e-4)


def test_observations_and_rewards_by_hand():
    env = CartPole(3, tau=1e-7)  # so short a step that the state stays
    env.reset()
    env.state = torch.tensor([[0.0, 1.0, -1.0], [0.0, -2.0, 0.5], [0.0, math.pi / 2, math.pi], [0.0, -3.0, 0.0]])
    result = env.step(torch.tensor([1, 1, 1]))
    expected = torch.tensor([[0, 0, 1, 0, 0], [1, -2, 0, 1, -3], [-1, 0.5, -1, 0, 0]], dtype=torch.float32)
    torch.testing.assert_close(result["obs"], expected, rtol=0, atol=1e-4)
    # 0; 1 + 2 + |0 - 1| + 1 + 3; 1 + 0.5 + |-1 - 1| + 0 + 0
    torch.testing.assert_close(result["rewards"], torch.tensor([0.0, -8.0, -3.5]), rtol=0, atol=1e-4)


def test_actions_push_left_not_at_all_and_right():
    env = CartPole(3, start_std=0.0)
    env.reset()
    env.step(torch.tensor([0, 1, 2]))
    left, none, right = env.state[1].tolist()
    assert left < 0 == none < right
    assert left == -right


def test_starts_are_normal_around_rest():
    torch.manual_seed(0)
    env = CartPole(20_000)
    obs = env.reset()
    assert obs.shape == (20_000, 5)
    torch.testing.assert_close(env.state.mean(1), torch.zeros(4), rtol=0, atol=5e-4)
    torch.testing.assert_close(env.state.std(1), torch.full((4,), 0.01), rtol=0.03, atol=0)
    env.reset(config={"start_std": 0.5})
    torch.testing.assert_close(env.state.std(1), torch.full((4,), 0.5), rtol=0.03, atol=0)


def test_an_unknown_integrator_is_refused():
    with pytest.raises(ValueError, match=r"env.integrator='eulr' is unknown.*Try env.integrator=euler"):
        CartPole(1, integrator="eulr")


@pytest.mark.parametrize("name", ["cart_mass", "pole_mass", "length", "tau"])
def test_constants_that_are_divided_by_must_be_positive(name):
    with pytest.raises(ValueError, match=rf"env.{name}=0.0 is out of range. Accepted: a number > 0. Try env.{name}=1"):
        CartPole(1, **{name: 0.0})


def test_render_shows_cart_and_pole():
    env = CartPole(3)
    env.reset()
    env.state = torch.tensor([[0.0, 0.0, 50.0], [0.0] * 3, [0.0, math.pi / 2, 0.0], [0.0] * 3])
    upright, fallen, away = (env.render(index) for index in range(3))
    orange = (232, 128, 48)
    assert upright.shape == (400, 600, 3)
    assert upright.dtype == np.uint8
    # the pole reaches a metre, 125 pixels, up or to the right of the hinge at (300, 240)
    assert tuple(upright[130, 300]) == orange != tuple(upright[240, 410])
    assert tuple(fallen[240, 410]) == orange != tuple(fallen[130, 300])
    assert np.array_equal(away[130, 512], upright[130, 300])  # the picture followed the cart
    with pytest.raises(ValueError, match=r"index=3 is out of range. Accepted: an integer in \[0, 2\]"):
        env.render(3)
