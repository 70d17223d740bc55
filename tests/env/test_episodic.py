import pytest
import torch
from accelerator import DEVICE
from tensordict import TensorDict

from rl8 import Algorithm
from rl8.env import EpisodicEnv, Lander
from rl8.specs import Categorical, Composite, Unbounded


class Stairs(EpisodicEnv):
    """Climbs by the action from 0, which is the reward too; falls at 4."""

    def __init__(self, num_envs, /, horizon=None, *, max_episode_steps=None, device="cpu"):
        super().__init__(num_envs, horizon, max_episode_steps=max_episode_steps, device=device)
        self.observation_spec = Unbounded(1)
        self.action_spec = Categorical(5)

    def begin(self):
        return torch.zeros(self.num_envs)

    def advance(self, state, action):
        state = state + action
        return state, state.clone(), state >= 4

    def observe(self, state):
        return state.unsqueeze(-1)


def stepped(env, *actions):
    results = [env.step(torch.tensor(action)) for action in actions]
    return {key: torch.stack([result[key] for result in results]).squeeze(-1).tolist() for key in results[0].keys()}  # noqa: SIM118


def test_crashes_and_time_limits_by_hand():
    env = Stairs(3, max_episode_steps=3)
    env.reset()
    # 0 climbs 1 a step and meets its limit in step 3; 1 falls at 4 in step 2; 2 falls in step 3, which is its limit.
    results = stepped(env, [1, 2, 1], [1, 2, 1], [1, 1, 2], [1, 1, 1])
    assert results["obs"] == [[1, 2, 1], [2, 0, 2], [0, 1, 0], [1, 2, 1]]
    assert results["final_obs"] == [[1, 2, 1], [2, 4, 2], [3, 1, 4], [1, 2, 1]]
    assert results["rewards"] == results["final_obs"]
    assert results["terminated"] == [[False] * 3, [False, True, False], [False, False, True], [False] * 3]
    assert results["truncated"] == [[False] * 3, [False] * 3, [True, False, False], [False] * 3]


def test_without_a_time_limit_nothing_is_truncated():
    env = Stairs(2)
    env.reset()
    results = stepped(env, *[[0, 2]] * 5)
    assert set(results) == {"obs", "rewards", "terminated"}
    assert results["obs"] == [[0, 2], [0, 0], [0, 2], [0, 0], [0, 2]]


def test_a_reset_begins_every_episode_anew():
    env = Stairs(2, max_episode_steps=2)
    env.reset()
    stepped(env, [1, 1])
    assert env.current.tolist() == [1, 1]
    assert env.reset().tolist() == [[0], [0]]
    assert stepped(env, [1, 1], [1, 1])["truncated"] == [[False, False], [True, True]]


class Nested(Stairs):
    """The same with a nested state, dictionaries of observations, and metrics."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.observation_spec = Composite(height=Unbounded(()), wind=Unbounded(2))

    def begin(self):
        height = super().begin()
        wind = torch.randn(self.num_envs, 2)
        return TensorDict({"height": height, "air": TensorDict({"wind": wind}, [self.num_envs])}, [self.num_envs])

    def advance(self, state, action):
        height, rewards, fallen = super().advance(state["height"], action)
        return state.clone().set("height", height), rewards, fallen, {"height": height}

    def observe(self, state):
        return TensorDict({"height": state["height"], "wind": state["air", "wind"]}, [self.num_envs])


def test_states_may_be_nested_and_draws_are_taken_where_episodes_ended_only():
    env = Nested(3)
    wind = env.reset()["wind"].clone()
    result = env.step(torch.tensor([4, 1, 4]))
    assert result["metrics", "height"].tolist() == [4, 1, 4]
    assert result["obs", "height"].tolist() == [0, 1, 0]
    assert torch.equal(result["obs", "wind"][1], wind[1])
    assert not torch.isclose(result["obs", "wind"][[0, 2]], wind[[0, 2]]).any()


@pytest.mark.parametrize("cls", [Stairs, Nested, Lander])
@pytest.mark.parametrize("limit", [None, 1, 7])
def test_the_contract_is_kept(cls, limit):
    env = cls(5, max_episode_steps=limit)
    env.validate()
    assert env.has_ends
    algorithm = Algorithm(cls, num_envs=4, horizon=8, model_config={"hiddens": [8]})
    algorithm.collect()
    algorithm.step()
    assert algorithm.hparams.horizons_per_env_reset == -1


def test_a_step_reads_nothing_on_the_host(device):
    env = Lander(4, device=DEVICE, max_episode_steps=2)
    env.reset()
    action = env.action_spec.rand(4)
    device.waits.clear()
    for _ in range(3):
        env.step(action)
    assert device.waits == []


def hooks(**methods):
    return type("Broken", (Stairs,), methods)(3)


WRONG = {
    "state": (
        {"begin": lambda self: torch.zeros(2)},
        r"begin\(\) returns a state that is of shape \(2,\), expected \(3, ",
    ),
    "no tensor": (
        {"begin": lambda self: 0.0},
        r"begin\(\) returns a state that is a float, expected \(3, ...\). Return states of all environments",
    ),
    "entry": (
        {"begin": lambda self: TensorDict({"x": torch.zeros(())}, [])},
        r"begin\(\) returns a state\['x'\] that is of shape \(\), expected \(3, ...\)",
    ),
    "one result": (
        {"advance": lambda self, state, action: state},
        r"advance\(\) returns a Tensor, expected a tuple of th",
    ),
    "another state": (
        {"advance": lambda self, state, action: (state.double(), state, state > 4)},
        r"advance\(\) turns state from .*float32\) into .*float64\). Return the same entries",
    ),
    "rewards": (
        {"advance": lambda self, state, action: (state, state.sum(), state > 4)},
        r"advance\(\) returns 'rewards' of shape \(\) and torch.float32 on cpu, expected \(3,\) or \(3, 1\) floating",
    ),
    "terminated": (
        {"advance": lambda self, state, action: (state, state, (state > 4).unsqueeze(-1))},
        r"advance\(\) returns 'terminated' of shape \(3, 1\) and torch.bool on cpu, expected \(3,\) torch.bool. Ret",
    ),
    "two results": (
        {"advance": lambda self, state, action: (state, state)},
        r"advance\(\) returns a tuple of 2, expected a tuple of three or four. Return state, rewards, terminated",
    ),
    "number for rewards": (
        {"advance": lambda self, state, action: (state, 1.0, state > 4)},
        r"advance\(\) returns 'rewards' that are a float, expected a tensor \(3,\)",
    ),
    "terminated as numbers": (
        {"advance": lambda self, state, action: (state, state, (state > 4).float())},
        r"advance\(\) returns 'terminated' of shape \(3,\) and torch.float32 on cpu, expected \(3,\) torch.bool",
    ),
    "number for a metric": (
        {"advance": lambda self, state, action: (state, state, state > 4, {"m": 1.0})},
        r"advance\(\) returns a metric 'm' that is a float, expected a tensor \(3,\). .* torch.full\(\(self.num_envs",
    ),
    "metric": (
        {"advance": lambda self, state, action: (state, state, state > 4, {"m": state.expand(2, 3)})},
        r"advance\(\) returns a metric 'm' of shape \(2, 3\), expected \(3,\)",
    ),
    "no metrics": (
        {"advance": lambda self, state, action: (state, state, state > 4, None)},
        r"advance\(\) returns 'metrics' that are a NoneType, expected a dictionary",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_hooks_that_return_something_else_are_named(name):
    methods, message = WRONG[name]
    with pytest.raises(ValueError, match=rf"Broken.{message}"):
        hooks(**methods).validate()


@pytest.mark.parametrize("limit", [0, -3, 10**23])
def test_time_limits_are_what_an_integer_holds(limit):
    with pytest.raises(
        ValueError, match=r"env.max_episode_steps=-?\d+ is out of range. Accepted: an integer in \[1, .*null"
    ):
        Stairs(2, max_episode_steps=limit)
