import pytest
import torch

from rl8 import Algorithm
from rl8.env import DiscreteDummyEnv
from rl8.ppo.adaptive import AdaptiveRate
from rl8.ppo.hyperparameters import Hyperparameters


def adapted(lr, *divergences, **options):
    """Return the learning rate after steps with such KL divergences, the first of which only begins an update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    rate = AdaptiveRate(optimizer, Hyperparameters(**options), torch.device("cpu"))
    rate.begin()
    for kl_div in (0.0, *divergences):
        rate.adapt(torch.tensor(kl_div))
    return float(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("lr", [1e-3, torch.tensor(1e-3)])
@pytest.mark.parametrize(
    ("divergences", "expected"),
    [
        ((), 1e-3),  # nothing has moved before the first step
        ((0.021,), 1e-3 / 1.5),  # above twice 0.01
        ((0.004,), 1e-3 * 1.5),  # below half
        ((0.006, 0.019), 1e-3),  # between
        ((0.021, 0.021, 0.004), 1e-3 / 1.5),
        ((0.0,) * 9, 1e-2),  # 1e-3 * 1.5^9 = 0.038
        ((1.0,) * 20, 1e-5),
        ((float("nan"),), 1e-3),
    ],
)
def test_the_rate_follows_the_divergence_within_its_limits(lr, divergences, expected):
    lr = lr.clone() if isinstance(lr, torch.Tensor) else lr
    assert adapted(lr, *divergences, desired_kl=0.01) == pytest.approx(expected)


def test_without_a_divergence_to_aim_at_the_rate_stays():
    assert adapted(1e-3, 1.0) == 1e-3


def test_a_group_keeps_its_share_of_the_rate():
    one, other = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one]}, {"params": [other], "lr": 5e-4, "lr_scale": 0.5}], lr=1e-3)
    rate = AdaptiveRate(optimizer, Hyperparameters(desired_kl=0.01), torch.device("cpu"))
    for kl_div in (0.0, *[0.001] * 9):
        rate.adapt(torch.tensor(kl_div))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-2, 5e-3])


def test_a_resumed_run_goes_on_with_its_rate():
    options = {"num_envs": 4, "horizon": 8, "sgd_minibatch_size": 8, "desired_kl": 1e-4}
    one, other = Algorithm(DiscreteDummyEnv, **options), Algorithm(DiscreteDummyEnv, **options)
    for _ in range(2):
        one.collect()
        metrics = one.step()
    assert metrics["coefficients/lr"] != pytest.approx(1e-3)
    other.load_state_dict(one.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == one.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_lr": 1e-2, "max_lr": 1e-3}, r"algo\.min_lr=0\.01 is above algo\.max_lr=0\.001"),
        ({"desired_kl": 0.01, "lr_schedule": [[0, 1e-3]]}, r"algo\.lr_schedule both say.*Try algo\.lr_schedule=null"),
        ({"desired_kl": 0.01, "schedules": {"lr": [[9, 0]]}}, r"Try algo\.schedules\.lr=null"),
        ({"desired_kl": 0.0}, r"algo\.desired_kl=0\.0 is out of range"),
    ],
)
def test_what_contradicts_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Hyperparameters(**options)


def test_a_rate_that_begins_outside_its_limits_is_refused():
    with pytest.raises(ValueError, match=r"^optimizer_config\.lr=0\.1 is where.*Try optimizer_config\.lr=0\.01\.$"):
        Algorithm(DiscreteDummyEnv, num_envs=4, horizon=4, desired_kl=0.01, optimizer_config={"lr": 0.1})
