"""Checks that an environment keeps its contract, each with the mend in its message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from rl8.checks import closest
from rl8.data import ACTION_MASK, FINAL_OBS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.env.snapshot import change, class_snapshot, snapshot
from rl8.rng import forked
from rl8.specs import Categorical, Composite, Nested, Spec

Environment = Any  # an `Env`; its file imports this one

# Steps that are taken; more than one, because some faults only show after the first.
STEPS = 4
RESULTS = (OBS, REWARDS, TERMINATED, TRUNCATED, FINAL_OBS)
# Other libraries' names; passing over an episode's end in silence would train on another task.
MISTAKEN = {"done": TERMINATED, "dones": TERMINATED, "observation": OBS, "observations": OBS}


def validate(env: Environment, base: type) -> None:
    """Check specs against real outputs, shapes, devices, finite values and the state rule.

    The environment is left reset; torch's random number generators are restored.

    Args:
        env: The environment.
        base: The class that defines the contract; attributes of classes below it are watched.

    Raises:
        ValueError: If something breaks the contract; the message names class, attribute and mend.
    """
    _check_attributes(env)
    with forked(env.device), torch.no_grad():
        obs = env.reset()
        _check_obs(env, obs, "reset() returns observations")
        _check_state(env, "reset()")
        for _ in range(STEPS):
            obs = _check_step(env, base, obs)
        _check_obs(env, env.reset(), "reset(), called again, returns observations")


def _fail(env: Environment, fault: str, mend: str) -> NoReturn:
    raise ValueError(f"{type(env).__name__}.{fault}. {mend}")


def _check_attributes(env: Environment) -> None:
    for attribute in ("num_envs", "device"):
        if attribute not in vars(env):
            mend = "Call super().__init__(num_envs, horizon, device=device) first in __init__."
            _fail(env, f"{attribute} is not set", mend)
    for attribute in ("observation_spec", "action_spec"):
        other = attribute.replace("spec", "space")
        try:
            spec = getattr(env, attribute)
        except AttributeError as error:
            if not hasattr(env, other):
                raise ValueError(str(error)) from error
            _fail(env, f"{other} is set, {attribute} is not", f"Call it {attribute}; a Gymnasium space is accepted.")
        if not isinstance(spec, Spec):
            mend = f"Set self.{attribute} in __init__, or return rl8.specs.as_spec(...) of it."
            _fail(env, f"{attribute} is a {type(spec).__name__}, expected a spec", mend)


def _check_step(env: Environment, base: type, obs: Nested) -> Nested:
    """Take one step twice from the same state; return the observations that it led to."""
    action = _sample_action(env, obs)
    state, given, generators = env.state.clone(), action.clone(), _generators(env)
    foreign = _foreign_generators()
    held = snapshot(env, "self", skip=env.state) | class_snapshot(type(env), base)
    result = _take_step(env, action)
    _check_state(env, "step()")
    changed = change(held, snapshot(env, "self", skip=env.state) | class_snapshot(type(env), base))
    if changed is not None:
        mend = "Everything that changes from step to step belongs in self.state: keep it there, as a tensor."
        _fail(env, f"step() changes {changed}, which is not in self.state", mend)
    if (owner := change(foreign, _foreign_generators())) is not None:
        mend = "Use torch.rand, torch.randn or torch.randint with device=self.device."
        fault = f"step() draws from the global generator of {owner}, which checkpoints and CUDA graphs do not know"
        _fail(env, fault, mend)
    _check_result(env, result)
    after = env.state.clone()
    _check_layout(env, state, after)
    if _difference(given, action) is not None:
        _fail(env, "step() writes into the action that it is given", "Work on a copy: action.clone().")

    env.state = state
    _restore(env, generators)
    again = _take_step(env, given)
    for what, first, second in (("result", result, again), ("state", after, env.state)):
        if (path := _difference(first, second)) is not None:
            mend = "Keep what decides it in self.state, and draw with torch's default generator on self.device."
            fault = f"step() gives another {what}{path} when repeated from the same state, action and random numbers"
            _fail(env, fault, mend)
    return result[OBS]  # type: ignore[no-any-return]


def _take_step(env: Environment, action: Nested) -> TensorDictBase:
    result = env.step(action)
    if not isinstance(result, TensorDictBase):
        mend = 'Return TensorDict({"obs": obs, "rewards": rewards}, batch_size=[self.num_envs]).'
        _fail(env, f"step() returns a {type(result).__name__}, expected a TensorDict", mend)
    return result.clone()  # the next step may write where this one's results are


def _sample_action(env: Environment, obs: Nested) -> Nested:
    """Return random actions `[N, ...]`, only allowed ones where the observation has an `action_mask`."""
    spec = env.action_spec
    action: Nested = spec.rand(env.num_envs)
    masked = isinstance(env.observation_spec, Composite) and ACTION_MASK in env.observation_spec
    if not masked or not isinstance(spec, Categorical) or not isinstance(action, Tensor):
        return action
    mask = dict(_leaves(obs))[f"[{ACTION_MASK!r}]"] != 0
    shapes = [(env.num_envs, *spec.shape, spec.n), (env.num_envs, spec.n)]
    if tuple(mask.shape) not in shapes:
        mend = f"Give it one entry for each choice of {spec}, True where it is allowed."
        _fail(env, f"reset() observes an action_mask of shape {tuple(mask.shape)}, expected {shapes[0]}", mend)
    if not bool(mask.any(-1).all()):
        _fail(env, "step() observes an action_mask that allows nothing", "Leave at least one action allowed.")
    scores = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1.0)
    return scores.argmax(-1).reshape(action.shape).to(action.dtype)


def _check_result(env: Environment, result: TensorDictBase) -> None:
    keys = [str(key) for key in result.keys()]  # noqa: SIM118 (TensorDict iterates over rows)
    for key in (OBS, REWARDS):
        if key not in keys:
            near = next((k for k in keys if MISTAKEN.get(k) == key), closest(key, keys))
            mend = f"Rename {near!r} to {key!r}." if near else f"Add {key!r}."
            _fail(env, f"step() returns no {key!r}, only {', '.join(keys) or 'an empty TensorDict'}", mend)
    for key in keys:
        meant = None if key in RESULTS else MISTAKEN.get(key, closest(key, RESULTS))
        if meant:
            _fail(env, f"step() returns {key!r}, which means nothing", f"Did you mean {meant!r}? Rename it.")
    if tuple(result.batch_size) != (env.num_envs,):
        fault = f"step() returns a TensorDict of batch size {tuple(result.batch_size)}, expected ({env.num_envs},)"
        _fail(env, fault, "Give it batch_size=[self.num_envs].")
    _check_obs(env, result[OBS], "step() returns observations")
    _check_column(env, result[REWARDS], REWARDS)
    for key in (TERMINATED, TRUNCATED):
        if key in keys:
            _check_column(env, result[key], key)
    if FINAL_OBS in keys:
        _check_obs(env, result[FINAL_OBS], "step() returns final_obs")
    elif TRUNCATED in keys:
        mend = "Add the observations before the reset: the value of what would have followed is taken there."
        _fail(env, "step() returns 'truncated' without 'final_obs'", mend)


def _check_obs(env: Environment, obs: Any, what: str) -> None:
    mend = "Return what observation_spec says, or change self.observation_spec."
    try:
        env.observation_spec.check(obs, "obs")
    except ValueError as error:
        _fail(env, f"{what} that break observation_spec: {str(error).rstrip('.')}", mend)
    for path, leaf in _leaves(obs):
        if leaf.shape[0] != env.num_envs:
            fault = f"{what} of {leaf.shape[0]} environments{path and f' in {path}'}, expected num_envs={env.num_envs}"
            _fail(env, fault, "Return one observation for every environment.")


def _check_column(env: Environment, column: Tensor, key: str) -> None:
    """Check rewards `[N]` or `[N, 1]`, or flags `[N]`."""
    n, shape = env.num_envs, tuple(column.shape)
    fault = f"step() returns {key!r} of shape {shape} and {column.dtype} on {column.device}, expected"
    if key == REWARDS:
        if shape not in ((n,), (n, 1)) or not column.is_floating_point():
            _fail(env, f"{fault} ({n},) or ({n}, 1) floating point", "Return one number per environment.")
        if not bool(torch.isfinite(column).all()):
            fault = "step() returns rewards that are infinite or NaN"
            _fail(env, fault, "Look for a division by 0, a logarithm of 0 or a state that grows without limit.")
    elif shape != (n,) or column.dtype != torch.bool:
        _fail(env, f"{fault} ({n},) torch.bool", "Return a comparison of [N] tensors, such as distance > limit.")
    if column.device.type != env.device.type:
        _fail(env, f"{fault} {env.device}", "Create it with device=self.device.")


def _check_state(env: Environment, when: str) -> None:
    state = getattr(env, "state", None)
    if not isinstance(state, (Tensor, TensorDictBase)):
        mend = "Set self.state in reset() to a Tensor or TensorDict with everything that changes from step to step."
        _fail(env, f"state is a {type(state).__name__} after {when}", mend)
    for path, leaf in _leaves(state):
        if not isinstance(leaf, Tensor):
            _fail(env, f"state{path} is a {type(leaf).__name__} after {when}", "Keep only tensors in self.state.")
        if leaf.device.type != env.device.type:
            fault = f"state{path} is on {leaf.device} after {when}, expected {env.device}"
            _fail(env, fault, "Create it with device=self.device.")


def _check_layout(env: Environment, before: Nested, after: Nested) -> None:
    old, new = ({path: (tuple(leaf.shape), leaf.dtype) for path, leaf in _leaves(state)} for state in (before, after))
    for path in [*old, *new]:
        if old.get(path) != new.get(path):
            fault = f"step() turns state{path} from {old.get(path, 'nothing')} into {new.get(path, 'nothing')}"
            _fail(env, fault, "Give self.state the same entries, shapes and dtypes in reset() and step().")


def _leaves(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the path (as it is indexed) and value of every leaf."""
    if isinstance(value, TensorDictBase):
        for key, child in value.items():
            yield from ((f"[{key!r}]{path}", leaf) for path, leaf in _leaves(child))
    else:
        yield "", value


def _difference(first: Nested, second: Nested) -> str | None:
    """Return the path of the first leaf that differs, or None."""
    leaves, others = dict(_leaves(first)), dict(_leaves(second))
    for path in [*leaves, *others]:
        if path not in leaves or path not in others:
            return path
        leaf, other = leaves[path], others[path]
        if other.shape != leaf.shape or other.dtype != leaf.dtype:
            return path
        # an accelerator may add up in another order
        rtol, atol = (1e-4, 1e-5) if leaf.is_floating_point() and leaf.device.type != "cpu" else (0.0, 0.0)
        if not torch.allclose(leaf, other, rtol=rtol, atol=atol, equal_nan=True):
            return path
    return None


def _generators(env: Environment) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(env.device)] if env.device.type == "cuda" else states


def _restore(env: Environment, generators: list[Tensor]) -> None:
    torch.set_rng_state(generators[0])
    for state in generators[1:]:
        torch.cuda.set_rng_state(state, env.device)


def _foreign_generators() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (watched, not used)
    return {"NumPy": repr(state), "Python's random": repr(random.getstate())}
