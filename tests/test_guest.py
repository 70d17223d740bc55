import gc
import io
import logging
import os
import queue
import random
import signal
import sys

import pytest
import torch

from rl8.guest import command_line, log_levels, root_logging, stop_signals, terminable, torch_settings, variables

ANSWERS = {
    signal.SIGINT: "Ctrl-C: the iteration at hand is being finished, then the policy is saved and evaluated. "
    "A second Ctrl-C stops now.",
    signal.SIGTERM: "SIGTERM: the iteration at hand is being finished, then the policy is saved and evaluated. "
    "A second SIGTERM stops now.",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_what_it_would_otherwise(number):
    before = signal.getsignal(number)
    calls, told = [], queue.Queue()
    signal.signal(number, lambda *arguments: calls.append("own"))
    own = signal.getsignal(number)
    try:
        with stop_signals(told.put) as received:
            signal.raise_signal(number)
            assert told.get(timeout=10) == ANSWERS[number]  # while the block goes on
            assert received == [number.name]
            assert calls == []
            signal.raise_signal(number)
            assert calls == ["own"]
            assert received == [number.name]
        assert told.empty()
        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signals(pytest.fail) as received:
            assert signal.getsignal(number) is signal.SIG_IGN
            signal.raise_signal(number)
        assert received == []
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_handler_that_is_set_meanwhile_survives():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with stop_signals(pytest.fail):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_left_as_it_was(fails):
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision())
    state, drawn = torch.get_rng_state(), random.getstate()
    with pytest.raises(RuntimeError, match="simulated") if fails else torch_settings(), torch_settings():
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(123)
        random.random()
        if fails:
            raise RuntimeError("simulated")
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == drawn


def test_sigterm_ends_a_block_unless_it_is_ignored():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"), terminable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is before
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with terminable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_variables_are_taken_away_again_unless_somebody_else_set_them(monkeypatch):
    monkeypatch.setenv("RL8_A", "own")
    monkeypatch.delenv("RL8_B", raising=False)
    monkeypatch.delenv("RL8_C", raising=False)
    with variables({"RL8_A": "1", "RL8_B": "2", "RL8_C": "3"}):
        assert [os.environ[f"RL8_{name}"] for name in "ABC"] == ["own", "2", "3"]
        monkeypatch.setenv("RL8_C", "changed")
    assert os.environ["RL8_A"] == "own"
    assert "RL8_B" not in os.environ
    assert os.environ["RL8_C"] == "changed"


def test_logging_is_put_back():
    root, named = logging.getLogger(), logging.getLogger("rl8.some")
    before, level = list(root.handlers), root.level
    other = logging.StreamHandler(io.StringIO())
    with root_logging(), log_levels(["rl8.some"], logging.ERROR):
        root.handlers[:] = [other]
        root.setLevel(logging.DEBUG)
        assert named.level == logging.ERROR
    assert (root.handlers, root.level, named.level) == (before, level, logging.NOTSET)


@pytest.mark.parametrize("looks", [True, False])
def test_the_command_line_leaves_its_process_as_it_was(looks, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if looks else gc.disable)()
    try:
        with command_line(alone=False):
            assert not gc.isenabled()
            assert os.environ["GOMP_SPINCOUNT"] == "10000"
            print("é")
            gc.freeze()
        assert gc.isenabled() is looks
        assert gc.get_freeze_count() == frozen
    finally:
        (gc.enable if before else gc.disable)()
    assert stream.errors == "strict"
    assert stream.buffer.getvalue() == b"\\xe9\n"
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_process_that_fails_among_others_is_not_ended_by_the_launcher_before_it_says_why():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    told = []
    try:
        with pytest.raises(ValueError, match="other process"), stop_signals(told.append, passed_on=True) as received:
            raise ValueError("the other process has failed")
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["SIGTERM", "SIGTERM"]
        assert not told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
