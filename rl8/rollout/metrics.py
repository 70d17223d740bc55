"""What a horizon's rewards come to."""

from __future__ import annotations

import torch
from torch import Tensor

Metrics = dict[str, Tensor]


def reward_metrics(rewards: Tensor) -> Metrics:
    """Return mean, std, min and max of rewards `[T, N]` and of their sums over time, 0-d each."""
    metrics: Metrics = {}
    for name, series in (("returns", rewards.sum(0)), ("rewards", rewards)):
        # The std of one environment's return is 0, not NaN.
        std, mean = torch.std_mean(series, correction=0)
        metrics |= {f"{name}/mean": mean, f"{name}/std": std, f"{name}/min": series.min(), f"{name}/max": series.max()}
    return metrics
