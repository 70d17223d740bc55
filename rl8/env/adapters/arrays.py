"""Between the NumPy arrays of a library's environments and tensors on the device."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.specs import Bounded, Categorical, Composite, MultiCategorical, Nested, Spec, Unbounded, as_spec

Array = np.ndarray[Any, Any]


def entries(space: Any) -> dict[str, Any] | None:
    """Return the parts of a Dict or Tuple space by name (a tuple's by number), None for any other."""
    spaces = sys.modules["gymnasium"].spaces
    if isinstance(space, spaces.Dict):
        return {str(key): part for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return {str(index): part for index, part in enumerate(space.spaces)}
    return None


def space_spec(space: Any, *, observed: bool = False) -> Spec:
    """Return the spec of a Gymnasium space whose values pass one of the doors below.

    Args:
        space: Of one environment.
        observed: Whether it is an observation: limits of real numbers are then dropped, because environments overstep
            them by rounding and nothing in PPO uses them.

    Raises:
        TypeError: If the space has no counterpart.
    """
    if (parts := entries(space)) is not None:
        return Composite({key: space_spec(part, observed=observed) for key, part in parts.items()})
    spaces = sys.modules["gymnasium"].spaces
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return MultiCategorical(space.nvec.tolist())
    spec = as_spec(space)
    if observed and isinstance(spec, Bounded) and spec.dtype is not None and spec.dtype.is_floating_point:
        return Unbounded(spec.shape, dtype=spec.dtype)
    return spec


class ToDevice:
    """Makes tensors of what an environment returns.

    On a CPU a tensor may share its memory with the array. On CUDA arrays are copied to pinned memory and from there
    without waiting; the host writes there again only after it has fetched the next actions, for which it waits.

    Args:
        device: Where tensors shall be.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pinned: dict[str, Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}  # of observations, by key: a spec at every step is dear

    def __call__(self, array: Any, dtype: torch.dtype, key: str = "") -> Tensor:
        """Return an array as a tensor.

        Args:
            array: Anything that NumPy takes for one.
            dtype: Of the tensor.
            key: Of the pinned memory, one for each thing that a step returns.
        """
        host = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return host.to(self.device, dtype)
        pinned = self._pinned.get(key)
        if pinned is None or pinned.shape != host.shape or pinned.dtype != dtype:
            pinned = self._pinned[key] = torch.empty(host.shape, dtype=dtype, pin_memory=True)
        return pinned.copy_(host).to(self.device, non_blocking=True)

    def observation(self, arrays: Any, space: Any, key: str = "obs") -> Nested:
        """Return observations `[N, ...]` of a space: real numbers in float32, choices counted from 0."""
        if (parts := entries(space)) is not None:
            named = arrays if isinstance(arrays, Mapping) else dict(zip(parts, arrays, strict=True))
            tensors: dict[str, Any] = {
                name: self.observation(named[name], part, f"{key}.{name}") for name, part in parts.items()
            }
            n = next(iter(tensors.values())).shape[0]
            return TensorDict(tensors, batch_size=[n], device=self.device)
        if key not in self._dtypes:
            dtype = space_spec(space).dtype
            assert dtype is not None
            self._dtypes[key] = dtype
        shift = getattr(space, "start", None)
        return self(arrays if shift is None or not np.any(shift) else arrays - shift, self._dtypes[key], key)


def to_host(actions: Nested, space: Any) -> Any:
    """Return actions `[N, ...]` as arrays of the space's own type, held within its limits; waits for the device."""
    if (parts := entries(space)) is not None:
        assert isinstance(actions, TensorDict)
        chosen = {name: to_host(actions[name], part) for name, part in parts.items()}
        return chosen if isinstance(space, sys.modules["gymnasium"].spaces.Dict) else tuple(chosen.values())
    assert isinstance(actions, Tensor)
    array: Array = actions.detach().cpu().numpy()  # host sync: these environments run there
    if hasattr(space, "low"):  # np.clip takes twice as long
        return np.minimum(np.maximum(array, space.low), space.high).astype(space.dtype)
    return array.astype(space.dtype) + getattr(space, "start", 0)


def with_rows(batch: Any, rows: Array, values: Any) -> Any:
    """Return a copy of a batch of observations in which `rows` are `values`, nested alike; one value per row."""
    if isinstance(batch, Mapping):
        return {key: with_rows(part, rows, [value[key] for value in values]) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(with_rows(part, rows, [value[index] for value in values]) for index, part in enumerate(batch))
    copy = np.array(batch)
    copy[rows] = np.stack([np.asarray(value) for value in values])
    return copy
