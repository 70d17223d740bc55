import re
import time

import pytest
import torch

from rl8.execution.kernels.choice import TOLERANCE, choose

FLOAT32 = TOLERANCE[torch.float32]


class Clock:
    """Counts milliseconds that functions say they take."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def taking(self, milliseconds, function):
        def timed(x):
            self.now += milliseconds / 1e3
            return function(x)

        return timed


def pair(x):
    return [x + 1, (x * 2, None)]


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_faster_kernel_with_the_same_results_acts(clock):
    choice = choose(clock.taking(1, pair), clock.taking(2, pair), {"x": torch.ones(3)}, tolerance=FLOAT32)
    assert choice.kernel
    assert choice.reason == "the kernel acts: 1 ms against 2 ms"
    assert (choice.kernel_ms, choice.plain_ms) == pytest.approx((1, 2))


def test_a_kernel_that_is_not_faster_does_not(clock):
    choice = choose(clock.taking(2, pair), clock.taking(2, pair), {"x": torch.ones(3)}, tolerance=FLOAT32)
    assert not choice.kernel
    assert choice.reason == "the plain path acts: the kernel takes 2 ms against 2 ms"


def broken(x):
    raise RuntimeError("out of resource: shared memory\nmore")


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (lambda x: [x + 1, (x * 2.01, None)], "result 1 differs by 5.0e-03 of its length"),
        (lambda x: [x + torch.nan, (x * 2, None)], "result 0 differs by nan of its length"),
        (lambda x: [x[:2] + 1, (x * 2, None)], r"result 0 has shape \(2,\)"),
        (lambda x: [x + 1], "the kernel gave 1 results, not 2"),
        (broken, "RuntimeError: out of resource: shared memory$"),
    ],
    ids=["wrong", "no number", "shape", "number", "raises"],
)
def test_a_kernel_that_is_wrong_does_not_act_however_fast(clock, kernel, reason):
    choice = choose(kernel, clock.taking(2, pair), {"x": torch.ones(3)}, tolerance=FLOAT32)
    assert not choice.kernel
    assert re.search(reason, choice.reason)


def test_rounding_is_no_difference(clock):
    rounded = clock.taking(1, lambda x: x.bfloat16().float())
    assert choose(
        rounded, clock.taking(2, torch.clone), {"x": torch.rand(99)}, tolerance=TOLERANCE[torch.bfloat16]
    ).kernel


def test_results_of_nothing_but_zeros_agree(clock):
    zero = clock.taking(1, torch.zeros_like)
    assert choose(zero, clock.taking(2, torch.zeros_like), {"x": torch.ones(3)}, tolerance=FLOAT32).kernel


def test_what_the_plain_function_raises_is_the_callers():
    with pytest.raises(RuntimeError, match="out of resource"):
        choose(pair, broken, {"x": torch.ones(3)}, tolerance=FLOAT32)
