import pytest
import torch

from rl8.models import MLPModel
from rl8.specs import Categorical, Composite, Unbounded

from .cases import build, seen


def test_the_default_is_two_networks_of_256_256_relu():
    model, _ = build(MLPModel, Unbounded(3), Categorical(2))
    for net in (model.policy_net, model.value_net):
        assert [tuple(layer.weight.shape) for layer in net.layers] == [(256, 3), (256, 256)]
        assert isinstance(net.activation, torch.nn.ReLU)
    # 3 -> 256 -> 256 -> 2 and -> 1, with biases: (1024 + 65792) * 2 + 514 + 257
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_403


def test_policy_and_value_share_nothing():
    model, _ = build(MLPModel, Unbounded(3), Categorical(2), hiddens=(8,))
    model.value(torch.randn(1, 5, 3)).sum().backward()
    touched = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert touched == {"value_net", "value_head"}


def test_a_window_of_1_looks_at_the_present():
    model, _ = build(MLPModel, Unbounded(3), Categorical(2), hiddens=(8,))
    assert model.windows == {}
    assert model.policy_net.layers[0].in_features == 3


def test_a_window_is_joined_oldest_first_with_its_mask():
    model, _ = build(MLPModel, Unbounded(1), Categorical(2), hiddens=(), window=3)
    obs, ages = torch.tensor([9.0, 9.0, 1.0, 2.0]).reshape(4, 1, 1), torch.tensor([[3], [4], [0], [1]])
    inputs = model.inputs(seen(Unbounded(1), model, obs, ages))
    assert inputs.flatten(1).tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 1]]


def test_keys_and_lengths_of_windows():
    spec = Composite(position=Unbounded(2), gear=Categorical(3), action_mask=Categorical(2, 3, dtype=torch.bool))
    model, _ = build(MLPModel, spec, Categorical(3), hiddens=(8,), window=4)
    assert model.windows == {"position": 4, "gear": 4}
    assert model.policy_net.layers[0].in_features == 4 * (2 + 3 + 1)
    with pytest.raises(ValueError, match=r"^model.window=0 is out of range. Accepted: an integer >= 1"):
        build(MLPModel, spec, Categorical(3), window=0)


PARTS = Composite(near=Unbounded(2), secret=Unbounded(3), gear=Categorical(4))


def test_each_network_sees_its_own_entries():
    model, _ = build(MLPModel, PARTS, Categorical(2), hiddens=(8,), policy_obs=["near"], value_obs=["secret", "near"])
    assert model.policy_net.layers[0].in_features == 2
    assert model.value_net.layers[0].in_features == 5
    assert model.critic_only == ("secret", "gear")
    obs = PARTS.rand(6).unsqueeze(0)
    changed = obs.clone()
    changed["secret"] += 1.0
    one, other = model(obs), model(changed)
    torch.testing.assert_close(one.features, other.features)
    assert not torch.allclose(one.values, other.values)
    torch.testing.assert_close(model.value(changed), other.values)
    torch.testing.assert_close(model.act(changed.exclude("secret"))[0], one.features)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (PARTS, {"policy_obs": ["nera"]}, r"^model\.policy_obs: Unknown entry .*'nera'\. Did you mean 'near'"),
        (PARTS, {"value_obs": []}, r"^model\.value_obs=\[\] shows nothing\. Accepted: near, secret, gear"),
        (PARTS, {"value_obs": "near"}, r"is no list\..*Try model\.value_obs=\[near\]"),
        (PARTS, {"value_obs": ["near"], "window": 2}, r"^model\.window=2 .* Try model\.window=1"),
        (Unbounded(3), {"policy_obs": ["near"]}, r"observations here have no entries"),
    ],
)
def test_entries_that_are_none_are_refused(spec, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build(MLPModel, spec, Categorical(2), **options)


def test_gains_are_those_of_orthogonal_weights():
    # Rows of an orthogonal matrix have length 1, times the gain.
    gains = {"hidden_gain": 1.5, "policy_gain": 0.25, "value_gain": 2.0}
    model, _ = build(MLPModel, Unbounded(9), Categorical(2), hiddens=(8,), activation="tanh", **gains)
    layers = [model.policy_net.layers[0], model.value_net.layers[0], model.policy_head.linear, model.value_head.linear]
    lengths = [layer.weight.norm(dim=1).mean().item() for layer in layers]
    assert lengths == pytest.approx([1.5, 1.5, 0.25, 2.0])
    with pytest.raises(ValueError, match=r"^model\.policy_gain=0\.0 is out of range"):
        build(MLPModel, Unbounded(9), Categorical(2), policy_gain=0.0)
