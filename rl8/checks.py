"""Errors that help: every message names the key, the value, what is accepted and what to type."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


def closest(value: str, options: Iterable[str]) -> str | None:
    """Return the option that `value` most likely was meant to be, or None if nothing is near."""
    names = {str(option).lower(): str(option) for option in options}
    matches = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.5)
    return names[matches[0]] if matches else None


def unknown(kind: str, value: str, options: Iterable[str], *, guess: str | None = None) -> str:
    """Return the message for a name that does not exist: the nearest match and all that does.

    Args:
        kind: What the name stands for, e.g. `"option"`.
        value: The name that was given.
        options: The names that exist.
        guess: What it was meant to be; by default the nearest name.
    """
    names = [str(option) for option in options]
    near = guess or closest(value, names)
    hint = f" Did you mean {near!r}?" if near else ""
    accepted = ", ".join(names) if names else "none"
    return f"Unknown {kind} {value!r}.{hint} Accepted: {accepted}."


def interval(low: float | None, high: float | None, low_open: bool = False, high_open: bool = False) -> str:
    """Return a range as text, e.g. `in [0, 1)` or `> 0`; empty if there are no limits."""
    if low is None and high is None:
        return ""
    if high is None:
        return f"{'>' if low_open else '>='} {low:g}"
    if low is None:
        return f"{'<' if high_open else '<='} {high:g}"
    return f"in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"


def check_range(
    key: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    low_open: bool = False,
    high_open: bool = False,
    integer: bool = False,
    optional: bool = False,
    hint: str = "",
) -> None:
    """Check that a number is of the right kind and inside its range.

    Args:
        key: Name of the option, as the user types it.
        value: What the user gave.
        low: Smallest accepted value, or None.
        high: Largest accepted value, or None.
        low_open: Whether `low` itself is refused.
        high_open: Whether `high` itself is refused.
        integer: Whether only whole numbers are accepted.
        optional: Whether None is accepted too.
        hint: What to type instead, e.g. `"algo.gamma=0.99"`.

    Raises:
        TypeError: If `value` is no number (or no integer where one is needed).
        ValueError: If it is outside the range, infinite or NaN.
    """
    if optional and value is None:
        return
    kind = "an integer" if integer else "a number"
    limits = interval(low, high, low_open, high_open)
    accepted = (f"{kind} {limits}" if limits else "any integer" if integer else "any finite number") + (
        " or null" if optional else ""
    )
    advice = f" Try {hint}." if hint else ""
    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)):
        raise TypeError(f"{key}={value!r} is not {kind}. Accepted: {accepted}.{advice}")
    too_low = low is not None and (value <= low if low_open else value < low)
    too_high = high is not None and (value >= high if high_open else value > high)
    if too_low or too_high or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{key}={value!r} is out of range. Accepted: {accepted}.{advice}")


def check_choice(key: str, value: Any, options: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of `options`."""
    names = list(options)
    if value not in names:
        near = closest(str(value), names)
        raise ValueError(f"{key}={value!r} is unknown. Accepted: {', '.join(names)}. Try {key}={near or names[0]}.")
