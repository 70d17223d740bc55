"""Feedforward networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.models.base import Model, Output
from rl8.models.views import split_window, window_of
from rl8.nn import MLP, Encoder, FeatureHead, ValueHead
from rl8.specs import Nested, Spec


class MLPModel(Model):
    """Two separate perceptrons, one for the policy and one for the value.

    Args:
        observation_spec: The environment's, of any kind.
        action_spec: The environment's.
        feature_shapes: What the distribution asks for.
        hiddens: Widths of the hidden layers of both networks.
        activation: One of `rl8.nn.ACTIVATIONS`.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        window: Number of last observations that are looked at, joined to one vector; 1 looks at the present one.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        hiddens: Sequence[int] = (256, 256),
        activation: str = "relu",
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        window: int = 1,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.window", window, 1, integer=True)
        if window > 1:
            self.windows = window_of(observation_spec, window)
        self.encoder = Encoder(observation_spec)
        size = self.encoder.size if window == 1 else window * (self.encoder.size + 1)
        self.policy_net = MLP(size, hiddens, activation)
        self.policy_head = FeatureHead(
            self.policy_net.size, feature_shapes, log_std=log_std, state_dependent_std=state_dependent_std
        )
        self.value_net = MLP(size, hiddens, activation)
        self.value_head = ValueHead(self.value_net.size)

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features and values `[L, B, ...]` for observations `[L, B, ...]`."""
        inputs = self.inputs(obs)
        return Output(self._features(inputs), self._values(inputs))

    def act(self, obs: Nested, state: Nested | None = None) -> tuple[Mapping[str, Any], None]:
        """Return features only."""
        return self._features(self.inputs(obs)), None

    def value(self, obs: Nested) -> Tensor:
        """Return values only, `[L, B]`."""
        return self._values(self.inputs(obs))

    def inputs(self, obs: Nested) -> Tensor:
        """Return `[L, B, D]`: the encoded observation, or those of the window with their mask."""
        if not self.windows:
            vector: Tensor = self.encoder(obs)
            return vector
        window, mask = split_window(obs, self.observation_spec)
        steps = torch.cat([self.encoder(window) * mask.unsqueeze(-1), mask.unsqueeze(-1)], dim=-1)
        return steps.flatten(-2)

    @property
    def perceptrons(self) -> list[MLP]:
        """The networks, unless a subclass has replaced them by something else."""
        nets: list[nn.Module] = [self.policy_net, self.value_net]
        return [net for net in nets if isinstance(net, MLP)]

    def _features(self, inputs: Tensor) -> dict[str, Any]:
        return self.policy_head.features(self.policy_net(inputs, self.policy_head.linear))

    def _values(self, inputs: Tensor) -> Tensor:
        return self.value_head.values(self.value_net(inputs, self.value_head.linear))
