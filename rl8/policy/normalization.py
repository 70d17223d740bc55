"""Running statistics of observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl8.parallel import world


def spread(samples: Tensor) -> Tensor:
    """Return the geometric mean of the sizes of what is neither zero nor infinite nor NaN, over the first dimension.

    One absurd number among many hardly moves it, however absurd: it is a scale for what nothing is known of yet.
    """
    sizes = samples.abs()
    counted = (sizes > 0) & sizes.isfinite()
    logs = torch.where(counted, sizes, 1.0).log()
    return (logs.sum(0) / counted.sum(0).clamp(min=1)).exp()


class RunningMoments(nn.Module):
    """Mean and variance of all samples seen so far, elementwise.

    Batches are merged by Chan et al. 1979: the result does not depend on how samples are split into batches.
    One absurd number must not make all others count for nothing, for ever. So a sample counts as no further from the
    mean than `bound` times the scale so far, which is the std or a hundredth of the mean, whichever is larger
    (winsorising; Huber 1964, doi:10.1214/aoms/1177703732). Of the first samples, `spread` tells the scale, around the
    median of a few. A scale that really grows is followed within a few batches.
    Of what is not finite, infinity counts as that far away, and NaN as the mean.

    Args:
        shape: Shape of one sample.
    """

    bound = 100.0
    enough = 64  # samples that tell a scale
    looks = True  # whether a processor, for which nobody waits, looks at its numbers and spares what they make useless
    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] | torch.Size = ()) -> None:
        super().__init__()
        # float64: a float32 count stops growing at 16.7 million samples, and a square overflows at 1e19.
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Merge a batch `[M, *shape]` of each process (in place, so that captured graphs see it); M may be 0."""
        if samples.shape[0]:
            self._merge(*self._moments_of(samples))
        elif world.size() > 1:
            self._merge(torch.zeros_like(self.count), self.mean, self.var)

    def _moments_of(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return count, mean and variance of a batch `[M, *shape]`, absurd numbers winsorised."""
        center = self.mean if self._looked() else torch.where(self.count > 0, self.mean, self._median(samples))
        # Shifted before anything is rounded: times in seconds since 1970 differ in their last digits only.
        dtype = samples.dtype if samples.is_floating_point() else torch.float64
        away = (samples.to(dtype) - center.to(dtype)).float()
        limit = self.limit(away).clamp(max=torch.finfo(torch.float32).max)
        # Squares of 1e20 are no numbers of float32; in units of a power of two nothing is rounded.
        bound, unit = limit.float(), limit.log2().floor().exp2()
        away = (torch.minimum(torch.maximum(away, -bound), bound) / unit.float()).nan_to_num(0.0)
        var, mean = torch.var_mean(away, dim=0, correction=0)
        return torch.full_like(self.count, samples.shape[0]), mean.double() * unit + center, var.double() * unit**2

    def limit(self, away: Tensor) -> Tensor:
        """Return how far from the mean samples count, `[*shape]`.

        Args:
            away: `[M, *shape]` samples less the mean, which tell it as long as there were few before.
        """
        scale = torch.maximum(self.var.sqrt(), self.mean.abs() / self.bound)
        known = scale > 0
        if self._looked():
            if bool(known.all()):
                return self.bound * scale
        else:
            known &= self.count >= self.enough
        return self.bound * torch.where(known, scale, spread(away))

    def _median(self, samples: Tensor) -> Tensor:
        """Return the median of a batch's first few samples, `[*shape]`."""
        return samples[: self.enough - 1].double().nan_to_num(0.0, 0.0, 0.0).median(dim=0).values

    def _looked(self) -> bool:
        """Return whether it is known without waiting for a device that there were enough samples."""
        return self.looks and self.count.is_cpu and float(self.count) >= self.enough

    def _merge(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        """Merge what the processes' batches come to."""
        count, mean, var = world.pooled(count, mean, var)
        total = (self.count + count).clamp(min=1.0)
        old_share, new_share = self.count / total, count / total
        delta = mean - self.mean
        self.var.mul_(old_share).add_(new_share * var).add_(old_share * new_share * delta.square())
        self.mean.add_(new_share * delta)
        self.count.copy_(total)


class ObsNormalizer(nn.Module):
    """Shifts and scales observations to running mean 0 and std 1, then clips them.

    The statistics change only by `update`; they are saved with the policy and so are frozen wherever it is used.

    Args:
        shape: Shape of one observation.
        clip: Limit of what comes out, in stds.
    """

    clip = 10.0

    def __init__(self, shape: tuple[int, ...] | torch.Size, clip: float = clip) -> None:
        super().__init__()
        self.clip = clip
        self.moments = RunningMoments(shape)

    def forward(self, obs: Tensor) -> Tensor:
        """Return normalised observations, the shape of `obs` `[..., *shape]`, in float32."""
        shift, scale = self.numbers(obs.dtype if obs.is_floating_point() else torch.float32)
        return ((obs - shift) * scale).clamp(-self.clip, self.clip).to(torch.float32)

    def numbers(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return what is subtracted, and what the rest is multiplied by, `[*shape]` each."""
        # The floor on the variance keeps an element that never changes at 0 instead of blowing up its noise.
        return self.moments.mean.to(dtype), torch.rsqrt(self.moments.var.clamp(min=1e-8)).to(dtype)

    def update(self, obs: Tensor) -> None:
        """Merge a batch `[M, *shape]` into the statistics."""
        self.moments.update(obs)
