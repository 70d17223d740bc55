"""Convolutional networks for images, alone or beside other observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from rl8.checks import check_range
from rl8.data import ACTION_MASK, OBS
from rl8.models.base import Model, Output
from rl8.nn import Encoder, FeatureHead, ValueHead
from rl8.nn.images import IMPALA, NATURE, Frames, ImpalaNet, NatureNet, Shape, is_image
from rl8.nn.mlp import linear
from rl8.specs import Nested, Spec, leaves

PIECE_FLOATS: Final = 2**22  # that the layers of a piece may put out; 16 MB
MIN_PIECE: Final = 32  # env steps; with fewer, operations would cost more than what they compute


class ImageModel(Model):
    """Base of models that look at images: one hidden layer of them and of all else feeds both heads.

    An image is an observation of three dimensions, or bytes (uint8) of two. A rollout stores it as it comes, each frame
    once: bytes stay bytes there and in a minibatch, and become numbers in [0, 1] here. With `window` W the last W
    frames of an episode are looked at, as W times the channels; frames before its first are zero.

    Args:
        observation_spec: The environment's: an image, or a composite with one or more.
        action_spec: The environment's.
        network: Makes what looks at images `[M, *shape]`, returns `[M, size]`, and says its `size` and `floats`.
        feature_shapes: What the distribution asks for.
        size: Width of the hidden layer.
        layout: Where an image's channels are: `first`, `last`, or `auto`, the smaller of both dimensions.
        window: Number of last frames that are looked at.
        log_std: Initial log standard deviation of continuous actions.
        state_dependent_std: Whether the standard deviation is computed from the observation.
        min_std: Least standard deviation of continuous actions; None for `exp(LOG_STD_MIN)`.
        max_std: Largest one; None for `exp(LOG_STD_MAX)`.

    Raises:
        ValueError: If there is no image, or an option does not fit it.
    """

    def __init__(
        self,
        observation_spec: Spec,
        action_spec: Spec,
        network: Callable[[Shape], nn.Module],
        *,
        feature_shapes: Mapping[str, Any],
        size: int,
        layout: str = "auto",
        window: int = 1,
        log_std: float = 0.0,
        state_dependent_std: bool = False,
        min_std: float | None = None,
        max_std: float | None = None,
    ) -> None:
        super().__init__(observation_spec, action_spec)
        check_range("model.size", size, 1, integer=True)
        check_range("model.window", window, 1, integer=True)
        parts = {path: leaf for path, leaf in leaves(observation_spec) if ACTION_MASK not in path}
        self.paths = [path for path, leaf in parts.items() if is_image(leaf)]
        if not self.paths:
            raise ValueError(
                f"{type(self).__name__} finds no image in {observation_spec}. Accepted: an observation of three "
                "dimensions, or of two in torch.uint8. Try model=mlp."
            )
        if window > 1:
            if nested := [path for path in self.paths if len(path) > 1]:
                raise ValueError(
                    f"model.window={window} can't look back at the image {'.'.join(nested[0])}: it lies in another "
                    "observation. Accepted: 1, or images that are entries of the observation themselves."
                )
            self.windows = {path[0] if path else OBS: window for path in self.paths}
        self.frames = [Frames(parts[path], layout, window) for path in self.paths]
        self.networks = nn.ModuleList([network(frames.shape) for frames in self.frames])
        self.encoder = Encoder(observation_spec, without=self.paths) if len(parts) > len(self.paths) else None
        nets: list[Any] = list(self.networks)
        joined = sum(net.size for net in nets) + (0 if self.encoder is None else self.encoder.size)
        self.piece_size = max(MIN_PIECE, PIECE_FLOATS // sum(net.floats for net in nets))
        self.hidden = linear(joined, size, math.sqrt(2))
        self.policy_head = FeatureHead(
            size,
            feature_shapes,
            log_std=log_std,
            state_dependent_std=state_dependent_std,
            min_std=min_std,
            max_std=max_std,
        )
        self.value_head = ValueHead(size)

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features and values `[L, B, ...]` for observations `[L, B, ...]`."""
        vectors = []
        for path, frames, net in zip(self.paths, self.frames, self.networks, strict=True):
            image: Any = obs if isinstance(obs, Tensor) else obs[path or OBS]
            vectors.append(net(frames(image)).unflatten(0, image.shape[:2]))
        if self.encoder is not None:
            vectors.append(self.encoder(obs))
        hidden = self.hidden(vectors[0] if len(vectors) == 1 else torch.cat(vectors, -1)).relu()
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
        )
