"""Values that change with the number of env steps taken in training. Evaluation does not advance them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Any

from rl8.checks import MAX_STEPS, check_choice, check_range

KINDS = ("constant", "step", "interp")


class Schedule:
    """A value as a function of env steps.

    It starts with `value` at env step 0, unless the schedule has a point there. `"step"` holds each value until the
    next point, `"interp"` moves linearly from point to point; the last value stays.

    Example: `Schedule(1e-3, [(100_000, 1e-4)], "interp")` falls from 1e-3 at the start to 1e-4 at env step 100,000.

    Args:
        value: Value where no schedule says otherwise, >= 0.
        schedule: Points (env steps, value): env steps integers >= 0, each more than the one before; values >= 0. None
            is constant.
        kind: `"step"`, `"interp"`, or `"constant"` for none.
        name: What the points are called in messages, e.g. `algo.lr_schedule`.
        low: Least value, None for any.

    Attributes:
        kind: As given; `"constant"` if there is no schedule.
        least: The smallest value.
        moves: Whether there is a schedule.

    Raises:
        TypeError: If a number or a pair is of another kind.
        ValueError: If one is out of range, the env steps are not in order, or `kind` contradicts the schedule.
    """

    def __init__(
        self,
        value: float,
        schedule: Sequence[Sequence[float]] | None = None,
        kind: str = "step",
        *,
        name: str = "schedule",
        low: float | None = 0,
    ) -> None:
        check_choice(f"{name}_kind", kind, KINDS)
        if schedule is not None and kind == "constant":
            raise ValueError(
                f"{name}_kind=constant leaves no use for {name}={schedule!r}. Accepted: step or interp. "
                f"Try {name}_kind=step, or {name}=null."
            )
        self.kind = "constant" if schedule is None else kind
        points = [] if schedule is None else _points(schedule, name, low)
        if not points or points[0][0] > 0:
            check_range(f"{name}'s value at env step 0", value, low, hint=f"'{name}=[[0, 1e-3], [1_000_000, 1e-4]]'")
            points.insert(0, (0, float(value)))
        self._env_steps = [env_steps for env_steps, _ in points]
        self._values = [point_value for _, point_value in points]
        self.least, self.moves = min(self._values), schedule is not None

    def __call__(self, env_steps: int) -> float:
        """Return the value after `env_steps` env steps, over all environments."""
        index = bisect_right(self._env_steps, env_steps) - 1
        assert index >= 0, f"{env_steps} env steps"
        value = self._values[index]
        if self.kind == "step" or index + 1 == len(self._values):
            return value
        since, until = self._env_steps[index], self._env_steps[index + 1]
        return value + (self._values[index + 1] - value) * (env_steps - since) / (until - since)

    @property
    def zero_from(self) -> int | None:
        """Env steps from which on the value stays 0; None where it does not."""
        zeros = list(
            takewhile(lambda point: point[1] == 0, zip(self._env_steps[::-1], self._values[::-1], strict=True))
        )
        return zeros[-1][0] if zeros else None

    def __repr__(self) -> str:
        points = list(zip(self._env_steps, self._values, strict=True))
        return f"Schedule({points}, kind={self.kind!r})"


def starting_rate(
    lr: float, schedule: Any, *, typed: bool, key: str = "algo.optimizer.lr", name: str = "lr_schedule"
) -> float:
    """Return the learning rate at env step 0: a rate and a schedule of it are one thing.

    Args:
        lr: The optimizer's rate.
        schedule: Points (env steps, rate), or None.
        typed: Whether somebody asked for `lr`, so that it must act.
        key: What the rate is called in messages.
        name: What the schedule is called in them, `algo.` left out.

    Raises:
        ValueError: If the schedule starts with another rate than was asked for.
    """
    if not isinstance(schedule, Sequence) or not schedule or not isinstance(schedule[0], Sequence):
        return lr
    start, *rate = schedule[0]
    if start != 0 or not rate or rate[0] == lr:
        return lr
    if typed:
        name = f"algo.{name}" if key.startswith("algo.") else name
        rest = "".join(f", [{point[0]}, {point[1]:g}]" for point in schedule[1:] if len(point) == 2)
        raise ValueError(
            f"{key}={lr!r} would have no effect: {name} starts with {rate[0]!r}. Try '{name}=[[0, {lr!r}]{rest}]', or "
            f"{name}=null for a constant rate."
        )
    return float(rate[0])


def _points(schedule: Any, name: str, low: float | None) -> list[tuple[int, float]]:
    """Return the checked points."""
    example = f"'{name}=[[0, 1e-3], [1_000_000, 1e-4]]'"
    if isinstance(schedule, (str, bytes)) or not isinstance(schedule, Sequence):
        raise TypeError(f"{name}={schedule!r} is no list. Accepted: a list of pairs [env steps, value]. Try {example}.")
    if not schedule:
        raise ValueError(f"{name}=[] has no points. Accepted: pairs [env steps, value], or null. Try {example}.")
    points: list[tuple[int, float]] = []
    for index, pair in enumerate(schedule):
        where = f"{name}[{index}]"
        if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"{where}={pair!r} is no pair. Accepted: [env steps, value]. Try {example}.")
        env_steps, value = pair
        if isinstance(env_steps, float) and env_steps.is_integer():
            env_steps = int(env_steps)  # 1e6 is how people write a million
        check_range(f"{where}'s env steps", env_steps, 0, integer=True, most=MAX_STEPS, hint=example)
        check_range(f"{where}'s value", value, low, hint=example)
        points.append((env_steps, float(value)))
    for index, (before, after) in enumerate(pairwise(points)):
        if after[0] <= before[0]:
            ordered = sorted({point[0]: point for point in points}.values())
            text = ", ".join(f"[{env_steps}, {value:g}]" for env_steps, value in ordered)
            raise ValueError(
                f"{name} is not sorted: point {index + 1} is at env step {after[0]}, after one at {before[0]}. "
                f"Accepted: env steps that grow from point to point. Try '{name}=[{text}]'."
            )
    return points
