"""Pictures in a terminal: half a character each pixel, in full colour, as fast as the simulation."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TextIO

from rl8.view.movies import picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HALF: Final = "▀"  # the upper pixel in the colour of the text, the lower one in that of the paper
# Another screen without a cursor, and back to the one before.
_BEGIN: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"
_END: Final = "\x1b[0m\x1b[?25h\x1b[?1049l"


def check(stream: TextIO) -> None:
    """Check that pictures can be shown.

    Raises:
        ValueError: If the stream is no terminal that has colours.
    """
    term = os.environ.get("TERM", "")
    if not stream.isatty() or term in ("", "dumb"):
        reason = f"TERM={term or '(nothing)'} has no colours" if stream.isatty() else "the output is no terminal"
        raise ValueError(f"--live can't show pictures: {reason}. Accepted without it: a film. Try -o play.gif.")


def show(
    shots: Iterable[tuple[Any, str]],
    stream: TextIO,
    *,
    fps: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Show pictures one after another, each with its text above it; return how many.

    Args:
        shots: Pictures, uint8 [H, W, 3], and texts.
        stream: The terminal.
        fps: Pictures per second; fewer where drawing them takes longer.
        clock: Returns the time in seconds.
        wait: Waits some seconds.
    """
    count, begin = 0, clock()
    stream.write(_BEGIN)
    try:
        for shot, text in shots:
            size = shutil.get_terminal_size()
            stream.write(f"\x1b[H\x1b[0m{text[: size.columns]}\x1b[K\r\n{_drawn(shot, size.columns, size.lines - 2)}")
            stream.flush()
            count += 1
            wait(max(0.0, begin + count / fps - clock()))
    finally:
        stream.write(_END)
        stream.flush()
    return count


def _drawn(shot: Any, columns: int, lines: int) -> str:
    """Return a picture as text, as large as fits."""
    import numpy as np

    image = picture(shot)
    scale = min(columns / image.width, 2 * lines / image.height)
    width, height = max(1, int(image.width * scale)), max(2, int(image.height * scale) // 2 * 2)
    pixels: NDArray[np.uint8] = np.asarray(image.resize((width, height)))
    return "\r\n".join(_line(pixels[row], pixels[row + 1]) for row in range(0, height, 2))


def _line(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> str:
    """Return two rows of pixels as one line; colours are set where they change."""
    parts, before = [], None
    for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
        if (top, bottom) != before:
            parts.append("\x1b[38;2;{};{};{};48;2;{};{};{}m".format(*top, *bottom))
            before = (top, bottom)
        parts.append(_HALF)
    return "".join(parts) + "\x1b[0m\x1b[K"
