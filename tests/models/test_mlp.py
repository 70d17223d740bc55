import pytest
import torch

from rl8.execution.perceptron.similarity import CELL, by_similarity
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


@pytest.mark.parametrize(
    ("options", "piece_size"),
    [({}, 16384), ({"hiddens": (1024,)}, 4096), ({"hiddens": (4096,)}, 2048), ({"activation": "elu"}, 2048)],
)
def test_pieces_are_larger_where_layers_are_computed_in_blocks(options, piece_size):
    model, _ = build(MLPModel, Unbounded(3), Categorical(2), **options)
    assert model.piece_size == piece_size


class Replaced(MLPModel):
    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.policy_net = self.value_net = torch.nn.Sequential(self.policy_net)


@pytest.mark.parametrize(
    ("cls", "inputs", "options", "expected"),
    [
        (MLPModel, 3, {}, True),
        (MLPModel, 64, {}, True),
        (MLPModel, 65, {}, False),
        (MLPModel, 3, {"window": 16}, True),
        (MLPModel, 3, {"window": 17}, False),
        (MLPModel, 3, {"hiddens": (127, 256)}, False),
        (MLPModel, 3, {"hiddens": (256,)}, False),
        (MLPModel, 3, {"hiddens": ()}, False),
        (MLPModel, 3, {"activation": "tanh"}, False),
        (MLPModel, 3, {"activation": "elu"}, False),
        (Replaced, 3, {}, False),
    ],
)
def test_which_networks_may_gain_from_an_order(cls, inputs, options, expected):
    model, _ = build(cls, Unbounded(inputs), Categorical(2), **options)
    assert model.has_order == expected


@pytest.mark.parametrize("independent", [2, 8])
def test_an_order_is_given_if_rows_resemble_each_other_in_it(independent):
    model, _ = build(MLPModel, Unbounded(8), Categorical(2), hiddens=(128, 128))
    obs = torch.randn(16 * CELL, independent) @ torch.randn(independent, 8)
    order = model.order(obs.unsqueeze(0), 2)
    if independent == 2:
        assert torch.equal(order, by_similarity(obs, 2))
    else:
        assert order is None


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
    inputs = model._inputs(seen(Unbounded(1), model, obs, ages))
    assert inputs.flatten(1).tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 1]]


def test_keys_and_lengths_of_windows():
    spec = Composite(position=Unbounded(2), gear=Categorical(3), action_mask=Categorical(2, 3, dtype=torch.bool))
    model, _ = build(MLPModel, spec, Categorical(3), hiddens=(8,), window=4)
    assert model.windows == {"position": 4, "gear": 4}
    assert model.policy_net.layers[0].in_features == 4 * (2 + 3 + 1)
    with pytest.raises(ValueError, match=r"^model.window=0 is out of range. Accepted: an integer >= 1"):
        build(MLPModel, spec, Categorical(3), window=0)
