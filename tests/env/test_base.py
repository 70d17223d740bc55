from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rl8.env import CartPole, DiscreteDummyEnv, Env, EnvFactory, GenericEnv, Parameter
from rl8.specs import Bounded, Categorical, Composite, Unbounded


class Still(Env):
    """An environment in which nothing happens, with one constant and something derived from it."""

    observation_spec: Any
    action_spec: Any
    speed: torch.Tensor
    double: torch.Tensor

    def __init__(self, num_envs, /, horizon=None, *, speed=1.0, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(2)
        self.action_spec = Categorical(2)
        self.declare(speed=Parameter(speed, low=0.0))

    def derive(self):
        self.assign("double", 2 * self.speed)

    def reset(self, *, config=None):
        self.configure(config)
        self.state = torch.zeros(self.num_envs)
        return torch.zeros(self.num_envs, 2)

    def step(self, action):
        return TensorDict({"obs": torch.zeros(self.num_envs, 2), "rewards": self.state}, [self.num_envs])


class Limited(Still):
    max_horizon = 64
    max_num_envs = 16


def test_counts_and_device_are_kept():
    env = Still(3, 7, device=torch.device("cpu"))
    assert (env.num_envs, env.horizon, env.device) == (3, 7, torch.device("cpu"))
    assert Still(3).horizon is None


@pytest.mark.parametrize(
    ("args", "kind", "message"),
    [
        ((0,), ValueError, r"num_envs=0 is out of range. Accepted: an integer >= 1. Try num_envs=1"),
        ((2.5,), TypeError, r"num_envs=2.5 is not an integer"),
        ((4, 0), ValueError, r"horizon=0 is out of range. Accepted: an integer >= 1 or null"),
    ],
)
def test_wrong_counts_are_refused(args, kind, message):
    with pytest.raises(kind, match=message):
        Still(*args)


def test_class_limits_are_kept():
    assert Limited(16, 64).num_envs == 16
    with pytest.raises(ValueError, match=r"num_envs=17 is out of range. Accepted: an integer in \[1, 16\]"):
        Limited(17)
    with pytest.raises(ValueError, match=r"horizon=65 is out of range. Accepted: an integer in \[1, 64\]"):
        Limited(16, 65)


def test_gymnasium_spaces_are_converted_where_they_are_set():
    env = Still(2)
    env.observation_spec = gym.spaces.Dict({"a": gym.spaces.Box(-1.0, 1.0, (3,)), "b": gym.spaces.Discrete(4)})
    env.action_spec = gym.spaces.Discrete(5)
    assert env.observation_spec == Composite(a=Bounded(-1.0, 1.0, shape=3), b=Categorical(4))
    assert env.action_spec == Categorical(5)


def test_specs_on_the_class_are_converted_too():
    class OnTheClass(Still):
        observation_spec = gym.spaces.Box(-np.inf, np.inf, (2,))
        action_spec = Categorical(2)

        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            Env.__init__(self, num_envs, horizon, device=device)

    env = OnTheClass(2)
    assert env.observation_spec == Unbounded(2)
    assert env.action_spec == Categorical(2)
    env.action_spec = gym.spaces.Discrete(3)
    assert env.action_spec == Categorical(3)
    assert OnTheClass(2).action_spec == Categorical(2)


def test_a_spec_set_before_the_constructor_is_kept():
    class Early(Still):
        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            self.observation_spec = gym.spaces.Box(-np.inf, np.inf, (7,))
            Env.__init__(self, num_envs, horizon, device=device)

    assert Early(1).observation_spec == Unbounded(7)


def test_specs_move_to_the_environments_device():
    env = Still(2, device="meta", speed=1.0)
    assert env.observation_spec.device == torch.device("meta")


def test_what_is_no_spec_is_refused():
    with pytest.raises(TypeError, match=r"Still.action_spec: 5 is no spec. Accepted: Unbounded"):
        Still(1).action_spec = 5


def test_a_missing_spec_says_where_to_set_it():
    class Bare(Still):
        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            Env.__init__(self, num_envs, horizon, device=device)

    with pytest.raises(AttributeError, match=r"Bare has no observation_spec. Set it in Bare.__init__"):
        _ = Bare(1).observation_spec


def test_rendering_is_optional_and_says_how():
    with pytest.raises(NotImplementedError, match=r"Still has no pictures.*Define Still.render\(self, index=0\)"):
        Still(1).render()


def test_constants_are_attributes_and_what_depends_on_them_follows():
    env = Still(3)
    assert (env.speed.shape, env.speed.item(), env.double.item()) == ((), 1.0, 2.0)
    env.reset(config={"speed": 4})
    assert (env.speed.item(), env.double.item()) == (4.0, 8.0)
    env.reset()  # a setting stays until it is changed
    assert env.speed.item() == 4.0
    env.reset(config={"speed": torch.tensor([1.0, 2.0, 3.0])})
    assert env.double.tolist() == [2.0, 4.0, 6.0]
    assert [env.number("speed", index) for index in range(3)] == [1.0, 2.0, 3.0]
    env.reset(config={"speed": 5.0})
    assert env.double.tolist() == 10.0
    assert env.number("speed", 2) == 5.0


def test_values_are_written_in_place_while_their_shape_stays():
    env = Still(3)
    addresses = env.speed.data_ptr(), env.double.data_ptr()
    env.reset(config={"speed": 4.0})
    assert (env.speed.data_ptr(), env.double.data_ptr()) == addresses
    env.reset(config={"speed": {"low": 1.0, "high": 2.0}})
    addresses = env.speed.data_ptr(), env.double.data_ptr()
    drawn = env.speed.clone()
    env.reset(config={"speed": {"low": 1.0, "high": 2.0}})
    assert (env.speed.data_ptr(), env.double.data_ptr()) == addresses
    assert not torch.equal(env.speed, drawn)


def test_draws_may_be_given_to_the_constructor():
    torch.manual_seed(0)
    env = CartPole(1000, gravity={"low": 8, "high": 12})
    assert 8 <= env.gravity.min() < 8.1
    assert 11.9 < env.gravity.max() <= 12
    assert env.gravity.shape == (1000,)


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"Unknown setting of CartPole.reset\(\) 'gravty'. Did you mean 'gravity'\? Accepted: force_mag,",
    ):
        CartPole(1).reset(config={"gravty": 3.7})


def test_a_mistake_in_one_setting_changes_none():
    env = CartPole(2)
    with pytest.raises(ValueError, match=r"env_config.length=-1 is out of range. Accepted: a number > 0"):
        env.reset(config={"gravity": 3.7, "length": -1})
    assert env.gravity.item() == pytest.approx(9.8)


def test_a_typed_class_and_a_function_are_environments_too():
    class Typed(GenericEnv[Unbounded, Categorical], DiscreteDummyEnv):
        pass

    def make(num_envs, /, horizon=None, *, device="cpu"):
        return Typed(2 * num_envs, horizon, device=device)

    factory: EnvFactory = make
    env = factory(4)
    assert env.num_envs == 8
    env.validate()
