import math

import pytest

from rl8.checks import (
    MAX_SEED,
    check_choice,
    check_range,
    closest,
    interval,
    is_mistake,
    largest_divisor,
    listed,
    own_traceback,
    unknown,
    unknown_metric,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("gama", "gamma"), ("GAMMA", "gamma"), ("gae_lamda", "gae_lambda"), ("Lr", "lr"), ("zzz", None), ("", None)],
)
def test_closest_is_the_likeliest_option_whatever_the_case(value, expected):
    assert closest(value, ["gamma", "gae_lambda", "lr"]) == expected


def test_closest_keeps_the_options_own_case():
    assert closest("cartpole", ["CartPole", "Pendulum"]) == "CartPole"


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ("gama", ["gamma", "horizon"], "Unknown option 'gama'. Did you mean 'gamma'? Accepted: gamma, horizon."),
        ("zzz", ["gamma", "horizon"], "Unknown option 'zzz'. Accepted: gamma, horizon."),
        ("gama", [], "Unknown option 'gama': there are none. Leave it out."),
    ],
)
def test_unknown_names_the_nearest_and_all_of_a_few(value, options, message):
    assert unknown("option", value, options) == message


def test_of_many_names_the_nearest_are_listed_and_where_all_are():
    names = [f"speed_{letter}" for letter in "abcdefghijklmnop"]
    assert listed(names, "zzz") == ", ".join(names)
    names += ["gamma", "gamma_min"]
    assert listed(names, "gama", "`help` lists all") == (
        "speed_a, speed_b, speed_c, speed_d, speed_e, speed_f, gamma, gamma_min and 10 more (`help` lists all)"
    )
    assert listed(names, "zzz") == f"{', '.join(names[:8])} and 10 more"


def test_a_users_part_of_a_traceback(tmp_path):
    own = compile("def mine(call):\n    call()\n", str(tmp_path / "mine.py"), "exec")
    exec(own, names := {})
    with pytest.raises(TypeError, match="an integer") as caught:
        names["mine"](lambda: check_range("a", "b", integer=True))
    shown = own_traceback(caught.value)
    assert shown.startswith("Traceback of your own code (HYDRA_FULL_ERROR=1 shows all of it):\n")
    assert f'File "{tmp_path / "mine.py"}", line 2, in mine' in shown
    assert shown.endswith("TypeError: a='b' is not an integer. Accepted: any integer.\n")
    assert "rl8/checks.py" not in shown
    caught.value.__traceback__ = None
    assert own_traceback(caught.value) is None


@pytest.mark.parametrize(
    ("value", "guess"),
    [
        ("return", "returns/mean"),
        ("eval/return", "eval/returns/mean"),
        ("eval/returns", "eval/returns/mean"),
        ("eval/return/sdt", "eval/returns/std"),
        ("returns/meen", "returns/mean"),
        ("env/stoped", "env/stopped"),
    ],
)
def test_the_mean_is_guessed_where_a_metric_names_no_statistic(value, guess):
    statistics = [f"{kind}/{name}" for kind in ("returns", "eval/returns") for name in ("mean", "std", "min", "max")]
    assert f"Did you mean '{guess}'? Accepted: returns/mean, " in unknown_metric(value, [*statistics, "env/stopped"])
    assert unknown_metric("xyzzy", statistics).startswith("Unknown metric 'xyzzy'. Accepted: returns/mean, ")


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ((0, 1), "in [0, 1]"),
        ((0, 1, True, False), "in (0, 1]"),
        ((0, 1, False, True), "in [0, 1)"),
        ((0, 1, True, True), "in (0, 1)"),
        ((0.5, None), ">= 0.5"),
        ((0, None, True), "> 0"),
        ((None, 2), "<= 2"),
        ((None, 2, False, True), "< 2"),
        ((None, None), ""),
    ],
)
def test_interval(limits, text):
    assert interval(*limits) == text


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (0, {"low": 0}),
        (1.0, {"high": 1}),
        (0.5, {"low": 0, "high": 1, "low_open": True, "high_open": True}),
        (-7, {"integer": True}),
        (10**400, {"low": 1, "integer": True, "most": 10**401}),
        (None, {"low": 0, "optional": True}),
    ],
)
def test_numbers_in_range_pass(value, options):
    check_range("algo.x", value, **options)


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (-0.1, {"low": 0}, "algo.x=-0.1 is out of range. Accepted: a number >= 0."),
        (0, {"low": 0, "low_open": True}, "algo.x=0 is out of range. Accepted: a number > 0."),
        (1.5, {"low": 0, "high": 1, "hint": "algo.x=0.9"},
         "algo.x=1.5 is out of range. Accepted: a number in [0, 1]. Try algo.x=0.9."),
        (1, {"high": 1, "high_open": True}, "algo.x=1 is out of range. Accepted: a number < 1."),
        (0, {"low": 1, "integer": True, "optional": True},
         "algo.x=0 is out of range. Accepted: an integer >= 1 or null."),
        (math.nan, {}, "algo.x=nan is out of range. Accepted: any finite number."),
        (math.inf, {"low": 0}, "algo.x=inf is out of range. Accepted: a number >= 0."),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(value, options, message):
    with pytest.raises(ValueError, match=r"is out of range") as error:
        check_range("algo.x", value, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ("abc", {"low": 0}, "algo.x='abc' is not a number. Accepted: a number >= 0."),
        (True, {"low": 0}, "algo.x=True is not a number. Accepted: a number >= 0."),
        (
            1.0,
            {"integer": True, "hint": "algo.x=1"},
            "algo.x=1.0 is not an integer. Accepted: any integer. Try algo.x=1.",
        ),
        (None, {"low": 0}, "algo.x=None is not a number. Accepted: a number >= 0."),
    ],
)
def test_other_kinds_are_refused(value, options, message):
    with pytest.raises(TypeError, match=r"is not an? ") as error:
        check_range("algo.x", value, **options)
    assert str(error.value) == message


def test_choice():
    check_choice("model.activation", "relu", ("elu", "relu"))
    with pytest.raises(ValueError, match=r"^model.activation='rellu' is unknown. Accepted: elu, relu. Try .*=relu.$"):
        check_choice("model.activation", "rellu", ("elu", "relu"))
    with pytest.raises(ValueError, match=r"=7 is unknown. Accepted: elu, relu. Try model.activation=elu.$"):
        check_choice("model.activation", 7, ("elu", "relu"))


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (10**10, {"integer": True}, "algo.x=10000000000 is too large. Accepted: an integer up to 2,147,483,647."),
        (-1e39, {"hint": "algo.x=1"}, "algo.x=-1e+39 is too large. Accepted: a number up to 3.4e+38. Try algo.x=1."),
        (2**64, {"integer": True, "most": MAX_SEED},
         "algo.x=18446744073709551616 is too large. Accepted: an integer up to 18,446,744,073,709,551,615."),
    ],
)  # fmt: skip
def test_numbers_that_nothing_can_compute_with_are_refused(value, options, message):
    with pytest.raises(ValueError, match="is too large") as error:
        check_range("algo.x", value, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(("number", "limit", "expected"), [(12, 5, 4), (12, 12, 12), (7, 6, 1), (36, 35, 18)])
def test_the_largest_divisor(number, limit, expected):
    assert largest_divisor(number, limit) == expected


def test_only_what_our_own_code_raises_is_a_mistake():
    with pytest.raises(ValueError, match="out of range") as ours:
        check_range("algo.x", -1, 0)
    assert is_mistake(ours.value)
    with pytest.raises(TypeError, match="'int' object is not iterable") as compiled:
        unknown("option", "x", 3)  # raised by Python itself, in a frame of ours
    assert not is_mistake(compiled.value)
