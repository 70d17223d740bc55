"""PPO's loss and its gradient in closed form: what autograd finds for `rl8.ppo.losses`, in a few operations.

M is the number of samples, F the number of features that a policy's head puts out per sample, A the length of a
continuous action and E the number of elements of a discrete one.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rl8.distributions import FORBIDDEN_LOGIT, LOG_STD_MAX, LOG_STD_MIN

HALF_LOG_TAU: Final = 0.5 * math.log(2 * math.pi)


class Discrete(NamedTuple):
    """What `Categorical` and `MultiCategorical` make of logits `[M, sum(sizes)]`.

    Attributes:
        sizes: Number of choices of each element.
    """

    sizes: tuple[int, ...]


class Gaussian(NamedTuple):
    """What `Normal` and `SquashedNormal` make of means `[M, A]`, or of means and log standard deviations `[M, 2 A]`.

    Attributes:
        size: A.
        log_half_range: Of a squashed action, sum over its numbers of log((high - low) / 2); None if not squashed.
    """

    size: int
    log_half_range: float | None = None


Head = Discrete | Gaussian


class Samples(NamedTuple):
    """What was stored of M samples, and what the loss draws for them.

    Attributes:
        actions: Indices `[M, E]` (or `[M]` if E = 1), or numbers `[M, A]` before squashing.
        logp: `[M]` log-probability under the policy that collected.
        values: `[M]` value estimates at collection.
        advantages: `[M]`.
        returns: `[M]` targets of the value function.
        mask: `[M, F]` bool, True where a choice is allowed; None if all are.
        noise: `[M, A]` standard normal numbers for a squashed action's entropy; None for other actions.
    """

    actions: Tensor
    logp: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor | None = None
    noise: Tensor | None = None


class Terms(NamedTuple):
    """What the loss is made of; see `rl8.ppo.losses.ppo_loss`.

    One that a schedule moves is a 0-d tensor until `now` is called.

    Attributes:
        weight: Of the loss in the gradient; what is logged knows nothing of it.
    """

    clip_param: float
    vf_clip_param: float | None = None
    dual_clip_param: float | None = None
    vf_coeff: float = 1.0
    entropy_coeff: float | Tensor = 0.0
    weight: float = 1.0

    @property
    def moving(self) -> bool:
        """Whether any but the entropy's is a tensor, which may be another at the next update."""
        terms: tuple[Any, ...] = self._replace(entropy_coeff=0.0)
        return any(isinstance(term, Tensor) for term in terms)

    def now(self) -> Terms:
        """Return the same with numbers in the place of tensors, as they are now. The device is waited for."""
        terms: tuple[Any, ...] = self
        return Terms(*(float(term) if isinstance(term, Tensor) else term for term in terms))


class LossGradient(NamedTuple):
    """Derivatives of the mean loss, and what is logged.

    Attributes:
        features: `[M, F]`.
        values: `[M]`.
        log_std: `[A]` by a standard deviation that is the same in every state; None without one.
        parts: `[6]` the fields of `rl8.ppo.losses.PPOLoss`, in their order.
    """

    features: Tensor
    values: Tensor
    log_std: Tensor | None
    parts: Tensor


def loss_gradient(
    head: Head,
    features: Tensor,
    values: Tensor,
    samples: Samples,
    terms: Terms,
    *,
    log_std: Tensor | None = None,
    rows: int | None = None,
) -> LossGradient:
    """Return the gradient of PPO's loss by features and values, and the loss's parts, without autograd.

    Args:
        head: What features mean.
        features: `[M, F]`; computed in float32, or in float64 if they have it.
        values: `[M]`.
        samples: What was stored of these samples.
        terms: Coefficients.
        log_std: `[A]` log standard deviations of a `Gaussian` that are the same in every state.
        rows: Samples that means are taken over, where these are only some of a minibatch; by default M.
    """
    share = 1 / (rows or len(values))
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    sums = torch.empty(5, len(values), dtype=dtype, device=values.device)
    by_features, by_std = policy_gradient(head, features.to(dtype), log_std, samples, terms, share, sums)
    by_values = value_gradient(values.to(dtype), samples, terms, share, sums[1])
    return LossGradient(by_features, by_values, by_std, parts(sums.sum(1).mul_(share), terms))


def value_gradient(values: Tensor, samples: Samples, terms: Terms, share: float, out: Tensor) -> Tensor:
    """Return the derivative `[M]` by values `[M]`, and write each sample's value loss to `out` `[M]`."""
    error = values - samples.returns
    torch.mul(error, error, out=out)
    scale = terms.vf_coeff * terms.weight * share
    if terms.vf_clip_param is None:
        out.mul_(0.5)
        return error.mul_(scale)
    moved = values - samples.values
    held = moved.clamp(-terms.vf_clip_param, terms.vf_clip_param).add_(samples.values).sub_(samples.returns)
    held.mul_(held)
    # Where the value has moved less than the limit both errors are the same but for rounding.
    stopped = (held > out).logical_and_(moved.abs_() > terms.vf_clip_param)
    torch.maximum(out, held, out=out).mul_(0.5)
    return error.mul_(scale).masked_fill_(stopped, 0.0)


def parts(means: Tensor, terms: Terms) -> Tensor:
    """Return the `[6]` parts of the loss for the means `[5]` of all of them but the total."""
    policy, vf, entropy = means[0], means[1], means[2]
    total = torch.add(policy, vf, alpha=terms.vf_coeff) - terms.entropy_coeff * entropy
    return torch.cat([total.unsqueeze(0), means])


def policy_gradient(
    head: Head, features: Tensor, log_std: Tensor | None, samples: Samples, terms: Terms, share: float, sums: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return the derivatives by features `[M, F]` and by log standard deviations `[A]`.

    Args:
        head: What features mean.
        features: `[M, F]`, in the dtype of `sums`.
        log_std: As for `loss_gradient`.
        samples: What was stored of these samples.
        terms: Coefficients.
        share: One sample's part in a mean.
        sums: `[5, M]`, whose rows 0, 2, 3 and 4 get each sample's policy loss, entropy, divergence, and 1 if clipped.
    """
    bonus = terms.entropy_coeff * (terms.weight * share)  # what one nat of a sample's entropy takes off the loss
    if isinstance(head, Discrete):
        log_probs = log_probabilities(head, features, samples.mask)
        chosen = samples.actions.reshape(len(features), -1).T.unsqueeze(1)  # [E, 1, M]
        logp = log_probs.gather(1, chosen).sum((0, 1))
        probs = log_probs.exp()
        entropy = (probs * log_probs).sum(1, keepdim=True).neg_()  # [E, 1, M]
        torch.sum(entropy, (0, 1), out=sums[2])
        slope = _surrogate(logp, samples, terms, share, sums)
        # slope * (1[chosen] - p) + bonus * p * (log p + entropy)
        by_logits = log_probs.add_(entropy).mul_(bonus).sub_(slope).mul_(probs)
        by_logits.scatter_add_(1, chosen, slope.expand_as(chosen))
        return _flat(head, by_logits, samples.mask), None
    size, own = head.size, log_std is not None
    mean = features[:, :size]
    limited = (features[:, size:] if log_std is None else log_std.to(features.dtype)).clamp(LOG_STD_MIN, LOG_STD_MAX)
    std = limited.exp()
    z = (samples.actions.reshape(mean.shape) - mean).div_(std)
    squared = z * z
    logp = torch.add(limited, squared, alpha=0.5).sum(1).add_(HALF_LOG_TAU * size).neg_()
    sums[2] = limited.sum(-1) + (HALF_LOG_TAU + 0.5) * size
    if head.log_half_range is not None:
        assert samples.noise is not None
        logp -= log_slope(head, samples.actions.reshape(mean.shape))
        spread = samples.noise * std
        drawn = mean + spread
        sums[2] += log_slope(head, drawn)
    slope = _surrogate(logp, samples, terms, share, sums).unsqueeze(1)
    by_std = squared.sub_(1).mul_(slope).sub_(bonus)
    by_mean = z.div_(std).mul_(slope)
    if head.log_half_range is not None:
        pull = drawn.tanh_().mul_(2 * bonus)  # of the entropy's own sample, towards the interval's middle
        by_mean += pull
        by_std += pull.mul_(spread)
    return (by_mean, by_std.sum(0)) if own else (torch.cat([by_mean, by_std], 1), None)


def _surrogate(logp: Tensor, samples: Samples, terms: Terms, share: float, sums: Tensor) -> Tensor:
    """Return the loss's derivative `[M]` by log-probabilities `[M]`; write policy loss, divergence and clipping."""
    advantages, clip = samples.advantages, terms.clip_param
    log_ratio = logp - samples.logp
    ratio = log_ratio.exp()
    gain, held = ratio * advantages, ratio.clamp(1 - clip, 1 + clip).mul_(advantages)
    stopped = gain > held
    objective = torch.minimum(gain, held)
    if terms.dual_clip_param is not None:
        floor = terms.dual_clip_param * advantages
        below = (objective < floor).logical_and_(advantages < 0)
        objective = torch.where(below, floor, objective)
        stopped |= below
    torch.neg(objective, out=sums[0])
    moved = ratio.sub_(1)
    torch.sub(moved, log_ratio, out=sums[3])
    torch.gt(moved.abs_(), clip, out=sums[4])
    return gain.mul_(-terms.weight * share).masked_fill_(stopped, 0.0)


def log_probabilities(head: Discrete, logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return log-probabilities `[E, max(sizes), M]` of logits `[M, F]`."""
    return functional.log_softmax(by_columns(head, logits, mask, FORBIDDEN_LOGIT), dim=1)


def by_columns(head: Discrete, flat: Tensor, mask: Tensor | None, missing: float) -> Tensor:
    """Return `[M, F]` as `[E, max(sizes), M]`: a softmax over columns is quicker on a CPU.

    A forbidden choice, and a cell that a shorter element does not have, gets `missing`.
    """
    table = flat.T
    if mask is not None:
        table = table.where(mask.reshape(flat.shape).T, missing)
    padding = _padding(head.sizes, flat.device)
    if padding is not None:
        table = table.index_select(0, padding.columns).masked_fill_(padding.empty, missing)
    return table.reshape(len(head.sizes), -1, len(flat)).contiguous()


def _flat(head: Discrete, cells: Tensor, mask: Tensor | None) -> Tensor:
    """Return `[E, max(sizes), M]` as `[M, F]`, zero where forbidden."""
    flat = cells.flatten(0, 1)
    padding = _padding(head.sizes, cells.device)
    if padding is not None:
        flat = flat.index_select(0, padding.cells)
    return flat.T if mask is None else flat.T * mask.reshape(len(mask), -1)


def cells_of(head: Discrete, device: torch.device) -> Tensor | None:
    """Return where each feature `[F]` is among elements of equal length; None where their length is equal already."""
    padding = _padding(head.sizes, device)
    return None if padding is None else padding.cells


class _Padding(NamedTuple):
    columns: Tensor  # [E * max(sizes)] feature of each cell
    empty: Tensor  # [E * max(sizes), 1] whether there is none
    cells: Tensor  # [F] cell of each feature


@functools.lru_cache(maxsize=64)
def _padding(sizes: tuple[int, ...], device: torch.device) -> _Padding | None:
    """Return how flat logits become rows of equal length, or None where they have it already."""
    if len(set(sizes)) == 1:
        return None
    counts = torch.tensor(sizes)
    cells = torch.arange(max(sizes))
    real = cells < counts[:, None]
    columns = torch.where(real, (counts.cumsum(0) - counts)[:, None] + cells, 0)
    found: list[Any] = [columns.flatten(), ~real.reshape(-1, 1), real.flatten().nonzero().squeeze(1)]
    return _Padding(*(tensor.to(device) for tensor in found))


def log_slope(head: Gaussian, u: Tensor) -> Tensor:
    """Return the log-derivative `[M]` of squashing numbers `[M, A]`; see `SquashedNormal`."""
    assert head.log_half_range is not None
    constant = head.log_half_range + 2 * math.log(2) * head.size
    return constant - 2 * (u + functional.softplus(-2 * u)).sum(-1)
