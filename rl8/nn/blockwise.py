"""A perceptron on a CPU, block by block through all its layers, with its gradient written out.

Autograd writes each layer's result for all rows before it goes on to the next, and likewise each gradient: megabytes
that have left the caches when they are read again, in memory that is mapped anew each time. Here a block of rows goes
through all layers, gradients of hidden layers live for one block only, and hidden layers lie in buffers that are used
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Floats of the widest layer in a block, for each of torch's threads. Larger blocks leave the caches, smaller ones cost
# more operations: 1024 rows of 256 were best, 512 and 2048 nearly as good.
BLOCK_FLOATS: Final = 2**18

Layer = tuple[Tensor, Tensor]  # weight [out, in] and bias [out]


class Activation(NamedTuple):
    """An activation whose gradient needs nothing but its result.

    Attributes:
        function: Returns the activation of a tensor.
        apply_: The same in place.
        backward_: Multiplies gradients (first argument) in place by the slopes at some results (second).
    """

    function: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor], Any]


def _relu_backward_(gradient: Tensor, result: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=gradient)


def _tanh_backward_(gradient: Tensor, result: Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(gradient, result, grad_input=gradient)


ACTIVATIONS: Final = {
    "relu": Activation(torch.relu, torch.relu_, _relu_backward_),
    "tanh": Activation(torch.tanh, torch.tanh_, _tanh_backward_),
}


def perceptron(rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> Tensor:
    """Return `[M, out]` for rows `[M, in]`: linear layers, each of the first `activated` followed by the activation.

    Args:
        rows: `[M, in]` on the CPU.
        layers: Weight and bias of each layer, of the same dtype as `rows`.
        activation: Which.
        activated: The number of layers, or one less.
    """
    parameters = [parameter for layer in layers for parameter in layer]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (rows, *parameters)):
        differentiable: Tensor = _Perceptron.apply(rows, activation, activated, *parameters)  # type: ignore[no-untyped-call]
        return differentiable
    out = rows.new_empty(rows.shape[0], layers[-1][0].shape[0])
    for block, result in _blocks(_block_size(rows, layers), rows, out):
        hidden = _buffers.take(block.shape[0], layers[:-1])
        _forward(block, layers, activation, activated, [*hidden, result])
        _buffers.give(hidden)
    return out


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, activation: Activation, activated: int, *parameters: Tensor) -> Tensor:
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        out = rows.new_empty(rows.shape[0], layers[-1][0].shape[0])
        ctx.size = _block_size(rows, layers)
        ctx.hidden = _hidden(ctx.size, rows, layers, activation, activated, out)
        ctx.activation, ctx.activated = activation, activated
        ctx.save_for_backward(rows, out, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, out, *parameters = ctx.saved_tensors
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        if torch.is_grad_enabled():  # the gradient shall be differentiated in its turn
            return _by_autograd(ctx, rows, layers, gradient)
        hidden, ctx.hidden = ctx.hidden, None
        if hidden is None:  # a second pass through a retained graph: the first gave the buffers back
            hidden = _hidden(ctx.size, rows, layers, ctx.activation, ctx.activated, torch.empty_like(out))
        flows = _buffers.take(ctx.size, layers)
        by_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        by_weight: list[Tensor | None] = [None] * len(layers)
        by_bias = [torch.zeros_like(bias) for _, bias in layers]
        for number, (flow, first, last) in enumerate(_blocks(ctx.size, gradient, rows, out)):
            results = [first, *hidden[number], last]
            for index in reversed(range(len(layers))):
                inputs, result = results[index : index + 2]
                if index < ctx.activated:
                    if index == len(layers) - 1:
                        flow = flows[index][: flow.shape[0]].copy_(flow)  # autograd's own is not ours to write to
                    ctx.activation.backward_(flow, result)
                by_weight[index] = _add_product(by_weight[index], flow, inputs)
                by_bias[index].add_(flow.sum(0))
                if index:
                    flow = torch.mm(flow, layers[index][0], out=flows[index - 1][: flow.shape[0]])
                elif by_rows is not None:
                    torch.mm(flow, layers[0][0], out=by_rows[number * ctx.size :][: flow.shape[0]])
            _buffers.give(hidden[number])
        _buffers.give(flows)
        pairs = zip(by_weight, by_bias, layers, strict=True)
        found = [part for by, bias, (weight, _) in pairs for part in (_shaped(by, weight), bias)]
        return (by_rows, None, None, *found)


def _by_autograd(ctx: Any, rows: Tensor, layers: Sequence[Layer], gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Return what `backward` returns, by operations that can be differentiated."""
    result = rows
    for index, (weight, bias) in enumerate(layers):
        result = functional.linear(result, weight, bias)
        result = ctx.activation.function(result) if index < ctx.activated else result
    tensors = [rows, *(parameter for layer in layers for parameter in layer)]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=True))
    first, *others = [next(found) if tensor.requires_grad else None for tensor in tensors]
    return (first, None, None, *others)


def _hidden(
    size: int, rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int, out: Tensor
) -> list[list[Tensor]]:
    """Write the last layer's result to `out`; return all others' of each block in buffers."""
    hidden = []
    for block, result in _blocks(size, rows, out):
        hidden.append(_buffers.take(block.shape[0], layers[:-1]))
        _forward(block, layers, activation, activated, [*hidden[-1], result])
    return hidden


def _forward(
    rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int, outs: Sequence[Tensor]
) -> None:
    """Write each layer's result for one block of rows."""
    for index, ((weight, bias), out) in enumerate(zip(layers, outs, strict=True)):
        # With the bias copied there first, the product finds its place in the caches.
        rows = torch.addmm(bias, rows, weight.t(), out=out)
        if index < activated:
            activation.apply_(rows)


def _add_product(total: Tensor | None, flow: Tensor, inputs: Tensor) -> Tensor:
    """Add a block's gradient of a weight, transposed where there are fewer inputs than outputs.

    A product with few rows is faster than one with few columns: 7 times for 5 inputs, 256 outputs and 1024 rows.
    """
    one, other = (inputs, flow) if inputs.shape[1] < flow.shape[1] else (flow, inputs)
    return torch.mm(one.t(), other) if total is None else total.addmm_(one.t(), other)


def _shaped(by_weight: Tensor | None, weight: Tensor) -> Tensor:
    assert by_weight is not None
    return by_weight if by_weight.shape == weight.shape else by_weight.t().contiguous()


def _block_size(rows: Tensor, layers: Sequence[Layer]) -> int:
    widest = max(weight.shape[0] for weight, _ in layers)
    return max(min(max(BLOCK_FLOATS // widest, 1) * torch.get_num_threads(), rows.shape[0]), 1)


def _blocks(size: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return tensors' rows, `size` at a time."""
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


class _Buffers:
    """Memory that is used again, so that it stays mapped and warm."""

    most_sizes = 32  # remembered at once; one training needs a handful

    def __init__(self) -> None:
        self._free: dict[tuple[int, int, torch.dtype], list[Tensor]] = {}

    def take(self, count: int, layers: Sequence[Layer]) -> list[Tensor]:
        """Return `[count, out]`, uninitialised, for the results of each layer."""
        return [self._take(count, weight) for weight, _ in layers]

    def give(self, tensors: Sequence[Tensor]) -> None:
        """Take tensors back that nobody reads any more."""
        for tensor in tensors:
            key = (tensor.shape[0], tensor.shape[1], tensor.dtype)
            if key not in self._free and len(self._free) == self.most_sizes:
                self._free.clear()
            self._free.setdefault(key, []).append(tensor)

    def _take(self, count: int, weight: Tensor) -> Tensor:
        try:
            return self._free[count, weight.shape[0], weight.dtype].pop()
        except (KeyError, IndexError):  # not asked beforehand: another thread may take the last one
            with torch.inference_mode(False):  # whose tensors nobody could write to later
                return weight.new_empty(count, weight.shape[0])


_buffers = _Buffers()
