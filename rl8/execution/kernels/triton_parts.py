"""What the kernels have in common: the mathematics of `loss` on a tile of rows in registers."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl8.distributions import FORBIDDEN_LOGIT, LOG_STD_MAX, LOG_STD_MIN
from rl8.execution.kernels.loss import HALF_LOG_TAU, Discrete, Gaussian, Head, Terms

# What a head's features are: constants of a kernel.
DISCRETE = tl.constexpr(0)
NORMAL = tl.constexpr(1)
SQUASHED = tl.constexpr(2)
VALUE = tl.constexpr(3)

FORBIDDEN = tl.constexpr(FORBIDDEN_LOGIT)
LOWEST_LOG_STD = tl.constexpr(LOG_STD_MIN)
HIGHEST_LOG_STD = tl.constexpr(LOG_STD_MAX)
HALF_LOG_2PI = tl.constexpr(HALF_LOG_TAU)

SUMS = tl.constexpr(8)  # numbers that a program adds up over its rows: the five means of the loss come first


class Constants(NamedTuple):
    """What a kernel knows of a head and of the loss when it is compiled."""

    kind: int
    elements: int  # E, or 1
    size: int  # F of a discrete head, A of a Gaussian one
    masked: bool
    vf_clipped: bool
    dual_clipped: bool


def constants(head: Head, terms: Terms | None, *, masked: bool) -> Constants:
    """Return what is compiled into a kernel for a head and a loss."""
    clips = (False, False) if terms is None else (terms.vf_clip_param is not None, terms.dual_clip_param is not None)
    if isinstance(head, Discrete):
        return Constants(0, len(head.sizes), sum(head.sizes), masked, *clips)
    return Constants(1 if head.log_half_range is None else 2, 1, head.size, False, *clips)


@functools.lru_cache(maxsize=64)  # no copy from the host while a graph is captured
def starts(head: Head, device: torch.device) -> Tensor:
    """Return the first feature of each element of a discrete head, and their number, `[E + 1]` int32."""
    sizes = head.sizes if isinstance(head, Discrete) else (head.size,)
    return torch.tensor([sum(sizes[:k]) for k in range(len(sizes) + 1)], dtype=torch.int32, device=device)


def half_range(head: Head) -> float:
    """Return the log-slope's constant of a squashed action, 0 for others."""
    return head.log_half_range or 0.0 if isinstance(head, Gaussian) else 0.0


@triton.jit
def tanh(x):
    """Return the hyperbolic tangent, to float32's absolute rounding."""
    shrunk = tl.exp(-2 * tl.abs(x))
    result = (1 - shrunk) / (1 + shrunk)
    return tl.where(x < 0, -result, result)


@triton.jit
def log_slope(u, log_half_range, size: tl.constexpr, inside):
    """Return the log-derivative `[rows]` of squashing numbers `[rows, columns]`."""
    # u + softplus(-2 u) = |u| + log(1 + exp(-2 |u|)), which never overflows
    far = tl.abs(u)
    cost = tl.where(inside, far + tl.log(1 + tl.exp(-2 * far)), 0.0)
    return log_half_range + 1.3862943611198906 * size - 2 * tl.sum(cost, 1)


@triton.jit
def surrogate(logp, old_logp, advantages, clip, dual_clip, dual_clipped: tl.constexpr):
    """Return loss, its slope by log-probability, divergence, and 1 where clipped, of each row."""
    log_ratio = logp - old_logp
    ratio = tl.exp(log_ratio)
    gain = ratio * advantages
    held = tl.minimum(tl.maximum(ratio, 1 - clip), 1 + clip) * advantages
    stopped = gain > held
    objective = tl.where(stopped, held, gain)  # not minimum: what is no number stays visible
    if dual_clipped:
        floor = dual_clip * advantages
        below = (objective < floor) & (advantages < 0)
        objective = tl.where(below, floor, objective)
        stopped = stopped | below
    moved = ratio - 1
    clipped = (tl.abs(moved) > clip).to(tl.float32)
    return -objective, tl.where(stopped, 0.0, -gain), moved - log_ratio, clipped


@triton.jit
def value_loss(values, old_values, returns, clip, clipped: tl.constexpr):
    """Return loss and slope of each row's value."""
    error = values - returns
    squared = error * error
    if clipped:
        moved = values - old_values
        held = old_values + tl.minimum(tl.maximum(moved, -clip), clip) - returns
        held = held * held
        stopped = (held > squared) & (tl.abs(moved) > clip)
        return 0.5 * tl.where(held > squared, held, squared), tl.where(stopped, 0.0, error)
    return 0.5 * squared, error


@triton.jit
def log_softmax(logits, inside):
    """Return log-probabilities `[rows, columns]` of the cells inside one element, zero in the others."""
    part = tl.where(inside, logits, float("-inf"))
    shifted = part - tl.max(part, 1)[:, None]
    return tl.where(inside, shifted - tl.log(tl.sum(tl.exp(shifted), 1))[:, None], 0.0)


@triton.jit
def forbid(logits, mask_ptr, rows, live, columns, size: tl.constexpr, masked: tl.constexpr):
    """Return logits `[rows, columns]`, forbidden where the mask says so, and whether each is allowed."""
    allowed = live[:, None] & (columns < size)[None, :]
    if masked:
        allowed = tl.load(mask_ptr + rows[:, None] * size + columns[None, :], mask=allowed, other=0) != 0
        logits = tl.where(allowed, logits, FORBIDDEN)
    return logits, allowed


@triton.jit
def discrete(logits, actions_ptr, starts_ptr, rows, live, columns, elements: tl.constexpr):
    """Return log-probability and entropy `[rows]`, and of each cell what the gradient needs.

    That is its log-probability, its element's entropy, and 1 where it was chosen.
    """
    logp = tl.zeros_like(tl.sum(logits, 1))
    entropy = tl.zeros_like(logp)
    log_probs = tl.zeros_like(logits)
    entropies = tl.zeros_like(logits)
    hot = tl.zeros_like(logits)
    for k in tl.static_range(elements):
        begin = tl.load(starts_ptr + k)
        inside = ((columns >= begin) & (columns < tl.load(starts_ptr + k + 1)))[None, :]
        cells = log_softmax(logits, inside)
        action = tl.load(actions_ptr + rows * elements + k, mask=live, other=0).to(tl.int32)
        chosen = columns[None, :] == (begin + action)[:, None]
        own = -tl.sum(tl.where(inside, tl.exp(cells) * cells, 0.0), 1)
        logp += tl.sum(tl.where(chosen, cells, 0.0), 1)
        entropy += own
        log_probs += cells
        entropies = tl.where(inside, own[:, None], entropies)
        hot = tl.where(chosen, 1.0, hot)
    return logp, entropy, log_probs, entropies, hot


@triton.jit
def policy_gradient(
    features,  # [rows, columns] logits, or means
    log_stds,  # [rows or 1, columns]
    actions_ptr,
    logp_ptr,
    advantages_ptr,
    mask_ptr,
    noise_ptr,
    starts_ptr,
    rows,
    live,
    columns,
    scale,  # of a sample's loss in the gradient
    entropy_coeff,
    clip,
    dual_clip,
    log_half_range,
    kind: tl.constexpr,
    size: tl.constexpr,
    elements: tl.constexpr,
    masked: tl.constexpr,
    dual_clipped: tl.constexpr,
):
    """Return derivatives `[rows, columns]` by features and by log_stds, and loss, entropy, divergence and clipping."""
    old_logp = tl.load(logp_ptr + rows, mask=live, other=0.0)
    advantages = tl.load(advantages_ptr + rows, mask=live, other=0.0)
    bonus = entropy_coeff * scale
    if kind == DISCRETE:
        logits, allowed = forbid(features, mask_ptr, rows, live, columns, size, masked)
        logp, entropy, log_probs, entropies, hot = discrete(
            logits, actions_ptr, starts_ptr, rows, live, columns, elements
        )
        loss, slope, kl, clipped = surrogate(logp, old_logp, advantages, clip, dual_clip, dual_clipped)
        slope = (slope * scale)[:, None]
        by_features = tl.exp(log_probs) * (bonus * (log_probs + entropies) - slope) + hot * slope
        by_features = tl.where(allowed, by_features, 0.0)
        by_log_stds = tl.zeros_like(by_features)
    else:
        inside = live[:, None] & (columns < size)[None, :]
        limited = tl.minimum(tl.maximum(log_stds, LOWEST_LOG_STD), HIGHEST_LOG_STD) + tl.zeros_like(features)
        std = tl.exp(limited)
        places = rows[:, None] * size + columns[None, :]
        actions = tl.load(actions_ptr + places, mask=inside, other=0.0)
        z = tl.where(inside, (actions - features) / std, 0.0)
        limited_sum = tl.sum(tl.where(inside, limited, 0.0), 1)
        logp = -limited_sum - 0.5 * tl.sum(z * z, 1) - HALF_LOG_2PI * size
        entropy = limited_sum + (HALF_LOG_2PI + 0.5) * size
        if kind == SQUASHED:
            logp -= log_slope(actions, log_half_range, size, inside)
            spread = std * tl.load(noise_ptr + places, mask=inside, other=0.0)
            drawn = features + spread
            entropy += log_slope(drawn, log_half_range, size, inside)
        loss, slope, kl, clipped = surrogate(logp, old_logp, advantages, clip, dual_clip, dual_clipped)
        slope = (slope * scale)[:, None]
        by_features = slope * z / std
        by_log_stds = slope * (z * z - 1) - bonus
        if kind == SQUASHED:
            pull = 2 * bonus * tanh(drawn)
            by_features += pull
            by_log_stds += pull * spread
        by_features = tl.where(inside, by_features, 0.0)
        by_log_stds = tl.where(inside, by_log_stds, 0.0)
    return by_features, by_log_stds, loss, entropy, kl, clipped


@triton.jit
def add_up(sums_ptr, live, loss, vf, entropy, kl, clipped):
    """Store a program's sums over its live rows."""
    tl.store(sums_ptr, tl.sum(tl.where(live, loss, 0.0)))
    tl.store(sums_ptr + 1, tl.sum(tl.where(live, vf, 0.0)))
    tl.store(sums_ptr + 2, tl.sum(tl.where(live, entropy, 0.0)))
    tl.store(sums_ptr + 3, tl.sum(tl.where(live, kl, 0.0)))
    tl.store(sums_ptr + 4, tl.sum(tl.where(live, clipped, 0.0)))
