"""Generalized advantage estimation and discounted sums, for whole `[T, N]` batches at once."""

from __future__ import annotations

import functools
from typing import Final

import torch
from torch import Tensor

from rl8.parallel import world
from rl8.rollout.rollout import Rollout

# Steps whose discounted sums are one matrix product; more are taken block after block.
BLOCK: Final = 512
# The same where episodes end, which takes a matrix per environment: with many, steps are taken one after the other.
CUT_BLOCK: Final = 32
FEW_ENVS: Final = 16
FEW_STEPS: Final = 16


def advantages_of(rollout: Rollout, rewards: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Return advantages `[T, N]` of a horizon, with rewards `[T, N]` that may be scaled; see `gae`."""
    values = rollout.values
    if rollout.is_last is None:
        return gae_endless(rewards, values, gamma=gamma, gae_lambda=gae_lambda)
    return gae(rewards, values[:-1], rollout.next_values(), rollout.is_last, gamma=gamma, gae_lambda=gae_lambda)


def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, is_last: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Return advantages `[T, N]`, walking time backwards.

    delta_t = r_t + gamma * next_value_t - value_t
    adv_t   = delta_t + gamma * gae_lambda * (1 - is_last_t) * adv_{t+1}
    Source: Schulman et al. 2016, arXiv:1506.02438.

    Both a truncated and a terminated step cut the trace; a truncated one bootstraps from the value of its final
    observation, a terminated one from nothing, as the value after it is 0.

    Args:
        rewards: `[T, N]` reward after action t.
        values: `[T, N]` value of the state that action t was taken in.
        next_values: `[T, N]` value of the state that action t led to, before any reset; 0 where it terminated.
        is_last: `[T, N]` bool, whether step t ended an episode (terminated or truncated).
        gamma: Discount factor, in [0, 1].
        gae_lambda: Trace decay, in [0, 1].

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(rewards=rewards, values=values, next_values=next_values, is_last=is_last)
    delta = rewards + gamma * next_values - values
    if _suits_blocks(delta):
        return _cut_sums(delta.flip(0), is_last.flip(0), gamma * gae_lambda, torch.zeros_like(delta[0])).flip(0)
    decay = (gamma * gae_lambda) * (~is_last).to(delta.dtype)
    advantages = torch.empty_like(delta)
    carry = torch.zeros_like(delta[0])
    for t in range(delta.shape[0] - 1, -1, -1):
        carry = torch.addcmul(delta[t], decay[t], carry, out=advantages[t])
    return advantages


def gae_endless(rewards: Tensor, values: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Return advantages `[T, N]` where no episode ends within the horizon: one matrix product.

    adv = M @ delta,  M[t, s] = (gamma * gae_lambda)^(s - t) for s >= t
    The same as `gae` with `is_last` false everywhere.

    Args:
        rewards: `[T, N]` reward after action t.
        values: `[T + 1, N]` value of the state that action t was taken in, and of the one after the last action.
        gamma: Discount factor, in [0, 1].
        gae_lambda: Trace decay, in [0, 1].

    Raises:
        ValueError: If there is not one more value than rewards.
    """
    expected = (rewards.shape[0] + 1, *rewards.shape[1:])
    if values.shape != expected:
        raise ValueError(
            f"values has shape {tuple(values.shape)}, expected (T + 1, N) = {expected}: T steps need T + 1 values."
        )
    delta = torch.add(rewards, values[1:], alpha=gamma).sub_(values[:-1])
    return _decaying_product(delta, gamma * gae_lambda, backward=True)


def discounted_sums(rewards: Tensor, start: Tensor, *, gamma: float, is_last: Tensor | None = None) -> Tensor:
    """Return running discounted sums `[T, N]`, walking time forwards.

    s_t = gamma * (1 - is_last_{t-1}) * s_{t-1} + r_t

    Args:
        rewards: `[T, N]` reward after action t.
        start: `[N]` sum before the first step.
        gamma: Discount factor, in [0, 1].
        is_last: `[T, N]` bool, whether step t ended an episode; None if none did.

    Raises:
        ValueError: If the shapes differ.
    """
    if start.shape != rewards.shape[1:]:
        raise ValueError(f"start has shape {tuple(start.shape)}, expected (N,) = {tuple(rewards.shape[1:])}.")
    if is_last is None:
        sums = _decaying_product(rewards, gamma, backward=False)
        steps = torch.arange(1, rewards.shape[0] + 1, device=rewards.device, dtype=rewards.dtype)
        return sums.addcmul_(torch.pow(gamma, steps).unsqueeze(1), start.unsqueeze(0))
    _check_shapes(rewards=rewards, is_last=is_last)
    if _suits_blocks(rewards):
        cuts = torch.cat([torch.zeros_like(is_last[:1]), is_last[:-1]])
        return _cut_sums(rewards, cuts, gamma, start)
    decay = gamma * (~is_last).to(rewards.dtype)
    sums = torch.empty_like(rewards)
    carry = start * gamma
    for t in range(rewards.shape[0]):
        torch.add(rewards[t], carry, out=sums[t])
        carry = decay[t] * sums[t]
    return sums


def std_mean(series: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return standard deviation (divided by the count) and mean of all elements of all processes, 0-d each.

    Args:
        series: Any shape.
        weights: Of the same shape, how much each element counts; None if all count the same.
    """
    if weights is None:
        count = torch.full((), series.numel(), device=series.device)
        var, mean = torch.var_mean(series, correction=0)
    else:
        count = weights.sum()
        shares = weights / count.clamp(min=1e-8)
        mean = (series * shares).sum()
        var = ((series - mean).square() * shares).sum()
    _, mean, var = world.pooled(count, mean, var)
    return var.sqrt(), mean


@torch.no_grad()
def normalize_minibatch(rollout: Rollout, rows: Tensor | slice) -> None:
    """Shift and scale the advantages of a minibatch to mean 0 and std 1, in place.

    As CleanRL and SB3 do; Andrychowicz et al. 2020, arXiv:2006.05990, found that it hardly matters. With several
    processes each takes the moments of its own data.

    Args:
        rollout: Its advantages at these places are written, from returns and values.
        rows: Places of the minibatch's sequences; see `Rollout.minibatch`.
    """
    advantages = rollout.returns.flatten()[rows] - rollout.values[:-1].flatten()[rows]
    weights = None if rollout.weights is None else rollout.weights.flatten()[rows]
    if weights is None:
        std, mean = torch.std_mean(advantages, correction=0)
    else:
        share = weights / weights.sum().clamp(min=1e-8)
        mean = (advantages * share).sum()
        std = ((advantages - mean).square() * share).sum().sqrt()
    rollout.advantages.view(-1)[rows] = (advantages - mean) / (std + 1e-8)


def _suits_blocks(series: Tensor) -> bool:
    """Return whether `_cut_sums` is the faster way for `[T, N]`; on CUDA kernels or captured graphs do it."""
    steps, num_envs = series.shape if series.ndim == 2 else (0, 0)
    return series.device.type == "cpu" and steps >= FEW_STEPS and num_envs <= FEW_ENVS


def _cut_sums(series: Tensor, cuts: Tensor, decay: float, start: Tensor) -> Tensor:
    """Return `s_t = series_t + decay * (1 - cuts_t) * s_{t-1}`, `[T, N]`, of all blocks at once, then block by block.

    Args:
        series: `[T, N]`.
        cuts: `[T, N]` bool, where the sum begins anew.
        decay: Factor per step.
        start: `[N]` the sum before the first step.
    """
    steps, num_envs = series.shape
    size = min(CUT_BLOCK, steps)
    lacking = -steps % size
    padded = [torch.cat([each, each.new_zeros(lacking, num_envs)]) if lacking else each for each in (series, cuts)]
    values, parts = (each.view(-1, size, num_envs) for each in padded)  # [T / B, B, N]
    parts = parts.cumsum(1)
    index = torch.arange(size, device=series.device)
    distance = (index.unsqueeze(1) - index).unsqueeze(-1)  # [B, B, 1]
    powers = torch.pow(decay, distance.clamp(min=0).to(series.dtype))
    joined = (parts.unsqueeze(2) == parts.unsqueeze(1)) & (distance >= 0)  # [T / B, B, B, N]
    sums = torch.where(joined, powers * values.unsqueeze(1), 0.0).sum(2)
    reach = torch.where(parts == 0, torch.pow(decay, (index + 1).to(series.dtype)).unsqueeze(-1), 0.0)
    carry = start
    for block, share in zip(sums, reach, strict=True):
        block.addcmul_(share, carry)
        carry = block[-1]
    return sums.view(-1, num_envs)[:steps]


def _decaying_product(series: Tensor, decay: float, *, backward: bool) -> Tensor:
    """Return for every t the sum over later (or earlier) s of `decay^|s - t| * series[s]`.

    Of at most `BLOCK` steps at once, what came before counting as one more step: memory grows with T, not its square.
    """
    if backward:
        return (
            _decaying_product(series.flip(0), decay, backward=False).flip(0)
            if len(series) > BLOCK
            else (_block_product(series, decay, backward=True))
        )
    sums: list[Tensor] = []
    for block in series.split(BLOCK):
        found = _block_product(block, decay, backward=False)
        if sums:
            steps = torch.arange(1, len(block) + 1, device=block.device, dtype=block.dtype)
            found = torch.addcmul(found, torch.pow(decay, steps).unsqueeze(1), sums[-1][-1:])
        sums.append(found)
    return sums[0] if len(sums) == 1 else torch.cat(sums)


def _block_product(series: Tensor, decay: float, *, backward: bool) -> Tensor:
    # float32 products may be TF32 on CUDA (10 bits of mantissa): too coarse for returns, so double there.
    dtype = torch.float64 if series.is_cuda else series.dtype
    make = _kept_powers if series.is_cpu else _powers
    return (make(len(series), decay, dtype, series.device, backward) @ series.to(dtype)).to(series.dtype)


def _powers(steps: int, decay: float, dtype: torch.dtype, device: torch.device, backward: bool) -> Tensor:
    """Return `[T, T]` by how much each step counts in the sum at each."""
    index = torch.arange(steps, device=device, dtype=dtype)
    distance = index.unsqueeze(0) - index.unsqueeze(1) if backward else index.unsqueeze(1) - index.unsqueeze(0)
    return torch.where(distance >= 0, torch.pow(decay, distance.clamp(min=0)), 0.0)


# A captured graph, on CUDA, would keep in its own memory what others were to use.
_kept_powers = functools.lru_cache(maxsize=8)(_powers)


def _check_shapes(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors have the shape of the first."""
    (first, expected), *others = ((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    for name, shape in others:
        if shape != expected:
            raise ValueError(f"{name} has shape {shape}, expected {expected}, the shape of {first}.")
