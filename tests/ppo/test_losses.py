import pytest
import torch

from rl8.ppo.losses import clipped_surrogate, ppo_loss, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "gradient"),
    [
        # min(ratio * adv, clamp(ratio, 0.8, 1.2) * adv); the gradient by ratio is adv where the first is taken, else 0
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.0),
        (1.5, 2.0, 2.4, 0.0),  # min(3, 1.2 * 2)
        (0.5, 2.0, 1.0, 2.0),  # min(1, 0.8 * 2): moving back is still paid for
        (0.5, -2.0, -1.6, 0.0),  # min(-1, 0.8 * -2)
        (1.5, -2.0, -3.0, -2.0),  # min(-3, 1.2 * -2): no bound on the way up
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, expected, gradient):
    ratios = torch.tensor([ratio], requires_grad=True)
    objective = clipped_surrogate(ratios, torch.tensor([advantage]), clip_param=0.2)
    objective.sum().backward()
    assert objective.item() == pytest.approx(expected)
    assert ratios.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "gradient"),
    [
        (2.0, -1.0, -2.0, -1.0),  # max(-2, 3 * -1): not bound yet
        (9.0, -1.0, -3.0, 0.0),  # max(-9, 3 * -1)
        (9.0, 1.0, 1.2, 0.0),  # as without dual clip
    ],
)
def test_dual_clip_by_hand(ratio, advantage, expected, gradient):
    ratios = torch.tensor([ratio], requires_grad=True)
    objective = clipped_surrogate(ratios, torch.tensor([advantage]), clip_param=0.2, dual_clip_param=3.0)
    objective.sum().backward()
    assert objective.item() == pytest.approx(expected)
    assert ratios.grad.item() == pytest.approx(gradient)


def test_dual_clip_changes_negative_advantages_alone():
    ratio, advantages = torch.rand(4, 500) * 5, torch.randn(4, 500)
    plain = clipped_surrogate(ratio, advantages, clip_param=0.2)
    dual = clipped_surrogate(ratio, advantages, clip_param=0.2, dual_clip_param=2.0)
    changed = plain != dual
    assert changed.any()
    assert (advantages[changed] < 0).all()
    assert (ratio[changed] > 2).all()
    assert (dual >= plain).all()


def test_a_clip_too_wide_to_matter_leaves_ratio_times_advantage():
    ratio, advantages = torch.rand(50) * 5, torch.randn(50)
    torch.testing.assert_close(clipped_surrogate(ratio, advantages, clip_param=10.0), ratio * advantages)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "expected", "gradient"),
    [
        (3.0, 0.0, 1.0, None, 2.0, 2.0),  # 0.5 * 2^2, gradient value - target
        (3.0, 0.0, 1.0, 9.0, 2.0, 2.0),
        # Moved 3 away, held at 0 + 0.5: the error of the value itself, 2, is larger than that of the held one, 0.5
        (3.0, 0.0, 1.0, 0.5, 2.0, 2.0),
        # Moved 0.9 towards 1, held at 0.5: the held one's error 0.5 is the larger, and it does not move
        (0.9, 0.0, 1.0, 0.5, 0.125, 0.0),
        # An error of 100 keeps its gradient: the value has not moved far
        (0.1, 0.0, 100.1, 0.5, 5000.0, -100.0),
        # A value that moved away from its target is pulled back with full force
        (-2.0, 0.0, 100.0, 0.5, 5202.0, -102.0),
    ],
)
def test_value_loss_by_hand(value, old, target, clip, expected, gradient):
    values = torch.tensor([value], requires_grad=True)
    loss = value_loss(values, torch.tensor([old]), torch.tensor([target]), vf_clip_param=clip)
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected)
    assert values.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize("error", [1.0, 10.0, 1e3, 1e5])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_value_gradient_grows_with_the_error(error, clip):
    values = torch.zeros(1, requires_grad=True)
    value_loss(values, torch.zeros(1), torch.tensor([error]), vf_clip_param=clip).sum().backward()
    assert values.grad.item() == pytest.approx(-error)


def batch(seed=3):
    torch.manual_seed(seed)
    return {
        "logp": torch.randn(4, 6, requires_grad=True),
        "entropy": torch.rand(4, 6, requires_grad=True),
        "values": torch.randn(4, 6, requires_grad=True),
        "old_logp": torch.randn(4, 6),
        "old_values": torch.randn(4, 6),
        "advantages": torch.randn(4, 6),
        "returns": torch.randn(4, 6),
    }


OPTIONS = {"clip_param": 0.2, "vf_clip_param": None, "dual_clip_param": None, "vf_coeff": 0.5, "entropy_coeff": 0.01}


def loss_of(inputs, **options):
    data = {name: value for name, value in inputs.items() if name not in ("logp", "entropy", "values")}
    return ppo_loss(inputs["logp"], inputs["entropy"], inputs["values"], **data, **{**OPTIONS, **options})


def test_ppo_loss_by_hand():
    # Ratios 1.5 and 0.5, advantages 2 and 2: objectives 2.4 and 1 (above), policy loss -1.7.
    # Values 3 and 1 against returns 1 and 1: losses 2 and 0, mean 1. Entropies 1 and 3, mean 2.
    # total = -1.7 + 0.5 * 1 - 0.01 * 2 = -1.22
    # kl = mean of (1.5 - 1 - ln 1.5, 0.5 - 1 - ln 0.5) = (0.094535 + 0.193147) / 2 = 0.143841; both are clipped.
    out = ppo_loss(
        torch.tensor([1.5, 0.5]).log() - 7,
        torch.tensor([1.0, 3.0]),
        torch.tensor([3.0, 1.0]),
        old_logp=torch.tensor([-7.0, -7.0]),
        old_values=torch.zeros(2),
        advantages=torch.tensor([2.0, 2.0]),
        returns=torch.tensor([1.0, 1.0]),
        **OPTIONS,
    )
    expected = {"total": -1.22, "policy": -1.7, "vf": 1.0, "entropy": 2.0, "kl_div": 0.143841, "clip_fraction": 1.0}
    assert {name: value.item() for name, value in out._asdict().items()} == pytest.approx(expected, abs=1e-5)


def test_only_the_total_carries_a_gradient():
    out = loss_of(batch())
    assert out.total.requires_grad
    assert not any(value.requires_grad for value in out[1:])
    assert all(value.ndim == 0 for value in out)


def test_an_unchanged_policy_has_ratio_1():
    inputs = batch()
    inputs["old_logp"] = inputs["logp"].detach().clone()
    out = loss_of(inputs)
    torch.testing.assert_close(out.policy, -inputs["advantages"].mean())
    assert out.kl_div == 0
    assert out.clip_fraction == 0
    out.total.backward()
    torch.testing.assert_close(inputs["logp"].grad, -inputs["advantages"] / 24)  # d ratio / d logp = ratio = 1


def test_kl_div_is_never_negative():
    assert all(loss_of(batch(seed)).kl_div > 0 for seed in range(20))


def test_weights_of_zero_leave_the_policy_loss():
    inputs = batch()
    out = loss_of(inputs, vf_coeff=0.0, entropy_coeff=0.0)
    assert out.total == out.policy


def test_the_options_reach_their_terms():
    inputs = batch()
    plain, dual = loss_of(inputs), loss_of(inputs, dual_clip_param=1.1)
    clipped, wide = loss_of(inputs, vf_clip_param=0.1), loss_of(inputs, clip_param=50.0)
    assert dual.policy < plain.policy
    assert dual.vf == plain.vf
    assert clipped.vf > plain.vf
    assert clipped.policy == plain.policy
    assert wide.clip_fraction == 0 < plain.clip_fraction


def test_the_entropy_weight_may_be_a_tensor():
    inputs = batch()
    assert loss_of(inputs, entropy_coeff=torch.tensor(0.25)).total == loss_of(inputs, entropy_coeff=0.25).total


def test_the_mean_over_equal_parts_is_the_mean_over_all():
    inputs = batch()
    parts = [loss_of({name: value[rows] for name, value in inputs.items()}) for rows in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close((parts[0].total + parts[1].total) / 2, loss_of(inputs).total)


def test_a_sample_of_weight_zero_is_as_if_it_were_not_there():
    inputs = batch()
    kept = {name: value[:3] for name, value in inputs.items()}
    weights = torch.full_like(inputs["advantages"], 4 / 3)  # 1 on average
    weights[3] = 0
    for one, other in zip(loss_of(inputs, weights=weights), loss_of(kept), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("value", "old", "clip", "expected"),
    [
        (0.5, 0.0, None, 0.125),  # an error of 0.5 is squared: 0.25 / 2
        (3.0, 0.0, None, 2.5),  # one of 3 is linear: 1 * (3 - 1 / 2)
        (3.0, 2.0, 0.5, 2.5),  # held at 2.5, whose loss 2 is smaller
        (0.5, 3.0, 0.5, 2.0),  # held at 2.5: 1 * (2.5 - 1 / 2)
    ],
)
def test_a_huber_loss_by_hand(value, old, clip, expected):
    value, old, target = (torch.tensor([number]) for number in (value, old, 0.0))
    assert value_loss(value, old, target, vf_clip_param=clip, huber_delta=1.0).item() == pytest.approx(expected)
