"""The latest metrics of a run and what follows from them (speed, time left, the course of the returns), as text."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from rl8 import data

# Speed and time left are told from the last seconds only: the first iterations are slower than the others.
WINDOW_S: Final = 30.0
SPARK_WIDTH: Final = 26
BLOCKS: Final = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS: Final = "_.-~=+*#"
ENTROPY: Final = "losses/entropy"


class Trace:
    """A series of any length in at most `2 * width` numbers: neighbours are averaged whenever it is full."""

    def __init__(self, width: int = SPARK_WIDTH) -> None:
        """Begin empty.

        Args:
            width: Characters that it will be drawn in.
        """
        self.best = -math.inf
        self._width = width
        self._values: list[float] = []
        self._stride = 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Append a value; NaN and infinities are left out."""
        if not math.isfinite(value):
            return
        self.best = max(self.best, value)
        self._open.append(value)
        if len(self._open) < self._stride:
            return
        self._values.append(sum(self._open) / len(self._open))
        self._open.clear()
        if len(self._values) == 2 * self._width:
            self._values = [(a + b) / 2 for a, b in zip(self._values[::2], self._values[1::2], strict=True)]
            self._stride *= 2

    def draw(self, blocks: str = BLOCKS) -> str:
        """Return a line of blocks, one per value or per two, whose height says where in its range each lies."""
        values = self._values
        if len(values) > self._width:
            values = [sum(values[i : i + 2]) / len(values[i : i + 2]) for i in range(0, len(values), 2)]
        if not values:
            return ""
        low, high = min(values), max(values)
        scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
        return "".join(blocks[round((value - low) * scale)] for value in values)


class Readings:
    """The latest metrics of a run, and what follows from them: speed, time left, the course of the returns."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with no metrics.

        Args:
            clock: Returns the time in seconds.

        Attributes:
            scale: Steps that an evaluation sums rewards over, as a multiple of training's: training's returns are shown
                times this, so that both are sums over as many steps.
        """
        self.clock = clock
        self.scale = 1.0
        self.begun = clock()
        self.metrics: dict[str, float] = {}
        self.progress: float | None = None
        self.updates = 0
        self.returns = Trace()
        self.evaluations = Trace()
        self._recent: deque[tuple[float, float, float]] = deque()  # time, progress, env steps

    def add(self, metrics: Mapping[str, float], progress: float | None) -> None:
        """Take in the metrics of an iteration."""
        now = self.clock()
        if data.RETURNS_MEAN in metrics:
            metrics = {**metrics, data.RETURNS_MEAN: self.scale * metrics[data.RETURNS_MEAN]}
            self.returns.add(metrics[data.RETURNS_MEAN])
        if data.EVAL_RETURNS_MEAN in metrics:
            self.evaluations.add(metrics[data.EVAL_RETURNS_MEAN])
        self.metrics |= metrics
        self.progress = progress
        self.updates += 1
        self._recent.append((now, progress or 0.0, self.metrics.get(data.ENV_STEPS, 0.0)))
        while len(self._recent) > 2 and now - self._recent[0][0] > WINDOW_S:
            self._recent.popleft()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.begun

    @property
    def speed(self) -> float | None:
        """Env steps per second of wall time; before that can be told, what the iteration itself measured."""
        if len(self._recent) > 1:
            (first, _, before), (last, _, after) = self._recent[0], self._recent[-1]
            if last > first and after > before:
                return (after - before) / (last - first)
        return self.metrics.get(data.TRANSITIONS_PER_S)

    @property
    def left(self) -> float | None:
        """Seconds until the stop condition is met at the present pace; None if that cannot be told, or is past."""
        if self.progress is None or self.progress >= 1.0 or len(self._recent) < 2:
            return None
        (first, before, _), (last, after, _) = self._recent[0], self._recent[-1]
        if after <= before or last <= first:
            return None
        left = (1.0 - after) * (last - first) / (after - before)
        return max(left - (self.clock() - last), 0.0)


def percent(fraction: float) -> str:
    """Return a fraction as a whole percentage; 100% only when it is complete."""
    return f"{math.floor(100 * min(max(fraction, 0.0), 1.0) + 1e-9)}%"


def count(number: float) -> str:
    """Return a large number in short: `512`, `41.3k`, `1.25M`."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.2f}{unit}" if limit >= 1e6 else f"{number / limit:.1f}{unit}"
    return f"{number:.0f}"


def shown(value: float, digits: int) -> str:
    """Return a metric with as many significant digits, trailing zeros included so that it does not jump about."""
    if not math.isfinite(value):
        return str(value)
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{max(digits - 2, 0)}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"


def clock_time(seconds: float) -> str:
    """Return a duration as `0:08`, `12:34`, `1:02:03` or `3d 04:05`."""
    minutes, second = divmod(max(round(seconds), 0), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24:02d}:{minute:02d}"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def megabytes(value: float) -> str:
    """Return an amount of memory given in MB, e.g. `412 MB` or `1.2 GB`."""
    return f"{value / 1000:.1f} GB" if value >= 1000 else f"{value:.0f} MB"


def line(readings: Readings) -> str:
    """Return an iteration as one line, e.g. ` 25%  200.7k steps  return -12.10  kl 0.0081  41.3k/s  0:12 left`."""
    metrics, left, speed = readings.metrics, readings.left, readings.speed
    parts = [
        f"{'' if readings.progress is None else percent(readings.progress):>4}",
        f"{count(metrics.get(data.ENV_STEPS, 0.0)):>6} steps",
    ]
    parts += [
        f"{name} {shown(metrics[key], digits):>{width}}"
        for name, key, digits, width in (
            ("return", data.RETURNS_MEAN, 4, 6),
            ("eval", data.EVAL_RETURNS_MEAN, 4, 6),
            ("kl", data.KL_DIV, 2, 7),
            ("entropy", ENTROPY, 3, 5),
        )
        if key in metrics
    ]
    parts += [f"{count(speed):>6}/s"] if speed is not None else []
    parts += [f"{clock_time(left)} left"] if left is not None else []
    return "  ".join(parts)


def facts(named: Mapping[str, str]) -> list[str]:
    """Return facts as lines, names in one column and values in another."""
    width = max(map(len, named), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in named.items()]
