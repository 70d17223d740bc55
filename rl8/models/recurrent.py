"""LSTM and GRU networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.data import ACTION_MASK
from rl8.kinds import as_text
from rl8.models.base import Model, Output
from rl8.models.groups import entries, left_out
from rl8.nn import MLP, FeatureHead, ValueHead
from rl8.nn.heads import POLICY_GAIN, VALUE_GAIN
from rl8.nn.images import Sight, encoder_of
from rl8.specs import Composite, Nested, Spec, Unbounded


class RecurrentModel(Model):
    """A perceptron, a recurrent network over time, and two heads on its output.

    All L steps of a sequence go through the recurrent network in one call. With `separate_value` the value has a
    recurrent network of its own, beside the policy's: the errors of one don't disturb what the other remembers.

    Args:
        observation_spec: The environment's, of any kind.
        action_spec: The environment's.
        feature_shapes: What the distribution asks for.
        hidden_size: Width of the recurrent layers.
        num_layers: Recurrent layers, stacked.
        images: How images become vectors: `cnn` (Mnih et al. 2015, at least 36 x 36), `impala` (Espeholt et al. 2018,
            any size), or filters, `[[channels, kernel, stride], ...]`; None flattens them.
        layout: Where an image's channels are: `first`, `last`, or `auto`, the smaller of both dimensions.
        hiddens: Widths of the perceptron before the recurrent network; empty feeds observations directly.
        head_hiddens: Widths of a perceptron of each head, after the recurrent network; empty is linear.
        separate_value: Whether the value has a recurrent network of its own.
        policy_obs: Entries of a Composite observation that the policy sees, where the value has a network of its own;
            see `MLPModel`.
        value_obs: Those that the value sees.
        activation: Of the perceptrons, one of `rl8.nn.ACTIVATIONS`.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions (before squashing), > 0; None is 4.5e-5.
        max_std: Largest one; None is 148.
        hidden_gain: Gain of the orthogonal weights of the perceptrons' layers; None is sqrt(2) for relu and 1 for
            others. SB3 takes sqrt(2) for tanh too.
        policy_gain: That of the policy's last layer.
        value_gain: That of the value's; SB3 takes 1.
    """

    rnn_cls: type[nn.LSTM] | type[nn.GRU]
    state_keys: tuple[str, ...]

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        hidden_size: int = 128,
        num_layers: int = 1,
        images: str | Sequence[Sequence[int]] | None = None,
        layout: str = "auto",
        hiddens: Sequence[int] = (),
        head_hiddens: Sequence[int] = (),
        separate_value: bool = False,
        policy_obs: Sequence[str] | None = None,
        value_obs: Sequence[str] | None = None,
        activation: str = "relu",
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
        hidden_gain: float | None = None,
        policy_gain: float = POLICY_GAIN,
        value_gain: float = VALUE_GAIN,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.hidden_size", hidden_size, 1, integer=True)
        check_range("model.num_layers", num_layers, 1, integer=True)
        check_range("model.hidden_gain", hidden_gain, 0, low_open=True, optional=True)
        self.encoder = encoder_of(
            observation_spec, images, layout, seen=entries(observation_spec, policy_obs, "model.policy_obs")
        )
        self.trunk = MLP(self.encoder.size, hiddens, activation, hidden_gain)
        self.rnn = self.rnn_cls(self.trunk.size, hidden_size, num_layers)
        self.value_inputs: nn.Sequential | None = None  # where the two see different things
        size = self.trunk.size
        for name, seen in (("policy_obs", policy_obs), ("value_obs", value_obs)):
            if seen is not None and not separate_value:
                raise ValueError(
                    f"model.{name}={as_text(seen)}: policy and value share one recurrent network, which sees the same "
                    "for both. Accepted: null, or model.separate_value=true. Try model.separate_value=true."
                )
        if policy_obs is not None or value_obs is not None:
            encoder = encoder_of(
                observation_spec, images, layout, seen=entries(observation_spec, value_obs, "model.value_obs")
            )
            trunk = MLP(encoder.size, hiddens, activation, hidden_gain)
            self.value_inputs, size = nn.Sequential(encoder, trunk), trunk.size
            self.critic_only = tuple(name for name in left_out(observation_spec, policy_obs) if name != ACTION_MASK)
        self.value_rnn = self.rnn_cls(size, hidden_size, num_layers) if separate_value else None
        if isinstance(self.encoder, Sight):
            self.piece_size = min(self.piece_size, self.encoder.piece_size)
        self.policy_net = MLP(hidden_size, head_hiddens, activation, hidden_gain, name="model.head_hiddens")
        self.value_net = MLP(hidden_size, head_hiddens, activation, hidden_gain, name="model.head_hiddens")
        self.policy_head = FeatureHead(
            self.policy_net.size,
            feature_shapes,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
            gain=policy_gain,
        )
        self.value_head = ValueHead(self.value_net.size, value_gain)
        keys = (*self.state_keys, *(f"value_{key}" for key in self.state_keys if separate_value))
        self.state_spec = Composite({key: Unbounded((num_layers, hidden_size)) for key in keys})

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features, values `[L, B, ...]` and the state `[B, layers, size]` after the last step."""
        assert state is not None
        assert not isinstance(state, Tensor)
        inputs = self.trunk(self.encoder(obs))
        hidden, end = self._remember(self.rnn, inputs, state, "")
        hidden_of_value = hidden
        if self.value_rnn is not None:
            value_inputs = inputs if self.value_inputs is None else self.value_inputs(obs)
            hidden_of_value, end_of_value = self._remember(self.value_rnn, value_inputs, state, "value_")
            end |= end_of_value
        values: Tensor = self.value_head(self.value_net(hidden_of_value))
        return Output(self._features(hidden), values, TensorDict(end, batch_size=[inputs.shape[1]]))

    def act(self, obs: Nested, state: Nested | None = None) -> tuple[Mapping[str, Any], Nested]:
        """Return features and the state, in which what the value remembers is as it was."""
        assert state is not None
        assert not isinstance(state, Tensor)
        hidden, end = self._remember(self.rnn, self.trunk(self.encoder(obs)), state, "")
        return self._features(hidden), TensorDict({**state, **end}, batch_size=state.batch_size)

    def _features(self, hidden: Tensor) -> dict[str, Any]:
        features: dict[str, Any] = self.policy_head(self.policy_net(hidden))
        return features

    def _remember(
        self, rnn: nn.LSTM | nn.GRU, inputs: Tensor, state: Mapping[str, Tensor], prefix: str
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return what a recurrent network makes of a sequence, `[L, B, hidden_size]`, and its state after it."""
        keys = [prefix + key for key in self.state_keys]
        start = tuple(state[key].transpose(0, 1).contiguous() for key in keys)  # [layers, B, size]
        # In float32 whatever the compute type: cuDNN's autocast knows fp16 alone, in which gradients of a mean vanish.
        mixed = torch.is_autocast_enabled(inputs.device.type)
        with torch.autocast(inputs.device.type, enabled=False) if mixed else nullcontext():
            hidden, end = rnn(inputs.float(), start if len(start) > 1 else start[0])
        ends = end if isinstance(end, tuple) else (end,)
        # float32 whatever the compute type: rounding would add up over steps.
        return hidden, {key: part.transpose(0, 1).float() for key, part in zip(keys, ends, strict=True)}


class LSTMModel(RecurrentModel):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    rnn_cls = nn.LSTM
    state_keys = ("hidden", "cell")


class GRUModel(RecurrentModel):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078)."""

    rnn_cls = nn.GRU
    state_keys = ("hidden",)
