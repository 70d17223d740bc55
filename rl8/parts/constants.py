"""Physical constants of the environment that change while training: drawn, scheduled, or driven by a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rl8.callbacks import Callback, Trainer
from rl8.checks import check_range, unknown_metric
from rl8.env.base import Env
from rl8.ppo.schedules import Schedule
from rl8.rng import forked


class Randomize(Callback):
    """Draws constants anew for every environment, every few iterations: domain randomisation by intervals.

    At a reset, `trainer.env_config={gravity: {low: 9, high: 11}}` draws them; environments whose episodes end on their
    own are reset but once.
    Source: Tobin et al. 2017, arXiv:1703.06907; Peng et al. 2018, arXiv:1710.06537 (dynamics).

    Args:
        constants: Constants by name, as `Env.configure` takes them: `{"gravity": {"low": 9.0, "high": 11.0}}`.
        every: Iterations between draws.
    """

    def __init__(self, constants: Mapping[str, Any], every: int = 1) -> None:
        check_range("every", every, 1, integer=True, hint="every=10")
        self.constants, self.every = dict(constants), every
        self._drawn: dict[str, Any] = {}

    def check(self, trainer: Trainer) -> None:
        """Refuse what the environment would not take."""
        _try(trainer.algorithm.env, [self.constants])

    def on_start(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Draw, or set what was drawn last in the run that goes on."""
        self._set(trainer, self._drawn or self.constants)

    def on_iteration(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Draw if it is time."""
        if trainer.algorithm.iterations % self.every == 0:
            self._set(trainer, self.constants)

    def state_dict(self) -> dict[str, Any]:
        """Return what was drawn last."""
        return {"drawn": self._drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with it."""
        self._drawn = dict(state["drawn"])

    def _set(self, trainer: Trainer, constants: Mapping[str, Any]) -> None:
        env = trainer.algorithm.env
        env.configure(constants)
        self._drawn = {name: _as_list(getattr(env, name)) for name in constants}


class ScheduledConstants(Callback):
    """Moves constants linearly from point to point, over env steps; read where a horizon begins.

    Args:
        constants: Points (env steps, value) by name: `{"gravity": [[0, 2.0], [1_000_000, 9.8]]}`.
    """

    def __init__(self, constants: Mapping[str, Sequence[Sequence[float]]]) -> None:
        self._schedules = {
            name: Schedule(points[0][1], points, "interp", name=f"constants[{name!r}]", low=None)
            for name, points in constants.items()
        }
        self._points = [{name: value} for name, points in constants.items() for _, value in points]

    def check(self, trainer: Trainer) -> None:
        """Refuse what the environment would not take."""
        _try(trainer.algorithm.env, self._points)

    def on_start(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Set what they are at the first horizon."""
        self._set(trainer)

    def on_iteration(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Set what they are at the next one."""
        self._set(trainer)

    def _set(self, trainer: Trainer) -> None:
        env_steps = trainer.algorithm.env_steps
        trainer.algorithm.env.configure({name: schedule(env_steps) for name, schedule in self._schedules.items()})


class Curriculum(Callback):
    """Makes the task harder as soon as a metric says that the present level is mastered.

    Source: Bengio et al. 2009, doi:10.1145/1553374.1553380; Rudin et al. 2021, arXiv:2109.11978, level by performance.

    Args:
        levels: Constants of each level, the easiest first: `[{"gravity": 2.0}, {"gravity": 9.8}]`.
        metric: Name of the metric.
        up: The next level begins where the metric reaches this.
        down: The level before comes back where it falls below this, less than `up`; None never.
        wait: Iterations that a level lasts at least, for the metric to tell of it alone.
    """

    metric_names = ("curriculum/level",)

    def __init__(
        self,
        levels: Sequence[Mapping[str, Any]],
        metric: str = "returns/mean",
        up: float = 0.0,
        down: float | None = None,
        wait: int = 10,
    ) -> None:
        if len(levels) < 2:
            raise ValueError(f"levels={levels!r} are too few. Accepted: at least two, each constants by name.")
        check_range("up", up)
        check_range("down", down, None, up, high_open=True, optional=True)
        check_range("wait", wait, 1, integer=True, hint="wait=10")
        self.levels, self.metric, self.up, self.down, self.wait = list(levels), metric, up, down, wait
        self.level = self.since = 0

    def check(self, trainer: Trainer) -> None:
        """Refuse a metric that never comes, and levels that the environment would not take.

        Raises:
            ValueError: If it is one.
        """
        if self.metric not in trainer.metric_names:
            raise ValueError(f"metric={self.metric}: {unknown_metric(self.metric, trainer.metric_names)}")
        if self._of_evaluations and trainer.steps_per_eval is None:
            raise ValueError(
                f"metric={self.metric} comes with evaluations, and with trainer.steps_per_eval=null there is none but "
                "the last. Try trainer.steps_per_eval=10."
            )
        _try(trainer.algorithm.env, self.levels)

    def on_start(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Set the level."""
        trainer.algorithm.env.configure(self.levels[self.level])

    def on_iteration(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Change the level if it is time."""
        self.since += 1
        self._look_at(trainer, metrics)

    def on_evaluation(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Change the level if it is time, where an evaluation's metric tells."""
        if self._of_evaluations:
            self._look_at(trainer, metrics)

    @property
    def _of_evaluations(self) -> bool:
        return self.metric.startswith("eval/")

    def _look_at(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        value, before = metrics.get(self.metric), self.level
        if value is not None and self.since >= self.wait:
            if value >= self.up:
                self.level = min(self.level + 1, len(self.levels) - 1)
            elif self.down is not None and value < self.down:
                self.level = max(self.level - 1, 0)
        if self.level != before:
            self.since = 0
            trainer.algorithm.env.configure(self.levels[self.level])
        metrics["curriculum/level"] = float(self.level)

    def state_dict(self) -> dict[str, Any]:
        """Return the level, and since when."""
        return {"level": self.level, "since": self.since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them."""
        self.level, self.since = min(state["level"], len(self.levels) - 1), state["since"]


def _try(env: Any, settings: Sequence[Mapping[str, Any]]) -> None:
    """Set constants and put them back, to see whether the environment takes them; random numbers stay as they are.

    Raises:
        TypeError: If a value is of another kind.
        ValueError: If it does not take them.
    """
    if type(env).configure is not Env.configure:
        return  # it has a way of its own, which may not be undone
    if not env.parameters:
        raise ValueError(
            f"{type(env).__name__} has no constants that can be set while it runs. Accepted: environments that declare "
            "some. What a task of another library is made with is set for the whole run, e.g. by env.kwargs."
        )
    with forked(env.device):
        before = {name: _as_list(getattr(env, name)) for name in env.parameters}
        try:
            for constants in settings:
                env.configure(constants)
        finally:
            env.configure(before)


def _as_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value  # host sync: once per draw
