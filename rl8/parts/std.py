"""A standard deviation that follows a schedule instead of the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rl8.callbacks import Callback, Trainer
from rl8.nn import FeatureHead
from rl8.ppo.schedules import Schedule


class ScheduledStd(Callback):
    """Sets the standard deviation with which each horizon is collected, over env steps, linearly from point to point.

    Within an update the optimizer may move it; the next horizon begins with the schedule's. For models whose standard
    deviation is a parameter.

    Args:
        points: Pairs (env steps, standard deviation > 0), before squashing: `[[0, 1.0], [1_000_000, 0.2]]`.

    Raises:
        ValueError: If one is 0.
    """

    def __init__(self, points: Sequence[Sequence[float]]) -> None:
        self._schedule = Schedule(points[0][1], points, "interp", name="points")
        if self._schedule.least <= 0:
            raise ValueError(
                f"points={points!r} reach 0. Accepted: standard deviations > 0. Try [[0, 1.0], [1000, 0.1]]."
            )

    def check(self, trainer: Trainer) -> None:
        """Refuse a model that it would not act on.

        Raises:
            ValueError: If the model has none of its own.
        """
        if not self._heads(trainer):
            raise ValueError(
                f"{type(trainer.algorithm.policy.model).__name__} has no log_std of its own here. Accepted: models of "
                "continuous actions with model.state_dependent_std=false."
            )

    def on_start(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Set that of the first horizon."""
        self._set(trainer)

    def on_iteration(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Set that of the next one."""
        self._set(trainer)

    def _heads(self, trainer: Trainer) -> list[FeatureHead]:
        modules = trainer.algorithm.policy.model.modules()
        return [module for module in modules if isinstance(module, FeatureHead) and len(module.log_stds)]

    @torch.no_grad()
    def _set(self, trainer: Trainer) -> None:
        log_std = math.log(self._schedule(trainer.algorithm.env_steps))
        for head in self._heads(trainer):
            for parameter in head.log_stds:
                parameter.fill_(log_std)
