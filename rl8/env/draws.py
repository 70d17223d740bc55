"""What resets draw beside the state (a wind, a difficulty, a network's weights): found, saved, and put back.

A checkpoint keeps the environment's state and its tensors. What a reset draws may also be a number, or lie in a list, a
dictionary, a module or another object; those places are found by their paths, e.g. `self.wind['north'][0]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from rl8.env.snapshot import snapshot
from rl8.specs import Spec

STATE = "state"
NUMBERS = (bool, int, float, str, type(None))
Store = Callable[[Any], None]


def contents(env: Any) -> dict[str, Any]:
    """Return copies of everything that hangs on an environment, by path, its state left out."""
    parts = [snapshot(value, f"self.{name}") for name, value in vars(env).items() if name != STATE]
    found = {path: value for part in parts for path, value in part.items()}
    # a function that each reset makes anew differs by its address alone
    return {path: value for path, value in found.items() if not (isinstance(value, str) and " at 0x" in value)}


def unsaved(env: Any, paths: Iterator[str] | set[str]) -> list[str]:
    """Return which of `paths` lead to what no checkpoint can put back, such as a tuple's entry or a generator."""
    known = {path for path, _, _ in _places(env)}
    return sorted(path for path in paths if path not in known)


def drawn_values(env: Any) -> dict[str, Any]:
    """Return by path what the last reset drew; an environment's own tensors left out, which are saved all."""
    own = {f"self.{name}" for name, value in vars(env).items() if isinstance(value, Tensor)}
    return {path: _plain(value) for path, value, _ in _places(env) if path in env.drawn and path not in own}


def restore(env: Any, saved: Mapping[str, Any]) -> None:
    """Put back what `drawn_values` returned.

    Raises:
        ValueError: If the environment has no such place.
    """
    places = {path: (value, store) for path, value, store in _places(env)}
    for path, value in saved.items():
        if path not in places:
            raise ValueError(
                f"The checkpoint has {path.replace('self', type(env).__name__, 1)}, which this environment has not. "
                "Go on with the code that wrote it."
            )
        present, store = places[path]
        if isinstance(present, Tensor):
            value = value.to(present.device)
        elif isinstance(present, np.ndarray):
            value = value.numpy()
        if isinstance(present, nn.Parameter):
            present.data.copy_(value)
        else:
            store(value)


def fingerprint(env: Any) -> list[Any]:
    """Return what a captured CUDA graph has of what resets draw: tensors' addresses, and numbers by their value."""
    places = ((path, value) for path, value, _ in _places(env) if path in env.drawn)
    return [(path, value.data_ptr() if isinstance(value, Tensor) else str(_plain(value))) for path, value in places]


def _places(env: Any) -> Iterator[tuple[str, Any, Store]]:
    """Yield path, value and what stores another one there, for every number, tensor and array that can be put back."""
    seen: set[int] = set()
    for name, value in vars(env).items():
        if name != STATE:
            yield from _walk(f"self.{name}", value, partial(setattr, env, name), seen)


def _walk(path: str, value: Any, store: Store, seen: set[int]) -> Iterator[tuple[str, Any, Store]]:
    if isinstance(value, (*NUMBERS, Tensor, np.ndarray)):
        yield path, value, store
        return
    followed = isinstance(value, nn.Module) or not (
        callable(value) or isinstance(value, (Spec, torch.Generator, tuple))
    )
    if id(value) in seen or not followed:
        return
    seen.add(id(value))
    children: list[tuple[str, Any, Store]] = []
    if isinstance(value, (MutableMapping, TensorDictBase)):
        children = [(f"[{key!r}]", child, partial(value.__setitem__, key)) for key, child in value.items()]
    elif isinstance(value, list):
        children = [(f"[{index}]", child, partial(value.__setitem__, index)) for index, child in enumerate(value)]
    elif hasattr(value, "__dict__"):
        children = [(f".{name}", child, partial(_set, value, name)) for name, child in vars(value).items()]
    for suffix, child, put in children:
        yield from _walk(path + suffix, child, put, seen)


def _set(owner: Any, name: str, value: Any) -> None:
    vars(owner)[name] = value  # a module's and a frozen dataclass's own __setattr__ would refuse or sort it in


def _plain(value: Any) -> Any:
    if isinstance(value, TensorDict):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value.detach().clone() if isinstance(value, Tensor) else value
