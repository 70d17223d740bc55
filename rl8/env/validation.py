"""Checks that an environment keeps its contract, each with the mend in its message."""

from __future__ import annotations

import inspect
import itertools
import pickle
import random
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

from rl8.data import METRICS, OBS, TERMINATED, TRUNCATED
from rl8.env.draws import contents, unsaved
from rl8.env.masks import allowed_action
from rl8.env.results import Environment, check_obs, check_result, fail, leaves
from rl8.env.snapshot import change, class_snapshot, differing, snapshot
from rl8.rng import forked
from rl8.specs import Nested, Spec

# Steps that are taken twice; more than one, because some faults only show after the first.
STEPS = 4
# Resets that are compared: what a reset draws from few choices may come out alike.
RESETS = 4
# Steps that are taken to see an episode end, and more after it to see the next one begin.
STEPS_TO_AN_END, STEPS_AFTER = 128, 24

CONSTRUCTOR = 'def __init__(self, num_envs, /, horizon=None, *, device="cpu", ...)'
SIGNATURES = {"reset": "def reset(self, *, config=None)", "step": "def step(self, action)"}


def validate(env: Environment, base: type) -> None:
    """Check specs against real outputs, shapes, devices, finite values and the state rule.

    The environment is left reset; torch's random number generators are restored. What was found out about it is noted
    in its attributes `drawn`, `has_ends`, `truncates` and `metric_names`.

    Args:
        env: The environment.
        base: The class that defines the contract; attributes of classes below it are watched.

    Raises:
        ValueError: If something breaks the contract; the message names class, attribute and mend.
    """
    _check_attributes(env)
    _check_signatures(env)
    with forked(env.device), torch.no_grad():
        env.check_hooks()
        obs = env.reset()
        check_obs(env, obs, "reset() returns observations")
        _check_state(env, "reset()")
        keys: set[str] = set()
        for _ in range(STEPS):
            result = _check_step(env, base, obs)
            obs = result[OBS]
            keys |= {str(key) for key in result.keys()}  # noqa: SIM118 (TensorDict iterates over rows)
            if METRICS in result.keys():  # noqa: SIM118
                env.metric_names |= {str(key) for key in result[METRICS].keys()}  # noqa: SIM118
        env.has_ends = env.has_ends or bool(keys & {TERMINATED, TRUNCATED})
        env.truncates = env.truncates or TRUNCATED in keys
        if env.has_ends and not env.begins_anew:
            _check_new_episodes(env)
        if env.opaque:
            check_obs(env, env.reset(), "reset(), called again, returns observations")
        else:
            env.drawn = _check_resets(env)


def _check_attributes(env: Environment) -> None:
    for attribute in ("num_envs", "device"):
        if attribute not in vars(env):
            mend = "Call super().__init__(num_envs, horizon, device=device) first in __init__."
            fail(env, f"{attribute} is not set", mend)
    for attribute in ("observation_spec", "action_spec"):
        other = attribute.replace("spec", "space")
        try:
            spec = getattr(env, attribute)
        except AttributeError as error:
            if not hasattr(env, other):
                raise ValueError(str(error)) from error
            fail(env, f"{other} is set, {attribute} is not", f"Call it {attribute}; a Gymnasium space is accepted.")
        if not isinstance(spec, Spec):
            mend = f"Set self.{attribute} in __init__, or return rl8.specs.as_spec(...) of it."
            fail(env, f"{attribute} is a {type(spec).__name__}, expected a spec", mend)


def _check_signatures(env: Environment) -> None:
    for name, signature in SIGNATURES.items():
        given: dict[str, Any] = {"config": None} if name == "reset" else {}
        if not takes(getattr(env, name), *([None] if name == "step" else []), **given):
            was = inspect.signature(getattr(type(env), name))
            fail(env, f"{name}{was} does not take what rl8 gives it", f"Write {signature}: ...")
    cls = type(env)
    # A class that begins with something else or needs more is made by a function of the user's, which rl8 calls.
    counts = next(iter(inspect.signature(cls).parameters), "") in ("num_envs", "n")
    if counts and takes(cls, 1) and not takes(cls, 1, None, device="cpu"):
        fault = f"__init__{inspect.signature(cls.__init__)} does not take what rl8 gives it"
        fail(env, fault, f"Write {CONSTRUCTOR}, and pass them on: super().__init__(num_envs, horizon, device=device).")


def takes(function: Any, *args: Any, **kwargs: Any) -> bool:
    """Return whether a function or class can be called so; True if that can't be told."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _check_resets(env: Environment) -> frozenset[str]:
    """Reset several times; return the paths of what differed, the state left out."""
    held: list[dict[str, Any]] = []
    for _ in range(RESETS):
        foreign = _foreign_generators()
        check_obs(env, env.reset(), "reset(), called again, returns observations")
        _check_foreign(foreign, env, "reset()")
        held.append(contents(env))
    drawn = {path for one, other in itertools.pairwise(held) for path in differing(one, other)}
    if lost := unsaved(env, drawn):
        mend = (
            "Keep it in self.state, as a tensor: self.name = ...; a number, list, dictionary or module does too, but "
            "no tuple, and random numbers come from torch.rand(..., device=self.device)."
        )
        fail(env, f"reset() draws {lost[0]}, which a checkpoint can't put back", mend)
    return frozenset(drawn)


def _check_new_episodes(env: Environment) -> None:
    """Step until episodes end, and see whether the next ones begin: ended ones may neither stay so nor stand still."""
    obs = env.reset()
    before, went_on = obs, torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    for _ in range(STEPS_TO_AN_END):
        result = env.step(allowed_action(env, obs)).clone()
        ended = _ended(env, result)
        if bool((ended & went_on).any()):
            break
        went_on, before, obs = went_on | ~ended, obs, result[OBS]
    else:
        return  # none that went on before has ended yet
    ended = ended & went_on
    moved = ended & _rows_differ(before, obs)
    first, obs = result[OBS], result[OBS]
    still, over = moved, ended
    for _ in range(STEPS_AFTER):
        result = env.step(allowed_action(env, obs)).clone()
        obs = result[OBS]
        over, still = over & _ended(env, result), still & ~_rows_differ(first, obs)
    mend = (
        "Begin anew where episodes end: self.state = torch.where(ended, fresh, self.state), and return the new "
        "episode's first observations. Or derive it from rl8.env.EpisodicEnv, which does this for you."
    )
    if torch.equal(over, ended):
        fail(env, "step() never begins anew: what has ended ends again at every following step", mend)
    if torch.equal(still, ended):
        fail(env, "step() never begins anew: what has ended stands still", mend)


def _ended(env: Environment, result: TensorDictBase) -> Tensor:
    """Return which episodes `[N]` a step ended."""
    flags = [result[key] for key in (TERMINATED, TRUNCATED) if key in result.keys()]  # noqa: SIM118
    return torch.stack(flags).any(0) if flags else torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)


def _rows_differ(one: Nested, other: Nested) -> Tensor:
    """Return in which environments `[N]` two batches of observations differ."""
    pairs = zip(leaves(one), leaves(other), strict=True)
    return torch.stack([(a != b).reshape(len(a), -1).any(1) for (_, a), (_, b) in pairs]).any(0)


def _check_step(env: Environment, base: type, obs: Nested) -> TensorDictBase:
    """Take one step twice from the same state; return its result."""
    action = allowed_action(env, obs)
    if env.opaque:  # nobody can take it back to where it was
        result = env.step(action)
        check_result(env, result)
        copied: TensorDictBase = result.clone()  # the next step may write where this one's results are
        return copied
    state, given, generators = env.state.clone(), action.clone(), _generators(env)
    foreign = _foreign_generators()
    held = snapshot(env, "self", skip=env.state) | class_snapshot(type(env), base)
    result = env.step(action)
    check_result(env, result)
    kept: TensorDictBase = result.clone()  # the next step may write where this one's results are
    _check_state(env, "step()")
    changed = change(held, snapshot(env, "self", skip=env.state) | class_snapshot(type(env), base))
    if changed is not None:
        mend = "Everything that changes from step to step belongs in self.state: keep it there, as a tensor."
        fail(env, f"step() changes {changed}, which is not in self.state", mend)
    _check_foreign(foreign, env, "step()")
    after = env.state.clone()
    _check_layout(env, state, after)
    if _difference(given, action) is not None:
        fail(env, "step() writes into the action that it is given", "Work on a copy: action.clone().")

    env.state = state
    _restore(env, generators)
    again = env.step(given)
    check_result(env, again, values=False)
    for what, first, second in (("result", kept, again), ("state", after, env.state)):
        if (path := _difference(first, second)) is not None:
            mend = "Keep what decides it in self.state, and draw with torch's default generator on self.device."
            fault = f"step() gives another {what}{path} when repeated from the same state, action and random numbers"
            fail(env, fault, mend)
    return kept


def _check_state(env: Environment, when: str) -> None:
    state = getattr(env, "state", None)
    if not isinstance(state, (Tensor, TensorDictBase)):
        mend = "Set self.state in reset() to a Tensor or TensorDict with everything that changes from step to step."
        fail(env, f"state is a {type(state).__name__} after {when}", mend)
    for path, leaf in leaves(state):
        if not isinstance(leaf, Tensor):
            fail(env, f"state{path} is a {type(leaf).__name__} after {when}", "Keep only tensors in self.state.")
        if leaf.device.type != env.device.type:
            fault = f"state{path} is on {leaf.device} after {when}, expected {env.device}"
            fail(env, fault, "Create it with device=self.device.")


def _check_layout(env: Environment, before: Nested, after: Nested) -> None:
    old, new = ({path: (tuple(leaf.shape), leaf.dtype) for path, leaf in leaves(state)} for state in (before, after))
    for path in [*old, *new]:
        if old.get(path) != new.get(path):
            fault = f"step() turns state{path} from {old.get(path, 'nothing')} into {new.get(path, 'nothing')}"
            fail(env, fault, "Give self.state the same entries, shapes and dtypes in reset() and step().")


def _difference(first: Nested, second: Nested) -> str | None:
    """Return the path of the first leaf that differs, or None."""
    ours, theirs = dict(leaves(first)), dict(leaves(second))
    for path in [*ours, *theirs]:
        if path not in ours or path not in theirs:
            return path
        leaf, other = ours[path], theirs[path]
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


def _check_foreign(before: dict[str, Any], env: Environment, when: str) -> None:
    if (owner := change(before, _foreign_generators())) is not None:
        mend = "Use torch.rand, torch.randn or torch.randint with device=self.device."
        fault = f"{when} draws from the global generator of {owner}, which checkpoints and CUDA graphs do not know"
        fail(env, fault, mend)


def _foreign_generators() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (watched, not used)
    return {"NumPy": pickle.dumps(state), "Python's random": random.getstate()}
