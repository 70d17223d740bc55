import itertools
import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rl8.env import ContinuousDummyEnv, Env
from rl8.specs import Binary, Categorical, Composite, Unbounded

N = 5


class Line(Env):
    """A correct environment; the broken ones below change one thing."""

    def __init__(self, num_envs=N, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(1)
        self.action_spec = Unbounded(1)

    def reset(self, *, config=None):
        self.state = torch.rand(self.num_envs, 1)
        return self.state

    def step(self, action):
        self.state = self.state + action
        return self.result()

    def result(self):
        return TensorDict({"obs": self.state, "rewards": -self.state.abs()}, [self.num_envs])


class MaskedTrader(Env):
    """Written the way upstream's examples are: state in a TensorDict, changed in place, masks, an observed subset."""

    def __init__(self, num_envs=N, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Composite(
            action_mask=Categorical(2, shape=torch.Size([3]), device=device, dtype=torch.bool),
            invested=Categorical(2, shape=torch.Size([1]), device=device, dtype=torch.long),
        )
        self.action_spec = Categorical(3, shape=torch.Size([1]), device=device)

    def reset(self, *, config=None):
        mask = torch.tensor([True, True, False]).repeat(self.num_envs, 1)
        self.state = TensorDict(
            {"action_mask": mask, "invested": torch.zeros(self.num_envs, 1, dtype=torch.long), "t": torch.zeros(N, 1)},
            batch_size=self.num_envs,
        )
        return self.state.select("action_mask", "invested")

    def step(self, action):
        buys, sells = action == 1, action == 2
        if bool((buys & (self.state["invested"] == 1)).any() | (sells & (self.state["invested"] == 0)).any()):
            raise AssertionError("an action that the mask forbids")
        self.state["invested"][buys] = 1
        self.state["invested"][sells] = 0
        self.state["action_mask"][:, 1:2] = self.state["invested"] == 0
        self.state["action_mask"][:, 2:3] = self.state["invested"] == 1
        self.state["t"] += 1
        obs = self.state.select("action_mask", "invested")
        return TensorDict({"obs": obs, "rewards": torch.randn(self.num_envs, 1)}, batch_size=self.num_envs)


class Ending(Line):
    def result(self):
        out = super().result()
        ends = self.state.squeeze(-1) > 1
        return out.update({"terminated": ends, "truncated": ~ends, "final_obs": self.state.clone()})


class Spaces(Line):
    def __init__(self, num_envs=N, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = gym.spaces.Box(-np.inf, np.inf, (1,))
        self.action_spec = gym.spaces.Box(-1.0, 1.0, (1,))


@pytest.mark.parametrize("cls", [Line, MaskedTrader, Ending, Spaces])
def test_correct_environments_pass(cls):
    cls(N).validate()


def test_the_environment_is_left_reset_and_the_generators_untouched():
    env = MaskedTrader(N)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    env.validate()
    assert torch.equal(torch.get_rng_state(), before)
    assert not env.state["t"].any()
    assert not env.state["invested"].any()


def test_the_generators_are_restored_after_a_failure_too():
    env = Line(N)
    env.action_spec = Unbounded(2)
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"Line.step\(\) returns observations that break observation_spec"):
        env.validate()
    assert torch.equal(torch.get_rng_state(), before)


# --- the state rule


class Counter(Line):
    ticks = 0

    def step(self, action):
        self.ticks += 1
        return super().step(action)


class CountsOnTheClass(Line):
    ticks = 0

    def step(self, action):
        type(self).ticks += 1
        return super().step(action)


class CountsInside(Line):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stats = {"steps": [0]}

    def step(self, action):
        self.stats["steps"][0] += 1
        return super().step(action)


class Iterates(Line):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.clock = itertools.count()

    def step(self, action):
        next(self.clock)
        return super().step(action)


class KeepsVelocity(Line):
    def reset(self, *, config=None):
        self.velocity = torch.zeros(self.num_envs, 1)
        return super().reset()

    def step(self, action):
        self.velocity += action
        return super().step(self.velocity)


class OwnGenerator(Line):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator = torch.Generator().manual_seed(0)

    def step(self, action):
        return super().step(action + torch.rand(1, generator=self.generator))


class NumpyGenerator(Line):
    def step(self, action):
        return super().step(action + np.random.rand())  # noqa: NPY002 (the fault that is looked for)


class PythonGenerator(Line):
    def step(self, action):
        return super().step(action + random.random())


class HiddenInAClosure(Line):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        steps = itertools.count()
        self.next_step = lambda: next(steps)

    def result(self):
        out = super().result()
        out["rewards"] += self.next_step()
        return out


class HiddenFromTheState(HiddenInAClosure):
    def step(self, action):
        out = Line.result(self)
        self.state = self.state + self.next_step()
        return out


class EndsEveryOtherStep(HiddenInAClosure):
    def result(self):
        out = Line.result(self)
        return out.update({"terminated": self.state[:, 0] > 1}) if self.next_step() % 2 else out


class ChangesItsRewards(HiddenInAClosure):
    def result(self):
        out = Line.result(self)
        return out.update({"rewards": out["rewards"].squeeze(-1)}) if self.next_step() % 2 else out


class ViewsItsState(Line):
    def reset(self, *, config=None):
        obs = super().reset()
        self.position = self.state[:, 0]
        return obs

    def step(self, action):
        self.state += action
        return self.result()


class GrowingState(Line):
    def reset(self, *, config=None):
        self.state = TensorDict({"x": torch.rand(self.num_envs, 1)}, [self.num_envs])
        return self.state["x"]

    def step(self, action):
        self.state["x"] = self.state["x"] + action
        self.state["steps"] = torch.ones(self.num_envs)
        return TensorDict({"obs": self.state["x"], "rewards": self.state["x"]}, [self.num_envs])


class WidensItsState(Line):
    def step(self, action):
        self.state = self.state.double() + action
        return TensorDict({"obs": self.state.float(), "rewards": self.state.float()}, [self.num_envs])


RULE = r"which is not in self.state. Everything that changes from step to step belongs in self.state"
STATE_RULE = {
    Counter: rf"Counter.step\(\) changes self.ticks \(which is new\), {RULE}",
    CountsOnTheClass: rf"step\(\) changes CountsOnTheClass.ticks \(0 became 1\), {RULE}",
    CountsInside: rf"CountsInside.step\(\) changes self.stats\['steps'\]\[0\] \(0 became 1\), {RULE}",
    Iterates: rf"Iterates.step\(\) changes self.clock \('count\(0\)' became 'count\(1\)'\), {RULE}",
    KeepsVelocity: rf"KeepsVelocity.step\(\) changes self.velocity, {RULE}",
    OwnGenerator: rf"OwnGenerator.step\(\) changes self.generator, {RULE}",
    NumpyGenerator: r"NumpyGenerator.step\(\) draws from the global generator of NumPy, .* Use torch.rand",
    PythonGenerator: r"PythonGenerator.step\(\) draws from the global generator of Python's random, .* Use torch.rand",
    HiddenInAClosure: r"step\(\) gives another result\['rewards'\] when repeated from the same state.*Keep what",
    HiddenFromTheState: r"HiddenFromTheState.step\(\) gives another state when repeated from the same state",
    EndsEveryOtherStep: r"step\(\) gives another result\['terminated'\] when repeated",
    ChangesItsRewards: r"step\(\) gives another result\['rewards'\] when repeated",
    ViewsItsState: rf"ViewsItsState.step\(\) changes self.position, {RULE}",
    GrowingState: r"step\(\) turns state\['steps'\] from nothing into .*the same entries, shapes and dtypes in reset",
    WidensItsState: r"step\(\) turns state from .*float32\) into .*float64\)",
}


@pytest.mark.parametrize("cls", STATE_RULE, ids=lambda cls: cls.__name__)
def test_what_changes_outside_the_state_is_named(cls):
    with pytest.raises(ValueError, match=STATE_RULE[cls]):
        cls(N).validate()


# --- attributes, observations, state


def broken(**methods):
    """Return a `Line` with some methods replaced, called Broken."""
    return type("Broken", (Line,), methods)


def constructor(**attributes):
    def init(self, num_envs=N, /, horizon=None, *, device="cpu"):
        Env.__init__(self, num_envs, horizon, device=device)
        for name, value in attributes.items():
            setattr(self, name, value)

    return init


def resets_to(make, state=None):
    def reset(self, *, config=None):
        self.state = torch.rand(self.num_envs, 1) if state is None else state(self)
        return make(self)

    return reset


PARTS = {
    "no super().__init__": (
        {"__init__": lambda self, n=N: None},
        r"Broken.num_envs is not set. Call super\(\).__init__",
    ),
    "no observation_spec": (
        {"__init__": constructor(action_spec=Unbounded(1))},
        r"Broken has no observation_spec. Set it in Broken.__init__",
    ),
    "no action_spec": (
        {"__init__": constructor(observation_spec=Unbounded(1))},
        r"Broken has no action_spec. Set it in Broken.__init__",
    ),
    "gymnasium's names": (
        {"__init__": constructor(observation_space=gym.spaces.Box(-1, 1, (1,)), action_spec=Unbounded(1))},
        r"Broken.observation_space is set, observation_spec is not. Call it observation_spec; a Gymnasium space",
    ),
    "a property that is no spec": (
        {"action_spec": property(lambda self: 3, lambda self, value: None)},
        r"Broken.action_spec is a int, expected a spec. Set self.action_spec",
    ),
    "no tensor": (
        {"reset": resets_to(lambda self: [0.0])},
        r"reset\(\) returns observations that break observation_spec: obs is a list.*or change self.observation_spec",
    ),
    "shape": (
        {"reset": resets_to(lambda self: torch.rand(N, 2))},
        r"Broken.reset\(\) returns observations that break observation_spec: obs has shape \(5, 2\), expected \(n, 1\)",
    ),
    "dtype": (
        {"reset": resets_to(lambda self: torch.rand(N, 1).double())},
        r"obs has dtype torch.float64, expected torch.float32",
    ),
    "device": (
        {"reset": resets_to(lambda self: torch.empty(N, 1, device="meta"))},
        r"obs is on meta, expected cpu",
    ),
    "not finite": (
        {"reset": resets_to(lambda self: torch.full((N, 1), torch.nan))},
        r"obs has values that are infinite or NaN. Look for a division by 0",
    ),
    "a dict for observations": (
        {
            "observation_spec": Composite(x=Unbounded(1)),
            "__init__": constructor(action_spec=Unbounded(1)),
            "reset": resets_to(lambda self: {"x": torch.rand(N, 1)}),
        },
        r"returns observations that are a dict, expected a TensorDict. Return TensorDict\(obs, batch_size=\[self.num",
    ),
    "too many": (
        {"reset": resets_to(lambda self: torch.rand(N + 1, 1))},
        r"reset\(\) returns observations of 6 environments, expected num_envs=5. Return one observation for every",
    ),
    "no state": (
        {"reset": lambda self, config=None: torch.rand(N, 1)},
        r"Broken.state is a NoneType after reset\(\). Set self.state in reset\(\) to a Tensor or TensorDict",
    ),
    "a dict for a state": (
        {"reset": resets_to(lambda self: torch.rand(N, 1), lambda self: {"x": torch.rand(N)})},
        r"Broken.state is a dict after reset\(\)",
    ),
    "no tensors in the state": (
        {"reset": resets_to(lambda self: torch.rand(N, 1), lambda self: TensorDict({"name": "x"}, []))},
        r"Broken.state\['name'\] is a NonTensorData after reset\(\). Keep only tensors in self.state",
    ),
    "state on another device": (
        {
            "reset": resets_to(
                lambda self: torch.rand(N, 1), lambda self: TensorDict({"x": torch.rand(N, device="meta")}, [N])
            )
        },
        r"Broken.state\['x'\] is on meta after reset\(\), expected cpu. Create it with device=self.device",
    ),
    "another second reset": (
        {"reset": lambda self, config=None: torch.zeros(N, 3) if hasattr(self, "state") else Line.reset(self)},
        r"reset\(\), called again, returns observations that break observation_spec",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_wrong_parts_are_named(name):
    methods, message = PARTS[name]
    with pytest.raises(ValueError, match=message):
        broken(**methods)().validate()


# --- what a step returns


def returning(**changes):
    """Return a step whose result has entries replaced, or removed where the value is None."""

    def result(self):
        out = Line.result(self)
        for key, value in changes.items():
            if value is None:
                del out[key]
            else:
                out[key] = value(self.state)
        return out

    return {"result": result}


COLUMN = r"of shape \(5, 2\) and torch.float32 on cpu, expected"
RESULTS = {
    "no TensorDict": (
        {"step": lambda self, action: (self.state, self.state)},
        r"Broken.step\(\) returns a tuple, expected a TensorDict. Return TensorDict\(",
    ),
    "no obs": (returning(obs=None), r"Broken.step\(\) returns no 'obs', only rewards. Add 'obs'"),
    "no rewards": (returning(rewards=None), r"Broken.step\(\) returns no 'rewards', only obs. Add 'rewards'"),
    "nothing": (
        {"result": lambda self: TensorDict({}, [N])},
        r"returns no 'obs', only an empty TensorDict. Add 'obs'",
    ),
    "reward": (
        {"result": lambda self: Line.result(self).rename_key_("rewards", "reward")},
        r"returns no 'rewards', only obs, reward. Rename 'reward' to 'rewards'",
    ),
    "observation": (
        {"result": lambda self: Line.result(self).rename_key_("obs", "observation")},
        r"returns no 'obs'.*Rename 'observation' to 'obs'",
    ),
    "done": (returning(done=lambda x: x[:, 0] > 0), r"returns 'done', which means nothing. Did you mean 'terminated'"),
    "truncation": (
        returning(truncation=lambda x: x[:, 0] > 0),
        r"returns 'truncation', which means nothing. Did you mean 'truncated'\? Rename it",
    ),
    "info": (returning(info=lambda x: x[:, 0]), r"returns 'info', which means nothing. Did you mean 'metrics'"),
    "unknown": (
        returning(speed=lambda x: x[:, 0]),
        r"returns 'speed', which means nothing. Numbers to be recorded belong in 'metrics'.*Leave out everything else",
    ),
    "metrics": (returning(metrics=lambda x: x[:, 0]), r"returns 'metrics' that are a Tensor, expected a dictionary"),
    "metric shape": (
        returning(metrics=lambda x: TensorDict({"speed": x.expand(N, 2)}, [N])),
        r"returns a metric 'speed' of shape \(5, 2\), expected \(5,\). Return one number per environment",
    ),
    "metric name": (
        returning(metrics=lambda x: TensorDict({"steps": x}, [N])),
        r"returns a metric 'steps', and rl8 records env/steps itself. Give it another name",
    ),
    "final_obs not finite": (
        returning(final_obs=lambda x: x / 0),
        r"returns final_obs that break observation_spec: obs has values that are infinite or NaN. Look for a division",
    ),
    "batch size": (
        {"result": lambda self: TensorDict(dict(Line.result(self)), [])},
        r"returns a TensorDict of batch size \(\), expected \(5,\). Give it batch_size=\[self.num_envs\]",
    ),
    "obs dtype": (returning(obs=lambda x: x.long()), r"step\(\) returns observations .*: obs has dtype"),
    "rewards shape": (
        returning(rewards=lambda x: x.expand(N, 2)),
        rf"returns 'rewards' {COLUMN} \(5,\) or \(5, 1\) floating point. Return one number per environment",
    ),
    "rewards dtype": (returning(rewards=lambda x: x.long()), r"'rewards' of shape \(5, 1\) and torch.int64"),
    "rewards not finite": (
        returning(rewards=lambda x: x / 0),
        r"returns rewards that are infinite or NaN. Look for a division by 0",
    ),
    "terminated shape": (
        returning(terminated=lambda x: x > 0),
        r"'terminated' of shape \(5, 1\) and torch.bool on cpu, expected \(5,\) torch.bool. Return a comparison",
    ),
    "terminated dtype": (
        returning(terminated=lambda x: x[:, 0]),
        r"'terminated' of shape \(5,\) and torch.float32 on cpu, expected \(5,\) torch.bool",
    ),
    "truncated alone": (
        returning(truncated=lambda x: x[:, 0] > 0),
        r"returns 'truncated' without 'final_obs'. Add the observations before the reset",
    ),
    "final_obs": (
        returning(final_obs=lambda x: x.expand(N, 2)),
        r"returns final_obs that break observation_spec: obs has shape \(5, 2\)",
    ),
    "state of another kind": (
        {"step": lambda self, action: (Line.step(self, action), setattr(self, "state", None))[0]},
        r"Broken.state is a NoneType after step\(\)",
    ),
    "action": (
        {"step": lambda self, action: Line.step(self, action.clamp_(-1e-3, 1e-3))},
        r"Broken.step\(\) writes into the action that it is given. Work on a copy: action.clone\(\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_wrong_results_are_named(name):
    methods, message = RESULTS[name]
    with pytest.raises(ValueError, match=message):
        broken(**methods)().validate()


def test_a_result_on_another_device_is_named():
    class Elsewhere(Line):
        def result(self):
            out = super().result()
            return TensorDict({"obs": out["obs"], "terminated": torch.zeros(N, dtype=torch.bool, device="meta"),
                               "rewards": out["rewards"]}, [N])  # fmt: skip

    with pytest.raises(ValueError, match=r"'terminated' of shape .* on meta, expected cpu. Create it with device="):
        Elsewhere().validate()


# --- signatures


class Seeded(Line):
    def reset(self, *, seed=None, options=None):
        return super().reset()


class Deviceless(Line):
    def __init__(self, num_envs=N, horizon=None):
        super().__init__(num_envs, horizon)


class Inert(Line):
    def step(self):
        return super().step(torch.zeros(self.num_envs, 1))


SIGNATURES = {
    Seeded: r"Seeded.reset\(self, \*, seed=None, options=None\) does not take what rl8 gives it. "
    r"Write def reset\(self, \*, config=None\): ...",
    Deviceless: r"Deviceless.__init__\(self, num_envs=5, horizon=None\) does not take what rl8 gives it. "
    r'Write def __init__\(self, num_envs, /, horizon=None, \*, device="cpu", ...\), and pass them on',
    Inert: r"Inert.step\(self\) does not take what rl8 gives it. Write def step\(self, action\)",
}


@pytest.mark.parametrize("cls", SIGNATURES, ids=lambda cls: cls.__name__)
def test_wrong_signatures_are_answered_by_the_right_ones(cls):
    with pytest.raises(ValueError, match=SIGNATURES[cls]):
        cls().validate()


def test_a_class_that_only_a_function_can_make_is_valid():
    class Named(Line):
        def __init__(self, name):
            super().__init__(N)

    Named("fell").validate()


def test_keywords_for_all_are_enough():
    broken(reset=lambda self, **settings: Line.reset(self))().validate()


# --- the ends of episodes


class Falls(Line):
    """Falls from 3 to 0 in steps of up to 1; `ends` and `follows` are what subclasses differ in."""

    def reset(self, *, config=None):
        self.state = 3 + torch.rand(self.num_envs, 1)
        return self.state

    def step(self, action):
        fallen = self.state - torch.rand_like(self.state)
        down = self.ends(fallen)
        self.state = self.follows(down, fallen)
        return TensorDict({"obs": self.state, "rewards": self.state, "terminated": down.squeeze(-1)}, [self.num_envs])

    def ends(self, fallen):
        return fallen < 0

    def follows(self, down, fallen):
        return torch.where(down, 3 + torch.rand_like(fallen), fallen)


class StaysDown(Falls):
    def follows(self, down, fallen):
        return fallen


class LiesStill(Falls):
    def follows(self, down, fallen):
        return torch.where(fallen < 0, torch.minimum(fallen, self.state), fallen).clamp(min=-1e-3)

    def ends(self, fallen):
        return (fallen < 0) & (self.state > 0)


class OneStepLong(Falls):
    def ends(self, fallen):
        return torch.ones_like(fallen, dtype=torch.bool)


class Coin(Falls):
    def ends(self, fallen):
        return torch.rand_like(fallen) < 0.5


class SeesNothing(Falls):
    def reset(self, *, config=None):
        return torch.zeros_like(super().reset())

    def step(self, action):
        out = super().step(action)
        return out.set("obs", torch.zeros_like(out["obs"]))


@pytest.mark.parametrize("cls", [Falls, OneStepLong, Coin, SeesNothing])
def test_episodes_that_begin_anew_pass(cls):
    env = cls(16)
    assert not env.has_ends
    env.validate()
    assert env.has_ends


@pytest.mark.parametrize(
    ("cls", "fault"),
    [(StaysDown, "what has ended ends again at every following step"), (LiesStill, "what has ended stands still")],
)
def test_episodes_that_never_begin_anew_are_refused(cls, fault):
    with pytest.raises(ValueError, match=rf"step\(\) never begins anew: {fault}. .*torch.where\(ended, .*EpisodicEnv"):
        cls(16).validate()


def test_ends_are_known_from_the_class_too():
    class Rarely(Line):
        has_ends = True

    env = Rarely()
    env.validate()
    assert env.has_ends
    endless = Line()
    endless.validate()
    assert not endless.has_ends


# --- action masks


def with_mask(shape, spec, mask):
    class Masked(MaskedTrader):
        def __init__(self, num_envs=N, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, device=device)
            self.action_spec = spec
            self.observation_spec = Composite(action_mask=Binary(shape=shape, dtype=torch.bool))

        def reset(self, *, config=None):
            self.state = torch.zeros(self.num_envs)
            return TensorDict({"action_mask": mask}, [self.num_envs])

        def step(self, action):
            assert action.shape == (self.num_envs, *self.action_spec.shape)
            allowed = mask if mask.ndim == action.ndim + 1 else mask.unsqueeze(1)
            if not bool(allowed.expand(*action.shape, 3).gather(-1, action.unsqueeze(-1)).all()):
                raise AssertionError("an action that the mask forbids")
            obs = TensorDict({"action_mask": mask}, [self.num_envs])
            return TensorDict({"obs": obs, "rewards": torch.zeros(self.num_envs)}, [self.num_envs])

    return Masked


@pytest.mark.parametrize(("shape", "action_shape"), [((3,), ()), ((3,), (1,)), ((2, 3), (2,)), ((1, 3), (1,))])
def test_only_allowed_actions_are_tried(shape, action_shape):
    mask = torch.rand(64, *shape) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    with_mask(shape, Categorical(3, shape=action_shape), mask)(64).validate()


def test_a_mask_that_allows_nothing_is_named():
    mask = torch.ones(N, 3, dtype=torch.bool)
    mask[2] = False
    with pytest.raises(ValueError, match=r"observes an action_mask that allows nothing. Leave at least one action"):
        with_mask((3,), Categorical(3), mask)(N).validate()


def test_a_mask_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"observes an action_mask of shape \(5, 4\), expected \(5, 3\)"):
        with_mask((4,), Categorical(3), torch.ones(N, 4, dtype=torch.bool))(N).validate()


def test_composite_actions_are_tried():
    class Two(Line):
        def __init__(self, num_envs=N, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, device=device)
            self.action_spec = Composite(move=Unbounded(1), jump=Categorical(2))

        def step(self, action):
            return super().step(action["move"] + action["jump"].unsqueeze(-1))

    Two().validate()


def test_a_writer_into_composite_actions_is_named():
    class Writer(Line):
        def __init__(self, num_envs=N, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, device=device)
            self.action_spec = Composite(move=Unbounded(1))

        def step(self, action):
            return super().step(action["move"].mul_(2))

    with pytest.raises(ValueError, match=r"Writer.step\(\) writes into the action"):
        Writer().validate()


def test_one_environment_can_be_validated():
    ContinuousDummyEnv(1).validate()
