"""Random actions that keep to an observation's action mask, for every kind of spec."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.data import ACTION_MASK
from rl8.env.results import Environment, fail
from rl8.specs import Binary, Categorical, Composite, MultiCategorical, Nested, Spec


def allowed_action(env: Environment, obs: Any) -> Nested:
    """Return random actions `[N, ...]`, only allowed ones where the observation `[N, ...]` has an `action_mask`.

    Raises:
        ValueError: If the mask does not fit the actions, or allows nothing.
    """
    spec = env.observation_spec
    masked = isinstance(spec, Composite) and ACTION_MASK in spec
    return _draw(env, env.action_spec, obs[ACTION_MASK] if masked else None, ACTION_MASK)


def _draw(env: Environment, spec: Spec, mask: Any, name: str) -> Nested:
    n = env.num_envs
    if mask is None:
        return spec.rand(n)
    if isinstance(spec, Composite):
        if isinstance(mask, Tensor):
            mend = f"Make it a Composite with entries of {', '.join(spec)}."
            fail(env, f"reset() observes an {name} that is one tensor, for actions of several parts", mend)
        given = [str(key) for key in mask.keys()]  # noqa: SIM118 (no Mapping)
        parts = {
            key: _draw(env, part, mask[key] if key in given else None, f"{name}[{key!r}]") for key, part in spec.items()
        }
        return TensorDict(parts, batch_size=[n], device=spec.device)
    if isinstance(spec, Categorical):
        table = _fitting(env, mask, (n, *spec.shape, spec.n), spec, name)
        return _choose(env, table, name).to(spec.dtype)
    if isinstance(spec, MultiCategorical):
        tables = _fitting(env, mask, (n, sum(spec.nvec)), spec, name).split(spec.nvec, dim=-1)
        return torch.stack([_choose(env, table, name) for table in tables], -1).to(spec.dtype)
    if isinstance(spec, Binary):
        ones = _fitting(env, mask, (n, *spec.shape), spec, name)
        return spec.rand(n) * ones.to(spec.dtype)  # a zero is always allowed
    return fail(env, f"reset() observes an {name}, but {spec} has none to mask", "Leave it out of the observation.")


def _fitting(env: Environment, mask: Any, shape: tuple[int, ...], spec: Spec, name: str) -> Tensor:
    """Return a mask, which may be flat, in the shape of the choices."""
    if not isinstance(mask, Tensor) or mask.shape[0] != shape[0] or mask.numel() != torch.Size(shape).numel():
        found = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        mend = f"Give it one entry for each choice of {spec}, True where it is allowed."
        fail(env, f"reset() observes an {name} of shape {found}, expected {shape}", mend)
    return mask.reshape(shape) != 0


def _choose(env: Environment, table: Tensor, name: str) -> Tensor:
    """Return one allowed choice `[...]` per row of a table `[..., choices]`."""
    if not bool(table.any(-1).all()):
        fail(env, f"step() observes an {name} that allows nothing", "Leave at least one action allowed.")
    return torch.rand(table.shape, device=table.device).masked_fill(~table, -1.0).argmax(-1)
