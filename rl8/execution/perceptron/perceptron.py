"""A perceptron on a CPU, with its gradient written out: two ways to compute it, and which of them is faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from rl8.execution.perceptron.blocks import Activation, Layer, Network
from rl8.execution.perceptron.dense import Dense
from rl8.execution.perceptron.piecewise import Piecewise

# Of the widest layer. With so few, blocks and buffers cost more than they spare.
FEW_FLOATS: Final = 2**15


def perceptron(rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> Tensor:
    """Return `[M, out]` for rows `[M, in]`: linear layers, each of the first `activated` followed by the activation.

    Args:
        rows: `[M, in]` on the CPU; faster where neighbours resemble each other, see `Piecewise`.
        layers: Weight and bias of each layer, of the same dtype as `rows`.
        activation: Which.
        activated: The number of layers, or one less.
    """
    parameters = [parameter for layer in layers for parameter in layer]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (rows, *parameters)):
        differentiable: Tensor = _Perceptron.apply(rows, activation, activated, *parameters)  # type: ignore[no-untyped-call]
        return differentiable
    if rows.shape[0] * max(len(bias) for _, bias in layers) <= FEW_FLOATS:
        for index, (weight, bias) in enumerate(layers):
            rows = functional.linear(rows, weight, bias)
            rows = activation.apply_(rows) if index < activated else rows
        return rows
    out = rows.new_empty(rows.shape[0], layers[-1][0].shape[0])
    network = Dense(rows, layers, activation, activated)  # one product of three is too little to gain from
    for block, result in network.blocks(rows, out):
        network.give(network.forward(block, result))
    return out


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, activation: Activation, activated: int, *parameters: Tensor) -> Tensor:
        ctx.network = network = _network(rows, _paired(parameters), activation, activated)
        out = rows.new_empty(rows.shape[0], parameters[-1].shape[0])
        ctx.kept = [network.forward(block, result) for block, result in network.blocks(rows, out)]
        ctx.save_for_backward(rows, out, *parameters)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, out, *parameters = ctx.saved_tensors
        network: Network = ctx.network
        if torch.is_grad_enabled():  # the gradient shall be differentiated in its turn
            return _by_autograd(network, rows, _paired(parameters), gradient)
        kept, ctx.kept = ctx.kept, None
        if kept is None:  # a second pass through a retained graph: the first gave the buffers back
            again = torch.empty_like(out)
            kept = [network.forward(block, result) for block, result in network.blocks(rows, again)]
        by_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        found = network.backward(kept, rows, out, gradient, by_rows)
        return (by_rows, None, None, *found)


def _network(rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> Network:
    """Return what computes the layers faster for these rows."""
    network = Piecewise if Piecewise.gains(rows, layers, activation) else Dense
    return network(rows, layers, activation, activated)


def _paired(parameters: Sequence[Tensor]) -> list[Layer]:
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def _by_autograd(
    network: Network, rows: Tensor, layers: Sequence[Layer], gradient: Tensor
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
