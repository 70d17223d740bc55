"""Rewards on the scale of their own returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rl8.policy.normalization import RunningMoments
from rl8.ppo.advantages import discounted_sums


class RewardScaler(nn.Module):
    """Divides rewards by the running std of their discounted sums (not shifted: that would change the task).

    The sum of each environment carries over horizons until its episode ends. What comes out is clipped.
    Source: Engstrom et al. 2020, arXiv:2005.12729, and the clipping of their code.

    Args:
        num_envs: Environments, N.
        gamma: Discount factor.
        clip: Limit of a scaled reward's size; by default 10.
    """

    # Rewards that hardly vary are not blown up by more than 1e4.
    min_std = 1e-4
    sums: Tensor

    def __init__(self, num_envs: int, gamma: float, clip: float | None = None) -> None:
        super().__init__()
        self.gamma, self.clip = gamma, clip or 10.0
        self.moments = RunningMoments()
        self.register_buffer("sums", torch.zeros(num_envs))

    @torch.no_grad()
    def reset(self) -> None:
        """Start every environment's sum anew: the environment was reset."""
        self.sums.zero_()

    @torch.no_grad()
    def forward(self, rewards: Tensor, is_last: Tensor | None = None, counted: Tensor | None = None) -> Tensor:
        """Merge rewards `[T, N]` into the statistics and return them scaled.

        Args:
            rewards: `[T, N]` raw rewards.
            is_last: `[T, N]` bool, whether step t ended an episode; None if none did.
            counted: `[T, N]` bool, which steps go into the statistics; None takes all.
        """
        # A sum would carry an absurd reward on from step to step, and from horizon to horizon.
        limit = self.moments.limit(rewards.flatten()).to(rewards.dtype)
        bounded = torch.minimum(torch.maximum(rewards, -limit), limit).nan_to_num(0.0)
        sums = discounted_sums(bounded, self.sums, gamma=self.gamma, is_last=is_last)
        self.moments.update(sums.flatten() if counted is None else sums[counted])  # host sync: if counted is given
        self.sums.copy_(sums[-1] if is_last is None else torch.where(is_last[-1], 0.0, sums[-1]))
        std = self.moments.var.sqrt().to(rewards.dtype)
        # No spread at all (e.g. no reward yet): leave the rewards alone.
        scale = torch.where(std > 0, 1 / std.clamp(min=self.min_std), 1.0)
        return (rewards * scale).clamp(-self.clip, self.clip)
