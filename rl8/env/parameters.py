"""Physical constants that may be set at reset, as one number or one per environment (domain randomisation)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rl8.checks import check_range, unknown
from rl8.kinds import as_text

# What a parameter may be given as: one number, one per environment, or {"low": ..., "high": ...} for uniform draws.
Value = float | Sequence[float] | Tensor | Mapping[str, float]


@dataclass(frozen=True)
class Parameter:
    """A physical constant: its first value and its range.

    Attributes:
        value: Value before any reset changes it.
        low: Smallest accepted value, or None.
        high: Largest accepted value, or None.
        low_open: Whether `low` itself is refused.
        high_open: Whether `high` itself is refused.
    """

    value: Value
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    def tensor(self, key: str, value: Value, num_envs: int, device: torch.device) -> Tensor:
        """Return `value` as float32: 0-d for one number, `[num_envs]` for one per environment.

        Args:
            key: Name of the parameter, for messages.
            value: What the user gave.
            num_envs: Number of environments.
            device: Where the tensor lives.

        Raises:
            TypeError: If it is no number, sequence of numbers, tensor or mapping.
            ValueError: If a number is out of range or there is not one per environment.
        """
        if isinstance(value, Mapping):
            return self._draw(key, value, num_envs, device)
        if isinstance(value, (bool, int, float, str)) or value is None:
            self._check(key, value)
            return torch.tensor(float(value), device=device)
        try:
            tensor = torch.as_tensor(value, dtype=torch.float32, device=device)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise TypeError(
                f"{key}={value!r} is no number. Accepted: a number, {num_envs} numbers (one per environment) or "
                f"{{low: ..., high: ...}}. Try {key}=1.0."
            ) from error
        if tensor.ndim and tensor.shape != (num_envs,):
            raise ValueError(
                f"{key} has shape {tuple(tensor.shape)}. Accepted: one number or one per environment, ({num_envs},). "
                f"Give {num_envs} numbers, or {{low: ..., high: ...}} to draw them."
            )
        # host sync: limits are checked once per reset that brings new values, never in a step
        for extreme in (tensor.min().item(), tensor.max().item()):
            self._check(key, extreme)
        return tensor.clone()

    def _draw(self, key: str, value: Mapping[str, Any], num_envs: int, device: torch.device) -> Tensor:
        for name in value:
            if name not in ("low", "high"):
                raise ValueError(f"{key}: {unknown('key', str(name), ('low', 'high'))} Try {key}={{low: 1, high: 2}}.")
        if len(value) != 2:
            raise ValueError(f"{key}={as_text(value)} needs both limits. Try {key}={{low: 1, high: 2}}.")
        low, high = value["low"], value["high"]
        self._check(f"{key}.low", low)
        self._check(f"{key}.high", high)
        if low > high:
            raise ValueError(
                f"{key}={as_text(value)} is empty: low is above high. Try {key}={{low: {high}, high: {low}}}."
            )
        u = torch.rand(num_envs, device=device)
        return u * float(high) + (1 - u) * float(low)  # the difference of the limits may be infinite

    def _check(self, key: str, value: Any) -> None:
        hint = f"{key}={self._example(value):g}"
        check_range(key, value, self.low, self.high, low_open=self.low_open, high_open=self.high_open, hint=hint)

    def _example(self, refused: Any) -> float:
        """Return a number to advise: the first value, unless that is what is refused; else one inside the range."""
        value = self.value
        if (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value != refused
        ):
            return float(value)
        if self.low is None:
            return 1.0 if self.high is None else self.high - 1
        return self.low + 1 if self.high is None else (self.low + self.high) / 2


def check_order(
    constants: Mapping[str, Tensor],
    names: Sequence[str],
    *,
    origin: str,
    defaults: Mapping[str, float],
    strict: bool = False,
) -> None:
    """Check that constants which only make sense in one order are in it, in every environment.

    Args:
        constants: All constants by name.
        names: Those that must not fall from each to the next.
        origin: What the user's keys begin with, e.g. `"env"`.
        defaults: Values in the right order, to advise.
        strict: Whether they must rise.

    Raises:
        ValueError: If two are not in order; the message names both.
    """
    for low, high in itertools.pairwise(names):
        one, other = torch.broadcast_tensors(constants[low], constants[high])
        wrong = one >= other if strict else one > other
        if bool(wrong.any()):  # host sync: only where new values come, never in a step
            first, second = one[wrong].flatten()[0].item(), other[wrong].flatten()[0].item()
            advice = " ".join(f"{origin}.{name}={defaults[name]:g}" for name in names)
            raise ValueError(
                f"{origin}.{low}={first:g} is {'not below' if strict else 'above'} {origin}.{high}={second:g}. "
                f"Accepted: {(' < ' if strict else ' <= ').join(names)}. Try {advice}."
            )


def check_derived(
    derived: Mapping[str, Tensor], values: Mapping[str, Tensor], *, origin: str, defaults: Mapping[str, Any]
) -> None:
    """Check that what follows from constants is finite; the message names the constant that is most out of size.

    Args:
        derived: What was computed from them.
        values: The constants that were set.
        origin: What the user's keys begin with, e.g. `"env"`.
        defaults: Values to advise.

    Raises:
        ValueError: If something is infinite or NaN.
    """
    for name, tensor in derived.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):  # host sync: as above
            extremes = {key: max(value.flatten().tolist(), key=_size) for key, value in values.items()}
            key = max(extremes, key=lambda name: _size(extremes[name]))
            default = defaults.get(key)
            advice = (
                f"Try {origin}.{key}={default:g}." if isinstance(default, (int, float)) else "Give one nearer to 1."
            )
            raise ValueError(
                f"{origin}.{key}={extremes[key]:g} makes {name.strip('_')}, which is computed from it, infinite or NaN "
                f"in float32. Accepted: numbers of ordinary size. {advice}"
            )


def _size(number: float) -> float:
    """Return how many powers of ten a number is away from 1."""
    return abs(math.log10(abs(number))) if number else 0.0
