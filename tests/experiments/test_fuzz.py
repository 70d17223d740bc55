"""Random inputs: what is typed, and environments, act or are refused in words that help; see experiments/fuzz."""

import importlib
import random
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "fuzz"
# The same inputs each time: others are drawn by experiments/fuzz/run.py. A failing one is made smaller first.
FEW = settings(
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def fuzz():
    """Import the study's modules by name, as in its folder; forget them afterwards."""
    names = ("typed", "environments", "run")
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


@pytest.fixture
def typed(fuzz, program):
    return fuzz["typed"]


@pytest.fixture
def environments(fuzz):
    return fuzz["environments"]


# Seeds rather than Hypothesis: what may be typed depends on the options that are found, which tests before may change.
@pytest.mark.parametrize("seed", range(15))
def test_what_is_typed_acts_or_is_refused_in_words_that_help(typed, seed):
    with typed.quick():
        done = typed.attempt(typed.words(random.Random(seed)))
        broken = typed.faults(done)
        assert not broken, f"{broken}: {' '.join(done.words)}\n{done.err}\n{done.files}"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@settings(FEW, max_examples=50)
@given(source=st.randoms(use_true_random=False))
def test_an_environment_is_trained_in_or_refused_with_the_mend(environments, source):
    done = environments.attempt(source)
    assert not environments.faults(done), f"{done.mistake}: {done.text}\n{done.message}\n{done.trace}"
    assert done.mistake or done.kind == "trained", f"{done.text}\n{done.message}"


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ({}, []),
        ({"files": ["empty/outputs"]}, ["file left"]),
        ({"err": "rl8: Something is wrong.\n"}, ["message without key"]),
        ({"err": "rl8: algo.gamma=2 is wrong.\nTry again.\n"}, ["several messages"]),
        ({"err": "rl8: algo.gamma=2 is wrong. Try algo.gamma=3.\n"}, ["advice: algo.gamma=3"]),
        ({"err": "Traceback (most recent call last):\nKeyError: 3"}, ["traceback"]),
        ({"code": "hang"}, ["hang"]),
        ({"code": 0, "files": ["empty/outputs"]}, ["file left"]),
    ],
    ids=str,
)
def test_what_breaks_the_rule_is_found(typed, given, broken):
    right = {"code": 2, "err": "rl8: algo.gamma=2 is wrong. Try algo.gamma=0.5.\n"}
    assert typed.faults(typed.Attempt(["algo.gamma=2"], **{**right, **given})) == broken


def test_a_run_is_held_to_what_was_typed(typed):
    done = typed.attempt([*typed.TINY, "algo.gamma=0.5", "model.hiddens=[4]", "env.gravity=3"])
    assert done.kind == "trained"
    assert typed.not_as_typed(done) == []
    done.words[-1] = "env.gravity=4"
    assert typed.not_as_typed(done) == ["env.gravity"]


def test_results_are_counted_and_list_what_broke_the_rule(fuzz):
    rows = [
        {"number": 0, "kind": "trained", "faults": [], "input": "", "message": "", "seconds": 1.0},
        {
            "number": 1,
            "kind": "refused",
            "faults": ["advice: a=1"],
            "input": "b=1",
            "message": "Try a=1",
            "seconds": 2.0,
        },
    ]
    text = fuzz["run"].summary({"typed": rows, "environments": []}, seed=3)
    assert "| inputs | 2 | 0 |" in text
    assert "| **advice** | 1 | 0 |" in text
    assert "| longest, s | 2.0 | 0.0 |" in text
    assert "- typed/1 advice: `b=1 -> Try a=1`" in text
