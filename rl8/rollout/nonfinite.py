"""Numbers that are infinite or NaN: which of a horizon was the first, and how to go on without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.env.results import NOT_FINITE, leaves
from rl8.parallel import world
from rl8.rollout.containers import plain
from rl8.rollout.rollout import Rollout

MOST_ROWS: Final = 16  # environments whose horizon is kept as evidence


def first_nonfinite(rollout: Rollout) -> str | None:
    """Return in words which number of a horizon was the first to be infinite or NaN, and what to do; None if none was.

    An observation comes before what the policy made of it, that before the reward, and the final observation of an
    episode before the first of the next.
    """
    found: list[tuple[int, int, str]] = []
    for rank, (name, series, advice) in enumerate(_series(rollout)):
        bad = ~series.isfinite()
        bad = bad.flatten(2).any(-1) if bad.ndim > 2 else bad
        places = bad.nonzero()
        if len(places):
            t, n = places[0].tolist()  # host sync: training has failed
            value = series[t, n].flatten()
            shown = value[~value.isfinite()][0].item()
            text = f"{name} is {shown} at step {t} of {rollout.horizon} in environment {n}"
            found.append((t, rank, f"{text}. {advice}"))
    return min(found)[2] if found else None


def _series(rollout: Rollout) -> Iterator[tuple[str, Tensor, str]]:
    """Yield name, numbers `[T, N, ...]` or `[T + 1, N, ...]`, and advice, in the order in which a step makes them."""
    seen = rollout.obs[rollout.history :]
    for path, leaf in leaves(seen) if isinstance(seen, TensorDict) else [("", seen)]:
        if leaf.is_floating_point():
            yield f"The observation obs{path}", leaf, f"The environment returned it. {NOT_FINITE}"
    diverged = "Its observation is finite, so the policy has diverged. Try a lower learning rate, "
    diverged += "e.g. algo.optimizer.lr=1e-4, or algo.max_grad_norm=0.5."
    yield "The action's log-probability", rollout.logp, diverged
    yield "The policy's value", rollout.values, diverged
    yield "The reward", rollout.rewards, f"The environment returned it. {NOT_FINITE}"
    if rollout.final_values is not None and rollout.truncated is not None:
        final = torch.where(rollout.truncated, rollout.final_values, 0.0)
        yield "The value of a final observation (final_obs)", final, f"The environment returned that. {NOT_FINITE}"


@torch.no_grad()
def not_finite(rollout: Rollout) -> Tensor:
    """Return `[N]` bool, which environments met a number that is infinite or NaN in this horizon; on the device."""
    bad = torch.zeros(rollout.num_envs, dtype=torch.bool, device=rollout.rewards.device)
    for _, series, _ in _series(rollout):
        bad |= ~series.isfinite().flatten(2).all(-1).all(0) if series.ndim > 2 else ~series.isfinite().all(0)
    return bad


@torch.no_grad()
def leave_out_nonfinite(rollout: Rollout) -> Tensor:
    """Let nothing be learned from environments that met such a number; it becomes 0. Return how many in all, 0-d.

    Args:
        rollout: Written in place.
    """
    bad = not_finite(rollout)
    counted = (~bad).to(rollout.rewards.dtype).expand_as(rollout.rewards)
    rollout.weights = counted.clone() if rollout.weights is None else rollout.weights.mul_(counted)
    numbers = [series for _, series, _ in _series(rollout)]
    for series in numbers if rollout.final_values is None else [*numbers[:-1], rollout.final_values]:
        series.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    actions = leaves(rollout.actions) if isinstance(rollout.actions, TensorDict) else [("", rollout.actions)]
    for _, leaf in actions:
        if leaf.is_floating_point():
            leaf.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    if isinstance(rollout.state, TensorDict):
        for _, leaf in leaves(rollout.state):
            leaf.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    count = bad.sum()
    world.sum_([count])
    return count


def evidence(rollout: Rollout) -> dict[str, Any]:
    """Return the horizon of the environments that went wrong, at most `MOST_ROWS`, in plain containers.

    Keys: `environments` `[K]`, and `obs` `[T + 1, K, ...]`, `actions`, `rewards`, `logp`, `values` of them.
    """
    rows = not_finite(rollout).nonzero().flatten()[:MOST_ROWS]  # host sync: training has failed
    kept: dict[str, Any] = {"environments": rows.cpu()}
    series = {
        "obs": rollout.obs[rollout.history :],
        "actions": rollout.actions,
        "rewards": rollout.rewards,
        "logp": rollout.logp,
        "values": rollout.values,
    }
    for name, values in series.items():
        kept[name] = plain(values[:, rows].cpu())
    return kept
