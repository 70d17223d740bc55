"""Conditions on metrics, most of all for when training stops.

A condition is called once per iteration with that iteration's metrics. A metric that is absent (`eval/...` between
evaluations) is no news: the answer is False and nothing is counted. NaN never satisfies a condition.

This file imports no torch, so that a config's stop condition is built and checked before anything heavy is loaded.
"""

from __future__ import annotations

import functools
import inspect
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rl8.calls import in_python
from rl8.checks import MAX_STEPS, check_range, unknown_metric
from rl8.data import ENV_STEPS
from rl8.kinds import is_list

Metrics = Mapping[str, float]


class Condition(ABC):
    """Something that is met or not.

    A subclass defines `__call__` and `describe`; `progress`, `keys` and the state methods where they apply. A plain
    function from metrics to bool does too, wherever conditions are accepted.
    """

    @abstractmethod
    def __call__(self, metrics: Metrics) -> bool:
        """Return whether the condition is met, given one iteration's metrics by name."""

    @abstractmethod
    def describe(self) -> str:
        """Return the condition in words, e.g. `env/steps >= 800,000`."""

    def reached(self) -> str:
        """Return in words what the last call found to be met."""
        return self.describe()

    def progress(self, metrics: Metrics) -> float | None:
        """Return how far along the way this is, in [0, 1]; None if that cannot be known."""
        return None

    def keys(self) -> frozenset[str]:
        """Return the names of the metrics that are watched."""
        return frozenset()

    def reset(self) -> None:  # noqa: B027 (most conditions have nothing to forget)
        """Forget everything seen, as at the start of a run."""

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen, as numbers and strings, for a later `load_state_dict`."""
        return {"type": type(self).__name__, "keys": sorted(self.keys())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, made by `state_dict` of a condition of the same kind on the same metrics.

        Raises:
            ValueError: If the state is another condition's.
        """
        own = self.state_dict()
        if {name: state.get(name) for name in ("type", "keys")} != {name: own[name] for name in ("type", "keys")}:
            raise ValueError(
                f"The saved state of {state.get('type')} on {', '.join(state.get('keys', [])) or 'no metric'} does not "
                f"fit {self!r}. Resume with the stop condition that it was saved with, or start this one anew: reset()."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


class ConditionError(RuntimeError):
    """A function that says when to stop failed; the message names it."""


class Never(Condition):
    """Never met: training goes on until it is interrupted."""

    def __call__(self, metrics: Metrics) -> bool:
        """Return False."""
        return False

    def describe(self) -> str:
        """Return `never`."""
        return "never"


class EnvSteps(Condition):
    """Met once training has taken a number of env steps, over all environments.

    Env steps count from the start of training, so a resumed run, or a second `run` of the same trainer, counts those
    taken before.

    Args:
        env_steps: Env steps, an integer >= 1.

    Raises:
        TypeError: If `env_steps` is no whole number.
        ValueError: If it is below 1.
    """

    @in_python()
    def __init__(self, env_steps: int | float) -> None:
        if isinstance(env_steps, float) and env_steps.is_integer():
            env_steps = int(env_steps)  # 1e6 is how people write a million
        check_range("stop.env_steps", env_steps, 1, integer=True, most=MAX_STEPS, hint="stop.env_steps=1_000_000")
        self.env_steps = int(env_steps)

    def __call__(self, metrics: Metrics) -> bool:
        """Return whether `env/steps` has reached the number."""
        return metrics.get(ENV_STEPS, 0) >= self.env_steps

    def progress(self, metrics: Metrics) -> float:
        """Return the share of the env steps taken."""
        return _share(metrics.get(ENV_STEPS, 0), self.env_steps)

    def keys(self) -> frozenset[str]:
        """Return `env/steps`."""
        return frozenset([ENV_STEPS])

    def describe(self) -> str:
        """Return e.g. `env/steps >= 800,000`."""
        return f"{ENV_STEPS} >= {self.env_steps:,}"


class WallTime(Condition):
    """Met once a time has passed since it was built or reset; a resumed run goes on counting where it stopped.

    Args:
        seconds: Time, s, > 0.

    Raises:
        TypeError: If `seconds` is no number.
        ValueError: If it is not above 0.
    """

    @in_python()
    def __init__(self, seconds: float) -> None:
        check_range("stop.seconds", seconds, 0, low_open=True, hint="stop.seconds=600")
        self.seconds = float(seconds)
        self.reset()

    def __call__(self, metrics: Metrics) -> bool:
        """Return whether the time is up."""
        return self.elapsed() >= self.seconds

    def elapsed(self) -> float:
        """Return the time since the start, s."""
        return self._before + time.monotonic() - self._start

    def progress(self, metrics: Metrics) -> float:
        """Return the share of the time passed."""
        return _share(self.elapsed(), self.seconds)

    def reset(self) -> None:
        """Start the clock anew."""
        self._before = 0.0
        self._start = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the time passed, s."""
        return {**super().state_dict(), "elapsed": self.elapsed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the clock at the time passed."""
        super().load_state_dict(state)
        self._before = float(state["elapsed"])
        self._start = time.monotonic()

    def describe(self) -> str:
        """Return e.g. `wall time >= 600 s`."""
        return f"wall time >= {self.seconds:,g} s"


class _Watch(Condition):
    """Base of the conditions that look at one metric.

    Args:
        key: Name of the metric, e.g. `returns/mean`.

    Raises:
        TypeError: If `key` is no name.
    """

    @in_python()
    def __init__(self, key: str) -> None:
        if not key or not isinstance(key, str):
            raise TypeError(
                f"stop.key={key!r} is no metric. Accepted: a metric's name, e.g. returns/mean or eval/returns/mean. "
                "Try stop.key=returns/mean."
            )
        self.key = key

    def __call__(self, metrics: Metrics) -> bool:
        """Return whether the metric's value satisfies the condition; False where it is absent or NaN."""
        value = metrics.get(self.key)
        return value is not None and not math.isnan(value) and self._see(float(value))

    def keys(self) -> frozenset[str]:
        """Return the metric's name."""
        return frozenset([self.key])

    @abstractmethod
    def _see(self, value: float) -> bool:
        """Take in a new value, no NaN, and return whether the condition is met."""


class _Hits(_Watch):
    """Base of the bounds. Progress is the share of the way from the first value seen to the bound."""

    name: str
    sign: str

    @in_python()
    def __init__(self, key: str, bound: float) -> None:
        super().__init__(key)
        if bound is None:
            raise ValueError(
                f"stop.{self.name}=null: there is no bound for {key} to hit. Accepted: a number. Try "
                f"goal.target=100 with stop=target, else stop.{self.name}=100."
            )
        check_range(f"stop.{self.name}", bound, hint=f"stop.{self.name}=100 (stop=target takes it from goal.target)")
        self.bound = float(bound)
        self.reset()

    def progress(self, metrics: Metrics) -> float | None:
        """Return the share of the way from the first value seen to the bound; None before there is one."""
        if self._first is None or self._last is None:
            return None
        if self._is_beyond(self._last):
            return 1.0
        return _share(self._last - self._first, self.bound - self._first)

    def reset(self) -> None:
        """Forget the values seen."""
        self._first: float | None = None
        self._last: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the first and the last value seen."""
        return {**super().state_dict(), "first": self._first, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the first and the last value seen."""
        super().load_state_dict(state)
        self._first, self._last = state["first"], state["last"]

    def describe(self) -> str:
        """Return e.g. `eval/returns/mean >= 490`."""
        return f"{self.key} {self.sign} {self.bound:g}"

    def _see(self, value: float) -> bool:
        self._first = value if self._first is None else self._first
        self._last = value
        return self._is_beyond(value)

    @abstractmethod
    def _is_beyond(self, value: float) -> bool:
        """Return whether a value is at the bound or past it."""


class HitsUpperBound(_Hits):
    """Met where a metric is at an upper bound or above it.

    Args:
        key: Name of the metric.
        upper_bound: The bound, a finite number in the metric's unit.

    Raises:
        TypeError: If `key` is no name or `upper_bound` no number.
        ValueError: If `upper_bound` is None or not finite.
    """

    name = "upper_bound"
    sign = ">="

    def __init__(self, key: str, upper_bound: float) -> None:
        super().__init__(key, upper_bound)

    def _is_beyond(self, value: float) -> bool:
        return value >= self.bound


class HitsLowerBound(_Hits):
    """Met where a metric is at a lower bound or below it.

    Args:
        key: Name of the metric.
        lower_bound: The bound, a finite number in the metric's unit.

    Raises:
        TypeError: If `key` is no name or `lower_bound` no number.
        ValueError: If `lower_bound` is None or not finite.
    """

    name = "lower_bound"
    sign = "<="

    def __init__(self, key: str, lower_bound: float) -> None:
        super().__init__(key, lower_bound)

    def _is_beyond(self, value: float) -> bool:
        return value <= self.bound


class _Patience(_Watch):
    """Base of the conditions that count values without change, in a row, each compared with a reference."""

    @in_python()
    def __init__(self, key: str, patience: int = 5) -> None:
        super().__init__(key)
        check_range("stop.patience", patience, 1, integer=True, hint="stop.patience=5")
        self.patience = patience
        self.reset()

    def reset(self) -> None:
        """Forget the values seen."""
        self._reference: float | None = None
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the reference and how many values in a row have not changed it."""
        return {**super().state_dict(), "reference": self._reference, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the reference and the count."""
        super().load_state_dict(state)
        self._reference, self._count = state["reference"], int(state["count"])

    def _see(self, value: float) -> bool:
        if self._reference is not None and self._is_still(value, self._reference):
            self._count += 1
        else:
            self._reference, self._count = value, 0
        return self._count >= self.patience

    @abstractmethod
    def _is_still(self, value: float, reference: float) -> bool:
        """Return whether a value leaves the reference as it is."""


class Plateaus(_Patience):
    """Met once a metric has stayed near one value for `patience` further values in a row.

    Each is compared with the first of the row rather than with the one before: small steps that all go the same way
    are progress, not a plateau.

    Args:
        key: Name of the metric.
        patience: Values in a row after the first, >= 1.
        rtol: Largest distance from the first, as a share of its size, >= 0.
        atol: Distance that is always allowed, in the metric's unit, >= 0; needed where a metric settles at zero.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If one is out of range.
    """

    @in_python()
    def __init__(self, key: str, patience: int = 5, rtol: float = 1e-3, atol: float = 0.0) -> None:
        super().__init__(key, patience)
        check_range("stop.rtol", rtol, 0, hint="stop.rtol=0.001")
        check_range("stop.atol", atol, 0, hint="stop.atol=0")
        self.rtol = float(rtol)
        self.atol = float(atol)

    def describe(self) -> str:
        """Return e.g. `returns/mean within 0.1% for 5 values`."""
        beside = f" or {self.atol:g}" if self.atol else ""
        return f"{self.key} within {100 * self.rtol:g}%{beside} for {self.patience} values"

    def _is_still(self, value: float, reference: float) -> bool:
        return abs(value - reference) <= max(self.rtol * abs(reference), self.atol)


class StopsIncreasing(_Patience):
    """Met once a metric has not passed its highest value for `patience` values in a row.

    Args:
        key: Name of the metric.
        patience: Values in a row, >= 1.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `patience` is below 1.
    """

    def describe(self) -> str:
        """Return e.g. `returns/mean without a new maximum for 5 values`."""
        return f"{self.key} without a new maximum for {self.patience} values"

    def _is_still(self, value: float, reference: float) -> bool:
        return value <= reference


class StopsDecreasing(_Patience):
    """Met once a metric has not passed its lowest value for `patience` values in a row.

    Args:
        key: Name of the metric.
        patience: Values in a row, >= 1.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `patience` is below 1.
    """

    def describe(self) -> str:
        """Return e.g. `losses/vf without a new minimum for 5 values`."""
        return f"{self.key} without a new minimum for {self.patience} values"

    def _is_still(self, value: float, reference: float) -> bool:
        return value >= reference


class _Joined(Condition):
    """Base of `And` and `Or`. Every condition is asked at every call, because some of them count."""

    word: str

    def __init__(self, conditions: Sequence[Condition | Callable[[Metrics], bool]]) -> None:
        self.conditions = _as_conditions(conditions, type(self).__name__)

    def keys(self) -> frozenset[str]:
        """Return the names that any of the conditions watches."""
        return frozenset().union(*(condition.keys() for condition in self.conditions))

    def reset(self) -> None:
        """Reset every condition."""
        for condition in self.conditions:
            condition.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the conditions' states, in order."""
        return {**super().state_dict(), "conditions": [condition.state_dict() for condition in self.conditions]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand the states to the conditions, in order.

        Raises:
            ValueError: If they are other conditions' states.
        """
        super().load_state_dict(state)
        states = state["conditions"]
        if len(states) != len(self.conditions):
            raise ValueError(
                f"{len(states)} states do not fit the {len(self.conditions)} conditions of {self!r}. Resume with the "
                "stop conditions that the state was saved with."
            )
        for condition, part in zip(self.conditions, states, strict=True):
            condition.load_state_dict(part)

    def describe(self) -> str:
        """Return the conditions in words, joined."""
        nested = (isinstance(condition, _Joined) for condition in self.conditions)
        words = (condition.describe() for condition in self.conditions)
        return f" {self.word} ".join(f"({text})" if inner else text for text, inner in zip(words, nested, strict=True))


def flat(conditions: Sequence[Condition]) -> Iterator[Condition]:
    """Yield conditions, those that `And` and `Or` join in their place."""
    for condition in conditions:
        if isinstance(condition, _Joined):
            yield from flat(condition.conditions)
        else:
            yield condition


class And(_Joined):
    """Met where all of its conditions are, by the same iteration's metrics.

    Args:
        conditions: At least one condition.

    Raises:
        TypeError: If they are no conditions.
        ValueError: If there are none.
    """

    word = "and"

    def __call__(self, metrics: Metrics) -> bool:
        """Return whether all of the conditions are met."""
        met = [condition(metrics) for condition in self.conditions]
        return all(met)

    def progress(self, metrics: Metrics) -> float | None:
        """Return the progress of the one furthest behind; None if any is unknown."""
        shares = [condition.progress(metrics) for condition in self.conditions]
        known = [share for share in shares if share is not None]
        return min(known) if len(known) == len(shares) else None


class Or(_Joined):
    """Met where any of its conditions is.

    Args:
        conditions: At least one condition.

    Raises:
        TypeError: If they are no conditions.
        ValueError: If there are none.
    """

    word = "or"
    _met: Sequence[Condition] = ()

    def __call__(self, metrics: Metrics) -> bool:
        """Return whether any of the conditions is met."""
        met = [condition(metrics) for condition in self.conditions]
        self._met = [condition for condition, is_met in zip(self.conditions, met, strict=True) if is_met]
        return any(met)

    def reached(self) -> str:
        """Return what those of the conditions that the last call found met say; all of them if none was."""
        return " and ".join(condition.reached() for condition in self._met) or self.describe()

    def progress(self, metrics: Metrics) -> float | None:
        """Return the progress of the one furthest ahead; None if all are unknown."""
        shares = (condition.progress(metrics) for condition in self.conditions)
        return max((share for share in shares if share is not None), default=None)


class _Function(Condition):
    """A plain function from metrics to bool."""

    def __init__(self, function: Callable[[Metrics], bool]) -> None:
        self.function = function

    def __call__(self, metrics: Metrics) -> bool:
        """Return what the function returns.

        Raises:
            ConditionError: If it fails.
        """
        try:
            return bool(self.function(metrics))
        except Exception as error:
            missing = isinstance(error, KeyError) and error.args and error.args[0] not in metrics
            fault = unknown_metric(str(error.args[0]), metrics) if missing else f"{type(error).__name__}: {error}"
            advice = (
                " Metrics of evaluations are there after one only: try metrics.get(name, math.nan)." if missing else ""
            )
            raise ConditionError(f"The stop condition {self.describe()} failed: {fault}{advice}") from error

    def describe(self) -> str:
        """Return the function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))


def as_condition(condition: Condition | Callable[[Metrics], bool]) -> Condition:
    """Return a condition as it is, and a function from metrics to bool as a condition.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(condition, Condition):
        return condition
    if _is_function(condition):
        return _Function(condition)
    raise TypeError(
        f"{condition!r} is no stop condition. Accepted: a condition of rl8.conditions, or a function from metrics to "
        "bool. Try rl8.conditions.EnvSteps(1_000_000)."
    )


def as_conditions(conditions: Any, name: str) -> tuple[Condition, ...]:
    """Return stop conditions, which may be none at all, each checked to be one.

    Args:
        conditions: A sequence of conditions or of functions from metrics to bool.
        name: What it is called in messages.

    Raises:
        TypeError: If it is no sequence, or a member is no condition.
    """
    if not is_list(conditions):
        one = f"{type(conditions).__name__}(...)" if isinstance(conditions, Condition) else "EnvSteps(100_000)"
        raise TypeError(f"{name}={conditions!r} is no list. Accepted: a list of conditions. Try {name}=[{one}].")
    try:
        return tuple(as_condition(condition) for condition in conditions)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error


def _is_function(condition: Any) -> bool:
    """Return whether something can be called with metrics alone: one argument, and no class's constructor."""
    inner = condition.func if isinstance(condition, functools.partial) else condition
    if isinstance(inner, type) or not callable(inner):
        return False
    try:
        parameters = list(inspect.signature(condition).parameters.values())
    except ValueError:  # compiled code may not tell
        return True
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 1


def _as_conditions(conditions: Any, name: str) -> list[Condition]:
    """Return the members of `And` and `Or`, checked."""
    if isinstance(conditions, str) or not isinstance(conditions, Sequence):
        raise TypeError(
            f"{name}({conditions!r}) is no list of conditions. Accepted: a list of at least one. "
            f"Try {name}([EnvSteps(1_000_000), WallTime(600)])."
        )
    if not conditions:
        raise ValueError(
            f"{name}([]) joins nothing. Accepted: a list of at least one condition. "
            f"Try {name}([EnvSteps(1_000_000), WallTime(600)])."
        )
    return [as_condition(condition) for condition in conditions]


def _share(part: float, whole: float) -> float:
    """Return `part / whole` in [0, 1]."""
    share = part / whole
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
