"""Three ways to remember price changes: a perceptron over a window, an LSTM, a transformer over a window.

All end alike. What a position is worth depends on the changes only, but what to do about it depends on being invested
too, so the last hidden layer sees both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.models import Model, Output
from rl8.nn import MLP, FeatureHead, TransformerBlock, ValueHead
from rl8.specs import Composite, Spec, Unbounded

NUM_POSITION = 2


def position(obs: TensorDict) -> Tensor:
    """Return what the policy knows of its own position, `[L, B, 2]`."""
    return torch.cat([obs["invested"], obs["log_change_since_buy"]], dim=-1)


class Heads(nn.Module):
    """Policy and value, each from a perceptron of its own over what was remembered and the position.

    Args:
        size: Length of the vector that was remembered.
        hiddens: Widths of the hidden layers of both perceptrons.
        feature_shapes: What the action distribution asks for.
    """

    def __init__(self, size: int, hiddens: Sequence[int], feature_shapes: Mapping[str, Any]) -> None:
        super().__init__()
        self.policy_net = MLP(size + NUM_POSITION, hiddens)
        self.policy_head = FeatureHead(self.policy_net.size, feature_shapes)
        self.value_net = MLP(size + NUM_POSITION, hiddens)
        self.value_head = ValueHead(self.value_net.size)

    def forward(self, memory: Tensor, obs: TensorDict) -> tuple[dict[str, Any], Tensor]:
        """Return features and values `[L, B, ...]` for `memory` `[L, B, size]`."""
        inputs = torch.cat([memory, position(obs)], dim=-1)
        return self.policy_head(self.policy_net(inputs)), self.value_head(self.value_net(inputs))


class WindowedMLP(Model):
    """Joins the last `window` changes to one vector.

    Args:
        observation_spec: Of `AlgoTrading`.
        action_spec: Of `AlgoTrading`.
        feature_shapes: What the action distribution asks for.
        window: Number of last changes that are looked at.
        hiddens: Widths of the hidden layers of policy and value.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        window: int = 8,
        hiddens: Sequence[int] = (128, 128),
    ) -> None:
        super().__init__(observation_spec, action_spec)
        self.windows = {"log_change": window}
        self.heads = Heads(2 * window, hiddens, feature_shapes)

    def forward(self, obs: TensorDict, state: TensorDict | None = None) -> Output:
        """Return features and values `[L, B, ...]`."""
        mask = obs["log_change_mask"].to(torch.float32)  # [L, B, W]
        memory = torch.cat([obs["log_change"].squeeze(-1), mask], dim=-1)
        return Output(*self.heads(memory, obs))


class TradingLSTM(Model):
    """Reads one change per step and keeps what matters in the state of an LSTM.

    Args:
        observation_spec: Of `AlgoTrading`.
        action_spec: Of `AlgoTrading`.
        feature_shapes: What the action distribution asks for.
        hidden_size: Length of the LSTM's state.
        hiddens: Widths of the hidden layers of policy and value.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        hidden_size: int = 64,
        hiddens: Sequence[int] = (64,),
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.hidden_size", hidden_size, 1, integer=True)
        self.lstm = nn.LSTM(1, hidden_size)
        self.heads = Heads(hidden_size, hiddens, feature_shapes)
        self.state_spec = Composite({"hidden": Unbounded(hidden_size), "cell": Unbounded(hidden_size)})

    def forward(self, obs: TensorDict, state: TensorDict | None = None) -> Output:
        """Return features and values `[L, B, ...]`, and the state `[B, hidden_size]` after the last step."""
        assert state is not None
        start = (state["hidden"].unsqueeze(0), state["cell"].unsqueeze(0))  # [1, B, H]: one layer
        memory, (hidden, cell) = self.lstm(obs["log_change"], start)
        end = TensorDict({"hidden": hidden[0], "cell": cell[0]}, [hidden.shape[1]])
        return Output(*self.heads(memory, obs), end)


class TradingTransformer(Model):
    """Attends to the last `window` changes; the newest one's vector is what was remembered.

    Args:
        observation_spec: Of `AlgoTrading`.
        action_spec: Of `AlgoTrading`.
        feature_shapes: What the action distribution asks for.
        window: Number of last changes that are looked at.
        size: Length of each change's vector.
        num_heads: Attention heads, a divisor of `size`.
        num_layers: Transformer blocks.
        hiddens: Widths of the hidden layers of policy and value.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        window: int = 8,
        size: int = 32,
        num_heads: int = 2,
        num_layers: int = 1,
        hiddens: Sequence[int] = (64,),
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.num_layers", num_layers, 1, integer=True)
        self.windows = {"log_change": window}
        self.embed = nn.Linear(1, size)
        # As large as the embedded changes: with 0.02 it learns more slowly.
        self.place = nn.Parameter(0.5 * torch.randn(window, size))
        self.blocks = nn.ModuleList([TransformerBlock(size, num_heads, expansion=2) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(size)
        self.heads = Heads(size, hiddens, feature_shapes)

    def forward(self, obs: TensorDict, state: TensorDict | None = None) -> Output:
        """Return features and values `[L, B, ...]`."""
        mask = obs["log_change_mask"]  # [L, B, W]
        rows = mask.flatten(0, 1)
        hidden = self.embed(obs["log_change"]).flatten(0, 1) + self.place  # [L * B, W, size]
        for block in self.blocks:
            hidden = block(hidden, rows)
        memory = self.norm(hidden[:, -1]).unflatten(0, mask.shape[:2])
        return Output(*self.heads(memory, obs))
