import queue
import signal

import pytest
import torch

from rl8.guest import stop_signals, torch_settings

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
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="simulated") if fails else torch_settings(), torch_settings():
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        torch.manual_seed(123)
        if fails:
            raise RuntimeError("simulated")
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()) == before
    assert torch.equal(torch.get_rng_state(), state)
