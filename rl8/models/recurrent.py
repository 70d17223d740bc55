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

    All L steps of a sequence go through the recurrent network in one call.

    Args:
        observation_spec: The environment's, of any kind.
        action_spec: The environment's.
        feature_shapes: What the distribution asks for.
        hidden_size: Width of the recurrent layers.
        num_layers: Recurrent layers, stacked.
        hiddens: Widths of the perceptron before the recurrent network; empty feeds observations directly.
        activation: One of `rl8.nn.ACTIVATIONS`.
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
        self.policy_head = FeatureHead(
            hidden_size,
            feature_shapes,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
        )
        self.value_head = ValueHead(hidden_size)
        self.state_spec = Composite({key: Unbounded((num_layers, hidden_size)) for key in self.state_keys})

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features, values `[L, B, ...]` and the state `[B, layers, size]` after the last step."""
        assert state is not None
        assert not isinstance(state, Tensor)
        start = tuple(state[key].transpose(0, 1).contiguous() for key in self.state_keys)  # [layers, B, size]
        inputs = self.trunk(self.encoder(obs))
        # In float32 whatever the compute type: cuDNN's autocast knows fp16 alone, in which gradients of a mean vanish.
        mixed = torch.is_autocast_enabled(inputs.device.type)
        with torch.autocast(inputs.device.type, enabled=False) if mixed else nullcontext():
            hidden, end = self.rnn(inputs.float(), start if len(start) > 1 else start[0])
        return Output(self.policy_head(hidden), self._values(hidden), self._state(end, inputs.shape[1]))

    def _values(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.value_head(hidden)
        return values

    def _state(self, end: Any, batch: int) -> TensorDict:
        ends = end if isinstance(end, tuple) else (end,)
        # float32 whatever the compute type: rounding would add up over steps.
        tensors = {key: part.transpose(0, 1).float() for key, part in zip(self.state_keys, ends, strict=True)}
        return TensorDict(tensors, batch_size=[batch])


class LSTMModel(RecurrentModel):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    rnn_cls = nn.LSTM
    state_keys = ("hidden", "cell")


class GRUModel(RecurrentModel):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078)."""

    rnn_cls = nn.GRU
    state_keys = ("hidden",)
