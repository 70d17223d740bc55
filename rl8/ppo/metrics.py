"""What an update reports: sums over its minibatches, kept on the device until they are logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from rl8.rollout.metrics import Metrics

LOSSES: Final = ("total", "policy", "vf", "entropy")  # the first fields of `PPOLoss`
UPDATE_METRICS: Final = (
    *(f"losses/{name}" for name in LOSSES),
    "monitors/kl_div",
    "monitors/clip_fraction",
    "monitors/grad_norm",
)
KL_DIV, GRAD_NORM = UPDATE_METRICS.index("monitors/kl_div"), UPDATE_METRICS.index("monitors/grad_norm")


class UpdateMetrics:
    """Sums over the minibatches of one update, at one address, so that a captured graph adds to them.

    Args:
        device: Where they are.
        extra: Names of further losses.

    Attributes:
        names: `UPDATE_METRICS`, then `losses/<name>` of further losses, K in all.
        totals: `[K]` sums of them.
        minibatch: `[K]` those of the last minibatch alone.
    """

    def __init__(self, device: torch.device, extra: Sequence[str] = ()) -> None:
        self.names = (*UPDATE_METRICS, *(f"losses/{name}" for name in extra))
        self.totals = torch.zeros(len(self.names), device=device)
        self.minibatch = torch.zeros_like(self.totals)

    def add(self, losses: Tensor) -> None:
        """Add the parts `[K - 1]` of a minibatch's loss: those of `PPOLoss`, then the further losses."""
        self.minibatch.zero_()
        self.minibatch[:GRAD_NORM].add_(losses[:GRAD_NORM])
        self.minibatch[GRAD_NORM + 1 :].add_(losses[GRAD_NORM:])
        self.totals.add_(self.minibatch)

    def add_grad_norm(self, norm: Tensor) -> None:
        """Add the norm of a gradient, 0-d."""
        self.totals[GRAD_NORM] += norm

    def means(self, minibatches: int) -> Metrics:
        """Return means over so many minibatches, 0-d each."""
        means = self.totals / minibatches
        return {name: means[index] for index, name in enumerate(self.names)}
