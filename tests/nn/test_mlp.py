import math

import pytest
import torch

from rl8.nn import ACTIVATIONS, MLP
from rl8.nn.mlp import linear


@pytest.mark.parametrize("gain", [0.01, 1.0, 2.0])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 8), (8, 3), (3, 8)])
def test_weights_are_orthogonal_and_biases_zero(inputs, outputs, gain):
    layer = linear(inputs, outputs, gain)
    expected = torch.zeros(min(inputs, outputs)) + gain
    torch.testing.assert_close(torch.linalg.svdvals(layer.weight), expected, rtol=1e-4, atol=1e-6)
    assert (layer.bias == 0).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("batch", [(5,), (3, 5), (3, 5, 2)])
def test_shapes_and_gradients(activation, batch):
    mlp = MLP(4, [8, 6], activation)
    inputs = torch.randn(*batch, 4, requires_grad=True)
    outputs = mlp(inputs)
    assert outputs.shape == (*batch, mlp.size) == (*batch, 6)
    outputs.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in mlp.parameters())
    assert inputs.grad.abs().sum() > 0


def test_by_hand():
    # relu(1 * 2 + 3 * -1 + 0.5) = 0 and relu(1 * 1 + 3 * 1 - 1) = 3; then relu(4 * 0 + 2 * 3 - 1) = 5
    mlp = MLP(2, [2, 1])
    for layer, weight, bias in zip(
        mlp.layers, ([[2.0, -1.0], [1.0, 1.0]], [[4.0, 2.0]]), ([0.5, -1.0], [-1.0]), strict=True
    ):
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    inputs = torch.tensor([[1.0, 3.0]])
    assert mlp(inputs).item() == 5
    assert inputs.tolist() == [[1, 3]]


def test_no_layers_pass_the_input_on():
    inputs = torch.randn(3, 5, 4)
    mlp = MLP(4, [])
    assert torch.equal(mlp(inputs), inputs)
    assert mlp.size == 4


def test_activations_keep_the_size_of_signals():
    inputs = torch.randn(1000, 64)
    for activation in ("relu", "tanh"):
        assert 0.3 < MLP(64, [64] * 4, activation)(inputs).std() < 1.5
    torch.testing.assert_close(torch.linalg.svdvals(MLP(8, [8]).layers[0].weight), torch.full((8,), math.sqrt(2)))


@pytest.mark.parametrize(
    ("hiddens", "activation", "kind", "message"),
    [
        (
            [64, 0],
            "relu",
            ValueError,
            r"^model.hiddens=0 is out of range. Accepted: .*. Try model.hiddens=\[256,256",
        ),
        ([64.0], "relu", TypeError, r"^model.hiddens=64.0 is not an integer"),
        ("64,64", "relu", TypeError, r"^model.hiddens='64,64' is no list. .* Try \[64,64\]"),
        (64, "relu", TypeError, r"^model.hiddens=64 is no list. Accepted: a list of integers. Try \[64\]"),
        (
            [64],
            "rellu",
            ValueError,
            r"^model.activation='rellu' is unknown. Accepted: elu, .* Try .*=relu",
        ),
    ],
)
def test_options_that_are_refused(hiddens, activation, kind, message):
    with pytest.raises(kind, match=message):
        MLP(4, hiddens, activation)
