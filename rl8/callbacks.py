"""A user's own code in the training loop: what it may do, and when it is called.

This file imports no torch, so that a config's callbacks are named before anything heavy is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rl8.checks import is_mistake, source_file, unknown

Trainer = Any  # an `rl8.Trainer`; its file imports this one

HOOKS: Final = ("on_start", "on_collect", "on_iteration", "on_evaluation", "on_checkpoint", "on_end")
# What other libraries call them.
_ELSEWHERE: Final = {
    "on_step": "on_iteration",
    "on_rollout_end": "on_collect",
    "on_training_start": "on_start",
    "on_training_end": "on_end",
}


class Callback:
    """Code that a `Trainer` calls while it trains; a subclass defines the hooks that it needs.

    Each hook gets the trainer and the metrics at hand, numbers by name. What it writes into `metrics` is recorded with
    them, and stop conditions see it if `metric_names` says so. It may end training, `trainer.stop("solved")`, give
    coefficients other values, `trainer.algorithm.change(entropy_coeff=0.0, lr=1e-4)`, and set physical constants,
    `trainer.algorithm.env.configure({"gravity": 3.7})`. An error in a hook ends the run, which has failed; what was
    trained and recorded is kept. Each of several processes (`device.processes`) calls its own;
    `rl8.parallel.world.first()` tells which one writes.

    Attributes:
        metric_names: Names of the metrics that it adds, for stop conditions, `goal.metric` and `trainer.best_metric`.
    """

    metric_names: Sequence[str] = ()

    def check(self, trainer: Trainer) -> None:
        """Before a run is created: raise ValueError where what this callback was given does not fit it."""

    def on_start(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Before the first iteration; `metrics` are the last ones of a run that goes on, else empty."""

    def on_collect(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Between a horizon and its update; `metrics` are empty.

        `trainer.algorithm.rollout` has what was collected. Its `rewards` `[T, N]` may be added to in place (an
        intrinsic reward). Terms of the loss are given with the algorithm instead: `Trainer(extra_losses=...)`.
        """

    def on_iteration(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After an update."""

    def on_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After an evaluation, whose `eval/...` are among the `metrics`."""

    def on_checkpoint(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After a checkpoint was written into `trainer.output_dir`; what is added to `metrics` comes too late."""

    def on_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After training and its last evaluation, however it was ended, but not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: numbers, text and tensors in dictionaries and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state_dict` returned in the run that is resumed."""


class CallbackError(RuntimeError):
    """A callback failed; the message names it."""


class Callbacks:
    """Several callbacks, called in their order.

    Args:
        callbacks: What a user gave.
        trainer: What they are called with.

    Raises:
        TypeError: If one is no callback, has a method that is called like a hook and is none, or a hook that can't be
            called with the trainer and metrics.
    """

    def __init__(self, callbacks: Sequence[Callback], trainer: Trainer) -> None:
        given: Any = callbacks
        if not isinstance(given, (list, tuple)):
            made = f"{type(given).__name__}()" if isinstance(given, Callback) else "MyCallback()"
            raise TypeError(f"callbacks={given!r} is no list. Accepted: a list of callbacks. Try callbacks=[{made}].")
        for index, callback in enumerate(given):
            if not isinstance(callback, Callback):
                made = f"{callback.__name__}()" if isinstance(callback, type) else "MyCallback()"
                raise TypeError(
                    f"callbacks[{index}]={callback!r} is no callback. Accepted: objects of a class derived from "
                    f"rl8.callbacks.Callback. Try callbacks=[{made}]."
                )
            for name in dir(type(callback)):
                if name.startswith("on_") and name not in HOOKS:
                    raise TypeError(
                        f"{type(callback).__name__} would never be called in {name}. "
                        f"{unknown('hook', name, HOOKS, guess=_ELSEWHERE.get(name))} Other methods have other names."
                    )
            _check_signatures(callback)
        self._callbacks, self._trainer = tuple(given), trainer
        self._hooks = {
            hook: tuple(each for each in given if getattr(type(each), hook) is not getattr(Callback, hook))
            for hook in HOOKS
        }

    @property
    def metric_names(self) -> list[str]:
        """Names of the metrics that they add."""
        return [name for callback in self._callbacks for name in callback.metric_names]

    def check(self) -> None:
        """Let each check whether it fits the run.

        Raises:
            ValueError: If one does not.
        """
        for callback in self._callbacks:
            try:
                callback.check(self._trainer)
            except (TypeError, ValueError) as error:
                if not is_mistake(error):
                    raise
                raise ValueError(f"{type(callback).__name__}: {error}") from error

    def call(
        self, hook: str, metrics: dict[str, float], failures: list[CallbackError] | None = None
    ) -> dict[str, float]:
        """Call a hook of all that define it; return the metrics that they added or changed.

        Args:
            hook: Its name.
            metrics: What it is called with.
            failures: Gets the error of one that fails, rather than that it is raised; none is called after it.

        Raises:
            CallbackError: If one fails, or adds something else than numbers.
        """
        changed: dict[str, float] = {}
        for callback in () if failures else self._hooks[hook]:
            before = dict(metrics)
            try:
                getattr(callback, hook)(self._trainer, metrics)
                new = {
                    name: value for name, value in metrics.items() if name not in before or value is not before[name]
                }
                changed |= {str(name): _number(name, value) for name, value in new.items()}
            except Exception as error:
                failed = CallbackError(
                    f"The callback {type(callback).__name__} failed in {hook}: {type(error).__name__}: {error}"
                )
                if failures is None:
                    raise failed from error
                failed.__cause__ = error
                failures.append(failed)
                break
            metrics |= changed
        return changed

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of each, with the name of its class."""
        return [{"type": type(each).__qualname__, "state": each.state_dict()} for each in self._callbacks]

    def load_state_dict(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Give each callback the state that one of its class had; those of one class in their order."""
        left = list(saved)
        for callback in self._callbacks:
            found = next((each for each in left if each["type"] == type(callback).__qualname__), None)
            if found is not None:
                left.remove(found)
                callback.load_state_dict(found["state"])


def _check_signatures(callback: Callback) -> None:
    """Raise TypeError unless all of a callback's methods can be called as they will be."""
    for name, count in {**dict.fromkeys(HOOKS, 2), "check": 1, "state_dict": 0, "load_state_dict": 1}.items():
        try:
            signature = inspect.signature(getattr(callback, name))
            signature.bind(*[None] * count)
        except TypeError as error:
            cls = type(callback)
            right = ", ".join(inspect.signature(getattr(Callback, name)).parameters)
            raise TypeError(
                f"{cls.__name__}.{name}{inspect.signature(getattr(cls, name))} in {source_file(cls)} does not take "
                f"what rl8 gives it. Write def {name}({right}): ..."
            ) from error


def _number(name: object, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"metrics[{name!r}]={value!r} is no number. Accepted: what float() takes.") from None
