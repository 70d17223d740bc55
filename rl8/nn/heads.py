"""Last layers: what a distribution needs, and the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.nn.mlp import linear

# Small enough that the first policy is nearly uniform (or nearly zero-mean), whatever the observation.
POLICY_GAIN = 0.01
VALUE_GAIN = 0.1
# Limits of a log standard deviation; an initial one beyond them would never learn.
LOG_STD_MIN: Final = -10.0
LOG_STD_MAX: Final = 5.0


class FeatureHead(nn.Module):
    """Maps a vector to the features that a distribution asks for.

    A feature named `log_std` is a parameter of its own, the same in every state, unless `state_dependent_std`.

    Args:
        in_features: Length of the input vector.
        feature_shapes: Shape by feature, nested for Composite actions; see `Distribution.feature_shapes`.
        log_std: Initial value of `log_std`, in log units of the action (before squashing).
        state_dependent_std: Whether `log_std` is computed from the input.
    """

    def __init__(
        self,
        in_features: int,
        feature_shapes: Mapping[str, Any],
        *,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
    ) -> None:
        super().__init__()
        hint = "model.log_std=0"
        check_range("model.log_std", log_std, LOG_STD_MIN, LOG_STD_MAX, hint=hint)
        self.computed: list[tuple[tuple[str, ...], torch.Size]] = []
        self.own: list[tuple[str, ...]] = []
        self.log_stds = nn.ParameterList()
        for path, shape in _flatten(feature_shapes):
            if path[-1] == "log_std" and not state_dependent_std:
                self.own.append(path)
                self.log_stds.append(nn.Parameter(torch.full(shape, float(log_std))))
            else:
                self.computed.append((path, shape))
        self.sizes = [shape.numel() for _, shape in self.computed]
        self.linear = linear(in_features, sum(self.sizes), POLICY_GAIN)
        if state_dependent_std:
            with torch.no_grad():
                for (path, _), bias in zip(self.computed, self.linear.bias.split(self.sizes), strict=True):
                    if path[-1] == "log_std":
                        bias.fill_(log_std)

    def forward(self, inputs: Tensor) -> dict[str, Any]:
        """Return features `[L, B, *shape]` for inputs `[L, B, in_features]`."""
        return self.features(self.linear(inputs))

    def features(self, outputs: Tensor) -> dict[str, Any]:
        """Return features `[L, B, *shape]` for what `linear` gave, `[L, B, out_features]`."""
        features: dict[str, Any] = {}
        batch = outputs.shape[:-1]
        parts = outputs.split(self.sizes, dim=-1) if len(self.sizes) > 1 else (outputs,)
        for (path, shape), part in zip(self.computed, parts, strict=True):
            _put(features, path, part if len(shape) == 1 else part.reshape(*batch, *shape))
        for path, value in zip(self.own, self.log_stds if self.own else (), strict=True):
            _put(features, path, value.expand(*batch, *value.shape))
        return features


class ValueHead(nn.Module):
    """Maps a vector to one value."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.linear = linear(in_features, 1, VALUE_GAIN)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `[L, B]` for inputs `[L, B, in_features]`."""
        return self.values(self.linear(inputs))

    def values(self, outputs: Tensor) -> Tensor:
        """Return `[L, B]` for what `linear` gave, `[L, B, 1]`."""
        return outputs.squeeze(-1)


def _flatten(shapes: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], torch.Size]]:
    found: list[tuple[tuple[str, ...], torch.Size]] = []
    for key, shape in shapes.items():
        path = (*prefix, key)
        found += _flatten(shape, path) if isinstance(shape, Mapping) else [(path, torch.Size(shape))]
    return found


def _put(features: dict[str, Any], path: tuple[str, ...], value: Tensor) -> None:
    for key in path[:-1]:
        features = features.setdefault(key, {})
    features[path[-1]] = value
