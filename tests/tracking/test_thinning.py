from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from rl8.data import EVAL_MS, ITERATIONS
from rl8.tracking.thinning import Recorder, thinned_out


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def recorded(seconds, *, iterations, every, evaluated=()):
    """Return which of some iterations, one `every` so many seconds, are recorded."""
    clock, steps = Clock(), []
    recorder = Recorder(lambda metrics, step: steps.append(step), seconds, clock)
    for iteration in range(1, iterations + 1):
        recorder.add({}, iteration, always=iteration in evaluated)
        clock.now += every
    recorder.flush()
    recorder.flush()
    return steps


@pytest.mark.parametrize("every", [0.001, 0.4, 30.0])
def test_a_runs_first_fifty_iterations_are_all_recorded(every):
    assert recorded(2.0, iterations=51, every=every) == list(range(1, 52))


def test_later_ones_are_a_fiftieth_of_its_age_apart_then_as_many_seconds_as_are_set():
    steps = recorded(2.0, iterations=2048, every=0.125)  # 256 s
    gaps = {step: after - step for step, after in pairwise(steps)}
    assert max(gap for step, gap in gaps.items() if step < 90) == 2
    assert max(gaps.values()) == 16
    assert {gap for step, gap in gaps.items() if 820 <= step < 2000} == {16}
    assert steps[-1] == 2048


def test_zero_seconds_record_every_iteration():
    assert recorded(0.0, iterations=500, every=0.001) == list(range(1, 501))


def test_slow_iterations_are_all_recorded():
    assert recorded(2.0, iterations=500, every=2.0) == list(range(1, 501))


def test_evaluated_iterations_and_the_last_are_always_recorded():
    steps = recorded(1e6, iterations=1000, every=0.001, evaluated=(901, 902, 903))
    assert {901, 902, 903, 1000} <= set(steps)
    assert len(steps) < 250


def test_half_of_a_history_is_left_and_half_of_its_evaluations():
    history = [{ITERATIONS: float(i), **({EVAL_MS: 1.0} if i % 2 == 0 else {})} for i in range(1, 9)]
    assert [metrics[ITERATIONS] for metrics in thinned_out(history)] == [1, 2, 5, 6]


def test_episodes_of_iterations_that_are_not_recorded_count_with_the_next():
    def metrics(step, *returns):
        if not returns:
            return {"env/steps": step, "episodes/count": 0.0}
        named = {"mean": fmean(returns), "std": pstdev(returns), "min": min(returns), "max": max(returns)}
        return {
            "env/steps": step,
            "episodes/count": float(len(returns)),
            **{f"episodes/return/{name}": value for name, value in named.items()},
            "episodes/length/mean": 10.0 * len(returns),
            "episodes/truncated": 1.0 if len(returns) == 1 else 0.0,
        }

    recorded, clock = [], iter([0.0, 1000.0, 1000.1, 1000.2, 1000.3, 1005.0])
    recorder = Recorder(lambda found, _: recorded.append(found), 2.0, lambda: next(clock))
    for step, returns in enumerate([(1.0,), (1.0,), (2.0,), (3.0, 5.0, 7.0), (), (8.0,)]):
        recorder.add(metrics(step, *returns), step, always=False)
    assert [(found["env/steps"], found["episodes/count"]) for found in recorded] == [(0, 1), (1, 1), (5, 5)]
    found = recorded[-1]
    assert found["episodes/return/mean"] == pytest.approx(fmean([2, 3, 5, 7, 8]))
    assert found["episodes/return/std"] == pytest.approx(pstdev([2, 3, 5, 7, 8]))
    assert (found["episodes/return/min"], found["episodes/return/max"]) == (2, 8)
    assert found["episodes/length/mean"] == pytest.approx((10 + 3 * 30 + 10) / 5)
    assert found["episodes/truncated"] == pytest.approx(2 / 5)
