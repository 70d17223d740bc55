import re
import time
from functools import partial

import pytest
import torch

from rl8.execution.kernels import choice as choices
from rl8.execution.kernels.choice import TOLERANCE

FLOAT32 = TOLERANCE[torch.float32]
choose = partial(choices.choose, device=torch.device("cpu"))


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
    assert choice.reason == "the kernel acts, 1 ms against 2 ms"
    assert (choice.kernel_ms, choice.plain_ms) == pytest.approx((1, 2))


def test_a_kernel_that_is_not_faster_does_not(clock):
    choice = choose(clock.taking(2, pair), clock.taking(2, pair), {"x": torch.ones(3)}, tolerance=FLOAT32)
    assert not choice.kernel
    assert choice.reason == "the plain path acts, the kernel takes 2 ms against 2 ms"


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


def test_a_result_far_shorter_than_the_others_is_rounding(clock):
    kernel, plain = (clock.taking(ms, lambda x, ms=ms: [x, 1e-9 * ms * x]) for ms in (1, 2))
    assert choose(kernel, plain, {"x": torch.ones(3)}, tolerance=FLOAT32).kernel


def test_rounding_may_tip_few_choices(clock):
    def chooser(ms, tipped):
        return clock.taking(ms, lambda x: torch.arange(len(x)).lt(tipped).long())

    for tipped, acts in ((1, True), (5, False)):
        choice = choose(chooser(1, tipped), chooser(2, 0), {"x": torch.ones(100)}, tolerance=0.02)
        assert choice.kernel == acts
    assert choice.reason == "the plain path acts, 5.0% of result 0 differ"


def test_random_numbers_are_the_same_and_none_is_taken(clock):
    before = torch.get_rng_state()
    drawing = [clock.taking(ms, torch.rand_like) for ms in (1, 2)]
    assert choose(*drawing, {"x": torch.ones(3)}, tolerance=FLOAT32).kernel
    assert torch.equal(torch.get_rng_state(), before)


def test_a_kernel_that_must_act_is_not_timed(clock):
    choice = choose(clock.taking(9, pair), clock.taking(2, pair), {"x": torch.ones(3)}, tolerance=FLOAT32, timed=False)
    assert (choice.kernel, choice.reason) == (True, "the kernel acts")
