"""What simulators give by name: observation groups, of which a run takes some, and numbers to record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import unknown
from rl8.data import RESERVED_METRICS
from rl8.specs import Composite, Nested, Spec, Unbounded

# What the group for the policy is called: by mjlab, by Isaac Lab, by MuJoCo Playground.
ACTOR_GROUPS = ("actor", "policy", "state")


def chosen_groups(observed: Mapping[str, Any], wanted: Sequence[str] | None) -> list[str]:
    """Return which groups are observed: those that are wanted, or the one for the policy.

    Raises:
        ValueError: If there is no such group, or none is wanted.
    """
    known = [str(name) for name in observed]
    if wanted is None:
        return [next((name for name in ACTOR_GROUPS if name in known), known[0])]
    if not wanted:
        raise ValueError(f"env.groups=[] leaves nothing to observe. Accepted: {', '.join(known)}. Try env.groups=null.")
    for name in wanted:
        if name not in known:
            raise ValueError(unknown("observation group in env.groups", str(name), known))
    return list(wanted)


def observed_groups(
    observed: Mapping[str, Any], names: Sequence[str], num_envs: int, as_tensor: Callable[[Any], Tensor]
) -> Nested:
    """Return observations `[N, ...]`: one group as it is, several as entries; `as_tensor` makes each leaf's tensor."""

    def nested(group: Any) -> Nested:
        if not isinstance(group, Mapping):
            return as_tensor(group)
        return TensorDict({str(name): nested(part) for name, part in group.items()}, batch_size=[num_envs])

    return nested(observed[names[0]] if len(names) == 1 else {name: observed[name] for name in names})


def plain(tensor: Tensor, device: torch.device, *, copy: bool = False) -> Tensor:
    """Return an observation on a device: numbers with a point in float32, others as they are."""
    return tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=copy)


def spec_of(obs: Nested) -> Spec:
    """Return the spec of observations `[N, ...]`."""
    if isinstance(obs, TensorDict):
        return Composite({str(key): spec_of(obs[key]) for key in obs.keys()})  # noqa: SIM118 (TensorDict iterates over rows)
    return Unbounded(obs.shape[1:], dtype=obs.dtype)


def metric_name(name: Any) -> str | None:
    """Return what MLflow takes of a number's name, None if rl8 has a metric of that name."""
    made = re.sub(r"[^\w./: -]", "_", str(name))
    return None if f"env/{made}" in RESERVED_METRICS else made
