"""Convolutional networks for images, alone or beside other observations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rl8.checks import check_range
from rl8.data import OBS
from rl8.models.base import Model, Output
from rl8.nn import FeatureHead, ValueHead
from rl8.nn.heads import POLICY_GAIN, VALUE_GAIN
from rl8.nn.images import IMPALA, NATURE, ImpalaNet, Look, NatureNet, Sight, check_seen
from rl8.nn.mlp import linear
from rl8.specs import Nested, Spec


class ImageModel(Model):
    """Base of models that look at images: one hidden layer of them and of all else feeds both heads.

    An image is an observation of three dimensions, or bytes (uint8) of two. A rollout stores it as it comes, each frame
    once: bytes stay bytes there and in a minibatch, and become numbers in [0, 1] here. With `window` W the last W
    frames of an episode are looked at, as W times the channels; frames before its first are zero.

    Args:
        observation_spec: The environment's: an image, or a composite with one or more.
        action_spec: The environment's.
        look: Makes the network that looks at an image; see `Sight`.
        feature_shapes: What the distribution asks for.
        size: Width of the hidden layer.
        layout: Where an image's channels are: `first`, `last`, or `auto`, the smaller of both dimensions.
        window: Number of last frames that are looked at.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions; None for `exp(LOG_STD_MIN)`.
        max_std: Largest one; None for `exp(LOG_STD_MAX)`.
        policy_gain: Gain of the orthogonal weights of the policy's last layer.
        value_gain: That of the value's.

    Raises:
        ValueError: If there is no image, or an option does not fit it.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        look: Look,
        *,
        feature_shapes: Mapping[str, Any],
        size: int,
        layout: str = "auto",
        window: int = 1,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
        policy_gain: float = POLICY_GAIN,
        value_gain: float = VALUE_GAIN,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.size", size, 1, integer=True)
        check_range("model.window", window, 1, integer=True)
        check_seen(observation_spec, type(self).__name__, "model=mlp, or model=lstm with algo=recurrent")
        self.sight = Sight(observation_spec, look, layout=layout, window=window)
        if window > 1:
            if nested := [path for path in self.sight.paths if len(path) > 1]:
                raise ValueError(
                    f"model.window={window} can't look back at the image {'.'.join(nested[0])}: it lies in another "
                    "observation. Accepted: 1, or images that are entries of the observation themselves."
                )
            self.windows = {path[0] if path else OBS: window for path in self.sight.paths}
        self.piece_size = self.sight.piece_size
        self.hidden = linear(self.sight.size, size, math.sqrt(2))
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
        """Return features and values `[L, B, ...]` for observations `[L, B, ...]`."""
        hidden = self.hidden(self.sight(obs)).relu()
        return Output(self.policy_head(hidden), self.value_head(hidden))


class CNNModel(ImageModel):
    """Three convolutions and a hidden layer of 512: the network of Mnih et al. 2015.

    For images of at least 36 x 36; smaller ones need smaller `filters`, e.g. `[[16, 3, 1]]`.

    Args:
        observation_spec: As `ImageModel`'s, like all that is not named here.
        action_spec: The environment's.
        feature_shapes: What the distribution asks for.
        filters: Channels, kernel and stride of each convolution.
        size: Width of the hidden layer.
        layout: `auto`, `first` or `last`: where an image's channels are.
        window: Number of last frames that are looked at.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions; None for `exp(LOG_STD_MIN)`.
        max_std: Largest one; None for `exp(LOG_STD_MAX)`.
        policy_gain: Gain of the orthogonal weights of the policy's last layer.
        value_gain: That of the value's.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        filters: Sequence[Sequence[int]] = NATURE,
        size: int = 512,
        layout: str = "auto",
        window: int = 1,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
        policy_gain: float = POLICY_GAIN,
        value_gain: float = VALUE_GAIN,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            partial(NatureNet, filters=filters),
            feature_shapes=feature_shapes,
            size=size,
            layout=layout,
            window=window,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
            policy_gain=policy_gain,
            value_gain=value_gain,
        )


class ImpalaModel(ImageModel):
    """Fifteen convolutions with residual connections and a hidden layer of 256: the network of Espeholt et al. 2018.

    For images of any size.

    Args:
        observation_spec: As `ImageModel`'s, like all that is not named here.
        action_spec: The environment's.
        feature_shapes: What the distribution asks for.
        channels: Of each section, which halves the image.
        size: Width of the hidden layer.
        layout: `auto`, `first` or `last`: where an image's channels are.
        window: Number of last frames that are looked at.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions; None for `exp(LOG_STD_MIN)`.
        max_std: Largest one; None for `exp(LOG_STD_MAX)`.
        policy_gain: Gain of the orthogonal weights of the policy's last layer.
        value_gain: That of the value's.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        *,
        feature_shapes: Mapping[str, Any],
        channels: Sequence[int] = IMPALA,
        size: int = 256,
        layout: str = "auto",
        window: int = 1,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
        policy_gain: float = POLICY_GAIN,
        value_gain: float = VALUE_GAIN,
    ) -> None:
        super().__init__(
            observation_spec,
            action_spec,
            partial(ImpalaNet, channels=channels),
            feature_shapes=feature_shapes,
            size=size,
            layout=layout,
            window=window,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
            policy_gain=policy_gain,
            value_gain=value_gain,
        )
