"""Returns and lengths of whole episodes, counted on the device where they end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from rl8.data import EPISODE_METRICS, RETURNS, WINDOW
from rl8.parallel import world
from rl8.rollout.metrics import Metrics
from rl8.rollout.rollout import Rollout

NAMES: Final = (*EPISODE_METRICS, *RETURNS)


class Episodes:
    """What came of the episodes that ended in all processes: in the last horizon, and the last `WINDOW` of each.

    Everything stays at one address and nothing is asked for, so that a captured CUDA graph counts on. What a reset cuts
    off is not counted, nor is an episode that began at a random age.

    Args:
        num_envs: Environments, N.
        device: Where the numbers are.

    Attributes:
        returns, lengths: `[N]` of the episodes that go on, so far.
        partial: `[N]` bool, which of them began at a random age.
        recent: `[WINDOW + 1]` returns of the last episodes in a ring; the last place takes what is not kept.
        finished: Episodes so far, 0-d.
        found: `[K]` numbers of `NAMES`; NaN where no episode has ended.
    """

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self.lengths = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.partial = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.recent = torch.zeros(WINDOW + 1, device=device)
        self.finished = torch.zeros((), dtype=torch.int64, device=device)
        self.found = torch.full((len(NAMES),), torch.nan, device=device)

    def begin(self, *, random_ages: bool = False) -> None:
        """Begin new episodes everywhere."""
        self.returns.zero_()
        self.lengths.zero_()
        self.partial.fill_(random_ages)

    @torch.no_grad()
    def add(self, rollout: Rollout) -> None:
        """Count the episodes that ended in a horizon."""
        cut, terminated, truncated = rollout.is_last, rollout.terminated, rollout.truncated
        assert cut is not None
        assert terminated is not None
        assert truncated is not None
        ended = terminated | truncated
        if rollout.weights is not None:  # environments that are left out
            ended = ended & (rollout.weights > 0)
        steps = torch.arange(rollout.horizon, device=cut.device).unsqueeze(1)  # [T, 1]
        # For each step the one after which its episode began: -1 in the horizon before.
        last = torch.where(cut, steps, -1).cummax(0).values
        start = torch.cat([torch.full_like(last[:1], -1), last])  # [T + 1, N]
        sums = torch.cat([torch.zeros_like(self.returns).unsqueeze(0), rollout.rewards.double().cumsum(0)])
        since = start < 0
        returns = torch.where(since, self.returns, 0.0)[:-1] + sums[1:] - sums.gather(0, start[:-1] + 1)
        lengths = torch.where(since, self.lengths, 0)[:-1] + steps - start[:-1]
        ended = ended & ~(since[:-1] & self.partial)
        self._report(returns.float(), lengths, ended, truncated)
        self.returns.copy_(torch.where(since[-1], self.returns, 0.0) + sums[-1] - sums.gather(0, start[-1:] + 1)[0])
        self.lengths.copy_(torch.where(since[-1], self.lengths, 0) + rollout.horizon - 1 - start[-1])
        self.partial &= since[-1]

    def metrics(self) -> Metrics:
        """Return `episodes/...` of the last horizon and `returns/...` of the last `WINDOW` episodes, 0-d each."""
        found = self.found.clone()
        return {name: found[index] for index, name in enumerate(NAMES)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the next horizon goes on with."""
        return {name: tensor.clone() for name, tensor in vars(self).items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on with what `state_dict` returned."""
        for name, tensor in vars(self).items():
            tensor.copy_(saved[name])

    def _report(self, returns: Tensor, lengths: Tensor, ended: Tensor, truncated: Tensor) -> None:
        """Write the numbers of episodes `[T, N]` that `ended`, and put these into the ring."""
        order = ended.flatten().long().cumsum(0)
        count = order[-1]
        kept = ended.flatten() & (order > count - WINDOW)
        place = torch.where(kept, (self.finished + order - 1) % WINDOW, WINDOW)
        self.recent.scatter_(0, place, returns.flatten())
        self.recent[WINDOW] = 0.0
        self.finished += count
        sums = torch.stack([torch.where(ended, series, 0.0).sum() for series in (lengths.float(), truncated.float())])
        counts = count.float().reshape(1)
        world.sum_([counts, sums])
        in_ring = torch.arange(WINDOW, device=ended.device) < self.finished
        recent = spread(self.recent[:WINDOW], in_ring)
        self.found.copy_(torch.stack([*counts, *spread(returns, ended), *(sums / counts), *recent]))


def spread(series: Tensor, counted: Tensor) -> list[Tensor]:
    """Return mean, std, min and max of the elements that count in any process, 0-d each; NaN where none do."""
    number = counted.sum()
    mean = torch.where(counted, series, 0.0).sum() / number.clamp(min=1)
    var = torch.where(counted, series - mean, 0.0).square().sum() / number.clamp(min=1)
    number, mean, var = world.pooled(number, mean, var)
    bounds = torch.stack(
        [torch.where(counted, -series, -torch.inf).max(), torch.where(counted, series, -torch.inf).max()]
    )
    low, high = world.gathered(bounds).amax(0)
    return [value.masked_fill(number == 0, torch.nan) for value in (mean, var.sqrt(), -low, high)]
