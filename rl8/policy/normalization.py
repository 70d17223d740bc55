"""Running statistics of observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of all samples seen so far, elementwise.

    Batches are merged by Chan et al. 1979: the result does not depend on how samples are split into batches.

    Args:
        shape: Shape of one sample.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] | torch.Size = ()) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        # float64: a float32 count stops growing at 16.7 million samples.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Merge a batch `[M, *shape]` (in place, so that captured graphs see it)."""
        batch_var, batch_mean = torch.var_mean(samples.float(), dim=0, correction=0)
        total = self.count + samples.shape[0]
        # Divided in float64, both: 1 minus a float32 share near 1 has few correct digits.
        old_share = (self.count / total).to(self.mean.dtype)
        new_share = (samples.shape[0] / total).to(self.mean.dtype)
        delta = batch_mean - self.mean
        self.var.mul_(old_share).add_(new_share * batch_var).add_(old_share * new_share * delta.square())
        self.mean.add_(new_share * delta)
        self.count.copy_(total)


class ObsNormalizer(nn.Module):
    """Shifts and scales observations to running mean 0 and std 1, then clips to +-10.

    The statistics change only by `update`; they are saved with the policy and so are frozen wherever it is used.

    Args:
        shape: Shape of one observation.
    """

    clip = 10.0

    def __init__(self, shape: tuple[int, ...] | torch.Size) -> None:
        super().__init__()
        self.moments = RunningMoments(shape)

    def forward(self, obs: Tensor) -> Tensor:
        """Return normalised observations, the shape of `obs` `[..., *shape]`, in float32."""
        # The floor on the variance keeps an element that never changes at 0 instead of blowing up its noise.
        scale = torch.rsqrt(self.moments.var.clamp(min=1e-8))
        return ((obs - self.moments.mean) * scale).clamp(-self.clip, self.clip).to(torch.float32)

    def update(self, obs: Tensor) -> None:
        """Merge a batch `[M, *shape]` into the statistics."""
        self.moments.update(obs)
