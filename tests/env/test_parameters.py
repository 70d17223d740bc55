import numpy as np
import pytest
import torch

from rl8.env import CartPole, Parameter, Pendulum

CPU = torch.device("cpu")


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2.0), np.float64(2.0), torch.tensor(2.0), torch.tensor(2)])
def test_one_number_becomes_a_scalar(value):
    tensor = Parameter(1.0).tensor("env.mass", value, 3, CPU)
    assert (tensor.shape, tensor.dtype, tensor.item()) == ((), torch.float32, 2.0)


@pytest.mark.parametrize("value", [[1, 2.5, 3], (1, 2.5, 3), np.array([1, 2.5, 3]), torch.tensor([1, 2.5, 3])])
def test_one_number_per_environment_becomes_a_vector(value):
    tensor = Parameter(1.0).tensor("env.mass", value, 3, CPU)
    assert (tensor.dtype, tensor.tolist()) == (torch.float32, [1.0, 2.5, 3.0])


def test_a_given_tensor_is_copied():
    given = torch.ones(3)
    Parameter(1.0).tensor("env.mass", given, 3, CPU).add_(1)
    assert given.tolist() == [1, 1, 1]


def test_draws_are_uniform_between_the_limits():
    torch.manual_seed(0)
    tensor = Parameter(1.0).tensor("env.mass", {"low": -2, "high": 6}, 50_000, CPU)
    assert tensor.shape == (50_000,)
    assert -2 <= tensor.min() < -1.99
    assert 5.99 < tensor.max() <= 6
    torch.testing.assert_close(tensor.mean(), torch.tensor(2.0), rtol=0, atol=0.05)
    torch.testing.assert_close(tensor.std(), torch.tensor(8 / 12**0.5), rtol=0.01, atol=0)


def test_equal_limits_are_no_draw():
    assert Parameter(1.0).tensor("env.mass", {"low": 3, "high": 3}, 4, CPU).tolist() == [3.0] * 4


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (0, ValueError, r"env.mass=0 is out of range. Accepted: a number > 0. Try env.mass=1"),
        (float("nan"), ValueError, r"env.mass=nan is out of range"),
        (float("inf"), ValueError, r"env.mass=inf is out of range"),
        ("heavy", TypeError, r"env.mass='heavy' is not a number. Accepted: a number > 0"),
        (True, TypeError, r"env.mass=True is not a number"),
        (None, TypeError, r"env.mass=None is not a number"),
        (
            object(),
            TypeError,
            r"env.mass=<object .* is no number. Accepted: a number, 3 numbers \(one per environment\)",
        ),
        (["a", "b", "c"], TypeError, r"env.mass=\['a', 'b', 'c'\] is no number"),
        ([1.0, 2.0], ValueError, r"env.mass has shape \(2,\). Accepted: one number or one per environment, \(3,\)"),
        (torch.ones(3, 1), ValueError, r"env.mass has shape \(3, 1\)"),
        ([1.0, 0.0, 2.0], ValueError, r"env.mass=0.0 is out of range"),
        (torch.tensor([1.0, float("nan"), 2.0]), ValueError, r"env.mass=nan is out of range"),
        ({"low": 0, "high": 2}, ValueError, r"env.mass.low=0 is out of range"),
        ({"low": 1, "high": "x"}, TypeError, r"env.mass.high='x' is not a number"),
        ({"low": 2, "high": 1}, ValueError, r"env.mass=.* is empty: low is above high. Try env.mass={low: 1, high: 2}"),
        ({"low": 2}, ValueError, r"env.mass={low: 2} needs both limits. Try env.mass={low: 1, high: 2}"),
        ({"lo": 2, "high": 1}, ValueError, r"env.mass: Unknown key 'lo'. Did you mean 'low'\?"),
    ],
)
def test_wrong_values_are_refused(value, kind, message):
    with pytest.raises(kind, match=message):
        Parameter(1.0, low=0.0, low_open=True).tensor("env.mass", value, 3, CPU)


@pytest.mark.parametrize(
    ("low", "high", "refused", "advice"),
    [(0.0, None, -1.0, 1), (2.0, None, 1.0, 3), (None, -3.0, 0.0, -4), (0.0, 1.0, 7.0, 0.5), (None, None, True, 1)],
)
def test_a_refused_first_value_is_not_what_is_advised(low, high, refused, advice):
    parameter = Parameter(refused, low=low, high=high)
    with pytest.raises((TypeError, ValueError), match=rf"Try env.mass={advice}\.$"):
        parameter.tensor("env.mass", refused, 2, CPU)


def test_the_upper_limit_counts_too():
    parameter = Parameter([0.5, 0.6], low=0.0, high=1.0, high_open=True)
    with pytest.raises(
        ValueError, match=r"env.friction=1.0 is out of range. Accepted: a number in \[0, 1\)\. Try env.friction=0.5\.$"
    ):
        parameter.tensor("env.friction", 1.0, 2, CPU)


@pytest.mark.parametrize("value", [1e39, -1e39, 10**400, {"low": 0, "high": 1e39}])
def test_what_float32_can_not_hold_is_infinite(value):
    with pytest.raises(
        ValueError, match=r"env\.x(\.high)?=-?1\d*(e\+39)? is too large\. Accepted: a number up to 3\.4e\+38\."
    ):
        Parameter(1.0).tensor("env.x", value, 3, CPU)


def test_draws_between_the_largest_numbers_are_finite():
    drawn = Parameter(1.0).tensor("env.x", {"low": -3e38, "high": 3e38}, 1000, CPU)
    assert drawn.isfinite().all()
    assert drawn.min() < -2.9e38
    assert drawn.max() > 2.9e38


def test_constants_whose_consequences_are_infinite_are_named():
    with pytest.raises(
        ValueError, match=r"env.length=1e-30 makes lift, which is computed from it, infinite.*env.length=1\."
    ):
        Pendulum(3, length=1e-30)
    with pytest.raises(ValueError, match=r"env.length=3e\+38 makes coupling, .*Accepted: numbers of ordinary size"):
        CartPole(3, length=[1.0, 3e38, 1.0], pole_mass=2e37)
