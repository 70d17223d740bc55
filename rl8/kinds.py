"""Options and their declared types: one conversion for what is typed, for what a file says and for Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_NOUNS = {bool: "true or false", int: "an integer", float: "a number", str: "text", type(None): "null"}


def as_text(value: Any) -> str:
    """Return a config value as it would be typed: `null`, `true`, `[1, 2]`, a class by its import path."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_list(value):
        return "[" + ", ".join(as_text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {as_text(item)}" for key, item in value.items()) + "}"
    if hasattr(value, "__qualname__") and hasattr(value, "__module__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def is_list(value: Any) -> bool:
    """Return whether a value is a sequence other than text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def convert(key: str, value: Any, hint: Any, default: Any) -> Any:
    """Return `value` as the type `hint`, where nothing is lost: 1e6 is an integer, 1.5 is not.

    Args:
        key: Name of the option, as the user types it.
        value: What the user gave.
        hint: A type, a union of types, or Any.
        default: What to advise.

    Raises:
        TypeError: If it is of another kind.
    """
    kinds = kinds_of(hint)
    value = plain(value)
    if Any in kinds or (value is None and type(None) in kinds):
        return value
    for kind in kinds:
        if kind is bool and isinstance(value, bool):
            return value
        if isinstance(value, bool):
            continue
        if kind is float and isinstance(value, float):
            return value
        if kind is int and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
            return int(value)
        if kind is float and isinstance(value, int):
            return float(value) if abs(value) < 2**1023 else value  # its range will be checked
        if kind is str and isinstance(value, (str, int, float)):
            return str(value)
    accepted = " or ".join(_NOUNS[kind] for kind in kinds if kind in _NOUNS)
    advice = f"Accepted: {accepted}. Try {key}={as_text(default)}"
    if isinstance(value, str) and {int, float} & set(kinds) and _reads_as_number(value):
        raise TypeError(f"{key}={value!r} is text. {advice}, or ${{oc.decode:${{oc.env:NAME}}}} to read a variable.")
    raise TypeError(f"{key}={as_text(value)} is of the wrong kind. {advice}.")


def convert_fields(settings: Any, prefix: str) -> None:
    """Convert a dataclass's values to the types that its fields declare, in place; called when one is built.

    Args:
        settings: An instance of a dataclass.
        prefix: Where the config has its options, e.g. `"algo"`.

    Raises:
        TypeError: If a value is of another kind.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value = convert(f"{prefix}.{field.name}", getattr(settings, field.name), hints[field.name], field.default)
        object.__setattr__(settings, field.name, value)


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union of types, and any other type alone."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def first_arguments(function: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first `count` arguments that a function or class takes by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters
    return [name for name, parameter in parameters.items() if parameter.kind in kinds][:count]


def is_simple(hint: Any) -> bool:
    """Return whether a type says all that `convert` needs: text, numbers, booleans, null and unions of them."""
    return all(kind in _NOUNS for kind in kinds_of(hint))


def check_list(key: str, value: Any, hint: Any) -> None:
    """Check that a value is a list where a type allows lists alone; a text would be taken as one of its letters.

    Args:
        key: Name of the option, as the user types it.
        value: What the user gave.
        hint: A type, or a union of types.

    Raises:
        TypeError: If it is of another kind.
    """
    kinds = kinds_of(hint)
    lists = [kind for kind in kinds if get_origin(kind) in (Sequence, list, tuple)]
    null = type(None) in kinds
    if len(lists) + null < len(kinds) or is_list(value) or (null and value is None):
        return
    accepted, advised = (" or null", "null") if null else ("", "[]")
    if isinstance(value, (str, int, float)):
        advised = f"[{as_text(value)}]"
    raise TypeError(f"{key}={as_text(value)} is of the wrong kind. Accepted: a list{accepted}. Try '{key}={advised}'.")


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def plain(value: Any) -> Any:
    """Return a copy of mappings, lists and tuples, in which NumPy's numbers and booleans are Python's."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0
    return value.item() if is_scalar else value


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
