"""Last layers: what a distribution needs, and the value."""

from __future__ import annotations

import math
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
        min_std: Least `exp(log_std)`, > 0; None leaves that to the distribution.
        max_std: Largest one, above `min_std`.
        gain: Of the orthogonal weights.

    Attributes:
        limits: Least and largest `log_std`, None where nothing but the distribution limits it.
    """

    def __init__(
        self,
        in_features: int,
        feature_shapes: Mapping[str, Any],
        *,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
        gain: float = POLICY_GAIN,
    ) -> None:
        super().__init__()
        hint = "model.log_std=0"
        check_range("model.log_std", log_std, LOG_STD_MIN, LOG_STD_MAX, hint=hint)
        check_range("model.policy_gain", gain, 0, low_open=True)
        self.limits = _limits(log_std, min_std, max_std)
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
        self.linear = linear(in_features, sum(self.sizes), gain)
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
            part = part if len(shape) == 1 else part.reshape(*batch, *shape)
            _put(features, path, self._limited(part) if path[-1] == "log_std" else part)
        for path, value in zip(self.own, self.log_stds if self.own else (), strict=True):
            _put(features, path, self._limited(value).expand(*batch, *value.shape))
        return features

    def _limited(self, log_std: Tensor) -> Tensor:
        """Return log standard deviations inside the limits, with the gradient of the identity: none gets stuck."""
        if self.limits is None:
            return log_std
        return log_std.detach().clamp(*self.limits) + (log_std - log_std.detach())


class ValueHead(nn.Module):
    """Maps a vector to one value."""

    def __init__(self, in_features: int, gain: float = VALUE_GAIN) -> None:
        super().__init__()
        check_range("model.value_gain", gain, 0, low_open=True)
        self.linear = linear(in_features, 1, gain)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `[L, B]` for inputs `[L, B, in_features]`."""
        return self.values(self.linear(inputs))

    def values(self, outputs: Tensor) -> Tensor:
        """Return `[L, B]` for what `linear` gave, `[L, B, 1]`."""
        return outputs.squeeze(-1)


def _limits(log_std: float, min_std: float | None, max_std: float | None) -> tuple[float, float] | None:
    """Return the least and the largest log standard deviation.

    Raises:
        ValueError: If a limit is none, or the first one lies outside.
    """
    if min_std is None and max_std is None:
        return None
    least, most = math.exp(LOG_STD_MIN), math.exp(LOG_STD_MAX)
    check_range("model.min_std", min_std, least, most, optional=True, hint="model.min_std=0.05")
    check_range("model.max_std", max_std, min_std or least, most, optional=True, hint="model.max_std=2")
    limits = math.log(min_std or least), math.log(max_std or most)
    if not limits[0] <= log_std <= limits[1]:
        good = min(max(log_std, limits[0]), limits[1])
        raise ValueError(
            f"model.log_std={log_std:g} is a standard deviation of {math.exp(log_std):.3g}, outside model.min_std and "
            f"model.max_std. Accepted: a number in [{limits[0]:.4g}, {limits[1]:.4g}]. Try model.log_std={good:.4g}."
        )
    return limits


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
