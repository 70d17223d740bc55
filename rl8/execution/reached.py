"""Which tensors a piece of work may read and write, so that a replay of it can be compared with the eager result."""

from __future__ import annotations

from typing import Any

import torch

from rl8.env import Env
from rl8.rollout.bootstrap import FinalRows
from rl8.rollout.containers import Tensors, named
from rl8.rollout.env_metrics import EnvMetrics


def reached(**parts: Any) -> Tensors:
    """Return the tensors of some parts by name.

    Args:
        **parts: Tensors; modules, of which weights that are trained, their gradients and buffers count; optimizers and
            loss scalers, whose state counts; environments, whose state counts; other objects with their attributes.
    """
    return named({name: _inside(part) for name, part in parts.items()})


def _inside(part: Any) -> Any:
    """Return what counts of a part, as tensors in nested containers."""
    if isinstance(part, torch.Tensor):
        return part
    if isinstance(part, torch.nn.Module):
        weights = {name: weight for name, weight in part.named_parameters() if weight.requires_grad}
        gradient = {name: weight.grad for name, weight in weights.items()}
        return {"weights": weights, "gradient": gradient, "buffers": dict(part.named_buffers())}
    if isinstance(part, torch.optim.Optimizer):
        return list(part.state.values())
    if isinstance(part, torch.amp.GradScaler):
        return {name: vars(part).get(name) for name in ("_scale", "_growth_tracker")}
    if isinstance(part, Env):
        return part.state
    if isinstance(part, (EnvMetrics, FinalRows)):
        return part.tensors()
    return {
        name: _inside(value) if isinstance(value, (EnvMetrics, FinalRows)) else value
        for name, value in vars(part).items()
    }
