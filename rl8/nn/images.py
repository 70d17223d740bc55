"""Images: where their channels are, networks of convolutions, and observations with images as one vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from rl8.checks import check_choice, check_range
from rl8.data import ACTION_MASK, OBS
from rl8.kinds import as_text
from rl8.nn.encoding import Encoder
from rl8.specs import Binary, Bounded, Nested, Spec, Unbounded, leaves

LAYOUTS: Final = ("auto", "first", "last")
Shape = tuple[int, int, int]  # channels, height, width
# Channels, kernel and stride of each layer: Mnih et al. 2015, doi:10.1038/nature14236.
NATURE: Final = ([32, 8, 4], [64, 4, 2], [64, 3, 1])
IMPALA: Final = (16, 32, 32)  # channels of each section: Espeholt et al. 2018, arXiv:1802.01561
PIECE_FLOATS: Final = 2**22  # that the layers of a piece may put out; 16 MB
MIN_PIECE: Final = 32  # env steps; with fewer, operations would cost more than what they compute
Look = Callable[[Shape], nn.Module]


def is_image(spec: Spec) -> bool:
    """Return whether samples are pictures: numbers in three dimensions, or bytes in two."""
    if not isinstance(spec, (Unbounded, Bounded, Binary)):
        return False
    return len(spec.shape) == 3 or (len(spec.shape) == 2 and spec.dtype == torch.uint8)


def images_in(spec: Spec) -> list[Spec]:
    """Return the images among observations."""
    return [leaf for path, leaf in leaves(spec) if is_image(leaf) and ACTION_MASK not in path]


def flattened(module: nn.Module) -> list[Spec]:
    """Return the images that a network takes as vectors of numbers."""
    encoders = [part for part in module.modules() if isinstance(part, Encoder)]
    found = {path: leaf for encoder in encoders for path, leaf in encoder.parts if is_image(leaf)}
    return list(found.values())


def fitting(images: Sequence[Spec]) -> str:
    """Return which network, by its name as `model=` has it, looks at images of these sizes as it is."""
    sides = [sorted(spec.shape)[-2] for spec in images]  # without the channels, which are fewest
    return "cnn" if min(sides) >= smallest(NATURE) else "impala"


class Frames:
    """Makes what convolutions take of stored pictures: channels first, in float32, bytes scaled to [0, 1].

    Args:
        spec: Of one picture.
        layout: Where its channels are: `first` `[C, H, W]`, `last` `[H, W, C]`, or `auto`, which takes the smaller of
            the first and the last dimension. A picture of two dimensions has one channel.
        window: Pictures of the last steps, whose channels are joined, the oldest first.

    Attributes:
        shape: Channels, height and width of what it returns.

    Raises:
        ValueError: If `layout` is unknown, or is `auto` and both dimensions are the same.
    """

    def __init__(self, spec: Spec, layout: str = "auto", window: int = 1) -> None:
        check_choice("model.layout", layout, LAYOUTS)
        self.window, self.scale = window, 1 / 255 if spec.dtype == torch.uint8 else 1.0
        self.dims = len(spec.shape)
        shape = tuple(spec.shape)
        if self.dims == 3 and layout == "auto":
            if shape[0] == shape[2]:
                raise ValueError(
                    f"model.layout=auto can't tell the channels of an image of shape {shape}: its first and last "
                    "dimension are the same. Accepted: first, last. Try model.layout=last."
                )
            layout = "first" if shape[0] < shape[2] else "last"
        self.last = self.dims == 3 and layout == "last"
        channels, height, width = (1, *shape) if self.dims == 2 else (shape[2], *shape[:2]) if self.last else shape
        self.shape: Shape = (window * channels, height, width)

    def __call__(self, images: Tensor) -> Tensor:
        """Return `[M, C, H, W]` for pictures `[L, B, ...]`, or `[L, B, window, ...]` for more than one; M = L * B."""
        rows = images.flatten(0, images.ndim - self.dims - (self.window > 1) - 1)
        if self.dims == 2:
            rows = rows.unsqueeze(-3)
        elif self.last:
            rows = rows.movedim(-1, -3)
        rows = rows.flatten(1, 2) if self.window > 1 else rows  # joined while still bytes
        floats = rows.to(torch.float32, memory_format=torch.channels_last)  # by a quarter faster on a CPU
        return floats if self.scale == 1.0 else floats * self.scale


class Sight(nn.Module):
    """Observations of any spec as one float vector: images by convolutions, all else as `Encoder` has it.

    Args:
        spec: What the model sees of one environment and step.
        look: Makes what looks at images `[M, *shape]`, returns `[M, size]`, and says its `size` and `floats`.
        layout: See `Frames`.
        window: Last frames whose channels are joined; see `Frames`.

    Attributes:
        paths: Of the images.
        size: Length D of the vector.
        piece_size: Env steps whose layers fit into the caches; see `Model.piece_size`.

    Raises:
        ValueError: If an option does not fit the images.
    """

    def __init__(self, spec: Spec, look: Look, *, layout: str = "auto", window: int = 1) -> None:
        super().__init__()
        parts = {path: leaf for path, leaf in leaves(spec) if ACTION_MASK not in path}
        self.paths = [path for path, leaf in parts.items() if is_image(leaf)]
        self.frames = [Frames(parts[path], layout, window) for path in self.paths]
        self.networks = nn.ModuleList([look(frames.shape) for frames in self.frames])
        self.others = Encoder(spec, without=self.paths) if len(parts) > len(self.paths) or not parts else None
        nets: list[Any] = list(self.networks)
        self.size = sum(net.size for net in nets) + (0 if self.others is None else self.others.size)
        self.piece_size = max(MIN_PIECE, PIECE_FLOATS // max(1, sum(net.floats for net in nets)))

    def forward(self, obs: Nested) -> Tensor:
        """Return `[L, B, D]` for observations `[L, B, ...]`."""
        vectors = []
        for path, frames, net in zip(self.paths, self.frames, self.networks, strict=True):
            image: Any = obs if isinstance(obs, Tensor) else obs[path or OBS]
            batch = image.shape[: image.ndim - frames.dims - (frames.window > 1)]
            vectors.append(net(frames(image)).unflatten(0, batch))
        if self.others is not None:
            vectors.append(self.others(obs))
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, -1)


def encoder_of(spec: Spec, images: Any, layout: str, *, seen: Spec | None = None) -> Encoder | Sight:
    """Return what makes a vector of observations, for models whose `model.images` says how images become one.

    Args:
        spec: The environment's.
        images: `cnn`, `impala`, or filters of convolutions as `NatureNet` takes them; None flattens images.
        layout: See `Frames`.
        seen: The part of it that is seen; None for all.

    Raises:
        TypeError: If filters are no lists of three integers.
        ValueError: If `images` is something else, there are none, or an option does not fit them.
    """
    seen = seen or spec
    if images is None:
        return Encoder(seen)
    if isinstance(images, str):
        check_choice("model.images", images, LOOKS)
    look = LOOKS[images] if isinstance(images, str) else partial(NatureNet, filters=images)
    check_seen(spec, f"model.images={as_text(images)}", "model.images=null")
    return Sight(seen, partial(look, key="model.images"), layout=layout)


def check_seen(spec: Spec, who: str, instead: str) -> None:
    """Raise ValueError unless there is an image in a spec.

    Args:
        spec: The environment's.
        who: What looks for one.
        instead: What to type where there is none.
    """
    if not images_in(spec):
        raise ValueError(
            f"{who} finds no image in {spec}. Accepted: an observation of three dimensions, or of two in torch.uint8. "
            f"Try {instead}."
        )


class NatureNet(nn.Module):
    """Convolutions without padding, a ReLU after each, flattened.

    Args:
        shape: Channels, height and width of the input.
        filters: Channels, kernel and stride of each layer.
        key: What the filters are called in messages.

    Attributes:
        size: Length of the output vector.
        floats: Numbers that all layers put out for one picture.

    Raises:
        TypeError: If `filters` are no lists of three integers.
        ValueError: If one is below 1, or the picture is too small for them.
    """

    def __init__(self, shape: Shape, filters: Sequence[Sequence[int]] = NATURE, key: str = "model.filters") -> None:
        super().__init__()
        check_filters(filters, key)
        channels, sides = shape[0], list(shape[1:])
        layers: list[nn.Module] = []
        self.floats = 0
        for outputs, kernel, stride in filters:
            if min(sides) < kernel:
                raise ValueError(
                    f"{key}={[list(each) for each in filters]} need images of at least "
                    f"{smallest(filters)} x {smallest(filters)}, these are {shape[1]} x {shape[2]}. "
                    f"Try '{key}=[[16,{min(3, *shape[1:])},1]]'."
                )
            layers += [convolution(channels, outputs, kernel, stride=stride), nn.ReLU(inplace=True)]
            channels, sides = outputs, [(side - kernel) // stride + 1 for side in sides]
            self.floats += channels * math.prod(sides)
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.size = channels * math.prod(sides)

    def forward(self, images: Tensor) -> Tensor:
        """Return `[M, size]` for images `[M, C, H, W]`."""
        found: Tensor = self.layers(images)
        return found


class ImpalaNet(nn.Module):
    """Sections of a convolution, a pooling that halves the picture and two residual blocks; a ReLU, flattened.

    Args:
        shape: Channels, height and width of the input.
        channels: Of each section.
        key: What they are called in messages.

    Attributes:
        size: Length of the output vector.
        floats: Numbers that all layers put out for one picture.

    Raises:
        TypeError: If `channels` is no list of integers.
        ValueError: If one is below 1, or there is none.
    """

    def __init__(self, shape: Shape, channels: Sequence[int] = IMPALA, key: str = "model.channels") -> None:
        super().__init__()
        is_list = isinstance(channels, Sequence)
        if not (is_list and channels):
            raise TypeError(f"{key}={channels!r} is no list of integers. Try '{key}=[16,32,32]'.")
        sides: tuple[int, ...] = shape[1:]
        layers: list[nn.Module] = []
        before, self.floats = shape[0], 0
        for size in channels:
            check_range(key, size, 1, integer=True, hint=f"'{key}=[16,32,32]'")
            layers += [convolution(before, size, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [Residual(size), Residual(size)]
            self.floats += size * math.prod(sides)
            before, sides = size, tuple((side + 1) // 2 for side in sides)
            self.floats += 9 * size * math.prod(sides)
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.size = before * math.prod(sides)

    def forward(self, images: Tensor) -> Tensor:
        """Return `[M, size]` for images `[M, C, H, W]`."""
        found: Tensor = self.layers(images)
        return found


class Residual(nn.Module):
    """Adds to its input what two convolutions make of it, a ReLU before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels, 3, padding=1)
        self.second = convolution(channels, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return `[M, C, H, W]`, of the input's shape."""
        found: Tensor = images + self.second(self.first(images.relu()).relu())
        return found


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    """Return a convolution with orthogonal weights, for a ReLU, and zero biases."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
    nn.init.orthogonal_(layer.weight, math.sqrt(2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def check_filters(filters: Any, key: str) -> None:
    """Check a list of `[channels, kernel, stride]`; see `NatureNet`."""
    hint = f"'{key}=[[16,3,1]]'"
    lists = isinstance(filters, Sequence) and not isinstance(filters, str) and len(filters) > 0
    if not lists or not all(isinstance(each, Sequence) and len(each) == 3 for each in filters):
        raise TypeError(f"{key}={filters!r} is no list of [channels, kernel, stride]. Try {hint}.")
    for each in filters:
        for number in each:
            check_range(key, number, 1, integer=True, hint=hint)


def smallest(filters: Sequence[Sequence[int]]) -> int:
    """Return the side of the smallest picture that layers of `[channels, kernel, stride]` take."""
    side = 1
    for _, kernel, stride in reversed(filters):
        side = (side - 1) * stride + kernel
    return side


LOOKS: Final[dict[str, Callable[..., nn.Module]]] = {"cnn": NatureNet, "impala": ImpalaNet}
