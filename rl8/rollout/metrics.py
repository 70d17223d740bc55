"""What a horizon's rewards come to."""

from __future__ import annotations

import torch
from torch import Tensor

from rl8.parallel import world

Metrics = dict[str, Tensor]


def reward_metrics(rewards: Tensor, weights: Tensor | None = None, *, together: bool = False) -> Metrics:
    """Return mean, std, min and max of rewards `[T, N]` and of their sums over time, 0-d each.

    Args:
        rewards: `[T, N]`, 0 where `weights` are.
        weights: `[T, N]` 0 at steps that don't count; None if all do.
        together: Whether those of all processes count, each of which calls this.
    """
    counted = rewards if weights is None else rewards[weights > 0]  # host sync: environments on the host alone have any
    counted = counted if counted.numel() else rewards  # nothing counts: all are 0
    metrics: Metrics = {}
    for name, series in (("returns", rewards.sum(0)), ("rewards", counted)):
        # The std of one environment's return is 0, not NaN.
        var, mean = torch.var_mean(series, correction=0)
        bounds = torch.stack([-series.min(), series.max()])
        if together:
            _, mean, var = world.pooled(torch.full_like(mean, series.numel()), mean, var)
            bounds = world.gathered(bounds).amax(0)
        metrics |= {f"{name}/mean": mean, f"{name}/std": var.sqrt()}
        metrics |= {f"{name}/min": -bounds[0], f"{name}/max": bounds[1]}
    return metrics
