"""Weights in the type in which mixed precision computes, for as long as they stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

# Layers of which mixed precision casts every weight at each call.
CAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def cast_once(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Let a model's layers have weights in `dtype` in the block, where nothing is learned: the same results.

    Args:
        model: Computes in the block under autocast to `dtype`.
        dtype: None leaves the model as it is.
    """
    kept: list[tuple[nn.Module, dict[str, nn.Parameter | None]]] = []
    if dtype is not None:
        kept = [(module, dict(module._parameters)) for module in model.modules() if type(module) in CAST]
    try:
        for module, weights in kept:
            for name, weight in weights.items():
                if weight is not None:
                    module._parameters[name] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
        yield
    finally:
        for module, weights in kept:
            module._parameters.update(weights)
