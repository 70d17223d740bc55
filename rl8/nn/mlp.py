"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from torch import Tensor, nn

from rl8.checks import check_choice, check_range
from rl8.kinds import is_list

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
        gain: Of the orthogonal weights; by default sqrt(2) for relu, 1 for others.
        name: Key of `hiddens`, for messages.

    Attributes:
        size: Length of the output vector.
        compute: What an execution computes the layers with, given this network, rows `[M, in_features]` and the layers;
            it returns None where it can't. By default they are computed one after the other.

    Raises:
        TypeError: If `hiddens` is no list of integers.
        ValueError: If a width or the activation is not accepted.
    """

    compute: Callable[[MLP, Tensor, Sequence[nn.Module]], Tensor | None] | None = None

    def __init__(
        self,
        in_features: int,
        hiddens: Sequence[int],
        activation: str = "relu",
        gain: float | None = None,
        *,
        name: str = "model.hiddens",
    ) -> None:
        super().__init__()
        check_choice("model.activation", activation, ACTIVATIONS)
        if not is_list(hiddens):
            raise TypeError(f"{name}={hiddens!r} is no list. Accepted: a list of integers. Try [{hiddens}].")
        for width in hiddens:
            check_range(name, width, 1, integer=True, hint=f"{name}=[256,256]")
        sizes = [in_features, *hiddens]
        gain = gain or (math.sqrt(2) if activation == "relu" else 1.0)
        self.layers = nn.ModuleList([linear(a, b, gain) for a, b in pairwise(sizes)])
        # In place: a linear layer's gradient needs no output of its own, and memory traffic limits small networks.
        self.activation = nn.ReLU(inplace=True) if activation == "relu" else ACTIVATIONS[activation]()
        self.activation_name, self.size = activation, sizes[-1]

    def forward(self, inputs: Tensor, head: nn.Linear | None = None) -> Tensor:
        """Return `[..., size]` for inputs `[..., in_features]`, or what a linear layer makes of that.

        Args:
            inputs: `[..., in_features]`.
            head: A last layer without activation, computed together with the others: faster on a CPU than on its own.
        """
        # Two dimensions: with more, a layer's result is a view, whose in-place activation is differentiated by copies.
        rows = inputs.flatten(0, -2)
        layers = [*self.layers, *([] if head is None else [head])]
        found = None if self.compute is None else self.compute(self, rows, layers)
        if found is None:
            for layer in self.layers:
                rows = self.activation(layer(rows))
            found = rows if head is None else head(rows)
        outputs: Tensor = found.unflatten(0, inputs.shape[:-1])
        return outputs
