"""What a user sees of a run: a live panel on a terminal, plain lines elsewhere, or nothing.

The panel is drawn by a thread of its own once a second, so that `update` costs training next to nothing. Rich is
imported by the panel only.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, TextIO

from rl8 import data
from rl8.checks import check_choice
from rl8.view.readings import (
    ASCII_BLOCKS,
    BLOCKS,
    ENTROPY,
    SPARK_WIDTH,
    Readings,
    clock_time,
    count,
    facts,
    line,
    megabytes,
    percent,
    shown,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

KINDS: Final = ("auto", "live", "plain", "none")
#: The panel is drawn this often, in Hz, and plain lines come at most this far apart, in seconds.
REFRESH_HZ: Final = 1.0
LINE_S: Final = 2.0
MAX_WIDTH: Final = 100


class View(ABC):
    """Shows a run. Also a context manager that closes it, so that the terminal is restored whatever happens."""

    def __init__(self, title: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing to show.

        Args:
            title: What the run is, e.g. `"CartPole, seed 1"`.
            clock: Returns the time in seconds.
        """
        self.title = title
        self.readings = Readings(clock)

    @abstractmethod
    def start(self, info: Mapping[str, str]) -> None:
        """Show what is about to run.

        Args:
            info: Facts by name. `until` is the stop condition, `recorded in` the place of the record.
        """

    @abstractmethod
    def update(self, metrics: Mapping[str, float], progress: float | None) -> None:
        """Show the metrics of an iteration.

        Args:
            metrics: Values by name; those not given keep their last value on display.
            progress: How far along the run is, in [0, 1]; None if that cannot be known.
        """

    @abstractmethod
    def message(self, text: str) -> None:
        """Show a remark; may be called from any thread."""

    @abstractmethod
    def finish(self, summary: Mapping[str, str]) -> None:
        """Show how it ended, as facts by name, and close."""

    @abstractmethod
    def close(self) -> None:
        """Leave the terminal as it was. Calling it again does nothing."""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_view(
    kind: str = "auto",
    *,
    title: str,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> View:
    """Return a view of a run.

    Args:
        kind: `"live"` draws a panel, `"plain"` prints lines, `"none"` shows nothing; `"auto"` is live on a terminal
            and plain elsewhere.
        title: What the run is, e.g. `"CartPole, seed 1"`.
        stream: Where to write; standard output by default.
        clock: Returns the time in seconds.

    Raises:
        ValueError: If `kind` is none of these.
    """
    check_choice("trainer.view", kind, KINDS)
    stream = stream or sys.stdout
    if kind == "auto":
        able = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")
        kind = "live" if able or (stream.isatty() and os.name == "nt") else "plain"
    if kind == "live":
        return LiveView(title, stream, clock)
    return PlainView(title, stream, clock) if kind == "plain" else NoView(title, clock)


class NoView(View):
    """Shows nothing."""

    def start(self, info: Mapping[str, str]) -> None:
        """Show nothing."""

    def update(self, metrics: Mapping[str, float], progress: float | None) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Leave the remark to the log: it may be a warning that nobody would see otherwise."""
        logging.getLogger(__name__).warning(text)

    def finish(self, summary: Mapping[str, str]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class Unheard(NoView):
    """Shows nothing and leaves nothing to the log: another process says the same."""

    def message(self, text: str) -> None:
        """Say nothing."""


class PlainView(View):
    """Prints a line per iteration, at most one every two seconds, the first and the last always."""

    def __init__(self, title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing printed.

        Args:
            title: What the run is.
            stream: Where to write.
            clock: Returns the time in seconds.
        """
        super().__init__(title, clock)
        self._stream = stream
        self._lock = threading.Lock()
        self._printed = -math.inf
        self._pending = False

    def start(self, info: Mapping[str, str]) -> None:
        """Print the facts, one per line."""
        self._print(self.title, *facts(info))

    def update(self, metrics: Mapping[str, float], progress: float | None) -> None:
        """Print a line, unless one was printed just now."""
        self.readings.add(metrics, progress)
        now = self.readings.clock()
        self._pending = now - self._printed < LINE_S
        if not self._pending:
            self._printed = now
            self._print(line(self.readings))

    def message(self, text: str) -> None:
        """Print the remark."""
        self._print(text)

    def finish(self, summary: Mapping[str, str]) -> None:
        """Print the last iteration and the summary."""
        self.close()
        self._print(*facts(summary))

    def close(self) -> None:
        """Print the last iteration if it was held back."""
        if self._pending:
            self._pending = False
            self._print(line(self.readings))

    def _print(self, *lines: str) -> None:
        with self._lock, _tolerant():
            text = "".join(f"{text}\n" for text in lines)
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()


class LiveView(View):
    """A panel that is drawn over and over in the same place; messages and logs scroll by above it."""

    def __init__(self, title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing drawn.

        Args:
            title: What the run is.
            stream: The terminal.
            clock: Returns the time in seconds.
        """
        from rich.console import Console

        super().__init__(title, clock)
        self.console = Console(file=stream, highlight=False)
        self._info: dict[str, str] = {}
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
        self._stream = stream
        self._hides_control_echo = False

    def start(self, info: Mapping[str, str]) -> None:
        """Draw the panel and keep it up to date."""
        from rich.live import Live

        self._info = dict(info)
        streams = {sys.stdout: "stdout", sys.stderr: "stderr"}
        self._live = Live(console=self.console, refresh_per_second=REFRESH_HZ, get_renderable=self.render)
        self._live.start(refresh=True)
        # handlers that were set up before hold on to the terminal itself and would write across the panel
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                self._handlers.append((handler, handler.stream))
                handler.setStream(getattr(sys, streams[handler.stream]))
        # the "^C" that a terminal echoes would push the panel down a line
        self._hides_control_echo = _set_control_echo(self._stream, on=False)
        atexit.register(self.close)

    def update(self, metrics: Mapping[str, float], progress: float | None) -> None:
        """Take in the metrics; the panel shows them when it is next drawn."""
        with self._lock:
            self.readings.add(metrics, progress)

    def message(self, text: str) -> None:
        """Print the remark above the panel."""
        from rich.text import Text

        with _tolerant():
            self.console.print(Text(text, style="yellow"))

    def finish(self, summary: Mapping[str, str]) -> None:
        """Leave the panel as it is and print the summary below."""
        from rich.text import Text

        self.close()
        with _tolerant():
            for fact in facts(summary):
                self.console.print(Text(fact), soft_wrap=True)

    def close(self) -> None:
        """Draw the panel a last time and give the terminal back."""
        live, self._live = self._live, None
        if live is None:
            return
        atexit.unregister(self.close)
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers.clear()
        with _tolerant():
            live.stop()
        if self._hides_control_echo:
            _set_control_echo(self._stream, on=True)

    def render(self) -> RenderableType:
        """Return the panel as it is now."""
        from rich import box
        from rich.console import Group
        from rich.panel import Panel

        width = min(self.console.width, MAX_WIDTH)
        with self._lock:
            parts: list[RenderableType] = [self._bar(), self._pace(width - _FRAME)]
            if self.readings.updates:
                parts += ["", *self._returns(), "", *self._details()]
            parts += ["", *self._notes()]
            elapsed = clock_time(self.readings.elapsed)
        return Panel(
            Group(*parts),
            title=_text(self.title, "bold default"),
            title_align="left",
            subtitle=_text(elapsed, _SOFT),
            subtitle_align="right",
            box=box.ROUNDED,
            border_style=_SOFT,
            padding=(0, 2),
            width=width,
        )

    def _bar(self) -> Table:
        """Return the bar with percentage and time left."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        readings = self.readings
        progress = readings.progress if readings.updates else None
        bar = ProgressBar(
            total=1.0,
            completed=progress or 0.0,
            pulse=progress is None,
            animation_time=readings.elapsed,
            complete_style="bright_blue",
            finished_style="green",
            pulse_style="bright_blue",
        )
        grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for size in (None, 5, 13):
            grid.add_column(width=size, ratio=None if size else 1)
        left = "" if readings.left is None else f"{clock_time(readings.left)} left"
        share = "" if progress is None else percent(progress)
        grid.add_row(bar, _text(f"{share:>5}", "bold"), _text(f"{left:>13}"))
        return grid

    def _pace(self, width: int) -> Text:
        """Return env steps and stop condition on the left, speed on the right."""
        metrics, speed = self.readings.metrics, self.readings.speed
        steps = f"{metrics[data.ENV_STEPS]:,.0f} env steps" if data.ENV_STEPS in metrics else "starting"
        until = f"{self._dot}until {self._info['until']}" if "until" in self._info else ""
        pace = "" if speed is None else f"{count(speed)} transitions/s"
        return _row((_text(steps + until, _SOFT), max(width - len(pace) - 1, 0)), (_text(pace, _SOFT), len(pace)))

    def _returns(self) -> Iterator[Text]:
        """Return a row for training and one for evaluation: last value, its course, the best so far."""
        blocks = ASCII_BLOCKS if self.console.options.ascii_only else BLOCKS
        for name, key, trace, color in (
            ("return", data.RETURNS_MEAN, self.readings.returns, "bright_blue"),
            ("evaluation", data.EVAL_RETURNS_MEAN, self.readings.evaluations, "yellow"),
        ):
            if key in self.readings.metrics:
                value = _text(f"{shown(self.readings.metrics[key], 4):>9}", f"bold {color}")
                best = _text(f"best {shown(trace.best, 4)}" if math.isfinite(trace.best) else "", _SOFT)
                course = _text(f" {trace.draw(blocks)}", color)
                yield _row((_text(name), 10), (value, 9), (course, SPARK_WIDTH + 1), (best, 20))

    def _details(self) -> Iterator[Text]:
        """Return losses and monitors, three to a row."""
        metrics = self.readings.metrics
        cells = [(name, show(metrics[key])) for name, key, show in _DETAILS if key in metrics]
        for first in range(0, len(cells), 3):
            texts = [text for name, value in cells[first : first + 3] for text in (_text(name, _SOFT), _text(value))]
            yield _row(*zip(texts, (11, 10, 11, 10, 13, 20), strict=False))

    def _notes(self) -> Iterator[Text]:
        """Return what runs, in one line, and where it is recorded, in another."""
        what = [value for name, value in self._info.items() if name not in ("until", "recorded in")]
        if what:
            yield _text(self._dot.join(what), _SOFT)
        if "recorded in" in self._info:
            yield _text(f"recorded in {self._info['recorded in']}", _SOFT)

    @property
    def _dot(self) -> str:
        return ", " if self.console.options.ascii_only else " · "


def _three(value: float) -> str:
    return shown(value, 3)


_SOFT: Final = "bright_black"
_FRAME: Final = 6  # columns of the panel's border and padding
# Label, metric and form of the panel's small print, three to a row.
_DETAILS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("policy loss", "losses/policy", _three),
    ("KL", data.KL_DIV, _three),
    ("learning rate", "coefficients/lr", "{:.3g}".format),
    ("value loss", "losses/vf", _three),
    ("clipped", "monitors/clip_fraction", percent),
    ("iteration", data.ITERATIONS, "{:,.0f}".format),
    ("entropy", ENTROPY, _three),
    ("gradient", "monitors/grad_norm", _three),
    ("memory", data.MEMORY_MB, megabytes),
)


def _tolerant() -> AbstractContextManager[None]:
    """Let a stream fail in the block: `rl8 | head`, a full disk or a closed terminal are no reason to stop training."""
    return contextlib.suppress(OSError, ValueError)  # ValueError: it is closed


def _row(*cells: tuple[Text, int]) -> Text:
    """Return texts side by side, each with its width, a space between them; tables would take twice the time."""
    row = _text("")
    for text, width in cells:
        text.truncate(width, overflow="ellipsis", pad=True)
        row.append_text(text).append(" ")
    row.rstrip()
    return row


def _set_control_echo(stream: TextIO, *, on: bool) -> bool:
    """Choose whether a terminal echoes Ctrl-C as `^C`; return whether that was a change."""
    try:
        import termios

        terminal = stream.fileno()
        # the kernel stops a background process that changes the settings of its terminal
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False
        settings = termios.tcgetattr(terminal)
        if bool(settings[3] & termios.ECHOCTL) == on:
            return False
        settings[3] ^= termios.ECHOCTL
        termios.tcsetattr(terminal, termios.TCSANOW, settings)
    except Exception:  # no terminal, not our terminal, not Unix: a matter of looks only
        return False
    return True


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
