"""The forward pass of a horizon, kept from its collection for the update's first pass over the data.

Until the first optimizer step the networks are those that collected, and what they made of each observation would be
computed a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rl8.execution.pieces import split
from rl8.execution.threads import side_by_side
from rl8.policy.policy import Policy, join

# What was made of each step is a graph of its own. Where more than this many would make a full piece, they are so small
# that keeping them saves nothing.
MAX_KEPT_PARTS = 32


def shares_to_keep(policy: Policy, num_envs: int, horizon: int, *, piece_size: int | None, threads: int) -> list[slice]:
    """Return each thread's env steps if a horizon's forward pass should be kept for a pass over all of it, else none.

    It should where each thread differentiates its share at once in any case, so that no more is in memory than later
    in the update, and where steps are not too small; see `MAX_KEPT_PARTS`.

    Args:
        policy: Computes it.
        num_envs: Environments, N.
        horizon: Steps, T.
        piece_size: Env steps that a thread differentiates at once; None for no limit.
        threads: How many there are.
    """
    if not policy.model.has_value_pass or num_envs * MAX_KEPT_PARTS < (piece_size or 0) or not policy.pure:
        return []
    steps = num_envs * horizon
    shares = split(slice(0, steps), piece_size=piece_size, threads=threads)
    rows = [piece.rows for pieces in shares for piece in pieces if isinstance(piece.rows, slice)]
    whole_steps = all(share.stop % num_envs == 0 for share in rows)
    return rows if len(rows) == len(shares) and whole_steps else []


class ForwardPass:
    """Features and values of a horizon's env steps, with their graph.

    Args:
        policy: Computes them; a feedforward one, with a value pass of its own.
        num_envs: Environments, N.
        shares: Env steps that each thread differentiates, counted `t * N + n`, all N of a step in one share.
    """

    def __init__(self, policy: Policy, num_envs: int, shares: Sequence[slice]) -> None:
        self.policy, self.num_envs, self.shares = policy, num_envs, shares
        self._features: list[Mapping[str, Any]] = []
        self._values: dict[int, Tensor] = {}
        self._written = self._writes()

    def add_features(self, features: Mapping[str, Any]) -> None:
        """Keep the features `[1, N, ...]` of the next step."""
        self._features.append(features)

    def add_values(self, seen: Callable[[slice], Any]) -> Tensor:
        """Compute, keep and return the values `[T * N]` of all steps, without their graph.

        Args:
            seen: Gives what the model sees at some env steps, `[1, B, ...]`.
        """

        @torch.enable_grad()
        def values(rows: slice) -> Tensor:
            return self.policy.values(seen(rows))

        found = side_by_side([partial(values, rows) for rows in self.shares])
        self._values = {rows.start: part for rows, part in zip(self.shares, found, strict=True)}
        return torch.cat([part.detach()[0] for part in found])

    def outputs(self, rows: slice) -> tuple[Mapping[str, Any], Tensor]:
        """Return features `[1, B, ...]` and values `[1, B]` of one share."""
        steps = slice(rows.start // self.num_envs, rows.stop // self.num_envs)
        return join(self._features[steps], dim=1), self._values[rows.start]

    @property
    def current(self) -> bool:
        """Whether nobody has written to the networks since."""
        return self._written == self._writes()

    def _writes(self) -> list[tuple[int, int]]:
        """Return where the policy's tensors are and how often each was written."""
        tensors = (*self.policy.parameters(), *self.policy.buffers())
        return [(tensor.data_ptr(), tensor._version) for tensor in tensors]
