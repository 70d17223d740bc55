"""Median, interquartile mean, bootstrap interval as rliable has them (Agarwal et al. 2021, arXiv:2108.13264)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

REPETITIONS, CONFIDENCE = 2000, 0.95  # rliable's `get_interval_estimates`

Scores = NDArray[np.float64]  # [runs, tasks]


def median(scores: Scores) -> float:
    """Return the median over tasks of the mean over runs; of one task, the median over its runs."""
    return float(np.median(scores if scores.shape[1] == 1 else scores.mean(axis=0)))


def iqm(scores: Scores) -> float:
    """Return the mean of the middle half of all scores; of a quarter that is no whole number less is cut off."""
    flat = np.sort(scores, axis=None)
    cut = int(0.25 * len(flat))
    return float(flat[cut : len(flat) - cut].mean())


def interval(
    scores: Scores, statistic: Callable[[Scores], float], *, repetitions: int = REPETITIONS, seed: int = 0
) -> tuple[float, float] | None:
    """Return the percentile interval of a statistic, runs drawn anew within each task; None with a single run."""
    runs, tasks = scores.shape
    if runs < 2:
        return None
    rows = np.random.default_rng(seed).integers(runs, size=(repetitions, runs, tasks))
    drawn = [statistic(np.take_along_axis(scores, these, axis=0)) for these in rows]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return float(low), float(high)


class Summary(NamedTuple):
    """What several runs of one task came to."""

    runs: int
    median: float
    iqm: float
    interval: tuple[float, float] | None


def summary(means: Sequence[float]) -> Summary:
    """Return the statistics of one task's runs, each the mean return of its episodes."""
    scores = np.asarray(means, dtype=np.float64).reshape(-1, 1)
    return Summary(len(scores), median(scores), iqm(scores), interval(scores, iqm))


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether two intervals have a point in common."""
    return one[0] <= other[1] and other[0] <= one[1]
