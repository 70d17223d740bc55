"""LSTM and GRU networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.models.base import Model, Output
from rl8.nn import MLP, Encoder, FeatureHead, ValueHead
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
        hiddens: Widths of the perceptron before the recurrent network; empty feeds observations directly.
        head_hiddens: Widths of a perceptron of each head, after the recurrent network; empty is linear.
        separate_value: Whether the value has a recurrent network of its own.
        activation: Of the perceptrons, one of `rl8.nn.ACTIVATIONS`.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions (before squashing), > 0; None is 4.5e-5.
        max_std: Largest one; None is 148.
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
        hiddens: Sequence[int] = (),
        head_hiddens: Sequence[int] = (),
        separate_value: bool = False,
        activation: str = "relu",
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.hidden_size", hidden_size, 1, integer=True)
        check_range("model.num_layers", num_layers, 1, integer=True)
        self.encoder = Encoder(observation_spec)
        self.trunk = MLP(self.encoder.size, hiddens, activation)
        self.rnn = self.rnn_cls(self.trunk.size, hidden_size, num_layers)
        self.value_rnn = self.rnn_cls(self.trunk.size, hidden_size, num_layers) if separate_value else None
        self.policy_net = MLP(hidden_size, head_hiddens, activation, name="model.head_hiddens")
        self.value_net = MLP(hidden_size, head_hiddens, activation, name="model.head_hiddens")
        self.policy_head = FeatureHead(
            self.policy_net.size,
            feature_shapes,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
        )
        self.value_head = ValueHead(self.value_net.size)
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
            hidden_of_value, end_of_value = self._remember(self.value_rnn, inputs, state, "value_")
            end |= end_of_value
        values: Tensor = self.value_head(self.value_net(hidden_of_value))
        features = self.policy_head(self.policy_net(hidden))
        return Output(features, values, TensorDict(end, batch_size=[inputs.shape[1]]))

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
