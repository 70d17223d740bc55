"""Options as files hold them: plain values, and classes and functions by their names. Reading runs nothing unasked."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

# How a value that is none of YAML's kinds is marked.
OBJECT: Final = "rl8:object"
ENUM: Final = "rl8:enum"
PATH: Final = "rl8:path"
DTYPE: Final = "rl8:dtype"
DEVICE: Final = "rl8:device"
_MARKS: Final = (OBJECT, ENUM, PATH, DTYPE, DEVICE)


def encode(value: Any, key: str) -> Any:
    """Return a value as torch saves it and loads it again without pickle: tensors and plain containers.

    NumPy's numbers become Python's, arrays become tensors, classes and functions their names.

    Args:
        value: What shall be saved.
        key: What it is called in messages, e.g. `model_config.activation`.

    Raises:
        TypeError: If a value has no such form; the message names it.
    """
    if value is None or type(value) in (bool, int, float, str, complex) or isinstance(value, Tensor):
        return value.detach() if isinstance(value, Tensor) and value.requires_grad else value
    if isinstance(value, Enum):
        return {ENUM: name_of(type(value), key), "name": value.name}
    if isinstance(value, np.generic):
        return encode(value.item(), key)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    if isinstance(value, Path):
        return {PATH: str(value)}
    if isinstance(value, torch.dtype):
        return {DTYPE: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {DEVICE: str(value)}
    if isinstance(value, Mapping):
        return {_key(name, key): encode(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(encode(item, f"{key}[{index}]") for index, item in enumerate(value))
    if isinstance(value, AbstractSet):
        return {encode(item, key) for item in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [encode(item, f"{key}[{index}]") for index, item in enumerate(value)]
    for kind in (bool, int, float, str):  # of a class of somebody's own
        if isinstance(value, kind):
            return kind(value)
    return {OBJECT: name_of(value, key)}


def decode(value: Any, allowed: Sequence[str] = ()) -> Any:
    """Return what `encode` was given.

    Args:
        value: What it returned.
        allowed: Modules that may be imported for it, besides rl8's own.

    Raises:
        ValueError: If a class or function is not to be had; see `find`.
    """
    if isinstance(value, Mapping):
        mark = next((mark for mark in _MARKS if mark in value), None)
        if mark is None:
            return {name: decode(item, allowed) for name, item in value.items()}
        text = str(value[mark])
        if mark == OBJECT:
            return find(text, allowed)
        if mark == ENUM:
            cls = find(text, allowed)
            if not (isinstance(cls, type) and issubclass(cls, Enum)):
                raise ValueError(f"The file says that {text} is an Enum, which it is not. It is no file of rl8's.")
            return cls[str(value["name"])]
        return Path(text) if mark == PATH else _dtype(text) if mark == DTYPE else torch.device(text)
    if isinstance(value, tuple):
        return tuple(decode(item, allowed) for item in value)
    return [decode(item, allowed) for item in value] if isinstance(value, list) else value


def name_of(value: Any, key: str) -> str:
    """Return `module:name` of something that can be imported by it.

    Raises:
        TypeError: If it can't.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    found: Any = sys.modules.get(str(module))
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if found is not value or value is None:
        raise TypeError(
            f"{key}={value!r} can't be saved: no import gives it back. Accepted: numbers, texts, lists, mappings, "
            "paths, tensors, and classes and functions that a module has under their names. Define it at the top of a "
            "module, or give its name and build it inside."
        )
    return f"{module}:{name}"


def find(name: str, allowed: Sequence[str] = ()) -> Any:
    """Return the class or function `module:name`.

    A file may come from a stranger. So nothing is imported for it but rl8's own modules and those of `allowed`; else
    it must be of a module that is imported already, and not of Python's own library, where `os.system` is.

    Raises:
        ValueError: If it is none of these, or there is no such thing.
    """
    module, _, path = name.partition(":")
    root = module.partition(".")[0]
    ours = root == "rl8" and not module.endswith("__main__")
    trusted = ours or any(module == one or module.startswith(f"{one}.") for one in allowed)
    if not trusted and (module not in sys.modules or root in sys.stdlib_module_names - {"__main__"}):
        raise ValueError(
            f"The file needs {module}.{path}, and nothing is imported because a file says so. Accepted: modules of "
            f"rl8, modules that are imported, and those that are allowed. If you trust it: import {module} first, or "
            f"load_policy(..., allow=[{module!r}])."
        )
    try:
        found: Any = importlib.import_module(module) if trusted else sys.modules[module]
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"The file needs {module}.{path}, which can't be imported here. Put it on the path."
        ) from error
    if not callable(found):
        raise ValueError(f"The file needs {module}.{path}, which is no class or function. It is no file of rl8's.")
    return found


def _key(name: Any, key: str) -> Any:
    if isinstance(name, str) and name in _MARKS:
        raise TypeError(f"{key} has the key {name!r}, which files of rl8 use themselves. Give it another name.")
    return encode(name, key)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"The file has the dtype {name!r}, which torch does not know. It is no file of rl8's.")
    return found
