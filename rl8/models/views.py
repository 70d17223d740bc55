"""What a model sees of the observations: one step, or a window of the last W of some keys.

A rollout stores every observation once, `[history + T + 1, N, ...]`, the first `history = W - 1` rows being the end of
the horizon before. A window is read from these rows where it is needed: a view per key in the rollout, a gather of one
minibatch in the update, never a copy of the whole buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_range, unknown
from rl8.data import ACTION_MASK, OBS
from rl8.specs import Composite, Nested, Spec


class Views:
    """Reads what a model asks for from stored observations.

    Without windows the model gets observations as the environment gives them, `[L, B, ...]`. With windows it gets a
    TensorDict: a windowed key holds `[L, B, W, ...]`, oldest first, and `<key>_mask` `[L, B, W]` is True where the
    window holds an observation of the present episode; the rest is padding, and zero. Where the environment's
    observation is one tensor its key is `"obs"`.

    Args:
        observation_spec: The environment's.
        windows: Length W of the window by observation key.

    Raises:
        ValueError: If a key does not exist or a length is below 1.
    """

    def __init__(self, observation_spec: Spec, windows: Mapping[str, int]) -> None:
        self.windows = dict(windows)
        self.composite = isinstance(observation_spec, Composite)
        keys = list(observation_spec.keys()) if isinstance(observation_spec, Composite) else [OBS]
        for key, length in self.windows.items():
            if key not in keys or key == ACTION_MASK:
                raise ValueError(unknown("observation key for a window", key, [k for k in keys if k != ACTION_MASK]))
            check_range(f"window of {key!r}", length, 1, integer=True)
            if f"{key}_mask" in keys:
                raise ValueError(
                    f"A window of {key!r} comes with a mask of the name '{key}_mask', which the observation {keys} has "
                    f"already. Rename one of the two, e.g. {key!r} to 'last_{key}'."
                )
        self.history = max(self.windows.values(), default=1) - 1

    def step(self, obs: Nested, ages: Tensor, row: int) -> Nested:
        """Return what the model sees of all environments at one row of storage, `[1, N, ...]`.

        Args:
            obs: `[history + T + 1, N, ...]`.
            ages: `[history + T + 1, N]` observations since the reset, 0 for the first.
            row: Row of storage, `history` being the first of this horizon.
        """
        if not self.windows:
            return obs[row : row + 1]
        seen = self._fields(obs[row : row + 1])
        for key, length in self.windows.items():
            window = self._leaf(obs, key)[row - length + 1 : row + 1].transpose(0, 1).unsqueeze(0)  # [1, N, W, ...]
            seen[key], seen[f"{key}_mask"] = _pad(window, ages[row : row + 1], length)
        return TensorDict(seen, batch_size=ages[row : row + 1].shape, device=ages.device)

    def rows(self, obs: Nested, ages: Tensor, rows: Tensor) -> Nested:
        """Return what the model sees at chosen places, `[L, B, ...]`.

        Args:
            obs: `[history + T + 1, N, ...]`.
            ages: `[history + T + 1, N]`.
            rows: `[L, B]` places counted over time and environments, `t * N + n` with t from the horizon's start.
        """
        num_envs = ages.shape[1]
        places = rows + self.history * num_envs
        flat = obs.flatten(0, 1)
        if not self.windows:
            return flat[places]
        seen = self._fields(flat[places])
        age = ages.flatten()[places]
        for key, length in self.windows.items():
            steps = torch.arange(1 - length, 1, device=rows.device) * num_envs
            window = self._leaf(flat, key)[places.unsqueeze(-1) + steps]  # [L, B, W, ...]
            seen[key], seen[f"{key}_mask"] = _pad(window, age, length)
        return TensorDict(seen, batch_size=rows.shape, device=ages.device)

    def _fields(self, obs: Nested) -> dict[str, Any]:
        """Return the keys that are seen one step at a time."""
        if isinstance(obs, Tensor):
            return {}
        return {str(key): value for key, value in obs.items() if key not in self.windows}

    def _leaf(self, obs: Nested, key: str) -> Nested:
        leaf: Nested = obs if isinstance(obs, Tensor) else obs[key]
        return leaf


def window_of(observation_spec: Spec, length: int) -> dict[str, int]:
    """Return windows of one length for every observation key, the action mask left out."""
    if not isinstance(observation_spec, Composite):
        return {OBS: length}
    return {key: length for key in observation_spec if key != ACTION_MASK}


def split_window(seen: Nested, observation_spec: Spec) -> tuple[Nested, Tensor]:
    """Return windows `[L, B, W, ...]` shaped like the environment's observation, and their mask `[L, B, W]`.

    Args:
        seen: What a model sees whose windows are `window_of(observation_spec, W)`.
        observation_spec: The environment's.
    """
    assert not isinstance(seen, Tensor)
    keys = list(window_of(observation_spec, 1))
    mask: Tensor = seen[f"{keys[0]}_mask"]
    if not isinstance(observation_spec, Composite):
        return seen[OBS], mask
    return TensorDict({key: seen[key] for key in keys}, batch_size=mask.shape, device=mask.device), mask


def _pad(window: Nested, age: Tensor, length: int) -> tuple[Nested, Tensor]:
    """Return the window `[..., W, *shape]` with zeros before the reset, and its mask `[..., W]`."""
    mask = torch.arange(length - 1, -1, -1, device=age.device) <= age.unsqueeze(-1)

    def pad(leaf: Tensor) -> Tensor:
        shaped = mask.reshape(*mask.shape, *[1] * (leaf.ndim - mask.ndim))
        return torch.where(shaped, leaf, torch.zeros((), dtype=leaf.dtype, device=leaf.device))

    if isinstance(window, Tensor):
        return pad(window), mask
    padded = window.apply(pad)
    assert padded is not None
    return padded, mask
