"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn

from rl8.checks import check_choice, check_range
from rl8.execution.perceptron.blocks import ACTIVATIONS as BLOCKWISE
from rl8.execution.perceptron.blocks import Layer
from rl8.execution.perceptron.perceptron import perceptron
from rl8.execution.perceptron.piecewise import Piecewise, suits

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def linear(in_features: int, out_features: int, gain: float) -> nn.Linear:
    """Return a linear layer with orthogonal weights times `gain` and zero biases."""
    layer = nn.Linear(in_features, out_features)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Module):
    """Linear layers, an activation after each.

    Args:
        in_features: Length of the input vector.
        hiddens: Width of every layer, each >= 1; empty passes the input on.
        activation: Name of the activation, one of `ACTIVATIONS`.

    Attributes:
        size: Length of the output vector.

    Raises:
        TypeError: If `hiddens` is no list of integers.
        ValueError: If a width or the activation is not accepted.
    """

    def __init__(self, in_features: int, hiddens: Sequence[int], activation: str = "relu") -> None:
        super().__init__()
        check_choice("model.activation", activation, ACTIVATIONS)
        if not isinstance(hiddens, Sequence):
            raise TypeError(f"model.hiddens={hiddens!r} is no list. Accepted: a list of integers. Try [{hiddens}].")
        for width in hiddens:
            check_range("model.hiddens", width, 1, integer=True, hint="model.hiddens=[256,256]")
        sizes = [in_features, *hiddens]
        gain = math.sqrt(2) if activation == "relu" else 1.0
        self.layers = nn.ModuleList([linear(a, b, gain) for a, b in pairwise(sizes)])
        # In place: a linear layer's gradient needs no output of its own, and memory traffic limits small networks.
        self.activation = nn.ReLU(inplace=True) if activation == "relu" else ACTIVATIONS[activation]()
        self.size = sizes[-1]
        self._blockwise = BLOCKWISE.get(activation)

    @property
    def blockwise(self) -> bool:
        """Whether a CPU computes the layers block by block, so that more rows at once don't leave its caches."""
        return self._blockwise is not None

    @property
    def piecewise(self) -> bool:
        """Whether a CPU is faster where rows resemble their neighbours; see `rl8.execution.perceptron.piecewise`."""
        return self._blockwise is not None and _bare(self._layers()) and suits(_parts(self._layers()), self._blockwise)

    def gains(self, rows: Tensor) -> bool:
        """Return whether rows `[M, in_features]` resemble their neighbours so much that a CPU is faster."""
        layers = self._layers()
        return self._blockwise is not None and _bare(layers) and Piecewise.gains(rows, _parts(layers), self._blockwise)

    def forward(self, inputs: Tensor, head: nn.Linear | None = None) -> Tensor:
        """Return `[..., size]` for inputs `[..., in_features]`, or what a linear layer makes of that.

        Args:
            inputs: `[..., in_features]`.
            head: A last layer without activation, computed together with the others: faster on a CPU than on its own.
        """
        # Two dimensions: with more, a layer's result is a view, whose in-place activation is differentiated by copies.
        rows = inputs.flatten(0, -2)
        layers = self._layers(head)
        if self._blockwise is not None and rows.device.type == "cpu" and _bare(layers) and not _transformed():
            rows = perceptron(rows, _parts(layers), self._blockwise, len(self.layers))
        else:
            for layer in self.layers:
                rows = self.activation(layer(rows))
            rows = rows if head is None else head(rows)
        outputs: Tensor = rows.unflatten(0, inputs.shape[:-1])
        return outputs

    def _layers(self, head: nn.Linear | None = None) -> list[Any]:
        return [*self.layers, *([] if head is None else [head])]


def _parts(layers: Sequence[Any]) -> list[Layer]:
    """Return weight and bias of each layer."""
    return [(layer.weight, layer.bias) for layer in layers]


def _bare(layers: Sequence[Any]) -> bool:
    """Return whether layers do nothing but multiply and add: none was replaced, and nobody listens to one."""
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return bool(layers) and all(
        type(layer) is nn.Linear
        and getattr(layer, "bias", None) is not None
        and not any(getattr(layer, name) for name in hooks)
        for layer in layers
    )


def _transformed() -> bool:
    """Return whether torch watches the operations in order to replace them: mixed precision, Inductor, torch.func."""
    return (
        torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )
