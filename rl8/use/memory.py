"""What a policy remembers from one step to the next: windows of observations and a recurrent state."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.policy.policy import Policy, reset_where
from rl8.specs import Nested


class Memory:
    """The past of n environments that a policy acts in, as far as it looks back.

    Args:
        policy: Says how far.
        n: Environments.

    Attributes:
        n: Environments.
        ages: `[n]` observations since the episode's first, which is 0; -1 before it.
    """

    def __init__(self, policy: Policy, n: int) -> None:
        self.n = n
        self.ages = torch.full((n,), -1, dtype=torch.int32, device=policy.device)
        self._policy = policy
        self._history = policy.views.history
        self._rows: Nested | None = None
        self._state: Nested | None = policy.initial_state(n)

    def act(self, obs: Nested, *, deterministic: bool) -> Nested:
        """Return the environment's actions `[n, ...]` for its next observations `[n, ...]`."""
        policy = self._policy
        self.ages += 1
        if self._state is not None:
            begins = self.ages == 0
            if policy.steps_per_state_reset is not None:
                begins = self.ages % policy.steps_per_state_reset == 0
            self._state = reset_where(begins, self._state)
        actions, self._state = policy.choose(self._see(obs), self._state, deterministic=deterministic)
        return actions

    def forget(self, mask: Tensor) -> None:
        """Let episodes begin anew where `mask` `[n]` is True."""
        self.ages.masked_fill_(mask, -1)

    def _see(self, obs: Nested) -> Nested:
        """Return what the model sees, `[1, n, ...]`."""
        if self._history == 0:
            return self._policy.views.step(obs.unsqueeze(0), self.ages, 0)
        if self._rows is None:
            self._rows = _repeated(obs, self._history + 1)
        self._rows[:-1] = self._rows[1:].clone()
        self._rows[-1] = obs
        return self._policy.views.step(self._rows, self.ages.expand(self._history + 1, -1), self._history)


def _repeated(obs: Nested, rows: int) -> Nested:
    """Return storage `[rows, n, ...]` for observations `[n, ...]`."""
    if isinstance(obs, Tensor):
        return obs.expand(rows, *obs.shape).clone()
    entries = {str(key): _repeated(obs[key], rows) for key in obs.keys()}  # noqa: SIM118
    return TensorDict(entries, batch_size=[rows, *obs.batch_size], device=obs.device)
