"""A learning rate that follows how far an update moves the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from rl8.ppo.hyperparameters import Hyperparameters

#: What the rate is multiplied or divided by.
FACTOR: Final = 1.5


class AdaptiveRate:
    """Divides the learning rate by 1.5 where the policy has moved too far, and multiplies it where hardly at all.

    Before each optimizer step, by the KL divergence of the collecting policy from the present one over the minibatch:
    above twice `desired_kl` the rate falls, below half of it it grows, and stays between `min_lr` and `max_lr`. The
    first step of an update changes nothing: nothing has moved. On CUDA the host waits for none of it while the rate is
    a tensor, as with graphs; without them it waits once per step.
    Source: the adaptive schedule of Rudin et al. 2021, arXiv:2109.11978, as in rsl_rl; after the adaptive penalty of
    Schulman et al. 2017, arXiv:1707.06347. rsl_rl also moves the rate before the first step.

    Args:
        optimizer: Whose rate; a group's `lr_scale` is its share of it.
        hparams: `desired_kl` (None leaves the rate alone), `min_lr` and `max_lr`.
        device: Where a divergence comes from.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hparams: Hyperparameters, device: torch.device) -> None:
        self._optimizer, self._hparams = optimizer, hparams
        self._moved = torch.zeros((), device=device)  # 1 after an update's first step

    @property
    def acts(self) -> bool:
        """Whether there is a divergence to aim at."""
        return self._hparams.desired_kl is not None

    def begin(self) -> None:
        """Begin another update."""
        if self.acts:
            self._moved.zero_()

    @torch.no_grad()
    def adapt(self, kl_div: Tensor) -> None:
        """Change the rate for the step that is about to be taken.

        Args:
            kl_div: 0-d divergence, over the minibatch that is learned from.
        """
        target = self._hparams.desired_kl
        if target is None:
            return
        factor = torch.where(kl_div > 2 * target, 1 / FACTOR, torch.where(kl_div < 0.5 * target, FACTOR, 1.0))
        factor = torch.where(self._moved > 0, factor, 1.0)
        self._moved.fill_(1.0)
        for group in self._optimizer.param_groups:
            scale = group.get("lr_scale", 1.0)
            least, most = self._hparams.min_lr * scale, self._hparams.max_lr * scale
            if isinstance(group["lr"], Tensor):
                group["lr"].mul_(factor).clamp_(least, most)
            else:  # host sync: on CUDA without graphs
                group["lr"] = min(max(group["lr"] * float(factor), least), most)

    def tensors(self) -> dict[str, Any]:
        """Return what a captured step reads and writes."""
        rates = {
            str(index): group["lr"]
            for index, group in enumerate(self._optimizer.param_groups)
            if isinstance(group["lr"], Tensor)
        }
        return {"moved": self._moved, "rates": rates} if self.acts else {}

    def load(self, groups: list[Mapping[str, Any]]) -> None:
        """Go on with the rates of a saved optimizer's groups."""
        if not self.acts:
            return
        for group, saved in zip(self._optimizer.param_groups, groups, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(float(saved["lr"]))  # host sync: once, on resuming
            else:
                group["lr"] = float(saved["lr"])
