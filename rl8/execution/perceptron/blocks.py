"""What both ways of computing a perceptron on a CPU have in common: activations, blocks of rows, buffers.

Autograd writes each layer's result for all rows before it goes on to the next, and likewise each gradient: megabytes
that have left the caches when they are read again, in memory that is mapped anew each time. Here a block of rows goes
through all layers, gradients of hidden layers live for one block only, and what is kept lies in buffers that are used
again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

Layer = tuple[Tensor, Tensor]  # weight [out, in] and bias [out]


class Activation(NamedTuple):
    """An activation whose gradient needs nothing but its result.

    Attributes:
        function: Returns the activation of a tensor.
        apply_: The same in place.
        backward_: Multiplies gradients (first argument) in place by the slopes at some results (second).
        piecewise: Whether it is zero below zero and the identity above.
    """

    function: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    backward_: Callable[[Tensor, Tensor], Any]
    piecewise: bool


def _relu_backward_(gradient: Tensor, result: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(gradient, result, 0, grad_input=gradient)


def _tanh_backward_(gradient: Tensor, result: Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(gradient, result, grad_input=gradient)


ACTIVATIONS: Final = {
    "relu": Activation(torch.relu, torch.relu_, _relu_backward_, piecewise=True),
    "tanh": Activation(torch.tanh, torch.tanh_, _tanh_backward_, piecewise=False),
}


class Network(ABC):
    """A perceptron, for some rows.

    Args:
        rows: `[M, in]` that it is for.
        layers: Weight and bias of each layer.
        activation: Which.
        activated: The number of layers, or one less.

    Attributes:
        sizes: Rows in each block, which go through all layers together.
    """

    sizes: list[int]

    def __init__(self, rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> None:
        self.layers, self.activation, self.activated = layers, activation, activated

    @abstractmethod
    def forward(self, rows: Tensor, out: Tensor) -> Any:
        """Write the result for a block of rows `[B, in]` to `out` `[B, out]`; return what `backward` needs of it."""

    @abstractmethod
    def backward(
        self, kept: Sequence[Any], rows: Tensor, out: Tensor, gradient: Tensor, by_rows: Tensor | None
    ) -> list[Tensor]:
        """Return the gradient by each weight and bias, and give buffers back.

        Args:
            kept: What `forward` returned for each block.
            rows: `[M, in]`.
            out: `[M, out]` what the last layer gave.
            gradient: `[M, out]` by the result.
            by_rows: `[M, in]` where the gradient by the rows shall be written, or None.
        """

    @abstractmethod
    def give(self, kept: Any) -> None:
        """Give the buffers of a block back."""

    def blocks(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Return tensors' rows, a block at a time."""
        return zip(*(tensor.split(self.sizes) for tensor in tensors), strict=True)


def sizes(count: int, most: int) -> list[int]:
    """Return how many of `count` rows are in each block of at most `most`, all the same but for the last."""
    full, rest = divmod(count, most)
    return [most] * full + [rest] * (rest > 0)


class Buffers:
    """Memory that is used again, so that it stays mapped and warm."""

    most_sizes = 32  # remembered at once; one training needs a handful

    def __init__(self) -> None:
        self._free: dict[tuple[int, int, torch.dtype], list[Tensor]] = {}

    def take(self, count: int, size: int, like: Tensor) -> Tensor:
        """Return `[count, size]`, uninitialised, of the type of `like`."""
        try:
            return self._free[count, size, like.dtype].pop()
        except (KeyError, IndexError):  # not asked beforehand: another thread may take the last one
            with torch.inference_mode(False):  # whose tensors nobody could write to later
                return like.new_empty(count, size)

    def give(self, tensors: Sequence[Tensor]) -> None:
        """Take tensors back that nobody reads any more."""
        for tensor in tensors:
            key = (tensor.shape[0], tensor.shape[1], tensor.dtype)
            if key not in self._free and len(self._free) == self.most_sizes:
                self._free.clear()
            self._free.setdefault(key, []).append(tensor)


buffers = Buffers()
