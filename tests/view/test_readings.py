import math

import pytest

from rl8.view.readings import Readings, Trace, clock_time, count, facts, line, megabytes, percent, shown


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def step(readings, clock, seconds, steps, progress, **metrics):
    clock.now = 100.0 + seconds
    readings.add({"env/steps": float(steps), **metrics}, progress)


def test_trace_draws_the_range_from_low_to_high():
    trace = Trace()
    assert trace.draw() == ""
    trace.add(5.0)
    assert trace.draw() == "▁"
    for value in (6.0, math.nan, 12.0, math.inf, 8.5):
        trace.add(value)
    # 5, 6, 12, 8.5 are at 0, 1/7, 1 and 1/2 of the range; half of seven steps rounds to the even four
    assert trace.draw() == "▁▂█▅"
    assert trace.draw("ab") == "aaba"
    assert trace.best == 12.0


def test_trace_of_any_length_keeps_to_its_width():
    trace = Trace(width=4)
    for value in range(8):
        trace.add(float(value))
    # full at 8: pairs become 0.5, 2.5, 4.5, 6.5
    assert trace.draw() == "▁▃▆█"
    trace.add(8.0)  # half a pair is not drawn yet
    assert trace.draw() == "▁▃▆█"
    trace.add(9.0)
    # five values over a width of four: pairs again, the last alone: 1.5, 5.5, 8.5
    assert trace.draw() == "▁▅█"
    for value in range(1000):
        trace.add(float(value))
        assert len(trace.draw()) <= 4
    assert trace.best == 999.0


def test_speed_is_env_steps_per_second_of_wall_time(clock):
    readings = Readings(clock)
    assert readings.speed is None
    step(readings, clock, 1, 1000, 0.1, **{"profiling/transitions_per_s": 777.0})
    assert readings.speed == 777.0
    step(readings, clock, 3, 5000, 0.2)
    assert readings.speed == 2000.0
    step(readings, clock, 40, 6000, 0.3)
    # the first is more than half a minute ago: (6000 - 5000) / (40 - 3)
    assert readings.speed == pytest.approx(1000 / 37)


def test_time_left_follows_the_present_pace(clock):
    readings = Readings(clock)
    assert readings.left is None
    step(readings, clock, 10, 1000, 0.1)
    assert readings.left is None  # one point has no pace
    step(readings, clock, 12, 2000, 0.3)
    # 0.2 in two seconds, 0.7 to go
    assert readings.left == pytest.approx(7.0)
    clock.now += 3
    assert readings.left == pytest.approx(4.0)
    clock.now += 30
    assert readings.left == 0.0
    assert readings.elapsed == 45.0
    step(readings, clock, 46, 3000, 0.2)
    step(readings, clock, 80, 3000, 0.1)
    assert readings.left is None  # it goes backwards
    step(readings, clock, 81, 3000, None)
    assert readings.left is None
    step(readings, clock, 82, 9000, 1.0)
    assert readings.left is None


def test_metrics_keep_their_last_value(clock):
    readings = Readings(clock)
    step(readings, clock, 1, 10, None, **{"returns/mean": 1.0, "eval/returns/mean": 2.0})
    step(readings, clock, 2, 20, None, **{"returns/mean": 3.0})
    assert readings.metrics == {"env/steps": 20.0, "returns/mean": 3.0, "eval/returns/mean": 2.0}
    assert (readings.returns.best, readings.evaluations.best, readings.updates) == (3.0, 2.0, 2)


def test_returns_of_training_are_shown_per_as_many_steps_as_those_of_the_evaluation(clock):
    readings = Readings(clock)
    readings.scale = 4.0
    readings.add({"returns/mean": -2.0, "eval/returns/mean": -8.0}, None)
    readings.add({"losses/vf": 1.0}, None)
    assert readings.metrics["returns/mean"] == readings.metrics["eval/returns/mean"] == -8.0
    assert readings.returns.best == -8.0


def test_line(clock):
    readings = Readings(clock)
    assert line(readings) == "           0 steps"
    metrics = {
        "returns/mean": -12.1,
        "eval/returns/mean": -10.931,
        "monitors/kl_div": 0.0081,
        "losses/entropy": 1.02,
        "profiling/transitions_per_s": 41300.0,
    }
    step(readings, clock, 1, 8192, None, **metrics)
    assert line(readings) == ("        8.2k steps  return -12.10  eval -10.93  kl  0.0081  entropy  1.02   41.3k/s")
    step(readings, clock, 2, 200704, 0.25, **metrics)
    step(readings, clock, 3, 401408, 0.5, **metrics)
    assert line(readings) == (
        " 50%  401.4k steps  return -12.10  eval -10.93  kl  0.0081  entropy  1.02  196.6k/s  0:02 left"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0%"), (0.2899999999, "28%"), (0.29, "29%"), (0.9999, "99%"), (1.0, "100%"), (1.2, "100%"), (-0.1, "0%")],
)
def test_percent(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1.0k"), (41_327, "41.3k"), (1.25e6, "1.25M"), (-2e9, "-2.00G")]
)
def test_count(value, text):
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (-6.91, 4, "-6.910"),
        (0.0, 3, "0.00"),
        (123.4, 3, "123"),
        (1234.5, 4, "1234"),
        (12345.6, 4, "12346"),
        (0.00831, 3, "0.00831"),
        (1.234e-5, 3, "1.2e-05"),
        (-2.5e7, 4, "-2.50e+07"),
        (math.nan, 4, "nan"),
        (-math.inf, 4, "-inf"),
    ],
)
def test_shown(value, digits, text):
    assert shown(value, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0:00"), (8.4, "0:08"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (273_900, "3d 04:05")],
)
def test_clock_time(seconds, text):
    assert clock_time(seconds) == text


def test_megabytes():
    assert megabytes(412.4) == "412 MB"
    assert megabytes(1240.0) == "1.2 GB"


def test_facts_line_up():
    assert facts({"a": "1", "long name": "2"}) == ["  a          1", "  long name  2"]
    assert facts({}) == []
