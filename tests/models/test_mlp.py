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
