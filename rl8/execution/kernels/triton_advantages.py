"""Advantages in one launch; the plain functions are `rl8.ppo.advantages.gae` and `gae_endless`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 128  # environments per program, one per thread: the walk through time is sequential


def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, is_last: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Return what the plain function of this name returns, for contiguous float32 tensors."""
    return _launch(rewards, values, next_values, is_last.view(torch.uint8), gamma, gae_lambda, ends=True)


def gae_endless(rewards: Tensor, values: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Return what the plain function of this name returns, for contiguous float32 tensors."""
    return _launch(rewards, values, values[1:], rewards, gamma, gae_lambda, ends=False)


def _launch(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    is_last: Tensor,
    gamma: float,
    gae_lambda: float,
    *,
    ends: bool,
) -> Tensor:
    horizon, envs = rewards.shape
    advantages = torch.empty_like(rewards)
    grid = (triton.cdiv(envs, TILE),)
    _gae[grid](
        rewards,
        values,
        next_values,
        is_last,
        advantages,
        horizon,
        envs,
        gamma,
        gamma * gae_lambda,
        ends=ends,
        tile=TILE,
        num_warps=TILE // 32,
    )
    return advantages


@triton.jit
def _gae(
    rewards_ptr,
    values_ptr,
    next_values_ptr,
    is_last_ptr,
    advantages_ptr,
    horizon,
    envs,
    gamma,
    decay,
    ends: tl.constexpr,
    tile: tl.constexpr,
):
    """Each program walks through the horizon of `tile` environments, from its end."""
    columns = tl.program_id(0) * tile + tl.arange(0, tile)
    live = columns < envs
    carry = tl.zeros([tile], tl.float32)
    for step in range(horizon):
        places = (horizon - 1 - step).to(tl.int64) * envs + columns
        rewards = tl.load(rewards_ptr + places, mask=live, other=0.0)
        values = tl.load(values_ptr + places, mask=live, other=0.0)
        following = tl.load(next_values_ptr + places, mask=live, other=0.0)
        kept = decay * carry
        if ends:
            # not times zero: an infinite advantage ends with its episode
            kept = tl.where(tl.load(is_last_ptr + places, mask=live, other=0) != 0, 0.0, kept)
        carry = rewards + gamma * following - values + kept
        tl.store(advantages_ptr + places, carry, mask=live)
