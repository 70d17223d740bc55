import importlib

import pytest
import torch
from torch import nn

import rl8.nn
from rl8.execution import networks
from rl8.execution.perceptron import blocks, dense, piecewise
from rl8.execution.perceptron.blocks import ACTIVATIONS
from rl8.execution.perceptron.dense import Dense
from rl8.execution.perceptron.perceptron import perceptron
from rl8.execution.perceptron.piecewise import Piecewise


class MLP(rl8.nn.MLP):
    """One that is computed block by block."""

    compute = staticmethod(networks.compute)


module = importlib.import_module("rl8.execution.perceptron.perceptron")


def reference(inputs, mlp, head):
    """Return what torch's own layers make of the inputs."""
    rows = inputs
    for layer in mlp.layers:
        rows = mlp.activation(layer(rows))
    return rows if head is None else head(rows)


def gradients(outputs, tensors):
    torch.manual_seed(1)
    return torch.autograd.grad(outputs, tensors, torch.randn_like(outputs))


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


WAYS = [(Dense, "relu", 0.0), (Dense, "tanh", 0.0), (Piecewise, "relu", 1.0), (Piecewise, "relu", -1.0)]


@pytest.fixture
def take(monkeypatch):
    """Return a function that has one of the two ways taken, in small blocks."""

    def take(way, few=1.0):
        monkeypatch.setattr(module, "_network", way)
        monkeypatch.setattr(piecewise, "FEW", few)
        monkeypatch.setattr(dense, "BLOCK_FLOATS", 64 * 16)
        monkeypatch.setattr(piecewise, "BLOCK_FLOATS", 3 * 16 * 16)
        monkeypatch.setattr(piecewise, "CELL", 16)

    return take


@pytest.mark.parametrize(("way", "activation", "few"), WAYS)
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("hiddens", [[8], [8, 16], [16, 8, 8], [16, 16, 16, 16]])
@pytest.mark.parametrize("count", [1, 16, 48, 200])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_results_and_gradients_are_those_of_autograd(
    way, activation, few, head, hiddens, count, spread, take, monkeypatch
):
    take(way, few)
    mlp, last = MLP(5, hiddens, activation).double(), nn.Linear(hiddens[-1], 3).double() if head else None
    with torch.no_grad():
        for layer in mlp.layers:
            layer.bias.normal_()
    inputs = (spread * torch.randn(count, 5, dtype=torch.float64)).requires_grad_()
    tensors = [inputs, *mlp.parameters(), *([] if last is None else last.parameters())]
    expected = reference(inputs, mlp, last)
    slopes = gradients(expected, tensors)
    for _ in range(2):  # the second time in used buffers
        outputs = mlp(inputs, last)
        assert "Perceptron" in outputs.grad_fn.next_functions[0][0].name()
        torch.testing.assert_close(outputs, expected)
        for found, wanted in zip(gradients(outputs, tensors), slopes, strict=True):
            torch.testing.assert_close(found, wanted)
            assert found.stride() == wanted.stride()
    for floats in (0, module.FEW_FLOATS):  # in blocks, and all at once
        monkeypatch.setattr(module, "FEW_FLOATS", floats)
        with torch.no_grad():
            torch.testing.assert_close(mlp(inputs, last), expected)


def test_gradients_agree_with_finite_differences():
    mlp = MLP(3, [4, 5], "tanh").double()
    inputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mlp, (inputs,))


@pytest.mark.parametrize("way", [Dense, Piecewise])
def test_two_passes_at_once_do_not_share_buffers(way, take):
    take(way)
    mlp = MLP(5, [16, 16])
    one, other = torch.randn(9, 5), torch.randn(9, 5)
    alone = [gradients(mlp(inputs), list(mlp.parameters())) for inputs in (one, other)]
    first, second = mlp(one), mlp(other)
    mlp(one)  # never differentiated
    together = [gradients(outputs, list(mlp.parameters())) for outputs in (first, second)]
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("way", [Dense, Piecewise])
def test_the_gradient_that_comes_in_is_left_alone(way, take):
    take(way)
    outputs = MLP(5, [16])(torch.randn(9, 5))
    incoming = torch.randn_like(outputs)
    before = incoming.clone()
    outputs.backward(incoming)
    assert torch.equal(incoming, before)


@pytest.mark.parametrize("way", [Dense, Piecewise])
def test_no_rows(way, take):
    take(way)
    mlp = MLP(5, [16])
    outputs = mlp(torch.zeros(0, 5))
    assert outputs.shape == (0, 16)
    outputs.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in mlp.parameters())


@pytest.mark.parametrize("way", [Dense, Piecewise])
def test_frozen_layers_get_no_gradient(way, take):
    take(way)
    mlp = MLP(5, [16, 16])
    mlp.layers[0].requires_grad_(False)
    mlp(torch.randn(9, 5)).sum().backward()
    assert mlp.layers[0].weight.grad is None
    assert mlp.layers[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("way", [Dense, Piecewise])
def test_a_retained_graph_gives_the_same_gradient_again(way, take):
    take(way)
    mlp = MLP(5, [16, 16])
    outputs = mlp(torch.randn(200, 5)).square().sum()
    first = torch.autograd.grad(outputs, list(mlp.parameters()), retain_graph=True)
    mlp(torch.randn(200, 5)).sum().backward()  # in the same buffers
    second = torch.autograd.grad(outputs, list(mlp.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("way", [Dense, Piecewise])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_lost(way, value, take):
    take(way)
    mlp, inputs = MLP(5, [16, 16]), 0.1 * torch.randn(100, 5)
    inputs[70, 2] = value
    expected, found = reference(inputs, mlp, None), mlp(inputs)
    finite = expected.isfinite().all(1)
    torch.testing.assert_close(found[finite], expected[finite])
    assert finite.sum() == 99
    assert not found[70].isfinite().all()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_gradient_of_the_gradient(frozen):
    mlp, head = MLP(3, [4, 5], "tanh").double(), nn.Linear(5, 2).double()
    mlp.layers[1].requires_grad_(not frozen)
    tensors = [parameter for parameter in mlp.parameters() if parameter.requires_grad]
    inputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)

    def penalty(outputs):
        (slope,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), tensors)

    for found, expected in zip(penalty(mlp(inputs, head)), penalty(reference(inputs, mlp, head)), strict=True):
        torch.testing.assert_close(found, expected)


def test_buffers_of_sizes_long_gone_are_forgotten():
    buffers, like = blocks.Buffers(), torch.zeros(1)
    for count in range(1, 3 * buffers.most_sizes):
        buffers.give([buffers.take(count, 4, like)])
        assert len(buffers._free) <= buffers.most_sizes
    kept = buffers.take(count, 4, like)
    assert buffers.take(count, 4, like) is not kept


def test_inference_leaves_buffers_that_can_be_written_to(monkeypatch):
    monkeypatch.setattr(module, "FEW_FLOATS", 0)
    mlp, inputs = MLP(5, [17]), torch.randn(9, 5)  # a size that no other test uses: nothing may be left in buffers
    with torch.inference_mode():
        inferred = mlp(inputs)
    assert inferred.is_inference()
    with torch.no_grad():
        assert torch.equal(mlp(inputs), inferred)
    mlp(inputs).sum().backward()


@pytest.mark.parametrize("way", [Dense, Piecewise])
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_forward_and_backward_pass_with_other_numbers_of_threads(way, first, second, take):
    take(way)
    mlp, inputs = MLP(5, [16, 16]), torch.randn(200, 5)
    expected = gradients(reference(inputs, mlp, None), list(mlp.parameters()))
    torch.set_num_threads(first)
    outputs = mlp(inputs)
    torch.set_num_threads(second)
    for found, wanted in zip(gradients(outputs, list(mlp.parameters())), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_torchs_function_transforms():
    mlp, inputs = MLP(5, [16, 16]), torch.randn(9, 5)
    parameters = dict(mlp.named_parameters())

    def total(parameters, row):
        return torch.func.functional_call(mlp, parameters, (row.unsqueeze(0),)).sum()

    slopes = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(parameters, inputs)
    for index, row in enumerate(inputs):
        wanted = torch.autograd.grad(mlp(row.unsqueeze(0)).sum(), list(mlp.parameters()))
        for found, expected in zip(slopes.values(), wanted, strict=True):
            torch.testing.assert_close(found[index], expected)


def test_blocks_hold_the_widest_layer():
    layers = [(torch.zeros(64, 5), torch.zeros(64)), (torch.zeros(256, 64), torch.zeros(256))]
    full = dense.BLOCK_FLOATS // 256 * torch.get_num_threads()
    for count, expected in ((2 * full + 5, [full, full, 5]), (full, [full]), (3, [3]), (0, [])):
        assert Dense(torch.zeros(count, 5), layers, ACTIVATIONS["relu"], 2).sizes == expected


@pytest.mark.parametrize("case", ["hook", "replaced", "no bias", "mixed precision", "elu"])
def test_anything_special_goes_the_ordinary_way(case, monkeypatch):
    monkeypatch.setattr(networks, "perceptron", None)  # would be called
    mlp, seen = MLP(5, [16, 16], "elu" if case == "elu" else "relu"), []
    if case == "hook":
        mlp.layers[1].register_forward_hook(lambda layer, inputs, output: seen.append(output.shape))
    elif case == "replaced":
        mlp.layers[0] = nn.Sequential(nn.Linear(5, 16))
    elif case == "no bias":
        mlp.layers[0] = nn.Linear(5, 16, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=case == "mixed precision"):
        outputs = mlp(torch.randn(2, 9, 5), nn.Linear(16, 3))
    assert outputs.shape == (2, 9, 3)
    assert outputs.dtype == (torch.bfloat16 if case == "mixed precision" else torch.float32)
    assert seen == ([(18, 16)] if case == "hook" else [])


def test_integers_are_refused_as_by_torch():
    with pytest.raises(RuntimeError, match=r"same dtype|expected m1 and m2"):
        perceptron(torch.zeros(2, 5, dtype=torch.int64), [(torch.zeros(3, 5), torch.zeros(3))], ACTIVATIONS["relu"], 1)
