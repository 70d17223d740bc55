"""Errors that help: every message names the key, the value, what is accepted and what to type."""

from __future__ import annotations

import difflib
import dis
import inspect
import math
import numbers
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

# Largest whole number of things to make, of number in float32, and of counter: where a range has no upper limit of its
# own, the libraries below have this one.
MAX_COUNT: Final = 2**31 - 1
MAX_NUMBER: Final = 3.4028234663852886e38
MAX_STEPS: Final = 2**63 - 1
MAX_SEED: Final = 2**64 - 1
# Bytes of a file's name and of a whole path, on all common file systems; room is left for folders that a path is in.
MAX_NAME: Final = 255
MAX_PATH: Final = 3072
# Names that a message lists at most, and how many it has where there are more.
MOST_SHOWN: Final = 16
SHOWN_OF_MANY: Final = 8


def closest(value: str, options: Iterable[str]) -> str | None:
    """Return the option that `value` most likely was meant to be, or None if nothing is near."""
    names = {str(option).lower(): str(option) for option in options}
    matches = difflib.get_close_matches(str(value).lower(), names, n=1, cutoff=0.5)
    return names[matches[0]] if matches else None


def listed(names: Sequence[str], value: str, where: str = "") -> str:
    """Return names as a message has them: all of a few, and of many those nearest to a value, filled up by the first.

    Args:
        names: What exists.
        value: What was given.
        where: What shows all of them, e.g. `` `rl8 --help` lists all ``.
    """
    if len(names) <= MOST_SHOWN:
        return ", ".join(names)
    near = difflib.get_close_matches(value.lower(), [name.lower() for name in names], SHOWN_OF_MANY, cutoff=0.4)
    first = [name for name in names if name.lower() not in near][: SHOWN_OF_MANY - len(near)]
    shown = [name for name in names if name.lower() in near or name in first]
    return f"{', '.join(shown)} and {len(names) - len(shown)} more{f' ({where})' if where else ''}"


def unknown(kind: str, value: str, options: Iterable[str], *, guess: str | None = None, where: str = "") -> str:
    """Return the message for a name that does not exist: the nearest match and what does exist.

    Args:
        kind: What the name stands for, e.g. `"option"`.
        value: The name that was given.
        options: The names that exist.
        guess: What it was meant to be; by default the nearest name.
        where: What shows all of them, where they are many.
    """
    names = [str(option) for option in options]
    if not names:
        return f"Unknown {kind} {value!r}: there are none. Leave it out."
    near = guess or closest(value, names)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"Unknown {kind} {value!r}.{hint} Accepted: {listed(names, value, where)}."


def unknown_metric(value: str, known: Iterable[str]) -> str:
    """Return the message for a metric that does not exist; the mean is guessed where no statistic is named."""
    names, statistics = [str(name) for name in known], ("mean", "std", "min", "max")
    where = "docs/runs.md lists all"
    if closest(value.rpartition("/")[2], statistics) is not None:
        return unknown("metric", value, names, where=where)
    kinds = {name.removesuffix("/mean"): name for name in names if name.rpartition("/")[2] not in statistics[1:]}
    near = closest(value, kinds)
    return unknown("metric", value, names, guess=kinds[near] if near else None, where=where)


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
    most: float | None = None,
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
        most: Largest size that can be computed with, named only where it is passed; by default `MAX_COUNT` for
            integers and `MAX_NUMBER` for numbers.
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
    number_type: Any = numbers.Integral if integer else numbers.Real  # NumPy's too
    if isinstance(value, bool) or not isinstance(value, number_type):
        raise TypeError(f"{key}={value!r} is not {kind}. Accepted: {accepted}.{advice}")
    too_low = low is not None and (value <= low if low_open else value < low)
    too_high = high is not None and (value >= high if high_open else value > high)
    if too_low or too_high or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{key}={value!r} is out of range. Accepted: {accepted}.{advice}")
    most = most if most is not None else MAX_COUNT if integer else MAX_NUMBER
    if abs(value) > most:
        size = f"{most:,}" if isinstance(most, int) else f"{most:.3g}"
        raise ValueError(f"{key}={value!r} is too large. Accepted: {kind} up to {size}.{advice}")


def source_file(cls: type) -> str:
    """Return the file that a class is written in; `?` for one that was typed at a prompt."""
    try:
        return inspect.getsourcefile(cls) or "?"
    except TypeError:
        return "?"


def check_path(key: str, value: str | Path) -> Path:
    """Return what was typed as a path, unless no file system could have it: Python's functions would raise later.

    Args:
        key: What it was typed for.
        value: The path.

    Raises:
        TypeError: If it is no path.
        ValueError: If it holds a NUL, or a name in it or all of it is too long.
    """
    given: Any = value
    if not isinstance(given, (str, PathLike)):
        raise TypeError(f"{key}={given!r} is no path. Accepted: text, or a pathlib.Path. Try 'outputs/mine'.")
    longest = max(len(name.encode(errors="surrogateescape")) for name in (*str(value).split("/"), ""))
    reason = "it holds a NUL" if "\0" in str(value) else "the name is too long" if longest > MAX_NAME else ""
    if reason or len(str(value)) > MAX_PATH:
        raise ValueError(
            f"{key}={value} can't be a path: {reason or 'it is too long'}. Accepted: names of up to {MAX_NAME} bytes, "
            f"in all {MAX_PATH}."
        )
    return Path(value)


def check_choice(key: str, value: Any, options: Iterable[str], *, optional: bool = False) -> None:
    """Raise ValueError unless `value` is one of `options`, or None where that is accepted too."""
    names = list(options)
    if value not in names and not (optional and value is None):
        accepted, near = f"{', '.join(names)}{' or null' if optional else ''}", closest(str(value), names)
        raise ValueError(f"{key}={value!r} is unknown. Accepted: {accepted}. Try {key}={near or names[0]}.")


def largest_divisor(number: int, limit: int) -> int:
    """Return the largest divisor of `number` that is not above `limit`, both >= 1, in sqrt(number) steps."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return max(n for n in (*small, *(number // n for n in small)) if n <= limit)


def is_mistake(error: BaseException) -> bool:
    """Return whether an error is a check of rl8's own that failed, so that its message says all.

    The same kinds of error from other code (a user's environment, torch) need their traceback, also where that code is
    compiled, so that rl8's is the last frame that Python knows: there, nothing was raised but called.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames or not isinstance(error, (TypeError, ValueError)):
        return False
    code = frames[-1][0].f_code
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    raised = last is not None and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    return raised and Path(code.co_filename).is_relative_to(Path(__file__).parent)


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an error that are the user's own: neither rl8's nor those of anything installed."""
    here = Path(__file__).parent
    others = (*sysconfig.get_paths().values(), str(here), str(here.parent / "hydra_plugins"), "<")
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]


def own_traceback(error: BaseException) -> str | None:
    """Return what an error in the user's own code shows: the way through that code, and the message; None elsewhere."""
    cause: BaseException | None = error
    frames: list[traceback.FrameSummary] = []
    while cause is not None:
        frames = own_frames(cause) or frames
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    if not frames:
        return None
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return f"Traceback of your own code (HYDRA_FULL_ERROR=1 shows all of it):\n{''.join(lines)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, or its kind if none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def place_of(error: BaseException) -> str:
    """Return the file and line that an error comes from, in parentheses; empty unless it is a user's own file."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    own = own_frames(error)
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
