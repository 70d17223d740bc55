"""A perceptron on a CPU, block by block through all its layers, with its gradient written out.

Autograd writes each layer's result for all rows before it goes on to the next, and likewise each gradient: megabytes
that have left the caches when they are read again, in memory that is mapped anew each time. Here a block of rows goes
through all layers, gradients of hidden layers live for one block only, and hidden layers lie in buffers that are used
again.

A ReLU holds some units at zero in every row of a block: some for good, as in most trained networks (Sokar et al. 2023,
arXiv:2302.12902), some for a while, since the rows of one time step resemble each other. They would add nothing but
zeros to the products that follow, forwards and backwards, and are left out. For that a layer's units are put in order,
those that a sample of the rows activates most first: what is left out of a block then comes last, and takes no copy.
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

# Of so many rows one is in the sample, so that it costs less than 1% of a pass; odd, so that it does not meet the same
# few environments at every step. 31 to 127 find about the same order.
SAMPLE_EVERY: Final = 97

# Rows in the sample, about, where one of so many would be fewer.
MIN_SAMPLE: Final = 64

# Units of the widest layer from which on ordering gains: at 64 it costs 10% more than it saves.
MIN_WIDTH: Final = 128

# A layer is cut where that leaves out one of so many units at least, to a multiple that products are fast with.
CUT: Final = 16
MULTIPLE: Final = 8

Layer = tuple[Tensor, Tensor]  # weight [out, in] and bias [out]


class Activation(NamedTuple):
    """An activation whose gradient needs nothing but its result.

    Attributes:
        function: Returns the activation of a tensor.
        apply_: The same in place.
        backward_: Multiplies gradients (first argument) in place by the slopes at some results (second).
        idles: Whether it can hold a unit at zero, where its slope is zero too.
    """

    function: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor], Any]
    idles: bool


def _relu_backward_(gradient: Tensor, result: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=gradient)


def _tanh_backward_(gradient: Tensor, result: Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(gradient, result, grad_input=gradient)


ACTIVATIONS: Final = {
    "relu": Activation(torch.relu, torch.relu_, _relu_backward_, idles=True),
    "tanh": Activation(torch.tanh, torch.tanh_, _tanh_backward_, idles=False),
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
    network = _Network(rows, layers, activation, activated)  # not ordered: one product of three gains too little
    out = rows.new_empty(rows.shape[0], layers[-1][0].shape[0])
    for block, result in _blocks(network.block_size, rows, out):
        _give(network.forward(block, result))
    return out


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, activation: Activation, activated: int, *parameters: Tensor) -> Tensor:
        ctx.network = _Network(rows, _paired(parameters), activation, activated)
        ctx.network.order(rows)
        out = rows.new_empty(rows.shape[0], parameters[-1].shape[0])
        ctx.hidden = ctx.network.hidden(rows, out)
        ctx.save_for_backward(rows, out, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, out, *parameters = ctx.saved_tensors
        network: _Network = ctx.network
        if torch.is_grad_enabled():  # the gradient shall be differentiated in its turn
            return _by_autograd(network, rows, _paired(parameters), gradient)
        hidden, ctx.hidden = ctx.hidden, None
        if hidden is None:  # a second pass through a retained graph: the first gave the buffers back
            hidden = network.hidden(rows, torch.empty_like(out))
        by_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        found = network.backward(hidden, rows, out, gradient, by_rows)
        return (by_rows, None, None, *found)


def _paired(parameters: Sequence[Tensor]) -> list[Layer]:
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def _by_autograd(
    network: _Network, rows: Tensor, layers: Sequence[Layer], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return what `backward` returns, by operations that can be differentiated."""
    result = rows
    for index, (weight, bias) in enumerate(layers):
        result = functional.linear(result, weight, bias)
        result = network.activation.function(result) if index < network.activated else result
    tensors = [rows, *(parameter for layer in layers for parameter in layer)]
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found = iter(torch.autograd.grad(result, wanted, gradient, create_graph=True))
    first, *others = [next(found) if tensor.requires_grad else None for tensor in tensors]
    return (first, None, None, *others)


class _Hidden(NamedTuple):
    """A hidden layer's results for a block of rows, in a buffer.

    Attributes:
        buffer: `[B, out]`.
        active: Units from here on are zero in all rows.
    """

    buffer: Tensor
    active: int

    @property
    def values(self) -> Tensor:
        """`[B, active]`."""
        return _left(self.buffer, self.active)


class _Network:
    """A perceptron whose hidden units can be put in order.

    Args:
        rows: `[M, in]` that it is for.
        layers: Weight and bias of each layer.
        activation: Which.
        activated: The number of layers, or one less.

    Attributes:
        block_size: Rows that go through all layers together.
        layers: Weights and biases, in order.
        orders: Order of the inputs and of each layer's units; None where nothing was moved.
    """

    def __init__(self, rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> None:
        self.activation, self.activated = activation, activated
        widest = max(weight.shape[0] for weight, _ in layers)
        self.block_size = max(min(max(BLOCK_FLOATS // widest, 1) * torch.get_num_threads(), rows.shape[0]), 1)
        self.layers: list[Layer] = list(layers)
        self.orders: list[Tensor | None] = [None] * (len(layers) + 1)

    def order(self, rows: Tensor) -> None:
        """Put the units first that the most rows activate, those that none does by how near they come, if it gains."""
        several = rows.shape[0] > self.block_size  # a single block is done sooner than ordered
        wide = any(weight.shape[0] >= MIN_WIDTH for weight, _ in self.layers)
        if not (self.activation.idles and several and wide):
            return
        sample = rows[:: min(rows.shape[0] // MIN_SAMPLE | 1, SAMPLE_EVERY)]
        for index in range(len(self.layers) - 1):
            weight, bias = self.layers[index]
            sums = torch.addmm(bias, sample, weight.t())
            sample = self.activation.function(sums)
            order = (sample.sign().sum(0) + sums.amax(0).sigmoid()).argsort(descending=True)
            sample = sample.index_select(1, order)
            self.orders[index + 1] = order
            self.layers[index] = weight.index_select(0, order), bias.index_select(0, order)
            following, other = self.layers[index + 1]
            self.layers[index + 1] = following.index_select(1, order), other

    def forward(self, rows: Tensor, out: Tensor) -> list[_Hidden]:
        """Write the result for a block of rows to `out`; return what hidden layers gave, in buffers."""
        hidden: list[_Hidden] = []
        buffers = _buffers.take(rows.shape[0], self.layers[:-1])
        for index, ((weight, bias), result) in enumerate(zip(self.layers, [*buffers, out], strict=True)):
            # With the bias copied there first, the product finds its place in the caches.
            torch.addmm(bias, rows, _left(weight, rows.shape[1]).t(), out=result)
            if index < self.activated:
                self.activation.apply_(result)
            if index < len(buffers):
                hidden.append(_Hidden(result, result.shape[1] if self.orders[index + 1] is None else _active(result)))
                rows = hidden[-1].values
        return hidden

    def hidden(self, rows: Tensor, out: Tensor) -> list[list[_Hidden]]:
        """Write the result for all rows to `out`; return what hidden layers gave for each block, in buffers."""
        return [self.forward(block, result) for block, result in _blocks(self.block_size, rows, out)]

    def backward(
        self,
        hidden: Sequence[Sequence[_Hidden]],
        rows: Tensor,
        out: Tensor,
        gradient: Tensor,
        by_rows: Tensor | None,
    ) -> list[Tensor]:
        """Return the gradient by each weight and bias, and give the buffers back.

        Args:
            hidden: What hidden layers gave for each block.
            rows: `[M, in]`.
            out: `[M, out]` what the last layer gave.
            gradient: `[M, out]` by the result.
            by_rows: `[M, in]` where the gradient by the rows shall be written, or None.
        """
        flows = _buffers.take(self.block_size, self.layers)
        by_weight = [weight.new_zeros(weight.shape[:: -1 if _is_tall(weight) else 1]) for weight, _ in self.layers]
        by_bias = [torch.zeros_like(bias) for _, bias in self.layers]
        for number, (flow, first, last) in enumerate(_blocks(self.block_size, gradient, rows, out)):
            size, results = flow.shape[0], [first, *(layer.values for layer in hidden[number]), last]
            if self.activated == len(self.layers):
                flow = flows[-1][:size].copy_(flow)  # autograd's own is not ours to write to
            for index in reversed(range(len(self.layers))):
                weight, (inputs, result) = self.layers[index][0], results[index : index + 2]
                ins, outs = inputs.shape[1], result.shape[1]
                if index < self.activated:
                    self.activation.backward_(flow, result)
                if _is_tall(weight):
                    _left(by_weight[index], outs)[:ins].addmm_(inputs.t(), flow)
                else:
                    _left(by_weight[index], ins)[:outs].addmm_(flow.t(), inputs)
                by_bias[index][:outs].add_(flow.sum(0))
                if index:
                    flow = torch.mm(flow, _left(weight, ins)[:outs], out=_left(flows[index - 1], ins)[:size])
                elif by_rows is not None:
                    torch.mm(flow, weight[:outs], out=by_rows[number * self.block_size :][:size])
            _give(hidden[number])
        _buffers.give(flows)
        pairs = zip(by_weight, by_bias, strict=True)
        return [part for index, pair in enumerate(pairs) for part in self._unordered(index, *pair)]

    def _unordered(self, index: int, by_weight: Tensor, by_bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by a layer's weight and bias, units where they were before they were ordered."""
        before, after = (None if order is None else order.argsort() for order in self.orders[index : index + 2])
        by_weight = by_weight.t() if _is_tall(self.layers[index][0]) else by_weight
        by_weight = by_weight if before is None else by_weight.index_select(1, before)
        if after is None:
            return by_weight.contiguous(), by_bias
        return by_weight.index_select(0, after), by_bias.index_select(0, after)


def _is_tall(weight: Tensor) -> bool:
    """Return whether a layer has fewer inputs than outputs; its gradient is then summed as `[in, out]`.

    A product with few rows is faster than one with few columns: 7 times for 5 inputs, 256 outputs and 1024 rows.
    """
    return weight.shape[1] < weight.shape[0]


def _left(matrix: Tensor, count: int) -> Tensor:
    """Return the first columns: as they are where that is all, which saves time."""
    return matrix if count == matrix.shape[1] else matrix[:, :count]


def _active(result: Tensor) -> int:
    """Return from which unit on `[B, out]` results may be left out: all of them are zero, and none is NaN."""
    width = result.shape[1]
    if result[::64, width - width // CUT :].any():  # a few rows often tell
        return width
    found = result.amax(0).nonzero()
    active = int(found[-1]) + 1 if found.numel() else 0
    active = -(-active // MULTIPLE) * MULTIPLE
    return active if active <= width - width // CUT else width


def _give(hidden: Sequence[_Hidden]) -> None:
    """Give the buffers of a block's hidden layers back."""
    _buffers.give([layer.buffer for layer in hidden])


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
