import pytest
import torch

from rl8.nn import FeatureHead, ValueHead

NORMAL = {"mean": torch.Size([2]), "log_std": torch.Size([2])}
NESTED = {"gear": {"logits": (2, 3)}, "push": {"mean": (), "log_std": ()}, "deep": {"er": {"logits": (4,)}}}


def paths(features, prefix=()):
    """Return the leaves of nested features by path."""
    found = {}
    for key, value in features.items():
        found.update(paths(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value})
    return found


@pytest.mark.parametrize("state_dependent_std", [False, True])
@pytest.mark.parametrize("shapes", [{"logits": (5,)}, {"logits": (2, 3)}, {"mean": (), "log_std": ()}, NORMAL, NESTED])
@pytest.mark.parametrize("batch", [(7,), (3, 7)])
def test_features_have_the_shapes_that_were_asked_for(shapes, batch, state_dependent_std):
    head = FeatureHead(6, shapes, log_std=-1.0, state_dependent_std=state_dependent_std)
    features, wanted = paths(head(torch.randn(*batch, 6))), paths(shapes)
    assert {path: value.shape for path, value in features.items()} == {
        path: (*batch, *shape) for path, shape in wanted.items()
    }
    sum(value.square().sum() for value in features.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters())


def test_log_std_is_a_parameter_of_its_own():
    head = FeatureHead(6, NORMAL, log_std=-0.5)
    features = head(torch.randn(3, 7, 6))
    assert (features["log_std"] == -0.5).all()
    assert len(head.log_stds) == 1
    assert head.linear.out_features == 2


def test_log_std_may_depend_on_the_state():
    head = FeatureHead(6, NORMAL, log_std=-0.5, state_dependent_std=True)
    log_std = head(torch.randn(3, 7, 6) * 10)["log_std"]
    assert len(head.log_stds) == 0
    assert log_std.std() > 0
    assert log_std.mean().item() == pytest.approx(-0.5, abs=0.05)


def test_the_first_policy_hardly_depends_on_the_observation():
    features = FeatureHead(64, {"logits": (5,), "mean": (2,)})(torch.randn(1000, 64))
    assert all(value.abs().max() < 0.1 for value in features.values())


def test_values_have_no_last_dimension():
    head = ValueHead(64)
    values = head(torch.randn(3, 7, 64))
    assert values.shape == (3, 7)
    assert 0 < values.abs().max() < 1


@pytest.mark.parametrize("state_dependent_std", [False, True])
def test_a_bounded_std_stays_inside_and_finds_back(state_dependent_std):
    options = {"min_std": 0.1, "max_std": 2.0, "state_dependent_std": state_dependent_std}
    head = FeatureHead(3, NORMAL, log_std=0.0, **options)
    log_std = head.linear.bias[2:] if state_dependent_std else head.log_stds[0]
    with torch.no_grad():
        log_std.copy_(torch.tensor([-9.0, 9.0]))
        head.linear.weight.zero_()
    stds = head(torch.zeros(4, 3))["log_std"].exp()
    torch.testing.assert_close(stds, torch.tensor([0.1, 2.0]).expand(4, 2))
    stds.sum().backward()
    gradient = head.linear.bias.grad[2:] if state_dependent_std else head.log_stds[0].grad
    torch.testing.assert_close(gradient, 4 * torch.tensor([0.1, 2.0]))  # as if nothing were bounded there


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_std": 2.0, "max_std": 1.0}, r"^model\.max_std=1\.0 is out of range"),
        ({"min_std": 0.0}, r"^model\.min_std=0\.0 is out of range"),
        ({"max_std": 0.5}, r"^model\.log_std=0 is a standard deviation of 1, outside .* Try model\.log_std=-0\.6931"),
    ],
)
def test_limits_of_a_std_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureHead(3, NORMAL, **options)
