"""What an update reports: sums over its minibatches, kept on the device until they are logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        latest: `[K]` sums over the minibatches since `begin_step`: of one optimizer step.
        explained_variance: 0-d share of the returns' variance that values explained.
        nonfinite_envs: 0-d count of environments left out of the horizon.
    """

    def __init__(self, device: torch.device, extra: Sequence[str] = ()) -> None:
        self.names = (*UPDATE_METRICS, *(f"losses/{name}" for name in extra))
        self.totals = torch.zeros(len(self.names), device=device)
        self.latest = torch.zeros_like(self.totals)
        self.explained_variance = torch.zeros((), device=device)
        self.nonfinite_envs = torch.zeros((), device=device)

    def begin_step(self) -> None:
        """Begin with the minibatches of another optimizer step."""
        self.latest.zero_()

    def add(self, losses: Tensor) -> None:
        """Add the parts `[K - 1]` of a minibatch's loss: those of `PPOLoss`, then the further losses."""
        self.latest[:GRAD_NORM].add_(losses[:GRAD_NORM])
        self.latest[GRAD_NORM + 1 :].add_(losses[GRAD_NORM:])

    def end_step(self, grad_norm: Tensor) -> None:
        """Count the optimizer step's minibatches, and the norm of its gradient, 0-d."""
        self.latest[GRAD_NORM] += grad_norm
        self.totals.add_(self.latest)

    def add_step(self, found: Tensor) -> None:
        """Add the parts of a loss and the norm of its gradient, `[7]`, of a minibatch without further losses."""
        self.latest.copy_(found)
        self.totals.add_(found)

    def means(self, minibatches: int) -> Metrics:
        """Return means over so many minibatches, 0-d each."""
        means = self.totals / minibatches
        return {name: means[index] for index, name in enumerate(self.names)}

    def report(self, minibatches: int, coefficients: Mapping[str, Tensor | float], skips_nonfinite: bool) -> Metrics:
        """Return what an update reports, 0-d tensors.

        Args:
            minibatches: How many it learned from.
            coefficients: What it learned with, by name.
            skips_nonfinite: Whether environments may have been left out.
        """
        metrics = self.means(minibatches)
        if skips_nonfinite:
            metrics["monitors/nonfinite_envs"] = self.nonfinite_envs
        metrics["monitors/explained_variance"] = self.explained_variance
        for name, value in coefficients.items():
            number = value if isinstance(value, Tensor) else torch.full_like(self.explained_variance, value)
            metrics[f"coefficients/{name}"] = number
        return metrics
