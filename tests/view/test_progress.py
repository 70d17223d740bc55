import io
import logging
import os
import re
import sys
import termios
import threading

import pytest
from rich.console import Console

from rl8.view.progress import LiveView, NoView, PlainView, make_view


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


class Pipe(io.StringIO):
    """A stream that is no terminal."""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


INFO = {
    "device": "cpu",
    "data": "128 envs x 64 steps",
    "policy": "MLP, 137,731 weights",
    "until": "env/steps >= 800,000",
    "recorded in": "mlflow.db, run bold-ape-7",
}
METRICS = {
    "returns/mean": -8.0,
    "losses/policy": -0.0123,
    "losses/vf": 0.0341,
    "losses/entropy": 0.89,
    "monitors/kl_div": 0.00831,
    "monitors/clip_fraction": 0.125,
    "monitors/grad_norm": 0.42,
    "coefficients/lr": 0.001,
    "memory/peak_mb": 412.0,
    "profiling/transitions_per_s": 41_234.0,
}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    """Return a real pseudo-terminal: the stream to write to, and a function that reads what has been written."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "40")
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    written = []

    def pump():
        try:
            while chunk := os.read(master, 65536):
                written.append(chunk)
        except OSError:
            pass  # the other side is closed

    reader = threading.Thread(target=pump)
    reader.start()

    def read():
        stream.close()
        reader.join()
        return b"".join(written).decode()

    yield stream, read
    stream.close()
    reader.join()
    os.close(master)


def feed(view, clock, iterations, seconds=0.5):
    for i in range(1, iterations + 1):
        clock.now += seconds
        metrics = METRICS | {"env/steps": 8192.0 * i, "algorithm/steps": float(i), "returns/mean": -60.0 / i}
        if i % 4 == 0:
            metrics["eval/returns/mean"] = -50.0 / i
        view.update(metrics, i / 100)


def screen(view, width=80, **options):
    """Return the panel as lines of text."""
    console = Console(file=io.StringIO(), width=width, **options)
    view.console = console
    console.print(view.render())
    return console.file.getvalue().splitlines()


def test_the_kind_follows_the_stream(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_view("auto", title="t", stream=Terminal())) is LiveView
    assert type(make_view("auto", title="t", stream=Pipe())) is PlainView
    assert type(make_view("auto", title="t")) is PlainView  # pytest captures standard output
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_view("auto", title="t", stream=Terminal())) is PlainView
    assert type(make_view("live", title="t", stream=Pipe())) is LiveView
    assert type(make_view("plain", title="t", stream=Terminal())) is PlainView
    assert type(make_view("none", title="t", stream=Terminal())) is NoView
    with pytest.raises(ValueError, match=r"trainer\.view='lively' is unknown.*Try trainer\.view=live"):
        make_view("lively", title="t")


def test_none_shows_nothing(capsys, caplog, clock):
    with make_view("none", title="t", clock=clock) as view:
        view.start(INFO)
        feed(view, clock, 3)
        view.finish({"ended": "well"})
        view.message("a warning")
    assert capsys.readouterr() == ("", "")
    assert caplog.messages == ["a warning"]


def test_plain_lines_come_every_two_seconds_and_first_and_last(clock):
    stream = Pipe()
    with PlainView("CartPole, seed 1", stream, clock) as view:
        view.start(INFO)
        feed(view, clock, 10, seconds=0.5)
        view.message("remark")
        view.finish({"ended": "well"})
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["CartPole, seed 1", "  device       cpu", "  data         128 envs x 64 steps"]
    # at 0.5 s, 2.5 s and 4.5 s, the remark, and the last at 5.0 s
    assert [line[:19] for line in lines[6:]] == [
        "  1%    8.2k steps ",
        "  5%   41.0k steps ",
        "  9%   73.7k steps ",
        "remark",
        " 10%   81.9k steps ",
        "  ended  well",
    ]
    assert "return -6.667  eval -6.250  kl  0.0083  entropy 0.890" in lines[8]


def test_plain_lines_of_slow_iterations_all_come(clock):
    stream = Pipe()
    view = PlainView("t", stream, clock)
    feed(view, clock, 3, seconds=30.0)
    view.close()
    view.close()
    assert [line[:4] for line in stream.getvalue().splitlines()] == ["  1%", "  2%", "  3%"]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")])
def test_a_stream_that_fails_stops_nothing(clock, error):
    class Broken(Pipe):
        def write(self, text):
            raise error

    view = PlainView("t", Broken(), clock)
    view.start(INFO)
    feed(view, clock, 2)
    view.finish({})


def test_the_panel_fits_eighty_columns(clock):
    view = LiveView("CartPole, seed 1", Terminal(), clock)
    view._info = INFO
    feed(view, clock, 40)
    assert screen(view) == [
        "╭─ CartPole, seed 1 ───────────────────────────────────────────────────────────╮",
        "│  ━━━━━━━━━━━━━━━━━━━━━╸                                   40%     0:30 left  │",
        "│  327,680 env steps · until env/steps >= 800,000         16.4k transitions/s  │",
        "│                                                                              │",
        "│  return        -1.500  ▁▅▆▇▇▇██████████████       best -1.500                │",
        "│  evaluation    -1.250  ▁▅▆▇▇▇████                 best -1.250                │",
        "│                                                                              │",
        "│  policy loss -0.0123    KL          0.00831    learning rate 0.001           │",
        "│  value loss  0.0341     clipped     12%        iteration     40              │",
        "│  entropy     0.890      gradient    0.420      memory        412 MB          │",
        "│                                                                              │",
        "│  cpu · 128 envs x 64 steps · MLP, 137,731 weights                            │",
        "│  recorded in mlflow.db, run bold-ape-7                                       │",
        "╰─────────────────────────────────────────────────────────────────────── 0:20 ─╯",
    ]


@pytest.mark.parametrize("width", [40, 60, 79, 100, 200])
def test_the_panel_fits_any_width(clock, width):
    view = LiveView("CartPole, seed 1", Terminal(), clock)
    view._info = INFO | {"recorded in": "x" * 300}
    feed(view, clock, 5)
    lines = screen(view, width)
    assert {len(line) for line in lines} == {min(width, 100)}
    assert len(lines) == 14


def test_the_panel_before_the_first_iteration_and_without_a_known_end(clock):
    view = LiveView("t", Terminal(), clock)
    lines = screen(view)
    assert len(lines) == 5
    assert "starting" in lines[2]
    view.update({"returns/mean": 1.0}, None)
    text = "\n".join(screen(view))
    assert "%" not in text
    assert "left" not in text
    assert "best 1.000" in text


def test_a_terminal_that_knows_ascii_only(clock):
    class Ascii(Terminal):
        encoding = "ascii"

    view = LiveView("t", Ascii(), clock)
    view._info = INFO
    feed(view, clock, 5)
    view.console = Console(file=Ascii(), width=80)
    view.console.print(view.render())
    text = view.console.file.getvalue()
    assert text.isascii()
    assert "env steps, until env/steps" in text


def test_the_live_view_draws_itself_and_gives_the_terminal_back(terminal, clock):
    stream, read = terminal
    view = make_view("auto", title="CartPole, seed 1", stream=stream, clock=clock)
    assert type(view) is LiveView
    drawn = threading.Event()
    render = view.render

    def note():
        panel = render()
        if view.readings.updates:
            drawn.set()
        return panel

    view.render = note
    with view:
        view.start(INFO)
        assert drawn.is_set() is False
        feed(view, clock, 40)
        assert drawn.wait(30)  # by its own thread
        view.message("the store is down")
        view.finish({"ended": "well", "look": "mlflow ui"})
    view.close()
    raw = read()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
    assert "the store is down" in text
    assert "327,680 env steps" in text
    assert re.search(r"  ended  well\s+look   mlflow ui\s*$", text)
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")  # the cursor is shown again


def test_the_terminal_is_given_back_when_training_fails(terminal, clock):
    stream, read = terminal

    def train():
        with make_view("live", title="t", stream=stream, clock=clock) as view:
            view.start({})
            feed(view, clock, 2)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        train()
    raw = read()
    assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")
    assert "16,384 env steps" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)


def test_ctrl_c_is_not_echoed_into_the_panel(terminal, clock, monkeypatch):
    stream, _ = terminal

    def echoes():
        return bool(termios.tcgetattr(stream.fileno())[3] & termios.ECHOCTL)

    with make_view("live", title="t", stream=stream, clock=clock) as view:
        view.start({})
        assert echoes()  # not the terminal of this process: left alone
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: os.getpgrp())
    for _ in range(2):
        with make_view("live", title="t", stream=stream, clock=clock) as view:
            view.start({})
            assert not echoes()
            with make_view("live", title="t", stream=stream, clock=clock) as second:
                second.start({})
            assert not echoes()  # it was off before, so the second view leaves it off
        assert echoes()
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: os.getpgrp() + 1)
    with make_view("live", title="t", stream=stream, clock=clock) as view:
        view.start({})
        assert echoes()  # a background process


def test_logs_go_above_the_panel_and_handlers_are_restored(terminal, clock, monkeypatch):
    stream, read = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    handler = logging.StreamHandler(stream)
    other = logging.StreamHandler(io.StringIO())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler, other])
    with make_view("live", title="t", stream=stream, clock=clock) as view:
        view.start({})
        assert handler.stream is sys.stdout is not stream
        logging.getLogger("rl8").warning("a line of the log")
    assert handler.stream is stream
    assert "a line of the log" in read()
    assert other.stream.getvalue() == "a line of the log\n"


def test_views_of_several_threads(clock):
    stream = Pipe()
    view = PlainView("t", stream, clock)
    threads = [threading.Thread(target=view.message, args=(f"message {i}",)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stream.getvalue().splitlines()) == sorted(f"message {i}" for i in range(20))
