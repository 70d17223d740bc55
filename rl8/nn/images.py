"""Images: where their channels are, and networks of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from rl8.checks import check_choice, check_range
from rl8.specs import Binary, Bounded, Spec, Unbounded

LAYOUTS: Final = ("auto", "first", "last")
Shape = tuple[int, int, int]  # channels, height, width
# Channels, kernel and stride of each layer: Mnih et al. 2015, doi:10.1038/nature14236.
NATURE: Final = ([32, 8, 4], [64, 4, 2], [64, 3, 1])
IMPALA: Final = (16, 32, 32)  # channels of each section: Espeholt et al. 2018, arXiv:1802.01561


def is_image(spec: Spec) -> bool:
    """Return whether samples are pictures: numbers in three dimensions, or bytes in two."""
    if not isinstance(spec, (Unbounded, Bounded, Binary)):
        return False
    return len(spec.shape) == 3 or (len(spec.shape) == 2 and spec.dtype == torch.uint8)


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
        rows = images.flatten(0, 1)
        if self.dims == 2:
            rows = rows.unsqueeze(-3)
        elif self.last:
            rows = rows.movedim(-1, -3)
        rows = rows.flatten(1, 2) if self.window > 1 else rows  # joined while still bytes
        floats = rows.to(torch.float32, memory_format=torch.channels_last)  # by a quarter faster on a CPU
        return floats if self.scale == 1.0 else floats * self.scale


class NatureNet(nn.Module):
    """Convolutions without padding, a ReLU after each, flattened.

    Args:
        shape: Channels, height and width of the input.
        filters: Channels, kernel and stride of each layer.

    Attributes:
        size: Length of the output vector.
        floats: Numbers that all layers put out for one picture.

    Raises:
        TypeError: If `filters` are no lists of three integers.
        ValueError: If one is below 1, or the picture is too small for them.
    """

    def __init__(self, shape: Shape, filters: Sequence[Sequence[int]] = NATURE) -> None:
        super().__init__()
        check_filters(filters)
        channels, sides = shape[0], list(shape[1:])
        layers: list[nn.Module] = []
        self.floats = 0
        for outputs, kernel, stride in filters:
            if min(sides) < kernel:
                raise ValueError(
                    f"model.filters={[list(each) for each in filters]} need images of at least "
                    f"{smallest(filters)} x {smallest(filters)}, these are {shape[1]} x {shape[2]}. "
                    "Try 'model.filters=[[16,3,1]]', or model=impala."
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

    Attributes:
        size: Length of the output vector.
        floats: Numbers that all layers put out for one picture.

    Raises:
        TypeError: If `channels` is no list of integers.
        ValueError: If one is below 1, or there is none.
    """

    def __init__(self, shape: Shape, channels: Sequence[int] = IMPALA) -> None:
        super().__init__()
        is_list = isinstance(channels, Sequence)
        if not (is_list and channels):
            raise TypeError(f"model.channels={channels!r} is no list of integers. Try 'model.channels=[16,32,32]'.")
        sides: tuple[int, ...] = shape[1:]
        layers: list[nn.Module] = []
        before, self.floats = shape[0], 0
        for size in channels:
            check_range("model.channels", size, 1, integer=True, hint="'model.channels=[16,32,32]'")
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


def check_filters(filters: Any) -> None:
    """Check a list of `[channels, kernel, stride]`; see `NatureNet`."""
    hint = "'model.filters=[[16,3,1]]'"
    lists = isinstance(filters, Sequence) and not isinstance(filters, str) and len(filters) > 0
    if not lists or not all(isinstance(each, Sequence) and len(each) == 3 for each in filters):
        raise TypeError(f"model.filters={filters!r} is no list of [channels, kernel, stride]. Try {hint}.")
    for each in filters:
        for number in each:
            check_range("model.filters", number, 1, integer=True, hint=hint)


def smallest(filters: Sequence[Sequence[int]]) -> int:
    """Return the side of the smallest picture that layers of `[channels, kernel, stride]` take."""
    side = 1
    for _, kernel, stride in reversed(filters):
        side = (side - 1) * stride + kernel
    return side
