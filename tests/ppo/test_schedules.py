import math
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from rl8.ppo.schedules import Schedule, starting_rate


def test_without_points_the_value_is_constant():
    schedule = Schedule(0.25)
    assert schedule.kind == "constant"
    assert [schedule(env_steps) for env_steps in (0, 1, 10**12)] == [0.25] * 3


def test_step_holds_each_value_until_the_next_point():
    schedule = Schedule(9.0, [(0, 1.0), (100, 0.5), (200, 0.0)], "step")
    assert [schedule(env_steps) for env_steps in (0, 99, 100, 199, 200, 10**9)] == [1.0, 1.0, 0.5, 0.5, 0.0, 0.0]


def test_interp_moves_linearly_and_stays_at_the_last_value():
    # From 1.0 at 0 to 0.5 at 100: 0.75 half way. From 0.5 at 100 to 0.0 at 300: 0.375 a quarter of the way.
    schedule = Schedule(9.0, [(0, 1.0), (100, 0.5), (300, 0.0)], "interp")
    assert [schedule(env_steps) for env_steps in (0, 50, 100, 150, 300, 301)] == [1.0, 0.75, 0.5, 0.375, 0.0, 0.0]


def test_the_value_counts_from_zero_where_the_first_point_is_later():
    points = [(100, 0.5)]
    assert [Schedule(1.0, points, "step")(env_steps) for env_steps in (0, 99, 100)] == [1.0, 1.0, 0.5]
    assert [Schedule(1.0, points, "interp")(env_steps) for env_steps in (0, 50, 100)] == [1.0, 0.75, 0.5]


def test_a_point_at_zero_replaces_the_value():
    # A schedule that says everything needs no valid value beside it.
    assert Schedule(math.nan, [(0, 0.125)])(0) == 0.125


def test_points_may_come_from_a_config():
    config = OmegaConf.create("lr_schedule: [[0, 1e-3], [1e6, 1e-4]]")
    schedule = Schedule(0.0, config.lr_schedule, "step")
    assert (schedule(999_999), schedule(1_000_000)) == (1e-3, 1e-4)
    assert repr(schedule) == "Schedule([(0, 0.001), (1000000, 0.0001)], kind='step')"


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (
            [(100, 1.0), (50, 0.5)],
            ValueError,
            r"lr_schedule is not sorted: point 1 is at env step 50.*Try .*50, 0",
        ),
        (
            [(0, 1.0), (0, 0.5)],
            ValueError,
            r"env steps that grow.*Try 'algo\.lr_schedule=\[\[0, 0.5",
        ),
        ([(-1, 1.0)], ValueError, r"lr_schedule\[0\]'s env steps=-1 is out of range.*>= 0.*Try 'algo\.lr_schedule="),
        ([(0, 1.0), (5, -0.1)], ValueError, r"lr_schedule\[1\]'s value=-0\.1 is out of range.*>= 0"),
        ([(0, math.inf)], ValueError, r"lr_schedule\[0\]'s value=inf is out of range"),
        ([(0, math.nan)], ValueError, r"lr_schedule\[0\]'s value=nan is out of range"),
        ([(0.5, 1.0)], TypeError, r"lr_schedule\[0\]'s env steps=0\.5 is not an integer"),
        ([(0, "high")], TypeError, r"lr_schedule\[0\]'s value='high' is not a number"),
        ([0, 1.0], TypeError, r"lr_schedule\[0\]=0 is no pair.*Try 'algo\.lr_schedule="),
        ([(0, 1.0, 2.0)], TypeError, r"is no pair"),
        (["ab"], TypeError, r"lr_schedule\[0\]='ab' is no pair"),
        ([], ValueError, r"lr_schedule=\[\] has no points.*or null"),
        ("0:1", TypeError, r"lr_schedule='0:1' is no list"),
        (3, TypeError, r"lr_schedule=3 is no list"),
    ],
)
def test_bad_points_are_refused(points, error, message):
    with pytest.raises(error, match=message):
        Schedule(1.0, points, name="algo.lr_schedule")


def test_a_bad_kind_or_value_is_refused():
    with pytest.raises(ValueError, match=r"algo\.lr_schedule_kind='intrep' is unknown.*Try .*=interp"):
        Schedule(1.0, [(0, 1.0)], "intrep", name="algo.lr_schedule")
    with pytest.raises(ValueError, match=r"kind=constant leaves no use for schedule=.*Try schedule_kind=step"):
        Schedule(1.0, [(0, 1.0)], "constant")
    with pytest.raises(ValueError, match=r"value at env step 0=-1\.0 is out of range"):
        Schedule(-1.0)


def test_constant_needs_no_points():
    assert Schedule(0.5, kind="constant")(7) == 0.5


def test_importing_conditions_and_schedules_imports_no_torch():
    code = (
        "import sys, rl8.conditions, rl8.ppo.schedules; "
        "print(sorted({'torch', 'tensordict', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_rate_that_nobody_typed_gives_way_to_its_schedule():
    assert starting_rate(1e-3, [[0, 2e-3], [100, 0]], typed=False) == 2e-3
    assert starting_rate(1e-3, [[50, 2e-3]], typed=True) == 1e-3  # holds until env step 50
    assert starting_rate(1e-3, None, typed=True) == 1e-3
    assert starting_rate(2e-3, [[0, 2e-3]], typed=True) == 2e-3


def test_a_rate_that_its_schedule_contradicts_is_refused_with_both_ways_out():
    message = (
        r"^algo.optimizer.lr=0.01 would have no effect: algo.lr_schedule starts with 0.002. "
        r"Try 'algo.lr_schedule=\[\[0, 0.01\], \[100, 0\]\]', or algo.lr_schedule=null for a constant rate.$"
    )
    with pytest.raises(ValueError, match=message):
        starting_rate(0.01, [[0, 0.002], [100, 0.0]], typed=True)


@pytest.mark.parametrize(
    ("points", "kind", "zero"),
    [
        ([[0, 1.0], [10, 0.0]], "interp", 10),
        ([[0, 1.0], [10, 0.0], [20, 0.0]], "step", 10),
        ([[0, 0.0], [10, 1.0]], "interp", None),
        (None, "step", None),
    ],
)
def test_from_when_on_a_value_stays_0(points, kind, zero):
    assert Schedule(1.0, points, kind).zero_from == zero
