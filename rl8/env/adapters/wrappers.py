"""Wrappers of Gymnasium tasks, for `env.wrappers`: `[{_target_: ..., entries: [0, 2]}]` shows two numbers only."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray


class LastKept(gymnasium.Wrapper):
    """Copies an episode's last observation, which a reset may overwrite before it is handed on.

    `SyncVectorEnv` and `AsyncVectorEnv` reset in the same step, and hand on what the environment returned before.
    Put around each environment where `rl8` makes them, and around those of a `SyncVectorEnv` that it is given.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return copy.deepcopy(obs) if terminated or truncated else obs, reward, terminated, truncated, info


class SeenEntries(gymnasium.ObservationWrapper):
    """Shows only some entries of a vector, e.g. positions without velocities, which takes memory to act on.

    Args:
        env: One task whose observations are vectors of numbers.
        entries: Places of those that are seen.

    Raises:
        ValueError: If observations are no vectors, or have no such entries.
    """

    def __init__(self, env: Any, entries: Sequence[int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
            raise ValueError(f"{type(self).__name__} needs observations that are vectors, not {space}.")
        self._entries = [int(entry) for entry in entries]
        if not self._entries or not all(0 <= entry < space.shape[0] for entry in self._entries):
            raise ValueError(
                f"entries={list(entries)} are no places of {space.shape[0]} numbers. Accepted: some of 0 to "
                f"{space.shape[0] - 1}."
            )
        low, high = space.low[self._entries], space.high[self._entries]
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=space.dtype.type)

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Return those entries."""
        return np.asarray(observation)[self._entries]
