"""A causal transformer over a window of observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from rl8.checks import check_range
from rl8.models.base import Model, Output
from rl8.models.views import split_window, window_of
from rl8.nn import FeatureHead, TransformerBlock, ValueHead
from rl8.nn.heads import POLICY_GAIN, VALUE_GAIN
from rl8.nn.images import Sight, encoder_of
from rl8.specs import Nested, Spec


class TransformerModel(Model):
    """Attends to the last `window` observations; the newest step's vector feeds both heads.

    Args:
        observation_spec: The environment's, of any kind.
        action_spec: The environment's.
        feature_shapes: What the distribution asks for.
        window: Number of last observations, W.
        size: Length of each step's vector.
        images: How images become vectors; see `RecurrentModel`.
        layout: Where an image's channels are: `first`, `last`, or `auto`, the smaller of both dimensions.
        num_heads: Attention heads, a divisor of `size`.
        num_layers: Transformer blocks.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions (before squashing), > 0; None is 4.5e-5.
        max_std: Largest one; None is 148.
        policy_gain: Gain of the orthogonal weights of the policy's last layer.
        value_gain: That of the value's.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        window: int = 8,
        size: int = 64,
        images: str | Sequence[Sequence[int]] | None = None,
        layout: str = "auto",
        num_heads: int = 4,
        num_layers: int = 2,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
        policy_gain: float = POLICY_GAIN,
        value_gain: float = VALUE_GAIN,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.window", window, 1, integer=True)
        check_range("model.size", size, 1, integer=True)
        check_range("model.num_layers", num_layers, 1, integer=True)
        self.windows = window_of(observation_spec, window)
        self.encoder = encoder_of(observation_spec, images, layout)
        if isinstance(self.encoder, Sight):
            self.piece_size = min(self.piece_size, max(1, self.encoder.piece_size // window))
        self.embed = nn.Linear(self.encoder.size, size)
        # Counted from the newest step, so that a window that is still filling up looks the same.
        self.position = nn.Parameter(0.02 * torch.randn(window, size))
        self.blocks = nn.ModuleList([TransformerBlock(size, num_heads) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(size)
        self.policy_head = FeatureHead(
            size,
            feature_shapes,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
            gain=policy_gain,
        )
        self.value_head = ValueHead(size, value_gain)

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features and values `[L, B, ...]` for windows `[L, B, W, ...]`."""
        window, mask = split_window(obs, self.observation_spec)
        batch, length = mask.shape[:-1], mask.shape[-1]
        steps = self.encoder(window)  # [L, B, W, D]
        hidden = self.embed(steps).reshape(-1, length, self.position.shape[1]) + self.position
        mask = mask.reshape(-1, length)
        for block in self.blocks:
            hidden = block(hidden, mask)
        newest = self.norm(hidden[:, -1]).reshape(*batch, -1)
        return Output(self.policy_head(newest), self.value_head(newest))
