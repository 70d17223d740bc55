import pytest
import torch
from torch import nn

from rl8.nn import MLP, blockwise
from rl8.nn.blockwise import ACTIVATIONS, BLOCK_FLOATS, perceptron


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


@pytest.fixture(params=[False, True], ids=["as they are", "ordered"])
def ordered(request, monkeypatch):
    """Have units ordered wherever that is possible, or nowhere."""
    monkeypatch.setattr(blockwise, "MIN_WIDTH", 1 if request.param else 10**6)
    return request.param


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("hiddens", [[8], [8, 300], [300, 8, 8]])
@pytest.mark.parametrize("blocks", [0.01, 1, 2.5])
def test_results_and_gradients_are_those_of_autograd(activation, head, hiddens, blocks, ordered, monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK_FLOATS", 64 * max(hiddens))
    mlp, last = MLP(5, hiddens, activation).double(), nn.Linear(hiddens[-1], 3).double() if head else None
    inputs = torch.randn(int(64 * torch.get_num_threads() * blocks), 5, dtype=torch.float64, requires_grad=True)
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
    with torch.no_grad():
        torch.testing.assert_close(mlp(inputs, last), expected)


def test_gradients_agree_with_finite_differences():
    mlp = MLP(3, [4, 5], "tanh").double()
    inputs = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mlp, (inputs,))


def test_two_passes_at_once_do_not_share_buffers():
    mlp = MLP(5, [16, 16])
    one, other = torch.randn(9, 5), torch.randn(9, 5)
    alone = [gradients(mlp(inputs), list(mlp.parameters())) for inputs in (one, other)]
    first, second = mlp(one), mlp(other)
    mlp(one)  # never differentiated
    together = [gradients(outputs, list(mlp.parameters())) for outputs in (first, second)]
    for expected, found in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_the_gradient_that_comes_in_is_left_alone():
    outputs = MLP(5, [16])(torch.randn(9, 5))
    incoming = torch.randn_like(outputs)
    before = incoming.clone()
    outputs.backward(incoming)
    assert torch.equal(incoming, before)


def test_no_rows():
    mlp = MLP(5, [16])
    outputs = mlp(torch.zeros(0, 5))
    assert outputs.shape == (0, 16)
    outputs.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in mlp.parameters())


def test_frozen_layers_get_no_gradient():
    mlp = MLP(5, [16, 16])
    mlp.layers[0].requires_grad_(False)
    mlp(torch.randn(9, 5)).sum().backward()
    assert mlp.layers[0].weight.grad is None
    assert mlp.layers[1].weight.grad.abs().sum() > 0


def test_a_retained_graph_gives_the_same_gradient_again(ordered, monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK_FLOATS", 64)
    mlp = MLP(5, [16, 16])
    outputs = mlp(torch.randn(9, 5)).square().sum()
    first = torch.autograd.grad(outputs, list(mlp.parameters()), retain_graph=True)
    mlp(torch.randn(9, 5)).sum().backward()  # in the same buffers
    second = torch.autograd.grad(outputs, list(mlp.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def idle(layer, units):
    """Have some units of a layer never rise above zero."""
    with torch.no_grad():
        layer.weight[units] = -layer.weight[units].abs()
        layer.bias[units] = -1


@pytest.mark.parametrize("when", ["never", "always", "early"])
@pytest.mark.parametrize("units", ["half", "all but one", "all"])
@pytest.mark.parametrize("layers", [[0], [1], [0, 1], [0, 2]])
def test_idle_units_are_left_out_of_products_but_not_of_the_result(when, units, layers, ordered, monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK_FLOATS", 64 * 48)
    mlp, head = MLP(5, [48, 48, 48]).double(), nn.Linear(48, 3).double()
    inputs = torch.rand(64 * torch.get_num_threads() * 4, 5, dtype=torch.float64, requires_grad=True)
    chosen = torch.randperm(48)[: {"half": 24, "all but one": 47, "all": 48}[units]]
    if when != "never":
        for layer in layers:
            idle(mlp.layers[layer], chosen)
    if when == "early":  # rows of the last block activate what was idle before
        with torch.no_grad():
            inputs[-64 * torch.get_num_threads() :] *= -20
    sizes = []
    product = torch.addmm

    def addmm(bias, one, other, **out):
        sizes.append(one.shape[1])
        return product(bias, one, other, **out)

    monkeypatch.setattr(torch, "addmm", addmm)
    outputs = mlp(inputs, head)
    monkeypatch.undo()
    tensors = [inputs, *mlp.parameters(), *head.parameters()]
    expected = reference(inputs, mlp, head)
    torch.testing.assert_close(outputs, expected)
    for found, wanted in zip(gradients(outputs, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(found, wanted)
    sizes = [size for size in sizes if size != 5]
    if when == "always" and ordered:
        kept = {"half": 24, "all but one": 8, "all": 0}[units]
        assert min(sizes) <= kept
    elif not ordered:
        assert set(sizes) == {48}


def test_units_that_are_active_somewhere_come_before_idle_ones():
    rows = torch.rand(100_000, 1) - 0.5
    bias = torch.tensor([-1.0, 1.0, -0.4, 0.0, -0.6, 0.2] + [-3.0] * 250)
    layers = [(torch.ones(256, 1), bias), (torch.arange(512.0).reshape(2, 256), torch.zeros(2))]
    network = blockwise._Network(rows, layers, ACTIVATIONS["relu"], 1)
    network.order(rows)
    assert network.orders[0] is None
    assert network.orders[1][:6].tolist() == [1, 5, 3, 2, 4, 0]  # 4 and 0 are idle, 4 less so
    assert network.orders[2] is None
    assert torch.equal(network.layers[0][1], bias[network.orders[1]])
    assert torch.equal(network.layers[1][0], layers[1][0][:, network.orders[1]])


def test_nothing_is_ordered_where_that_would_not_gain():
    def order(rows, width, activation):
        layers = [(torch.zeros(width, 5), torch.zeros(width)), (torch.zeros(3, width), torch.zeros(3))]
        network = blockwise._Network(torch.zeros(rows, 5), layers, ACTIVATIONS[activation], 1)
        network.order(torch.zeros(rows, 5))
        return network.orders[1]

    block = BLOCK_FLOATS // 256 * torch.get_num_threads()
    assert order(block + 1, 256, "relu") is not None
    assert order(block, 256, "relu") is None
    assert order(block + 1, 256, "tanh") is None
    assert order(100_000, 64, "relu") is None


@pytest.mark.parametrize(
    ("nonzero", "expected"),
    [([], 0), ([0], 8), ([7], 8), ([8], 16), ([3, 100], 104), ([118], 120), ([120], 128), ([127], 128)],
)
@pytest.mark.parametrize("value", [1e-30, float("nan"), float("inf")])
def test_the_first_units_hold_all_that_is_not_zero(nonzero, expected, value):
    for row in (0, 63, 99):
        result = torch.zeros(100, 128)
        result[row, nonzero] = value
        assert blockwise._active(result) == expected


def test_what_is_not_a_number_is_not_left_out(monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK_FLOATS", 64 * 256)
    mlp, inputs = MLP(5, [256, 256]), torch.randn(1000, 5)
    idle(mlp.layers[0], torch.arange(200))
    inputs = inputs.abs()
    inputs[700, 2] = float("nan")
    expected = reference(inputs, mlp, None)
    torch.testing.assert_close(mlp(inputs), expected, equal_nan=True)
    assert expected.isnan().any(1).sum() == 1


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
    buffers = blockwise._Buffers()
    layers = [(torch.zeros(4, 4), torch.zeros(4))]
    for count in range(1, 3 * buffers.most_sizes):
        buffers.give(buffers.take(count, layers))
        assert len(buffers._free) <= buffers.most_sizes
    (kept,) = buffers.take(count, layers)
    assert buffers.take(count, layers)[0] is not kept


def test_inference_leaves_buffers_that_can_be_written_to():
    mlp, inputs = MLP(5, [17]), torch.randn(9, 5)  # a size that no other test uses: nothing may be left in buffers
    with torch.inference_mode():
        inferred = mlp(inputs)
    assert inferred.is_inference()
    with torch.no_grad():
        assert torch.equal(mlp(inputs), inferred)
    mlp(inputs).sum().backward()


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_forward_and_backward_pass_with_other_numbers_of_threads(first, second, monkeypatch):
    monkeypatch.setattr(blockwise, "BLOCK_FLOATS", 64)
    mlp, inputs = MLP(5, [16, 16]), torch.randn(9, 5)
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
    for rows, expected in ((10**6, BLOCK_FLOATS // 256 * torch.get_num_threads()), (3, 3), (0, 1)):
        assert blockwise._Network(torch.zeros(rows, 5), layers, ACTIVATIONS["relu"], 2).block_size == expected


@pytest.mark.parametrize("case", ["hook", "replaced", "no bias", "mixed precision", "elu"])
def test_anything_special_goes_the_ordinary_way(case, monkeypatch):
    monkeypatch.setattr(blockwise, "perceptron", None)  # would be called
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
