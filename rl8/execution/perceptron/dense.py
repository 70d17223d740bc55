"""A perceptron on a CPU, block by block through all its layers: every unit for every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from rl8.execution.perceptron.blocks import Activation, Layer, Network, buffers, sizes

# Floats of the widest layer in a block, for each of torch's threads. Larger blocks leave the caches, smaller ones cost
# more operations: 1024 rows of 256 were best, 512 and 2048 nearly as good.
BLOCK_FLOATS: Final = 2**18


class Dense(Network):
    """Computes any perceptron; what is kept of a block are its hidden layers' results."""

    def __init__(self, rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> None:
        super().__init__(rows, layers, activation, activated)
        widest = max(weight.shape[0] for weight, _ in layers)
        self.sizes = sizes(rows.shape[0], max(BLOCK_FLOATS // widest, 1) * torch.get_num_threads())

    def forward(self, rows: Tensor, out: Tensor) -> list[Tensor]:
        """See `Network.forward`."""
        hidden = [buffers.take(rows.shape[0], weight.shape[0], weight) for weight, _ in self.layers[:-1]]
        for index, ((weight, bias), result) in enumerate(zip(self.layers, [*hidden, out], strict=True)):
            # With the bias copied there first, the product finds its place in the caches.
            rows = torch.addmm(bias, rows, weight.t(), out=result)
            if index < self.activated:
                self.activation.apply_(rows)
        return hidden

    def backward(
        self, kept: Sequence[list[Tensor]], rows: Tensor, out: Tensor, gradient: Tensor, by_rows: Tensor | None
    ) -> list[Tensor]:
        """See `Network.backward`."""
        flows = [buffers.take(max(self.sizes, default=0), weight.shape[0], weight) for weight, _ in self.layers]
        by_weight = [weight.new_zeros(weight.shape[:: -1 if _is_tall(weight) else 1]) for weight, _ in self.layers]
        by_bias = [torch.zeros_like(bias) for _, bias in self.layers]
        outs = [gradient, rows, out] if by_rows is None else [gradient, rows, out, by_rows]
        for hidden, (flow, first, last, *by_block) in zip(kept, self.blocks(*outs), strict=True):
            size, results = flow.shape[0], [first, *hidden, last]
            if self.activated == len(self.layers):
                flow = flows[-1][:size].copy_(flow)  # autograd's own is not ours to write to
            for index in reversed(range(len(self.layers))):
                weight, (inputs, result) = self.layers[index][0], results[index : index + 2]
                if index < self.activated:
                    self.activation.backward_(flow, result)
                one, other = (inputs, flow) if _is_tall(weight) else (flow, inputs)
                by_weight[index].addmm_(one.t(), other)
                by_bias[index].add_(flow.sum(0))
                if index:
                    flow = torch.mm(flow, weight, out=flows[index - 1][:size])
                elif by_block:
                    torch.mm(flow, weight, out=by_block[0])
            self.give(hidden)
        buffers.give(flows)
        pairs = zip(self.layers, by_weight, by_bias, strict=True)
        return [
            part for (weight, _), by, bias in pairs for part in (by.t().contiguous() if _is_tall(weight) else by, bias)
        ]

    def give(self, kept: list[Tensor]) -> None:
        """See `Network.give`."""
        buffers.give(kept)


def _is_tall(weight: Tensor) -> bool:
    """Return whether a layer has fewer inputs than outputs; its gradient is then summed as `[in, out]`.

    A product with few rows is faster than one with few columns: 7 times for 5 inputs, 256 outputs and 1024 rows.
    """
    return weight.shape[1] < weight.shape[0]
