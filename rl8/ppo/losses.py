"""PPO's losses as plain functions of one minibatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rl8.checks import check_range

# A further term: its weight in the total, and a function of the policy and a `Minibatch` that returns a 0-d tensor, a
# mean over the minibatch. It may be called in several threads, for pieces of a minibatch.
ExtraLoss = tuple[float, Callable[[Any, Any], Tensor]]


def check_extra_losses(losses: Mapping[str, ExtraLoss]) -> dict[str, ExtraLoss]:
    """Return further losses as they are.

    Raises:
        TypeError: If one is no pair of a number and a function.
        ValueError: If a weight is infinite or NaN, or a name is taken.
    """
    given: Any = losses
    if not (isinstance(given, Mapping) and all(isinstance(name, str) for name in given)):
        raise TypeError(
            f"extra_losses={given!r} is no mapping from names. Accepted: a weight and a function by name. Try "
            'extra_losses={"mine": (0.1, function)}.'
        )
    loss: Any
    for name, loss in losses.items():
        if name in PPOLoss._fields:
            raise ValueError(f"extra_losses={{{name!r}: ...}}: losses/{name} is PPO's own. Try another name.")
        if not (isinstance(loss, tuple) and len(loss) == 2 and callable(loss[1])):
            raise TypeError(
                f"extra_losses[{name!r}]={loss!r} is no pair of a weight and a function. Try "
                f"extra_losses={{{name!r}: (0.1, function)}}, where function(policy, minibatch) returns a 0-d tensor."
            )
        check_range(f"extra_losses[{name!r}]'s weight", loss[0], hint="0.1")
    return dict(losses)


class PPOLoss(NamedTuple):
    """Means over a minibatch, all 0-d. `total` is what is minimised; the others are for the log."""

    total: Tensor
    policy: Tensor
    vf: Tensor
    entropy: Tensor
    kl_div: Tensor
    clip_fraction: Tensor


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, *, clip_param: float | Tensor, dual_clip_param: float | Tensor | None = None
) -> Tensor:
    """Return the per-sample objective (to be maximised), the shape of `ratio`.

    min(ratio * adv, clip(ratio, 1 - c, 1 + c) * adv); with dual clipping, at least dual_clip_param * adv where adv < 0.
    Sources: Schulman et al. 2017, arXiv:1707.06347; Ye et al. 2020, arXiv:1912.09729 (dual clip).
    """
    limits: Any = (1 - clip_param, 1 + clip_param)
    objective = torch.minimum(ratio * advantages, ratio.clamp(*limits) * advantages)
    if dual_clip_param is None:
        return objective
    return torch.where(advantages < 0, torch.maximum(objective, dual_clip_param * advantages), objective)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    *,
    vf_clip_param: float | Tensor | None = None,
    huber_delta: float | None = None,
) -> Tensor:
    """Return half the squared error per sample, the shape of `values`; from `huber_delta` on it grows linearly.

    With clipping, the larger of that error and the error of the value held within `vf_clip_param` of the old one:
    the gradient stops only where the value has moved far and towards the return, never because the error is large.
    Sources: Schulman et al. 2017, the authors' implementation (openai/baselines ppo2); Huber 1964,
    doi:10.1214/aoms/1177703732.
    """

    def loss(values: Tensor) -> Tensor:
        if huber_delta is None:
            return 0.5 * (values - returns).square()
        return functional.huber_loss(values, returns, reduction="none", delta=huber_delta)

    if vf_clip_param is None:
        return loss(values)
    limits: Any = (-vf_clip_param, vf_clip_param)
    held = old_values + (values - old_values).clamp(*limits)
    return torch.maximum(loss(values), loss(held))


def ppo_loss(
    logp: Tensor,
    entropy: Tensor,
    values: Tensor,
    *,
    old_logp: Tensor,
    old_values: Tensor,
    advantages: Tensor,
    returns: Tensor,
    clip_param: float | Tensor,
    vf_clip_param: float | Tensor | None,
    dual_clip_param: float | Tensor | None,
    vf_coeff: float | Tensor,
    entropy_coeff: float | Tensor,
    vf_huber_delta: float | None = None,
    weights: Tensor | None = None,
) -> PPOLoss:
    """Return the loss of a minibatch and what is logged with it.

    total = -surrogate + vf_coeff * value loss - entropy_coeff * entropy, each a mean over all samples.
    The KL divergence is estimated by the mean of (ratio - 1) - log ratio, which is never negative.

    Args:
        logp: `[L, B]` log-probability of the stored actions under the policy being trained.
        entropy: `[L, B]` its entropy.
        values: `[L, B]` its value estimates.
        old_logp: `[L, B]` log-probability under the policy that collected.
        old_values: `[L, B]` value estimates at collection.
        advantages: `[L, B]`.
        returns: `[L, B]` targets of the value function.
        clip_param: See `clipped_surrogate`.
        vf_clip_param: See `value_loss`.
        dual_clip_param: See `clipped_surrogate`.
        vf_coeff: Weight of the value loss.
        entropy_coeff: Weight of the entropy. A coefficient that is a tensor stays live in a captured graph.
        vf_huber_delta: `huber_delta` of `value_loss`.
        weights: `[L, B]` how much each sample counts, 1 on average over the batch; None if all count the same.
    """
    log_ratio = logp - old_logp
    ratio = log_ratio.exp()
    surrogate = clipped_surrogate(ratio, advantages, clip_param=clip_param, dual_clip_param=dual_clip_param)
    policy = -_mean(surrogate, weights)
    errors = value_loss(values, old_values, returns, vf_clip_param=vf_clip_param, huber_delta=vf_huber_delta)
    vf = _mean(errors, weights)
    mean_entropy = _mean(entropy, weights)
    total = policy + vf_coeff * vf - entropy_coeff * mean_entropy
    with torch.no_grad():
        kl_div = _mean(ratio - 1 - log_ratio, weights)
        clip_fraction = _mean(((ratio - 1).abs() > clip_param).to(ratio.dtype), weights)
    return PPOLoss(total, policy.detach(), vf.detach(), mean_entropy.detach(), kl_div, clip_fraction)


def with_extra(loss: PPOLoss, extra: Mapping[str, ExtraLoss], policy: Any, batch: Any) -> Sequence[Tensor]:
    """Return a minibatch's loss with further terms added to its total, and each of them at the end for the log.

    Raises:
        TypeError: If a term is no 0-d tensor of floats; the message names it.
    """
    terms = [(weight, _scalar(name, function(policy, batch))) for name, (weight, function) in extra.items()]
    total = sum((weight * term for weight, term in terms), start=loss.total)
    return (total, *loss[1:], *(term.detach() for _, term in terms))


def _scalar(name: str, term: Any) -> Tensor:
    if isinstance(term, Tensor) and term.ndim == 0 and term.is_floating_point():
        return term
    found = f"{list(term.shape)} of {term.dtype}" if isinstance(term, Tensor) else f"a {type(term).__name__}"
    raise TypeError(
        f"extra_losses[{name!r}]: its function returned {found}. Accepted: a 0-d tensor of floats, computed from the "
        "policy's parameters. Try .mean()."
    )


def _mean(samples: Tensor, weights: Tensor | None) -> Tensor:
    return samples.mean() if weights is None else (samples * weights).mean()
