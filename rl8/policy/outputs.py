"""What comes out of a model the first time: layout, kind, finite values and a way back to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from rl8.checks import source_file
from rl8.models import Model, Output
from rl8.specs import Spec


def check_built(model: Model) -> None:
    """Raise TypeError unless a model's constructor ran that of `Model`."""
    if "observation_spec" not in vars(model):
        not_built(type(model), "does not call super().__init__")


def not_built(cls: type[Model], fault: str, error: Exception | None = None) -> NoReturn:
    """Raise TypeError that says how a model's constructor begins."""
    raise TypeError(
        f"{cls.__name__}.__init__ in {source_file(cls)} {fault}. Write "
        "super().__init__(observation_spec, action_spec) first."
    ) from error


def check_output(
    model: Model, output: Any, shapes: Mapping[str, Any], n: int, *, mixed: bool, distribution: str, action_spec: Spec
) -> None:
    """Compare what comes out of a model for `n` observations of one step with what is needed.

    Args:
        model: What it came out of.
        output: What its `forward` returned, with gradients.
        shapes: The features that are needed, nested; see `Distribution.feature_shapes`.
        n: Observations.
        mixed: Whether it was computed in mixed precision.
        distribution: Name of the class that needs the features.
        action_spec: The environment's.

    Raises:
        TypeError: If it is no `Output`.
        ValueError: If something is missing, or has another shape or dtype, is not finite, or can't be learned from.
    """
    name = type(model).__name__
    paths = feature_paths(shapes)
    if not isinstance(output, Output):
        raise TypeError(
            f"{name}.forward returned a {type(output).__name__}. Return rl8.models.Output(features, values): "
            f"features a mapping with {', '.join('.'.join(path) for path, _ in paths)}, values [L, B]."
        )
    found: dict[str, Any] = {}
    for path, shape in paths:
        feature: Any = output.features
        for key in path:
            if key not in feature:
                raise ValueError(
                    f"{name} returned no feature {'.'.join(path)!r}, which {distribution} needs for {action_spec}. "
                    f"Return it with shape [L, B, {_text(shape)}]."
                )
            feature = feature[key]
        found[f"feature {'.'.join(path)!r}"] = feature
        if tuple(feature.shape) != (1, n, *shape):
            raise ValueError(
                f"{name} returned feature {'.'.join(path)!r} with shape {tuple(feature.shape)}, expected "
                f"[L, B, {_text(shape)}] = {(1, n, *shape)} for {action_spec}."
            )
    if tuple(output.values.shape) != (1, n):
        raise ValueError(
            f"{name} returned values with shape {tuple(output.values.shape)}, expected [L, B] = (1, {n}). "
            "Drop the last dimension, e.g. value.squeeze(-1)."
        )
    for what, tensor in {**found, "values": output.values}.items():
        _check_numbers(name, what, tensor, mixed=mixed)
    _check_learns(model, list(found.values()), output.values)


def _check_numbers(name: str, what: str, tensor: Tensor, *, mixed: bool) -> None:
    if not (tensor.is_floating_point() if mixed else tensor.dtype == torch.float32):
        raise ValueError(
            f"{name} returned {what} in {tensor.dtype}, expected torch.float32. Convert the model, self.float(), or "
            "what it returns, .float()."
        )
    # A model may forbid an action by -inf, so that only what no distribution can use is refused.
    if bool(tensor.isnan().any()) or bool(tensor.isposinf().any()):
        raise ValueError(
            f"{name} returned {what} that are infinite or NaN for random observations, before anything was learned. "
            "Look in its forward for a division by 0, a logarithm of 0 or weights that are not initialised."
        )


def _check_learns(model: Model, features: list[Tensor], values: Tensor) -> None:
    """Raise ValueError where outputs don't depend on weights; frozen weights and values of 0 are meant so."""
    weights = list(model.parameters())
    if not weights or not all(weight.requires_grad for weight in weights):
        return
    lost = [] if any(feature.requires_grad for feature in features) else ["features"]
    lost += ["values"] if not values.requires_grad and bool(values.any()) else []
    if lost:
        raise ValueError(
            f"{type(model).__name__}.forward returned {' and '.join(lost)} without a gradient, so that nothing would "
            "be learned from them. Look for .detach(), .data, .item() or torch.no_grad() in it, and remove it."
        )


def feature_paths(shapes: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], torch.Size]]:
    """Return the path and shape of each feature that a distribution asks for."""
    found: list[tuple[tuple[str, ...], torch.Size]] = []
    for key, shape in shapes.items():
        path = (*prefix, key)
        found += feature_paths(shape, path) if isinstance(shape, Mapping) else [(path, torch.Size(shape))]
    return found


def _text(shape: torch.Size) -> str:
    return ", ".join(str(size) for size in shape)
