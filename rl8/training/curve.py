"""A run's metrics over its env steps: kept, saved with checkpoints, and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rl8 import data
from rl8.tracking.thinning import thinned_out
from rl8.training.evaluation import Evaluation
from rl8.view import plots

# Iterations in `Trainer.history`, about 2 kB each.
MAX_HISTORY: Final = 100_000
# Points of a resumed run's curve that come from before.
MAX_CURVE: Final = 2_000
CURVE: Final[tuple[str, ...]] = (
    data.ENV_STEPS,
    data.ITERATIONS,
    data.RETURNS_MEAN,
    plots.RETURNS_STD,
    data.EVAL_RETURNS_MEAN,
    data.EVAL_MS,
)


class Curve:
    """What a run has reached so far.

    Args:
        before: Its points before a checkpoint that it goes on from.

    Attributes:
        history: Metrics of every iteration since; once there are `MAX_HISTORY`, every second one is dropped.
    """

    def __init__(self, before: Sequence[dict[str, float]]) -> None:
        self.history: list[dict[str, float]] = []
        self._before = list(before)

    def add(self, metrics: dict[str, float]) -> None:
        """Add an iteration."""
        if len(self.history) >= MAX_HISTORY:
            self.history[:] = thinned_out(self.history)
        self.history.append(metrics)

    def points(self) -> list[dict[str, float]]:
        """Return the whole curve, thinned out, so that a resumed run draws all of it."""
        points = [{name: m[name] for name in CURVE if name in m} for m in [*self._before, *self.history]]
        while len(points) > MAX_CURVE:
            points = thinned_out(points)
        return points

    def draw(self, folder: Path, title: str, evaluation: Evaluation) -> Path | None:
        """Draw returns over env steps, in units of the evaluation's; return the picture, None without an iteration."""
        return plots.learning_curve(
            [*self._before, *self.history],
            folder / "learning_curve.png",
            title=title,
            ylabel=evaluation.return_label,
            scale=evaluation.return_scale,
        )
