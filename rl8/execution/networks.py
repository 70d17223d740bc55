"""A model's perceptrons as a CPU computes them: by which code, in what pieces, in which order of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from rl8.execution.perceptron.blocks import ACTIVATIONS, Activation, Layer
from rl8.execution.perceptron.perceptron import perceptron
from rl8.execution.perceptron.piecewise import Piecewise, suits
from rl8.execution.perceptron.similarity import CELL, MIN_CELLS, by_similarity
from rl8.models import Model
from rl8.nn import ACTIVATIONS as NAMED
from rl8.nn import MLP
from rl8.policy.policy import Policy
from rl8.rollout.rollout import Rollout

LISTENERS: Final = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")

# Floats of the widest layer in a piece, where layers are computed in blocks that suit the caches whatever the piece.
PIECE_FLOATS: Final = 2**22

# Inputs of which so many seldom make rows that resemble each other, however sorted: not worth a try.
MOST_INPUTS: Final = 64


def equip(model: Model) -> None:
    """Let every MLP in a model be computed block by block."""
    for module in model.modules():
        if isinstance(module, MLP):
            module.compute = compute


def compute(net: MLP, rows: Tensor, layers: Sequence[Any]) -> Tensor | None:
    """Return what an MLP's layers make of rows `[M, in]`, or None where torch must do it.

    That is with other activations than `ACTIVATIONS`, and where layers do more than multiply and add.
    """
    if rows.device.type != "cpu" or _transformed() or listened_everywhere():
        return None
    activation = ACTIVATIONS.get(activation_name(net))
    if activation is None or not bare(layers):
        return None
    return perceptron(rows, _parts(layers), activation, len(net.layers))


def piece_size(model: Model) -> int:
    """Return env steps that a thread computes in one pass."""
    nets = model.perceptrons
    if not nets or activation_name(nets[0]) not in ACTIVATIONS:
        return model.piece_size
    widest = max(max([net.size, *(weight.shape[1] for weight, _ in _parts(net.layers))]) for net in nets)
    return max(PIECE_FLOATS // widest, model.piece_size)


def may_sort(model: Model, minibatch_size: int, threads: int) -> bool:
    """Return whether a network is faster where rows resemble their neighbours, and has so few inputs that they may."""
    return minibatch_size >= MIN_CELLS * CELL * threads and any(
        _piecewise(net) and _parts(net.layers)[0][0].shape[1] <= MOST_INPUTS for net in model.perceptrons
    )


def order(policy: Policy, rollout: Rollout, shares: int) -> Tensor | None:
    """Return an order `[T * N]` of env steps in which neighbours resemble each other, None if too little to gain from.

    Args:
        policy: One whose model is nothing but perceptrons.
        rollout: The horizon that will be learned from.
        shares: In how many parts, one for each thread, the order will be cut; they should be equally hard.
    """
    rows = policy.inputs(rollout.block(0, rollout.horizon * rollout.num_envs))[0]
    found = by_similarity(rows, shares)
    rows = rows.index_select(0, found)
    return found if any(_gains(net, rows) for net in policy.model.perceptrons) else None


def _activation(net: MLP) -> Activation | None:
    """Return a perceptron's activation, None where it is computed layer by layer."""
    return ACTIVATIONS.get(activation_name(net)) if bare(net.layers) else None


def _piecewise(net: MLP) -> bool:
    activation = _activation(net)
    return activation is not None and suits(_parts(net.layers), activation)


def _gains(net: MLP, rows: Tensor) -> bool:
    activation = _activation(net)
    return activation is not None and Piecewise.gains(rows, _parts(net.layers), activation)


def _parts(layers: Any) -> list[Layer]:
    """Return weight and bias of each layer."""
    return [(layer.weight, layer.bias) for layer in layers]


def activation_name(net: MLP) -> str:
    """Return the name of a perceptron's activation; empty if another was put in its place, or somebody listens."""
    own = type(net.activation) is NAMED.get(net.activation_name) and not _changed(net.activation)
    return net.activation_name if own else ""


def bare(layers: Any) -> bool:
    """Return whether layers do nothing but multiply and add: none was replaced, and nobody listens to one."""
    return len(layers) > 0 and all(
        type(layer) is nn.Linear and getattr(layer, "bias", None) is not None and not _changed(layer)
        for layer in layers
    )


def _changed(module: nn.Module) -> bool:
    """Return whether somebody listens to a module or has put another function in the place of its own."""
    return "forward" in vars(module) or any(getattr(module, name) for name in LISTENERS)


def listened_everywhere() -> bool:
    """Return whether somebody listens to all modules there are."""
    return bool(torch.nn.modules.module._has_any_global_hook())


def _transformed() -> bool:
    """Return whether torch watches the operations in order to replace them: mixed precision, Inductor, torch.func."""
    return (
        torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )
