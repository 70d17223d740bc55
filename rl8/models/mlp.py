"""Feedforward networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.data import ACTION_MASK
from rl8.models.base import Model, Output
from rl8.models.groups import entries, left_out
from rl8.models.views import split_window, window_of
from rl8.nn import MLP, Encoder, FeatureHead, ValueHead
from rl8.nn.heads import POLICY_GAIN, VALUE_GAIN
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
        policy_obs: Entries of a Composite observation that the policy's network sees; None shows it all. The others
            are for the value alone: a trained policy acts, and is exported, without them. Source: Pinto et al. 2017,
            arXiv:1710.06542 (asymmetric actor and critic).
        value_obs: Entries that the value's network sees; None shows it all.
        min_std: Least standard deviation of continuous actions (before squashing), > 0; None is 4.5e-5.
        max_std: Largest one; None is 148.
        hidden_gain: Gain of the hidden layers' orthogonal weights (Saxe et al. 2014, arXiv:1312.6120); None is sqrt(2)
            for relu and 1 for others. CleanRL and SB3 take sqrt(2) for tanh too.
        policy_gain: That of the last layer of the policy.
        value_gain: That of the last layer of the value; CleanRL and SB3 take 1.
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
        policy_obs: Sequence[str] | None = None,
        value_obs: Sequence[str] | None = None,
        min_std: float | None = None,
        max_std: float | None = None,
        hidden_gain: float | None = None,
        policy_gain: float = POLICY_GAIN,
        value_gain: float = VALUE_GAIN,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.window", window, 1, integer=True)
        if window > 1:
            self.windows = window_of(observation_spec, window)
        check_range("model.hidden_gain", hidden_gain, 0, low_open=True, optional=True)
        self.encoder = Encoder(entries(observation_spec, policy_obs, "model.policy_obs"))
        self.value_encoder: Encoder | None = None  # of its own, where the two see different things
        if policy_obs is not None or value_obs is not None:
            if window > 1:
                raise ValueError(
                    f"model.window={window} looks at all entries of an observation. Accepted with model.policy_obs or "
                    "model.value_obs: 1. Try model.window=1."
                )
            self.value_encoder = Encoder(entries(observation_spec, value_obs, "model.value_obs"))
            self.critic_only = tuple(name for name in left_out(observation_spec, policy_obs) if name != ACTION_MASK)
        size, value_size = self.encoder.size, (self.value_encoder or self.encoder).size
        if window > 1:
            size = value_size = window * (size + 1)
        self.policy_net = MLP(size, hiddens, activation, hidden_gain)
        self.policy_head = FeatureHead(
            self.policy_net.size,
            feature_shapes,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
            gain=policy_gain,
        )
        self.value_net = MLP(value_size, hiddens, activation, hidden_gain)
        self.value_head = ValueHead(self.value_net.size, value_gain)

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features and values `[L, B, ...]` for observations `[L, B, ...]`."""
        inputs = self.inputs(obs)
        return Output(
            self._features(inputs), self._values(inputs if self.value_encoder is None else self.value_encoder(obs))
        )

    def act(self, obs: Nested, state: Nested | None = None) -> tuple[Mapping[str, Any], None]:
        """Return features only."""
        return self._features(self.inputs(obs)), None

    def value(self, obs: Nested) -> Tensor:
        """Return values only, `[L, B]`."""
        return self._values(self.inputs(obs) if self.value_encoder is None else self.value_encoder(obs))

    def inputs(self, obs: Nested) -> Tensor:
        """Return `[L, B, D]`: what the policy sees, encoded, or the observations of the window with their mask."""
        if not self.windows:
            vector: Tensor = self.encoder(obs)
            return vector
        window, mask = split_window(obs, self.observation_spec)
        steps = torch.cat([self.encoder(window) * mask.unsqueeze(-1), mask.unsqueeze(-1)], dim=-1)
        return steps.flatten(-2)

    @property
    def perceptrons(self) -> list[MLP]:
        """The networks, unless a subclass has replaced them by something else, or they see different things."""
        nets: list[nn.Module] = [] if self.value_encoder is not None else [self.policy_net, self.value_net]
        return [net for net in nets if isinstance(net, MLP)]

    def _features(self, inputs: Tensor) -> dict[str, Any]:
        return self.policy_head.features(self.policy_net(inputs, self.policy_head.linear))

    def _values(self, inputs: Tensor) -> Tensor:
        return self.value_head.values(self.value_net(inputs, self.value_head.linear))
