"""A small anti-aliased canvas for `render()`.

Shapes are signed distances to their outline (negative inside), evaluated only inside their bounding box; a pixel's
coverage falls from one to zero over the one pixel around distance zero. Distances as in Quilez,
https://iquilezles.org/articles/distfunctions2d.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
Point = tuple[float, float]
Distance = NDArray[np.floating[Any]]

SKY_TOP: Color = (236, 242, 248)
SKY_BOTTOM: Color = (252, 252, 250)
INK: Color = (38, 50, 66)
GREY: Color = (150, 160, 172)
PALE: Color = (214, 221, 228)
WHITE: Color = (255, 255, 255)
BLUE: Color = (58, 110, 190)
ORANGE: Color = (232, 128, 48)
GREEN: Color = (60, 158, 104)
RED: Color = (206, 70, 70)
YELLOW: Color = (240, 190, 60)
PURPLE: Color = (130, 90, 180)

# Strokes of a seven-segment digit in a box one wide and two high, from the top left.
_STROKES: dict[str, tuple[Point, Point]] = {
    "top": ((0, 0), (1, 0)),
    "upper_left": ((0, 0), (0, 1)),
    "upper_right": ((1, 0), (1, 1)),
    "middle": ((0, 1), (1, 1)),
    "lower_left": ((0, 1), (0, 2)),
    "lower_right": ((1, 1), (1, 2)),
    "bottom": ((0, 2), (1, 2)),
}
_GLYPHS: dict[str, tuple[str, ...]] = {
    "0": ("top", "upper_left", "upper_right", "lower_left", "lower_right", "bottom"),
    "1": ("upper_left", "lower_left"),
    "2": ("top", "upper_right", "middle", "lower_left", "bottom"),
    "3": ("top", "upper_right", "middle", "lower_right", "bottom"),
    "4": ("upper_left", "upper_right", "middle", "lower_right"),
    "5": ("top", "upper_left", "middle", "lower_right", "bottom"),
    "6": ("top", "upper_left", "middle", "lower_left", "lower_right", "bottom"),
    "7": ("top", "upper_right", "lower_right"),
    "8": ("top", "upper_left", "upper_right", "middle", "lower_left", "lower_right", "bottom"),
    "9": ("top", "upper_left", "upper_right", "middle", "lower_right", "bottom"),
    "-": ("middle",),
}


class Canvas:
    """An RGB image to draw on; x grows to the right and y downwards, in pixels.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        top: Colour of the background's first row.
        bottom: Colour of its last row; the rows between are a gradient.
    """

    def __init__(self, height: int = 400, width: int = 600, top: Color = SKY_TOP, bottom: Color = SKY_BOTTOM) -> None:
        self.height, self.width = height, width
        weight = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        colors = np.asarray(top, np.float32) * (1 - weight) + np.asarray(bottom, np.float32) * weight
        self.pixels: NDArray[np.float32] = np.repeat(colors, width, axis=1)

    def frame(self) -> NDArray[np.uint8]:
        """Return the image as it is now, `[height, width, 3]`."""
        rounded: NDArray[np.uint8] = np.rint(self.pixels).clip(0, 255).astype(np.uint8)
        return rounded

    def circle(
        self, center: Point, radius: float, color: Color, *, outline: float = 0.0, soft: float = 1.0, alpha: float = 1.0
    ) -> None:
        """Draw a disc, or a ring of width `outline`; `soft` is the width of its blurred edge."""
        grid = self._grid([center], radius + outline + soft)
        if grid is None:
            return
        x, y, window = grid
        distance = np.hypot(x - center[0], y - center[1]) - radius
        if outline:
            distance = np.abs(distance) - outline / 2
        self._blend(window, distance, color, soft, alpha)

    def line(
        self, points: Sequence[Point], width: float, color: Color, *, soft: float = 1.0, alpha: float = 1.0
    ) -> None:
        """Draw straight strokes with round ends through `points`."""
        grid = self._grid(points, width / 2 + soft)
        if grid is None:
            return
        x, y, window = grid
        distance = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf, np.float32)
        for (x0, y0), (x1, y1) in pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-9)
            along = along.clip(0, 1)
            distance = np.minimum(distance, np.hypot(x - x0 - along * dx, y - y0 - along * dy))
        self._blend(window, distance - width / 2, color, soft, alpha)

    def rectangle(
        self,
        center: Point,
        size: Point,
        color: Color,
        *,
        corner: float = 0.0,
        angle: float = 0.0,
        soft: float = 1.0,
        alpha: float = 1.0,
    ) -> None:
        """Draw a rectangle of `(width, height)` with rounded corners, turned clockwise by `angle` (rad)."""
        half_width, half_height = size[0] / 2, size[1] / 2
        grid = self._grid([center], float(np.hypot(half_width, half_height)) + soft)
        if grid is None:
            return
        x, y, window = grid
        sin, cos = np.sin(angle), np.cos(angle)
        across = np.abs((x - center[0]) * cos + (y - center[1]) * sin) - (half_width - corner)
        down = np.abs((y - center[1]) * cos - (x - center[0]) * sin) - (half_height - corner)
        outside = np.hypot(across.clip(0), down.clip(0))
        self._blend(window, outside + np.minimum(np.maximum(across, down), 0) - corner, color, soft, alpha)

    def arc(self, center: Point, radius: float, start: float, end: float, width: float, color: Color) -> None:
        """Draw a stroke along a circle between two angles (rad, clockwise from the right)."""
        count = max(2, int(abs(end - start) * radius / 4) + 2)
        angles = np.linspace(start, end, count)
        points = [(center[0] + radius * float(np.cos(a)), center[1] + radius * float(np.sin(a))) for a in angles]
        self.line(points, width, color)

    def ground(self, heights: NDArray[np.float32], color: Color, *, alpha: float = 1.0) -> None:
        """Fill everything below a curve.

        Args:
            heights: `[width]` the curve's y in every column.
            color: Colour of the filling.
            alpha: Its opacity.
        """
        y = np.arange(self.height, dtype=np.float32)[:, None] + 0.5
        steepness = np.sqrt(1 + np.gradient(heights) ** 2)
        self._blend((slice(None), slice(None)), (heights - y) / steepness, color, 1.0, alpha)

    def text(self, text: str, center: Point, height: float, color: Color, *, weight: float = 2.0) -> None:
        """Write digits, signs, points and question marks in seven-segment strokes.

        Args:
            text: Characters of `0123456789-.?` and spaces.
            center: Middle of the text.
            height: Height of a digit.
            color: Colour of the strokes.
            weight: Width of the strokes.
        """
        unit = height / 2
        advance = [0.1 if char == "1" else 0.5 if char == "." else 1.0 for char in text]
        left = center[0] - unit * (sum(advance) + 0.6 * (len(text) - 1)) / 2
        for char, step in zip(text, advance, strict=True):
            top = center[1] - unit
            if char == ".":
                self.circle((left + unit / 4, top + height), weight * 0.8, color)
            elif char == "?":
                self.arc((left + unit / 2, top + unit / 2), unit / 2, -np.pi, np.pi / 2, weight, color)
                self.line([(left + unit / 2, top + unit), (left + unit / 2, top + unit * 1.4)], weight, color)
                self.circle((left + unit / 2, top + height), weight * 0.7, color)
            for stroke in _GLYPHS.get(char, ()):
                ends = [(left + x * unit, top + y * unit) for x, y in _STROKES[stroke]]
                self.line(ends, weight, color)
            left += unit * (step + 0.6)

    def _grid(
        self, points: Sequence[Point], margin: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[slice, slice]] | None:
        """Return pixel centres x `[1, w]` and y `[h, 1]` around `points` and where they lie; None if off the canvas."""
        xs, ys = [point[0] for point in points], [point[1] for point in points]
        left, right = int(max(0, min(xs) - margin)), int(min(self.width, max(xs) + margin + 1))
        top, bottom = int(max(0, min(ys) - margin)), int(min(self.height, max(ys) + margin + 1))
        if left >= right or top >= bottom:
            return None
        x = np.arange(left, right, dtype=np.float32)[None, :] + 0.5
        y = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        return x, y, (slice(top, bottom), slice(left, right))

    def _blend(self, window: tuple[slice, slice], distance: Distance, color: Color, soft: float, alpha: float) -> None:
        coverage = (0.5 - distance / soft).clip(0, 1)[..., None] * alpha
        self.pixels[window] += coverage * (np.asarray(color, np.float32) - self.pixels[window])
