import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv

from rl8.env import MountainCar

N = 1500


def random_states(n: int) -> torch.Tensor:
    position = -1.2 + 1.8 * torch.rand(n)
    position[: n // 10] = -1.2  # at the wall
    position[n // 10 : n // 5] = 0.6  # at the end of the track
    return torch.stack((position, 0.14 * torch.rand(n) - 0.07))


def gymnasium_steps(env: MountainCar, states: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Gymnasium's next states [2, N] and whether it counts them as arrived."""
    peer = MountainCarEnv()
    after, arrived = [], []
    for i, (state, action) in enumerate(zip(states.t().double().numpy(), actions.tolist(), strict=True)):
        for ours, theirs in {"force_mag": "force"}.items():
            setattr(peer, theirs, env.number(ours, i))
        for name in ("gravity", "goal_position", "goal_velocity", "min_position", "max_position", "max_speed"):
            setattr(peer, name, env.number(name, i))
        peer.state = tuple(state)
        arrived.append(peer.step(action)[2])
        after.append(np.asarray(peer.state))
    return torch.tensor(np.stack(after, -1), dtype=torch.float32), torch.tensor(arrived)


def test_steps_are_gymnasiums():
    torch.manual_seed(0)
    env = MountainCar(N)
    env.reset()
    env.state = states = random_states(N)
    actions = env.action_spec.rand(N)
    result = env.step(actions)
    expected, arrived = gymnasium_steps(env, states, actions)
    torch.testing.assert_close(env.state, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(result["rewards"] == 1.0, arrived)
    assert 0 < int(arrived.sum()) < N
    torch.testing.assert_close(result["obs"], env.state.t(), rtol=0, atol=0)


def test_a_long_run_follows_gymnasiums():
    torch.manual_seed(1)
    env, peer = MountainCar(1), MountainCarEnv()
    env.reset()
    peer.reset(seed=0)
    for _ in range(1000):
        env.state = torch.tensor(np.asarray(peer.state), dtype=torch.float32).unsqueeze(-1)
        action = int(torch.randint(3, ()))
        result = env.step(torch.tensor([action]))
        expected = torch.from_numpy(peer.step(action)[0]).unsqueeze(0)
        torch.testing.assert_close(result["obs"], expected, rtol=1e-5, atol=1e-6)


def test_every_environment_has_its_own_constants():
    torch.manual_seed(2)
    env = MountainCar(N)
    env.reset(
        config={
            "force_mag": {"low": 0.0005, "high": 0.002},
            "gravity": {"low": 0.001, "high": 0.004},
            "goal_position": {"low": 0.3, "high": 0.5},
            "goal_velocity": {"low": -0.02, "high": 0.02},
            "min_position": {"low": -1.2, "high": -1.0},
            "max_position": {"low": 0.5, "high": 0.6},
            "max_speed": {"low": 0.03, "high": 0.07},
        }
    )
    env.state = states = random_states(N)
    actions = env.action_spec.rand(N)
    result = env.step(actions)
    expected, arrived = gymnasium_steps(env, states, actions)
    torch.testing.assert_close(env.state, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(result["rewards"] == 1.0, arrived)


def test_rewards_by_hand():
    env = MountainCar(3, gravity=0.0, force_mag=0.0)
    env.reset()
    env.state = torch.tensor([[-0.5, 0.45, 0.55], [0.0, 0.05, -0.01]])
    # a metre away; arriving exactly moving right; beyond the goal but moving back, at 0.54
    torch.testing.assert_close(env.step(torch.tensor([1, 1, 1]))["rewards"], torch.tensor([-1.0, 1.0, -0.04]))


def test_a_car_pushed_to_the_right_stays_at_the_goal():
    env = MountainCar(1)
    env.reset()
    env.state = torch.tensor([[0.55], [0.01]])
    rewards = [env.step(torch.tensor([2]))["rewards"].item() for _ in range(100)]
    assert rewards == [1.0] * 100


def test_starts_are_at_rest_in_the_valley():
    torch.manual_seed(0)
    env = MountainCar(5000)
    position, velocity = env.reset().unbind(-1)
    assert -0.6 <= position.min() < -0.59
    assert -0.41 < position.max() <= -0.4
    assert not velocity.any()


def test_render_shows_the_car_and_the_flag():
    env = MountainCar(2)
    env.reset()
    env.state = torch.tensor([[-0.5236, 0.55], [0.0, 0.01]])
    below, arrived = env.render(0), env.render(1)
    assert below.shape == (400, 600, 3)
    assert below.dtype == np.uint8
    blue, red, green = (58, 110, 190), (206, 70, 70), (60, 158, 104)
    # the valley's lowest point is 240 pixels from the left; the flag hangs to the right of the goal
    assert tuple(below[343, 230]) == blue
    assert tuple(below[88, 565]) == red
    assert tuple(arrived[88, 565]) == green
    with pytest.raises(ValueError, match=r"index=-1 is out of range"):
        env.render(-1)


OFF = {
    "walls the wrong way round": (
        {"min_position": 1.0, "max_position": 0.0},
        r"env.min_position=1 is not below env.max_position=0. Accepted: min_position < max_position. "
        r"Try env.min_position=-1.2 env.max_position=0.6",
    ),
    "no track": ({"min_position": 0.5, "max_position": 0.5}, r"env.min_position=0.5 is not below env.max_position=0.5"),
    "a start off the track": (
        {"start_low": 64},
        r"env.start_low=64 is above env.start_high=-0.4. .*env.start_low=-0.6 ",
    ),
    "a start left of it": ({"start_low": -2.0}, r"env.min_position=-1.2 is above env.start_low=-2"),
    "a start right of it": ({"start_high": 0.7}, r"env.start_high=0.7 is above env.max_position=0.6"),
    "one of several": (
        {"start_high": [-0.4, 0.9, 0.0]},
        r"env.start_high=0.9 is above env.max_position=0.6. Accepted: min_position <= start_low <= start_high <= ",
    ),
}


@pytest.mark.parametrize("name", OFF)
def test_constants_that_contradict_each_other_are_refused(name):
    constants, message = OFF[name]
    with pytest.raises(ValueError, match=message):
        MountainCar(3, **constants)


def test_a_contradiction_at_a_reset_changes_nothing():
    env = MountainCar(2)
    with pytest.raises(
        ValueError, match=r"env_config.start_low=0 is above env_config.start_high=-0.4. .*Try env_config.min"
    ):
        env.reset(config={"start_low": 0.0})
    assert env.start_low.item() == pytest.approx(-0.6)
    env.reset(config={"start_low": 0.0, "start_high": 0.1})
