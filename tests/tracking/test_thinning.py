from itertools import pairwise

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
