"""What `reset` and `step` return: keys, shapes, types, devices and finite values, each fault with its mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from tensordict import TensorDictBase
from torch import Tensor

from rl8.checks import closest
from rl8.data import FILLER, FINAL_OBS, METRICS, OBS, RESERVED_METRICS, REWARDS, TERMINATED, TRUNCATED

Environment = Any  # an `Env`; its file imports those that import this one

RESULTS = (OBS, REWARDS, TERMINATED, TRUNCATED, FINAL_OBS, FILLER, METRICS)
# Other libraries' names; passing over an episode's end in silence would train on another task.
MISTAKEN = {
    "done": TERMINATED,
    "dones": TERMINATED,
    "observation": OBS,
    "observations": OBS,
    "info": METRICS,
    "infos": METRICS,
    "extras": METRICS,
}
NOT_FINITE = "Look for a division by 0, a logarithm of 0 or a state that grows without limit."


def fail(env: Environment, fault: str, mend: str) -> NoReturn:
    """Raise ValueError that says what an environment's class does, and the mend."""
    raise ValueError(f"{type(env).__name__}.{fault}. {mend}")


def check_result(env: Environment, result: Any, *, values: bool = True) -> None:
    """Check what a step returned.

    Args:
        env: The environment.
        result: What its `step` returned.
        values: Whether numbers are looked at too. Without them nothing waits for the device, which is what a rollout
            can afford once per horizon.

    Raises:
        ValueError: If something breaks the contract; the message names class, key and mend.
    """
    if not isinstance(result, TensorDictBase):
        mend = 'Return TensorDict({"obs": obs, "rewards": rewards}, batch_size=[self.num_envs]).'
        fail(env, f"step() returns a {type(result).__name__}, expected a TensorDict", mend)
    keys = [str(key) for key in result.keys()]  # noqa: SIM118 (TensorDict iterates over rows)
    _check_keys(env, keys)
    if tuple(result.batch_size) != (env.num_envs,):
        fault = f"step() returns a TensorDict of batch size {tuple(result.batch_size)}, expected ({env.num_envs},)"
        fail(env, fault, "Give it batch_size=[self.num_envs].")
    check_obs(env, result[OBS], "step() returns observations", values=values)
    check_column(env, result[REWARDS], REWARDS, values=values)
    for key in (TERMINATED, TRUNCATED, FILLER):
        if key in keys:
            check_column(env, result[key], key, values=values)
    if FINAL_OBS in keys:
        check_obs(env, result[FINAL_OBS], "step() returns final_obs", values=values)
    elif TRUNCATED in keys and env.has_final_obs:
        mend = "Add the observations before the reset: the value of what would have followed is taken there. A class "
        mend += "that has none sets has_final_obs = False: the value before the step stands for it then."
        fail(env, "step() returns 'truncated' without 'final_obs'", mend)
    if METRICS in keys:
        check_metrics(env, result[METRICS])


def check_obs(env: Environment, obs: Any, what: str, *, values: bool = True) -> None:
    """Check observations `[N, ...]`; `what` says whose they are. Arguments and errors as `check_result`'s."""
    spec = env.observation_spec
    if isinstance(obs, Mapping) and not isinstance(obs, TensorDictBase):
        mend = "Return TensorDict(obs, batch_size=[self.num_envs])."
        fail(env, f"{what} that are a {type(obs).__name__}, expected a TensorDict", mend)
    try:
        spec.check_layout(obs, "obs")
        if values:
            spec.check(obs, "obs")
    except ValueError as error:
        mend = "Return what observation_spec says, or change self.observation_spec."
        finite = "infinite or NaN" not in str(error)
        fail(env, f"{what} that break observation_spec: {str(error).rstrip('.')}", mend if finite else NOT_FINITE)
    for path, leaf in leaves(obs):
        if leaf.shape[0] != env.num_envs:
            fault = f"{what} of {leaf.shape[0]} environments{path and f' in {path}'}, expected num_envs={env.num_envs}"
            fail(env, fault, "Return one observation for every environment.")


def leaves(value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the path (as it is indexed) and value of every leaf."""
    if isinstance(value, TensorDictBase):
        for key, child in value.items():
            yield from ((f"[{key!r}]{path}", leaf) for path, leaf in leaves(child))
    else:
        yield "", value


def _check_keys(env: Environment, keys: list[str]) -> None:
    for key in (OBS, REWARDS):
        if key not in keys:
            near = next((k for k in keys if MISTAKEN.get(k) == key), closest(key, keys))
            mend = f"Rename {near!r} to {key!r}." if near else f"Add {key!r}."
            fail(env, f"step() returns no {key!r}, only {', '.join(keys) or 'an empty TensorDict'}", mend)
    for key in keys:
        if key in RESULTS:
            continue
        meant = MISTAKEN.get(key, closest(key, RESULTS))
        mend = f"Did you mean {meant!r}? Rename it." if meant else (
            f'Numbers to be recorded belong in {METRICS!r}: "{METRICS}": {{"{key}": ...}}, one per environment. '
            "Leave out everything else."
        )  # fmt: skip
        fail(env, f"step() returns {key!r}, which means nothing", mend)


def check_column(env: Environment, column: Any, key: str, *, values: bool, hook: str = "step()") -> None:
    """Check rewards `[N]` or `[N, 1]`, or flags `[N]`; `hook` says what returns them."""
    n = env.num_envs
    if key == REWARDS:
        expected, mend = f"({n},) or ({n}, 1) floating point", "Return one number per environment."
    else:
        expected, mend = f"({n},) torch.bool", "Return a comparison of [N] tensors, such as distance > limit."
    if not isinstance(column, Tensor):
        fail(env, f"{hook} returns {key!r} that are a {type(column).__name__}, expected a tensor {expected}", mend)
    shape = tuple(column.shape)
    if key == REWARDS:
        good = shape in ((n,), (n, 1)) and column.is_floating_point()
    else:
        good = shape == (n,) and column.dtype == torch.bool
    fault = f"{hook} returns {key!r} of shape {shape} and {column.dtype} on {column.device}, expected"
    if not good:
        fail(env, f"{fault} {expected}", mend)
    if column.device.type != env.device.type:
        fail(env, f"{fault} {env.device}", "Create it with device=self.device.")
    if values and key == REWARDS and not bool(torch.isfinite(column).all()):
        fail(env, f"{hook} returns rewards that are infinite or NaN", NOT_FINITE)


def check_metrics(env: Environment, metrics: Any, hook: str = "step()") -> None:
    """Check metrics `[N]` or `[N, 1]` by name; `hook` says what returns them."""
    if not isinstance(metrics, (Mapping, TensorDictBase)):
        mend = f'Name each, e.g. {{"distance": distance}}{f" under {METRICS!r}" if hook == "step()" else ""}.'
        fail(env, f"{hook} returns {METRICS!r} that are a {type(metrics).__name__}, expected a dictionary", mend)
    for key, value in metrics.items():
        if f"env/{key}" in RESERVED_METRICS:
            fail(env, f"{hook} returns a metric {key!r}, and rl8 records env/{key} itself", "Give it another name.")
        if isinstance(value, Tensor) and tuple(value.shape) in ((env.num_envs,), (env.num_envs, 1)):
            continue
        mend = "Return one number per environment; one for all is number.expand(self.num_envs)."
        if isinstance(value, Tensor):
            found = f"of shape {tuple(value.shape)}, expected"
        else:
            found = f"that is a {type(value).__name__}, expected a tensor"
            mend = "Return one per environment; a number for all is torch.full((self.num_envs,), number)."
        fail(env, f"{hook} returns a metric {key!r} {found} ({env.num_envs},)", mend)
