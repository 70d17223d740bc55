"""Tensors in nested containers: by name, as plain copies, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordict import TensorDict
from torch import Tensor

Tensors = dict[str, Tensor]


def named(tree: Any, path: str = "") -> Tensors:
    """Return all tensors in nested containers by their paths, in order."""
    if isinstance(tree, Tensor):
        return {path: tree}
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    if not isinstance(tree, (Mapping, TensorDict)):
        return {}
    branches = (named(branch, f"{path}.{key}" if path else str(key)) for key, branch in tree.items())
    return {name: tensor for branch in branches for name, tensor in branch.items()}


def alike(one: Any, other: Any) -> bool:
    """Return whether two containers hold tensors of the same names, shapes and types."""
    ours, theirs = ({name: (t.shape, t.dtype) for name, t in named(tree).items()} for tree in (one, other))
    return ours == theirs


def plain(nested: Any) -> Any:
    """Return a copy with TensorDicts as plain dictionaries, which load without pickle."""
    return nested.clone() if isinstance(nested, Tensor) else nested.clone().to_dict()


def restored(saved: Any, like: Any) -> Any:
    """Return what `plain` made, of the type and on the device of `like`."""
    if isinstance(like, Tensor):
        return saved.to(like.device, copy=True)
    return TensorDict(saved, batch_size=like.batch_size, device=like.device).clone()
