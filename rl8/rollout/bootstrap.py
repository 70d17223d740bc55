"""What an episode that a time limit cut off bootstraps from, and the values that this takes.

Nothing but the clock ended such an episode, so that something would have followed (Pardo et al. 2018,
arXiv:1712.00378): the value of the last observation before the reset says how much. Simulators that return the
observation after the reset only have the value before the step to offer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rl8.data import BOOTSTRAP_FINAL_OBS, BOOTSTRAP_LAST_VALUE
from rl8.policy.policy import Policy
from rl8.rollout.containers import named
from rl8.specs import Nested


def next_values(
    values: Tensor, terminated: Tensor, truncated: Tensor, final_values: Tensor | None, *, bootstrap: str
) -> Tensor:
    """Return `[T, N]` value of the state that each action led to, before any reset.

    next_value_t = 0 if terminated_t, else by `bootstrap` if truncated_t, else value_{t+1}

    Args:
        values: `[T + 1, N]` value of the state that action t was taken in, and of the one after the last action.
        terminated: `[T, N]` bool, whether step t ended an episode for good.
        truncated: `[T, N]` bool, whether a time limit ended it.
        final_values: `[T, N]` values of the last observations of truncated episodes; only `"final_obs"` looks there.
        bootstrap: `"final_obs"` takes these, `"last_value"` the value before the step, `"none"` 0.
    """
    if bootstrap == BOOTSTRAP_FINAL_OBS:
        assert final_values is not None
        following = torch.where(truncated, final_values, values[1:])
    elif bootstrap == BOOTSTRAP_LAST_VALUE:
        following = torch.where(truncated, values[:-1], values[1:])
    else:
        terminated, following = terminated | truncated, values[1:]
    return torch.where(terminated, 0.0, following)


class FinalRows:
    """Keeps what a policy sees at the end of truncated episodes, of these alone; asks the host which they are."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Nested, Nested | None]] = []

    def begin(self) -> None:
        """Forget the last horizon."""
        self._kept.clear()

    def add(self, t: int, truncated: Tensor, seen: Nested, state: Nested | None) -> None:
        """Keep the rows of a step.

        Args:
            t: The step.
            truncated: `[N]` bool, which episodes a time limit ended.
            seen: `[1, N, ...]` what the model sees of the last observations.
            state: `[N, ...]` recurrent state after the step, or None.
        """
        rows = truncated.nonzero().flatten()  # host sync: on a CPU there is nobody to wait for
        if len(rows):
            self._kept.append((t * len(truncated) + rows, seen[:, rows], None if state is None else state[rows]))

    def store(self, final_values: Tensor, truncated: Tensor, policy: Policy, piece_size: int | None = None) -> None:
        """Write the values of what was kept.

        Args:
            final_values: `[T, N]`, written where `truncated`.
            truncated: `[T, N]` bool, as was given step by step.
            policy: Computes them.
            piece_size: Rows per forward pass; None takes all at once.
        """
        if not self._kept:
            return
        places, seen, states = zip(*self._kept, strict=True)
        rows, final = torch.cat(places), torch.cat(seen, 1)
        state = None if states[0] is None else torch.cat(states)
        size = piece_size or len(rows)
        for start in range(0, len(rows), size):
            stop = min(start + size, len(rows))
            found = policy.values(final[:, start:stop], None if state is None else state[start:stop])[0]
            final_values.view(-1)[rows[start:stop]] = found
        self._kept.clear()

    def tensors(self) -> dict[str, Any]:
        """Return what stays where it is from horizon to horizon, by name."""
        return {}


class FinalSlots(FinalRows):
    """The same for a captured graph, which asks nobody: a place in memory for each truncation that there can be.

    Args:
        num_envs: Environments, N.
        slots: Truncations of one environment in a horizon at most, S.
        device: Where they are.
    """

    def __init__(self, num_envs: int, slots: int, device: torch.device) -> None:
        super().__init__()
        self.count = torch.zeros(num_envs, dtype=torch.int64, device=device)  # of the horizon so far
        self._envs = torch.arange(num_envs, device=device)
        self._slots = slots
        self._seen: Nested | None = None  # [S, N, ...]
        self._states: Nested | None = None  # [S, N, ...]

    def begin(self) -> None:
        """See `FinalRows.begin`."""
        self.count.zero_()

    def add(self, t: int, truncated: Tensor, seen: Nested, state: Nested | None) -> None:
        """See `FinalRows.add`."""
        slot = self.count.clamp(max=self._slots - 1)
        self._seen = self._written(self._seen, slot, truncated, seen[0])
        if state is not None:
            self._states = self._written(self._states, slot, truncated, state)
        self.count += truncated

    def store(self, final_values: Tensor, truncated: Tensor, policy: Policy, piece_size: int | None = None) -> None:
        """See `FinalRows.store`; NaN where an environment truncates more often than it says."""
        if self._seen is None:
            return
        state = None if self._states is None else self._states.flatten(0, 1)
        found = policy.values(self._seen.flatten(0, 1).unsqueeze(0), state)[0].view(self._slots, -1)
        order = truncated.long().cumsum(0) - 1
        found = found.gather(0, order.clamp(0, self._slots - 1)).masked_fill(order >= self._slots, torch.nan)
        final_values.copy_(torch.where(truncated, found, 0.0))

    def tensors(self) -> dict[str, Any]:
        """See `FinalRows.tensors`."""
        return {"count": self.count, "seen": self._seen, "states": self._states}

    def _written(self, kept: Nested | None, slot: Tensor, truncated: Tensor, rows: Nested) -> Nested:
        """Return `kept` `[S, N, ...]` with `rows` `[N, ...]` in their slots where `truncated`."""
        if kept is None:
            stacked: Any = torch.stack([rows] * self._slots)
            kept = stacked
        new = named(rows)
        for name, tensor in named(kept).items():
            mask = truncated.reshape(-1, *[1] * (tensor.ndim - 2))
            tensor[slot, self._envs] = torch.where(mask, new[name], tensor[slot, self._envs])
        return kept
