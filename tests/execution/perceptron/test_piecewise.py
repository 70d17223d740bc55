import pytest
import torch
from torch import nn

import rl8.nn
from rl8.execution import networks
from rl8.execution.perceptron import piecewise
from rl8.execution.perceptron.blocks import ACTIVATIONS
from rl8.execution.perceptron.piecewise import Piecewise
from rl8.execution.perceptron.similarity import CELL, by_similarity

RELU = ACTIVATIONS["relu"]


class MLP(rl8.nn.MLP):
    """One that is computed block by block."""

    compute = staticmethod(networks.compute)


def sharp(kinds, inputs=3):
    """Return a layer of units that are, for rows of numbers in [-1, 1], idle (`i`), opened (`o`) or mixed (`m`)."""
    layer = nn.Linear(inputs, len(kinds)).double()
    with torch.no_grad():
        layer.weight.uniform_(0.1, 0.2)
        layer.bias.copy_(torch.tensor([{"i": -9.0, "o": 9.0, "m": 0.0}[kind] for kind in kinds]))
    return layer


def network(rows, *layers):
    pairs = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
    return Piecewise(rows, pairs, RELU, len(pairs) - 1)


def rows(count, inputs=3):
    """Return rows of numbers in [-1, 1], at least one on each side of zero."""
    found = torch.rand(count, inputs, dtype=torch.float64) * 2 - 1
    found[0], found[-1] = 1, -1
    return found


def forward(net, inputs):
    out = inputs.new_empty(inputs.shape[0], net.layers[-1][0].shape[0])
    return [net.forward(block, result) for block, result in net.blocks(inputs, out)], out


def expected(inputs, *layers):
    for layer in layers[:-1]:
        inputs = torch.relu(layer(inputs))
    return layers[-1](inputs)


def test_only_mixed_units_are_computed_row_by_row():
    inputs, first, last = rows(50), sharp("iommoooiom"), sharp("mm", 10)
    (block,), out = forward(network(inputs, first, last), inputs)
    (hidden,) = block.hidden
    assert hidden.chosen.tolist() == [[2, 3, 9]]
    assert hidden.opened.int().tolist() == [[0, 1, 0, 0, 1, 1, 1, 0, 1, 0]]
    assert hidden.features.shape == (1 + 3 + 3, 1, 50)
    torch.testing.assert_close(out, expected(inputs, first, last))


def test_opened_units_that_are_fewer_than_the_features_before_are_computed_row_by_row_too():
    inputs, first, last = rows(50), sharp("iomooim"), sharp("mm", 7)
    (block,), out = forward(network(inputs, first, last), inputs)
    (hidden,) = block.hidden
    assert hidden.chosen.tolist() == [[1, 2, 3, 4, 6]]
    assert hidden.opened is None
    assert hidden.features.shape == (1 + 5, 1, 50)
    torch.testing.assert_close(out, expected(inputs, first, last))


@pytest.mark.parametrize("kind", "iom")
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_units_that_are_all_of_a_kind(kind, depth):
    inputs = rows(50).requires_grad_()
    layers = [sharp(kind * 20, 3 if index == 0 else 20) for index in range(depth)] + [nn.Linear(20, 2).double()]
    if kind == "o":  # sums of what is always positive
        for layer in layers[1:-1]:
            nn.init.zeros_(layer.bias)
    net = network(inputs, *layers)
    kept, out = forward(net, inputs.detach())
    wanted = expected(inputs, *layers)
    torch.testing.assert_close(out, wanted.detach())
    gradient = torch.randn_like(out)
    by_rows = torch.empty_like(out.new_empty(inputs.shape))
    found = net.backward(kept, inputs.detach(), out, gradient, by_rows)
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    slopes = torch.autograd.grad(wanted, [*parameters, inputs], gradient)
    for one, other in zip([*found, by_rows], slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_cells_have_mixed_units_of_their_own(monkeypatch):
    monkeypatch.setattr(piecewise, "CELL", 10)
    inputs = rows(40)
    inputs[10:20] = 5  # every unit that is not idle is opened
    inputs[20:30] = -200  # every one is idle
    first, last = sharp("iommmmmoommmm"), sharp("m", 13)
    (block,), out = forward(network(inputs, first, last), inputs)
    (hidden,) = block.hidden
    assert hidden.chosen.shape == (4, 9)  # as many as the first cell needs
    torch.testing.assert_close(out, expected(inputs, first, last))
    assert hidden.opened[1].sum() + 9 >= 12
    assert not hidden.opened[2].any()


def test_a_unit_that_touches_zero_has_the_slope_that_torch_gives_it():
    inputs = torch.tensor([[0.0], [0.0], [1.0], [2.0]])
    mlp, head = MLP(1, [40, 40]), nn.Linear(40, 2)
    with torch.no_grad():
        mlp.layers[0].bias[:20] = -1
        mlp.layers[0].weight[:20] = 1  # 0 at the third row
    net = network(inputs, *mlp.layers, head)
    kept, out = forward(net, inputs)
    found = net.backward(kept, inputs, out, torch.ones_like(out), None)
    parameters = [p for layer in (*mlp.layers, head) for p in (layer.weight, layer.bias)]
    for one, other in zip(
        found, torch.autograd.grad(expected(inputs, *mlp.layers, head).sum(), parameters), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_what_bounds_tell_of_units():
    inputs, layer = rows(50), sharp("iommoooiom")
    by_features = torch.cat([layer.bias.detach().unsqueeze(0), layer.weight.detach().t()]).unsqueeze(0)
    bounds = torch.tensor([[[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]], dtype=torch.float64)
    opened, unsure, by_unsure = piecewise._tell(by_features, bounds)
    assert opened.int().tolist() == [[0, 1, 0, 0, 1, 1, 1, 0, 1, 0]]
    assert unsure.tolist() == [[2, 3, 9]]
    torch.testing.assert_close(by_unsure, by_features[:, :, [2, 3, 9]])
    bounds[0, 1, 2] = torch.nan
    assert piecewise._tell(by_features, bounds).unsure.tolist() == [list(range(10))]
    assert layer(inputs)[:, 2].aminmax().min < 0


def test_no_sum_is_beyond_its_bounds(monkeypatch):
    monkeypatch.setattr(piecewise, "CELL", 25)
    monkeypatch.setattr(piecewise, "BLOCK_FLOATS", 60 * 25)
    seen = []

    def told(by_features, bounds):
        found = untold(by_features, bounds)
        seen.append((bounds, found.unsure.shape[1]))
        return found

    untold = piecewise._tell
    monkeypatch.setattr(piecewise, "_tell", told)
    inputs = torch.randn(100, 4).double().sort(dim=0).values
    mlp, head = MLP(4, [60, 60, 60]).double(), nn.Linear(60, 2).double()
    net = network(inputs, *mlp.layers, head)
    net.few = True
    kept, out = forward(net, inputs)
    torch.testing.assert_close(out, expected(inputs, *mlp.layers, head))
    assert len(seen) == 3 * len(kept)
    assert min(count for _, count in seen) < 40
    for block, (cell, *_) in zip(kept, net.blocks(inputs), strict=True):
        for hidden, (bounds, _) in zip(block.hidden[:-1], seen[1:3], strict=True):
            low, high = bounds.permute(1, 2, 0).unsqueeze(-1)
            assert (hidden.features >= low - 1e-12).all()
            assert (hidden.features <= high + 1e-12).all()
        del seen[:3]
        assert cell.shape[0] == hidden.features.shape[1] * 25


def test_blocks_are_whole_cells_and_what_is_left_over(monkeypatch):
    layers = [(torch.zeros(256, 5), torch.zeros(256)), (torch.zeros(3, 256), torch.zeros(3))]
    most = piecewise.BLOCK_FLOATS // 256 // CELL * CELL
    for few, count, sizes in (
        (-1.0, 2 * most, [most, most]),
        (0.0, 2 * most - CELL, [most, most - CELL]),  # too few cells to gain
        (0.0, 2 * most, [2 * most]),
        (0.0, 3 * most + 7, [2 * most, most, 7]),
        (-1.0, most + CELL + 7, [most, CELL, 7]),
        (0.0, CELL - 1, [CELL - 1]),
        (0.0, 0, []),
    ):
        monkeypatch.setattr(piecewise, "FEW", few)
        assert Piecewise(torch.zeros(count, 5), layers, RELU, 1).sizes == sizes


@pytest.mark.parametrize(
    ("case", "gains"),
    [
        ("alike", True),
        ("unlike", False),
        ("sorted", True),
        ("tanh", False),
        ("narrow", False),
        ("one hidden layer", False),
        ("few rows", False),
    ],
)
def test_it_is_chosen_where_it_gains(case, gains, monkeypatch):
    inputs = torch.randn({"few rows": 4 * CELL - 1, "sorted": 64 * CELL}.get(case, 8 * CELL), 3)
    inputs = {
        "alike": inputs * 1e-3 + 1,
        "few rows": inputs * 1e-3 + 1,
        "sorted": inputs[by_similarity(inputs, 1)],
    }.get(case, inputs)
    width = 64 if case == "narrow" else 128
    mlp = MLP(3, [width] if case == "one hidden layer" else [width, width], "tanh" if case == "tanh" else "relu")
    taken = []
    forward = Piecewise.forward
    monkeypatch.setattr(Piecewise, "forward", lambda *args: taken.append(1) or forward(*args))
    mlp(inputs)
    assert bool(taken) == gains
    with torch.no_grad():
        taken.clear()
        mlp(inputs)
        assert not taken
    assert networks._piecewise(mlp) == (case not in ("tanh", "narrow", "one hidden layer"))


def test_the_module_computes_what_torch_does_for_sorted_rows_in_single_precision():
    inputs = torch.randn(32 * CELL + 100, 4) * torch.tensor([1.0, 1.0, 0.1, 0.1]) + 1
    inputs = inputs[by_similarity(inputs, 2)]
    mlp, head = MLP(4, [256, 256]), nn.Linear(256, 3)
    parameters = [*mlp.parameters(), *head.parameters()]
    wanted = expected(inputs, *mlp.layers, head)
    assert Piecewise.gains(inputs, [(layer.weight, layer.bias) for layer in (*mlp.layers, head)], RELU)
    found = mlp(inputs, head)
    assert isinstance(found.grad_fn.next_functions[0][0].network, Piecewise)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    gradient = torch.randn_like(wanted) / len(wanted)
    pairs = zip(
        torch.autograd.grad(found, parameters, gradient), torch.autograd.grad(wanted, parameters, gradient), strict=True
    )
    for one, other in pairs:
        # a unit at zero up to rounding, in one row, changes the sum by that row's part of it
        assert (one - other).abs().max() < 1e-2 * other.abs().max()
