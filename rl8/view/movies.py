"""Rendered frames as a film (GIF, MP4) or as one picture, a film strip.

Needs Pillow, which comes with Matplotlib; MP4 needs PyAV, which comes with `pip install 'rl8[video]'`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rl8.atomic import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

# Browsers show a GIF frame for a tenth of a second when it asks for less than two hundredths.
MAX_FPS: Final = 50.0
_GAP: Final = 6  # pixels between the frames of a strip
_PAPER: Final = (255, 255, 255)
_INK: Final = (107, 114, 128)
_TEXT: Final = (31, 41, 55)


def gif(frames: Sequence[Any], path: str | Path, *, fps: float = 30.0) -> Path:
    """Write frames as an animated GIF that repeats for ever.

    Args:
        frames: Each uint8 [H, W, 3], RGB; NumPy arrays or tensors, all of one size.
        path: The file to write.
        fps: Frames per second, above 0. Over 50, frames are left out so that the speed stays true.

    Returns:
        The file.

    Raises:
        ValueError: If there are no frames, one is no RGB picture of the same size, or `fps` is not above 0.
    """
    if not fps > 0:
        raise ValueError(f"fps={fps!r} is out of range. Accepted: a number > 0. Try fps=30.")
    from PIL.Image import Dither

    stride = max(1, round(fps / MAX_FPS))
    images = _images(frames)[::stride]
    # One palette for all frames, taken from the first, the middle and the last: a palette per frame makes the
    # background flicker and the file several times larger.
    palette = _strip([images[0], images[len(images) // 2], images[-1]], columns=3).quantize(256)
    small = [image.quantize(palette=palette, dither=Dither.NONE) for image in images]
    duration = max(20, round(100 * stride / fps) * 10)  # ms, in the format's unit of a hundredth of a second
    with atomic(path) as file:
        small[0].save(
            file, format="GIF", save_all=True, append_images=small[1:], duration=duration, loop=0, optimize=False
        )
    return Path(path)


def mp4(frames: Iterable[Any], path: str | Path, *, fps: float = 30.0) -> Path:
    """Write frames as an MP4 (H.264) that browsers play; one at a time, so that a film may be long.

    Args:
        frames: Each uint8 [H, W, 3], RGB; NumPy arrays or tensors, all of one size. An odd last row or column goes.
        path: The file to write.
        fps: Frames per second, above 0.

    Returns:
        The file.

    Raises:
        ValueError: If PyAV is missing, there are no frames, or `fps` is not above 0.
    """
    if not fps > 0:
        raise ValueError(f"fps={fps!r} is out of range. Accepted: a number > 0. Try fps=30.")
    av = load_av()
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("frames is empty. Accepted: at least one frame, e.g. [env.render()].")
    options = {"movflags": "faststart"}
    with atomic(path) as file, av.open(str(file), mode="w", format="mp4", options=options) as film:
        stream = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        size = picture(first, 0).size
        stream.width, stream.height = (length - length % 2 for length in size)  # H.264 halves the colours' resolution
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(chain([first], iterator)):
            image = picture(frame, index).crop((0, 0, stream.width, stream.height))
            film.mux(stream.encode(av.VideoFrame.from_image(image)))
        film.mux(stream.encode())
    return Path(path)


def load_av() -> Any:
    """Return PyAV.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ValueError(
            "MP4 needs PyAV, which is not installed. Accepted without it: GIF. Try pip install 'rl8[video]', or a file "
            "that ends in .gif."
        ) from error


def mosaic(frames: Sequence[Any], texts: Sequence[str], *, columns: int = 1, width: int = 480) -> NDArray[np.uint8]:
    """Return pictures side by side as one, each with its text on its upper edge.

    Args:
        frames: Each uint8 [H, W, 3], RGB; NumPy arrays or tensors, all of one size.
        texts: One for each.
        columns: Pictures per row.
        width: Pixels that each is wide.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    images = _images(frames)
    height = max(1, round(images[0].height * width / images[0].width))
    size = max(11, width // 26)
    bar = size + 2 * (size // 3)
    rows = -(-len(images) // columns)
    paper = Image.new("RGB", (columns * (width + _GAP) - _GAP, rows * (height + bar + _GAP) - _GAP), _PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(size)
    for index, (image, text) in enumerate(zip(images, texts, strict=True)):
        left, top = (index % columns) * (width + _GAP), (index // columns) * (height + bar + _GAP)
        draw.text((left + size // 2, top + size // 3), text, _TEXT, font=font)
        paper.paste(image.resize((width, height)) if image.width != width else image, (left, top + bar))
    return np.asarray(paper)


def film_strip(
    frames: Sequence[Any],
    path: str | Path,
    *,
    count: int = 8,
    columns: int | None = None,
    width: int = 240,
    captions: Sequence[str] | None = None,
) -> Path:
    """Write frames side by side in one PNG, `count` of them spread evenly from the first to the last.

    Args:
        frames: Each uint8 [H, W, 3], RGB; NumPy arrays or tensors, all of one size.
        path: The file to write.
        count: How many frames to show, at least 1.
        columns: Frames per row; None puts all in one row.
        width: Pixels that a frame is wide at most; wider ones are made smaller.
        captions: A text for each of `frames`, written below it; None writes none.

    Returns:
        The file.

    Raises:
        ValueError: If there are no frames, one is no RGB picture of the same size, there are not as many captions as
            frames, or `count`, `columns` or `width` is below 1.
    """
    for name, value in (("count", count), ("columns", columns), ("width", width)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value!r} is out of range. Accepted: an integer >= 1. Try {name}=8.")
    if captions is not None and len(captions) != len(frames):
        raise ValueError(
            f"captions has {len(captions)} texts for {len(frames)} frames. Accepted: one for each frame, or None."
        )
    images = _images(frames)
    count = min(count, len(images))
    chosen = [round(i * (len(images) - 1) / max(count - 1, 1)) for i in range(count)]
    texts = [captions[index] for index in chosen] if captions is not None else None
    pictures = [images[index] for index in chosen]
    if images[0].width > width:
        height = max(1, round(images[0].height * width / images[0].width))
        pictures = [image.resize((width, height)) for image in pictures]
    strip = _strip(pictures, columns or count, texts)
    with atomic(path) as file:
        strip.save(file, format="PNG", optimize=True)
    return Path(path)


def _images(frames: Sequence[Any]) -> list[Image]:
    if len(frames) == 0:
        raise ValueError("frames is empty. Accepted: at least one frame, e.g. [env.render()].")
    images = [picture(frame, index) for index, frame in enumerate(frames)]
    for index, image in enumerate(images):
        if image.size != images[0].size:
            raise ValueError(
                f"frames[{index}] has {image.width}x{image.height} pixels and frames[0] "
                f"{images[0].width}x{images[0].height}. Accepted: frames of one size."
            )
    return images


def picture(frame: Any, index: int = 0) -> Image:
    """Return a frame as an image.

    Raises:
        ValueError: If it is no RGB picture.
    """
    from PIL import Image

    array = frame.detach().cpu().numpy() if hasattr(frame, "detach") else frame
    shape, dtype = tuple(getattr(array, "shape", ())), str(getattr(array, "dtype", type(frame).__name__))
    if dtype != "uint8" or len(shape) != 3 or shape[2] != 3:
        raise ValueError(
            f"frames[{index}] is {dtype} {list(shape)}. Accepted: uint8 [H, W, 3], colours from 0 to 255. "
            f"Try frame.mul(255).to(torch.uint8)."
        )
    return Image.fromarray(array)


def _strip(images: Sequence[Image], columns: int, captions: Sequence[str] | None = None) -> Image:
    """Return the pictures on white paper, left to right and top to bottom, captions below them."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = images[0].size
    size = max(11, width // 16)
    row = height + _GAP + (size + _GAP if captions else 0)
    lines = -(-len(images) // columns)
    paper = Image.new("RGB", (columns * (width + _GAP) - _GAP, lines * row - _GAP), _PAPER)
    draw = ImageDraw.Draw(paper)
    for index, image in enumerate(images):
        left, top = (index % columns) * (width + _GAP), (index // columns) * row
        paper.paste(image, (left, top))
        if captions:
            font = ImageFont.load_default(size)
            draw.text((left + width / 2, top + height + 2), captions[index], _INK, font=font, anchor="ma")
    return paper
