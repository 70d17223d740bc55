"""Random inputs: what is typed, and environments, act or are refused in words that help; see experiments/fuzz."""

import importlib
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


@settings(FEW, max_examples=40)
@given(source=st.randoms(use_true_random=False))
def test_what_is_typed_acts_or_is_refused_in_words_that_help(typed, source):
    with typed.quick():
        done = typed.attempt(typed.words(source))
        assert not typed.faults(done), f"{' '.join(done.words)}\n{done.err}\n{done.files}"


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@settings(FEW, max_examples=60)
@given(source=st.randoms(use_true_random=False))
def test_an_environment_is_trained_in_or_refused_with_the_mend(environments, source):
    done = environments.attempt(source)
    assert not environments.faults(done), f"{done.mistake}: {done.text}\n{done.message}\n{done.trace}"
    assert done.mistake or done.kind == "trained", f"{done.text}\n{done.message}"
