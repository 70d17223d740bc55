"""Which iterations of a long run are kept: of those that are recorded, and of those in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rl8.data import EPISODE_METRICS, EPISODES_COUNT, EPISODES_MEANS, EPISODES_STD, EVAL_MS, ITERATIONS

# Least share of a run's age so far between two iterations that are recorded: short runs get smooth charts too.
SHARE: Final = 1 / 50


class Recorder:
    """Passes metrics on to MLflow, which takes about 5 ms of processor time for those of one iteration.

    A GPU may do hundreds of iterations a second; MLflow would take more time than training.

    Args:
        record: Takes metrics and the env steps so far.
        seconds: Least time between two iterations, once `SHARE` of the run's age is more.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        record: Callable[[Mapping[str, float], int], None],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record, self._seconds, self._clock = record, seconds, clock
        self._first, self._last = math.inf, -math.inf
        self._held: tuple[Mapping[str, float], int] | None = None

    def add(self, metrics: Mapping[str, float], step: int, *, always: bool) -> None:
        """Pass metrics on, or hold them back until later ones come if others were passed on just now.

        Args:
            metrics: Values by name.
            step: Env steps so far.
            always: Whether not to hold them back.
        """
        self._held = (metrics if self._held is None else _with_episodes(self._held[0], metrics), step)
        now = self._clock()
        self._first = min(self._first, now)
        if always or now - self._last >= min(self._seconds, SHARE * (now - self._first)):
            self._last = now
            self.flush()

    def flush(self) -> None:
        """Pass on what was held back last, if anything: the last iteration of a run is never left out."""
        held, self._held = self._held, None
        if held is not None:
            self._record(*held)


def _with_episodes(earlier: Mapping[str, float], later: Mapping[str, float]) -> Mapping[str, float]:
    """Return the later of two iterations' metrics with the episodes of both: those since the last that was recorded."""
    before, after = earlier.get(EPISODES_COUNT, 0.0), later.get(EPISODES_COUNT, 0.0)
    if not before:
        return later
    episodes = {name: earlier[name] for name in EPISODE_METRICS}
    if after:
        total = before + after
        for name in EPISODES_MEANS:
            episodes[name] = (before * earlier[name] + after * later[name]) / total
        # the variance within each, and of the means between them
        mean = episodes[EPISODES_MEANS[0]]
        parts = [
            (number, each[EPISODES_STD], each[EPISODES_MEANS[0]])
            for number, each in ((before, earlier), (after, later))
        ]
        episodes[EPISODES_STD] = math.sqrt(sum(n * (std**2 + (own - mean) ** 2) for n, std, own in parts) / total)
        for edge, name in ((min, "episodes/return/min"), (max, "episodes/return/max")):
            episodes[name] = edge(earlier[name], later[name])
        episodes[EPISODES_COUNT] = total
    return {**later, **episodes}


def thinned_out(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return every second iteration that was evaluated and every second other one, in their order."""
    kinds = ([metrics for metrics in history if (EVAL_MS in metrics) == evaluated] for evaluated in (True, False))
    return sorted((metrics for kind in kinds for metrics in kind[::2]), key=lambda metrics: metrics[ITERATIONS])
