import functools
import inspect
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from rl8 import conditions
from rl8.calls import typed
from rl8.conditions import (
    And,
    ConditionError,
    EnvSteps,
    HitsLowerBound,
    HitsUpperBound,
    Never,
    Or,
    Plateaus,
    StopsDecreasing,
    StopsIncreasing,
    WallTime,
    as_condition,
    as_conditions,
    flat,
)

KEY = "returns/mean"
CONF = Path(__file__).parents[1] / "conf" / "stop"


def feed(condition, values):
    """Return the answers to a row of iterations; None stands for an iteration without the metric."""
    return [condition({} if value is None else {KEY: value}) for value in values]


@pytest.fixture
def clock(monkeypatch):
    """Time that moves when told to, s."""
    now = [100.0]
    monkeypatch.setattr(conditions.time, "monotonic", lambda: now[0])
    return now


# Bounds


def test_upper_bound_is_met_at_the_bound_and_above():
    assert feed(HitsUpperBound(KEY, 10), [9.999, 10, 11, 9]) == [False, True, True, False]


def test_lower_bound_is_met_at_the_bound_and_below():
    assert feed(HitsLowerBound(KEY, -10.0), [-9.999, -10, -11, -9]) == [False, True, True, False]


def test_bounds_take_infinity_but_never_nan_and_no_absent_metric():
    assert feed(HitsUpperBound(KEY, 1.0), [math.nan, None, math.inf]) == [False, False, True]
    assert feed(HitsLowerBound(KEY, 1.0), [math.nan, None, -math.inf]) == [False, False, True]


def test_bound_progress_is_the_share_of_the_way_from_the_first_value():
    condition = HitsUpperBound(KEY, 100.0)
    assert condition.progress({}) is None
    shares = []
    for value in (-100.0, 0.0, None, math.nan, -200.0, 50.0, 100.0, 300.0):
        metrics = {} if value is None else {KEY: value}
        condition(metrics)
        shares.append(condition.progress(metrics))
    # 200 to go from the first value: 0 is half way; no news keeps the last; below the start is 0.
    assert shares == [0.0, 0.5, 0.5, 0.5, 0.0, 0.75, 1.0, 1.0]
    condition.reset()
    assert condition.progress({}) is None


def test_lower_bound_progress_runs_downwards():
    condition = HitsLowerBound(KEY, 0.0)
    feed(condition, [8.0, 2.0])
    assert condition.progress({}) == 0.75


def test_progress_survives_infinite_values():
    condition = HitsUpperBound(KEY, 1.0)
    feed(condition, [-math.inf, 0.0])
    assert condition.progress({}) == 0.0


# Patience


def test_plateau_counts_further_values_near_the_first():
    assert feed(Plateaus(KEY, patience=2, rtol=0.2), [1.0, 0.9, 1.0]) == [False, False, True]


def test_plateau_starts_anew_where_a_value_leaves_the_band():
    assert feed(Plateaus(KEY, patience=2, rtol=0.1), [10, 10.5, 12, 12, 11, 12]) == [False] * 4 + [True, True]


def test_small_steps_in_one_direction_are_no_plateau():
    # 3% a value: within 5% of the one before, but beyond 5% of the first after two.
    climb = [1.03**k for k in range(30)]
    assert not any(feed(Plateaus(KEY, patience=3, rtol=0.05), climb))


def test_plateau_of_negative_values_and_at_zero():
    assert feed(Plateaus(KEY, patience=1, rtol=0.1), [-10.0, -10.9]) == [False, True]
    assert feed(Plateaus(KEY, patience=1, rtol=0.1), [0.0, 0.01]) == [False, False]
    assert feed(Plateaus(KEY, patience=1, rtol=0.1, atol=0.05), [0.0, 0.01]) == [False, True]


def test_stops_increasing_counts_values_without_a_new_maximum():
    condition = StopsIncreasing(KEY, patience=2)
    assert feed(condition, [1.0, 1.0, 1.1, 0.5, 1.1]) == [False, False, False, False, True]


def test_stops_decreasing_counts_values_without_a_new_minimum():
    condition = StopsDecreasing(KEY, patience=2)
    assert feed(condition, [1.0, 1.0, 0.9, 1.5, 0.9]) == [False, False, False, False, True]


@pytest.mark.parametrize("make", [Plateaus, StopsIncreasing, StopsDecreasing])
def test_absent_and_nan_values_are_not_counted(make):
    assert feed(make(KEY, patience=2), [1.0, None, 1.0, math.nan, None, 1.0]) == [False] * 5 + [True]
    assert not any(feed(make(KEY, patience=1), [math.nan] * 10))
    assert not any(feed(make(KEY, patience=1), [1.0] + [None] * 10))


@pytest.mark.parametrize("make", [Plateaus, StopsIncreasing, StopsDecreasing])
def test_reset_forgets_the_count(make):
    condition = make(KEY, patience=2)
    assert feed(condition, [1.0, 1.0]) == [False, False]
    condition.reset()
    assert feed(condition, [1.0, 1.0, 1.0]) == [False, False, True]
    assert condition.progress({KEY: 1.0}) is None


# Steps, time, never


def test_env_steps():
    condition = EnvSteps(1000)
    assert [condition({"env/steps": steps}) for steps in (0, 999, 1000, 2000)] == [False, False, True, True]
    assert [condition.progress({"env/steps": steps}) for steps in (0, 250, 2000)] == [0.0, 0.25, 1.0]
    assert not condition({})
    assert EnvSteps(8e5).env_steps == 800_000


def test_wall_time_counts_from_reset(clock):
    condition = WallTime(10)
    clock[0] += 4
    assert not condition({})
    assert condition.progress({}) == 0.4
    condition.reset()
    clock[0] += 9
    assert not condition({})
    clock[0] += 1
    assert condition({})
    assert condition.progress({}) == 1.0


def test_wall_time_goes_on_where_it_stopped(clock):
    first = WallTime(10)
    clock[0] += 7
    saved = first.state_dict()
    clock[0] += 1000  # the time between two runs does not count
    second = WallTime(10)
    second.load_state_dict(saved)
    clock[0] += 2.5
    assert not second({})
    clock[0] += 0.5
    assert second({})


def test_never():
    condition = Never()
    condition.reset()
    assert not condition({"env/steps": 1e12})
    assert condition.progress({"env/steps": 1e12}) is None


# And, Or, functions


def test_and_needs_all_by_the_same_metrics():
    condition = And([HitsUpperBound("a", 1.0), HitsUpperBound("b", 1.0)])
    answers = [condition(metrics) for metrics in ({"a": 1.0, "b": 0.0}, {"b": 1.0}, {"a": 1.0, "b": 1.0})]
    assert answers == [False, False, True]


def test_or_needs_one():
    condition = Or([HitsUpperBound("a", 1.0), HitsUpperBound("b", 1.0)])
    assert [condition(metrics) for metrics in ({"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 1.0}, {"a": 1.0})] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(("join", "other"), [(And, HitsUpperBound(KEY, 1e9)), (Or, HitsLowerBound(KEY, 1e9))])
def test_every_member_is_asked_at_every_call(join, other):
    # The other one settles the answer alone; the plateau must have counted all the same.
    plateau = Plateaus(KEY, patience=2)
    feed(join([other, plateau]), [1.0, 1.0])
    assert feed(plateau, [1.0]) == [True]


def test_progress_of_joined_conditions():
    metrics = {"env/steps": 30}
    assert And([EnvSteps(100), EnvSteps(60)]).progress(metrics) == 0.3
    assert Or([EnvSteps(100), EnvSteps(60)]).progress(metrics) == 0.5
    assert And([EnvSteps(100), Plateaus(KEY)]).progress(metrics) is None
    assert Or([EnvSteps(100), Plateaus(KEY)]).progress(metrics) == 0.3
    assert Or([Never(), Plateaus(KEY)]).progress(metrics) is None


def test_joined_conditions_reset_their_members():
    condition = Or([And([StopsIncreasing(KEY, patience=1)]), Never()])
    assert feed(condition, [1.0]) == [False]
    condition.reset()
    assert feed(condition, [1.0, 1.0]) == [False, True]


def test_a_function_is_a_condition():
    def is_late(metrics):
        return metrics["env/steps"] > 5

    condition = Or([is_late])
    assert [condition({"env/steps": steps}) for steps in (5, 6)] == [False, True]
    assert condition.describe() == "is_late"
    assert as_condition(condition) is condition


def test_a_function_that_fails_is_named():
    def is_solved(metrics):
        return metrics["returns/meen"] > 5

    message = r"condition is_solved failed: Unknown metric 'returns/meen'\. Did you mean 'returns/mean'\? .*get\(name"
    with pytest.raises(ConditionError, match=message):
        Or([is_solved])({"returns/mean": 1.0})
    with pytest.raises(
        ConditionError, match=r"^The stop condition <lambda> failed: ZeroDivisionError: division by zero$"
    ):
        Or([lambda metrics: 1 / 0])({"returns/mean": 1.0})


# State, words, keys

MAKERS = {
    "env_steps": lambda: EnvSteps(10),
    "never": lambda: Never(),
    "plateaus": lambda: Plateaus(KEY, patience=3, rtol=0.1),
    "stops_increasing": lambda: StopsIncreasing(KEY, patience=3),
    "stops_decreasing": lambda: StopsDecreasing(KEY, patience=3),
    "upper": lambda: HitsUpperBound(KEY, 10),
    "lower": lambda: HitsLowerBound(KEY, -10),
    "or": lambda: Or([And([Plateaus(KEY, patience=3), StopsIncreasing(KEY, patience=3)]), HitsUpperBound(KEY, 20)]),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_a_restored_condition_answers_as_the_unbroken_one(make):
    values = [1.0, 5.0, 5.0, None, 5.0, 5.0, -20.0, 30.0, 30.0, 30.0, 30.0]
    unbroken = make()
    answers = feed(unbroken, values)
    for stop in range(len(values)):
        first, second = make(), make()
        before = feed(first, values[:stop])
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert before + feed(second, values[stop:]) == answers
        assert second.progress({}) == unbroken.progress({})


def test_another_conditions_state_is_refused():
    state = Plateaus(KEY).state_dict()
    with pytest.raises(ValueError, match=r"state of Plateaus on returns/mean does not fit StopsIncreasing.*reset\(\)"):
        StopsIncreasing(KEY).load_state_dict(state)
    with pytest.raises(ValueError, match=r"state of Plateaus on returns/mean does not fit Plateaus\(losses/vf"):
        Plateaus("losses/vf").load_state_dict(state)
    with pytest.raises(ValueError, match=r"state of None on no metric does not fit WallTime"):
        WallTime(1).load_state_dict({})
    with pytest.raises(ValueError, match=r"2 states do not fit the 1 conditions of Or\(never\)"):
        Or([Never()]).load_state_dict(Or([Never(), Never()]).state_dict())


@pytest.mark.parametrize(
    ("condition", "words", "keys"),
    [
        (EnvSteps(800_000), "env/steps >= 800,000", {"env/steps"}),
        (WallTime(3600), "wall time >= 3,600 s", set()),
        (Never(), "never", set()),
        (HitsUpperBound(KEY, 490), "returns/mean >= 490", {KEY}),
        (HitsLowerBound("losses/vf", 0.5), "losses/vf <= 0.5", {"losses/vf"}),
        (Plateaus(KEY, rtol=0.05), "returns/mean within 5% for 5 values", {KEY}),
        (Plateaus(KEY, 2, 0.05, 0.5), "returns/mean within 5% or 0.5 for 2 values", {KEY}),
        (StopsIncreasing(KEY), "returns/mean without a new maximum for 5 values", {KEY}),
        (StopsDecreasing(KEY), "returns/mean without a new minimum for 5 values", {KEY}),
        (
            Or([And([HitsUpperBound("eval/a", 1), EnvSteps(5)]), Never()]),
            "(eval/a >= 1 and env/steps >= 5) or never",
            {"eval/a", "env/steps"},
        ),
    ],
)
def test_words_and_keys(condition, words, keys):
    assert condition.describe() == words
    assert repr(condition) == f"{type(condition).__name__}({words})"
    assert condition.keys() == keys


# Refusals


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EnvSteps(0), ValueError, r"^env_steps=0 is out of range.*>= 1.*Try env_steps=1_000_000"),
        (lambda: EnvSteps(10.5), TypeError, r"^env_steps=10\.5 is not an integer"),
        (lambda: EnvSteps("many"), TypeError, r"^env_steps='many' is not an integer"),
        (lambda: WallTime(0), ValueError, r"^seconds=0 is out of range.*> 0.*Try seconds=600"),
        (lambda: Plateaus(KEY, 0), ValueError, r"^patience=0 is out of range.*Try patience=5"),
        (lambda: Plateaus(KEY, rtol=-0.1), ValueError, r"^rtol=-0\.1 is out of range"),
        (lambda: Plateaus(KEY, atol=math.nan), ValueError, r"^atol=nan is out of range"),
        (lambda: StopsIncreasing(KEY, patience=2.5), TypeError, r"^patience=2\.5 is not an integer"),
        (lambda: StopsDecreasing(""), TypeError, r"^key='' is no metric.*Try key='returns/mean'"),
        (lambda: StopsDecreasing(5), TypeError, r"^key=5 is no metric"),
        (lambda: HitsUpperBound(KEY, "x"), TypeError, r"^upper_bound='x' is not a number.*Try upper_bound=100\.$"),
        (lambda: HitsUpperBound(KEY, math.inf), ValueError, r"^upper_bound=inf is out of range"),
        (lambda: HitsUpperBound(KEY, None), ValueError, r"^upper_bound=None.*Try upper_bound=100\.$"),
        (
            lambda: HitsLowerBound(KEY, None),
            ValueError,
            r"^lower_bound=None.*Try lower_bound=100\.$",
        ),
        (lambda: And([]), ValueError, r"And\(\[\]\) joins nothing.*Try And\("),
        (lambda: Or(Never()), TypeError, r"Or\(Never\(never\)\) is no list of conditions"),
        (lambda: Or("never"), TypeError, r"Or\('never'\) is no list of conditions"),
        (lambda: Or([Never]), TypeError, r"is no stop condition.*Try rl8\.conditions\.EnvSteps"),
        (lambda: as_condition(1000), TypeError, r"1000 is no stop condition"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


# conf/stop


def load(name, **goal):
    goal = {"env_steps": 1000, "metric": "eval/returns/mean", "target": None, **goal}
    config = OmegaConf.create({"goal": goal})
    config.stop = OmegaConf.load(CONF / f"{name}.yaml")
    return OmegaConf.to_container(config, resolve=True)["stop"]


@pytest.mark.parametrize("name", [path.stem for path in sorted(CONF.glob("*.yaml"))])
def test_every_stop_config_builds_and_repeats_the_defaults(name):
    config = load(name, target=-7)
    assert isinstance(instantiate(config), conditions.Condition)
    parameters = inspect.signature(get_class(config["_target_"])).parameters
    assert set(config) - {"_target_"} == set(parameters)
    for key, parameter in parameters.items():
        assert parameter.default in (parameter.empty, config[key]), key


def test_stop_configs_follow_the_goal():
    assert instantiate(load("env_steps")).describe() == "env/steps >= 1,000"
    assert instantiate(load("target", target=-7)).describe() == "eval/returns/mean >= -7"


def test_stop_target_without_a_target_says_what_to_type():
    from hydra.errors import InstantiationException

    with pytest.raises(InstantiationException, match=r"Try goal\.target=100 with stop=target"), typed():
        instantiate(load("target"))


def test_the_end_says_which_of_several_conditions_was_met():
    stop = Or([HitsUpperBound("returns/mean", 5), And([EnvSteps(100)])])
    assert stop.reached() == stop.describe()
    assert stop({"returns/mean": 1, "env/steps": 100})
    assert stop.reached() == "env/steps >= 100"
    assert stop({"returns/mean": 6, "env/steps": 100})
    assert stop.reached() == "returns/mean >= 5 and env/steps >= 100"
    assert [type(part) for part in flat([stop])] == [HitsUpperBound, EnvSteps]


@pytest.mark.parametrize(
    "condition", [100, EnvSteps, functools.partial(EnvSteps, 3), torch.nn.ReLU(), lambda metrics, more: True]
)
def test_what_cannot_be_asked_with_metrics_alone_is_no_condition(condition):
    with pytest.raises(TypeError, match=r"^stop_conditions: .* is no stop condition\. Accepted: a condition of"):
        as_conditions([condition], "stop_conditions")


def test_stop_conditions_are_a_list():
    with pytest.raises(TypeError, match=r"^stop_conditions=5 is no list.*Try stop_conditions=\[EnvSteps\(100_000\)\]"):
        as_conditions(5, "stop_conditions")
    with pytest.raises(TypeError, match=r"^stop_conditions=EnvSteps\(.* is no list.*=\[EnvSteps\(\.\.\.\)\]"):
        as_conditions(EnvSteps(5), "stop_conditions")
    assert as_conditions([], "stop_conditions") == ()
    assert as_conditions([lambda metrics: True], "stop_conditions")[0]({})


def test_numbers_of_numpy_are_numbers():
    assert not EnvSteps(np.int64(100))({"env/steps": 99.0})
    assert EnvSteps(np.int64(100))({"env/steps": 100.0})
