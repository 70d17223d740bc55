"""What an object holds at a moment, so that a change can be named."""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import ModuleType
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor

# Larger tensors are known by address and version counter rather than by a copy.
LARGEST_COPY = 1 << 28  # bytes
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


def snapshot(value: Any, path: str, skip: Any = None) -> dict[str, Any]:
    """Return copies of all numbers, texts, tensors, arrays and generators that hang on `value`, by their path.

    Args:
        value: Any object; containers and attributes are followed, functions, classes and modules are not.
        path: How messages should call it, e.g. `"self"`.
        skip: An object to leave out wherever it hangs.
    """
    found: dict[str, Any] = {}
    _collect(value, path, found, {} if skip is None else {id(skip): skip})
    return found


def class_snapshot(cls: type, base: type) -> dict[str, Any]:
    """Return the same for the attributes of a class and its parents up to `base`."""
    found: dict[str, Any] = {}
    for parent in cls.__mro__[: cls.__mro__.index(base)]:
        for key, value in vars(parent).items():
            if not key.startswith("__") and not hasattr(value, "__get__"):
                _collect(value, f"{parent.__name__}.{key}", found, {})
    return found


def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Return what differs first between two snapshots, with both values if they are short; None if nothing."""
    for path in [*before, *(path for path in after if path not in before)]:
        if path not in after:
            return f"{path} (which is gone)"
        if path not in before:
            return f"{path} (which is new)"
        old, new = before[path], after[path]
        if not _same(old, new):
            short = isinstance(old, PLAIN) and isinstance(new, PLAIN) and len(f"{old!r}{new!r}") < 80
            return f"{path} ({old!r} became {new!r})" if short else path
    return None


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Return all paths at which two snapshots differ."""
    common = before.keys() & after.keys()
    return (before.keys() ^ after.keys()) | {path for path in common if not _same(before[path], after[path])}


def _collect(value: Any, path: str, found: dict[str, Any], seen: dict[int, Any]) -> None:
    if id(value) in seen or isinstance(value, (type, ModuleType)):
        return
    leaf = _leaf(value)
    if leaf is not None or value is None:
        found[path] = leaf
        return
    seen[id(value)] = value  # kept, because a new object may take the id of one that is gone
    children = list(_children(value))
    for suffix, child in children:
        _collect(child, path + suffix, found, seen)
    if not children:
        found[path] = repr(value)  # empty containers; and iterators, itertools.count for one, say where they stand


def _leaf(value: Any) -> Any:
    """Return a copy of something that has no parts; None for what has."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Tensor):
        if value.nbytes > LARGEST_COPY and not value.is_inference():
            return (value.data_ptr(), value._version)
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return (value.shape, str(value.dtype), value.tobytes())
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.Generator):
        return pickle.dumps(value.bit_generator.state)  # a text would leave out numbers, as NumPy's settings may ask
    if isinstance(value, np.random.RandomState):
        return pickle.dumps(value.get_state(legacy=False))
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (Mapping, TensorDictBase)):
        yield from ((f"[{key!r}]", child) for key, child in value.items())
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"[{index}]", child) for index, child in enumerate(value))
    elif isinstance(value, AbstractSet):
        yield "", str(sorted(map(repr, value)))
    else:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
        names = [*getattr(value, "__dict__", {}), *(name for name in slots if hasattr(value, name))]
        yield from ((f".{name}", getattr(value, name)) for name in names)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        if old.shape != new.shape or old.dtype != new.dtype or old.device != new.device:
            return False
        return bool(((old == new) | ((old != old) & (new != new))).all())  # NaN stays NaN
    if isinstance(old, float) and isinstance(new, float):
        return old == new or (old != old and new != new)
    return type(old) is type(new) and bool(old == new)
