import functools

import pytest
import torch
from tensordict import TensorDict

from rl8 import Trainer
from rl8.env import CartPole, Env
from rl8.env.making import make_env

CPU = torch.device("cpu")


class NoDevice(CartPole):
    def __init__(self, num_envs, horizon=None):
        super().__init__(num_envs, horizon)


def test_classes_and_functions_make_environments():
    assert make_env(CartPole, 4, 8, CPU).horizon == 8
    assert make_env(functools.partial(CartPole, gravity=1.0), 4, 8, CPU).gravity == 1.0
    assert make_env(lambda n, horizon, device: NoDevice(n), 4, 8, CPU).num_envs == 4


class Grasping(CartPole):
    def __init__(self, num_envs, horizon=None, *, device="cpu", limits):
        super().__init__(num_envs, horizon, device=device)
        self.low = limits["low"].pop()


def test_environments_share_no_settings():
    limits = {"low": [1, 2]}
    grasping = functools.partial(Grasping, limits=limits)
    assert [make_env(grasping, 4, 8, CPU).low for _ in range(2)] == [2, 2]
    assert limits == {"low": [1, 2]}


class Forced(CartPole):
    """Takes a number that it never declares, and may need it at once."""

    def __init__(self, num_envs, horizon=None, *, device="cpu", force=2.0, square=False):
        super().__init__(num_envs, horizon, device=device)
        self.force = force**2 if square else force


class Renamed(CartPole):
    def __init__(self, num_envs, horizon=None, *, device="cpu", pull=9.8):
        super().__init__(num_envs, horizon, device=device, gravity=pull)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("force", [[1.0, 2.0], {"low": 1, "high": 2}])
def test_only_declared_constants_differ_between_environments(force, square):
    given = functools.partial(Forced, force=force, square=square)
    with pytest.raises(
        TypeError, match=r"^env\.force=.* Forced does not declare force.* Accepted: one number\. Or dec"
    ):
        make_env(given, 2, 8, CPU)


def test_declared_constants_may_have_another_name_in_the_constructor():
    assert make_env(functools.partial(Renamed, pull=[1.0, 2.0]), 2, 8, CPU).gravity.tolist() == [1, 2]
    assert make_env(functools.partial(Forced, force=3), 2, 8, CPU).force == 3


def loss(*terms):
    return sum(terms)


WRONG = {
    "function": (loss, r"^loss can't be called with .* Write def loss\(num_envs, /, horizon=None, \*, device=\"cpu\""),
    "made": (CartPole(8), r"CartPole\(8\) was given: environments that exist already.*Trainer\(CartPole, num_envs=8\)"),
    "text": (
        "cart_pole",
        r"'cart_pole' was given as a text. Pass the class: from rl8.env import CartPole; Trainer\(CartPole\)",
    ),
    "nothing": (None, r"None was given for the environment. Accepted: a subclass of rl8.Env, e.g. Trainer\(CartPole\)"),
    "mapping": ({"env": "cartpole"}, r"options are given by name. Try Trainer\(CartPole, gamma=0.99\). What YAML"),
    "class": (dict, r"dict was given for the environment. Accepted: a subclass of rl8.Env, e.g. Trainer\(CartPole\)"),
    "constructor": (
        NoDevice,
        r"NoDevice can't be called with \(num_envs, horizon, device=...\). "
        r'Write def __init__\(self, num_envs, /, horizon=None, \*, device="cpu", ...\)',
    ),
    "other": (
        lambda n, horizon, device: TensorDict({}, []),
        r"made a TensorDict, which is no rl8.env.Env. Derive it from Env",
    ),
    "abstract": (Env, r"abstract"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_class_of_environments_is_answered_by_what_to_pass(name):
    given, message = WRONG[name]
    with pytest.raises(TypeError, match=message):
        Trainer(given, num_envs=4, horizon=4)
