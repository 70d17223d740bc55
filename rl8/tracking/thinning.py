"""Which iterations of a long run are kept: of those that are recorded, and of those in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rl8.data import EVAL_MS, ITERATIONS

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
        self._held = (metrics, step)
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


def thinned_out(history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Return every second iteration that was evaluated and every second other one, in their order."""
    kinds = ([metrics for metrics in history if (EVAL_MS in metrics) == evaluated] for evaluated in (True, False))
    return sorted((metrics for kind in kinds for metrics in kind[::2]), key=lambda metrics: metrics[ITERATIONS])
