import pytest
from envs import Endless
from short_runs import BATCH, QUIET, runs_of

from rl8 import Trainer, data
from rl8.checkpoint import load_policy
from rl8.conditions import EnvSteps
from rl8.env import DiscreteDummyEnv
from rl8.tracking.run import Tracker

pytestmark = pytest.mark.usefixtures("workdir")


class Undrawable(DiscreteDummyEnv):
    def render(self, index=0):
        raise RuntimeError("could not open display\nmore")


@pytest.mark.usefixtures("store_dir")
def test_what_is_optional_never_fails_a_run(workdir, monkeypatch):
    monkeypatch.setattr("rl8.view.plots.learning_curve", lambda *a, **k: (_ for _ in ()).throw(OSError("no fonts")))
    monkeypatch.setattr(Tracker, "log_artifact", lambda *a: (_ for _ in ()).throw(OSError("no space")))
    trainer = Trainer(Undrawable, output_dir="here", **{**QUIET, "track": True, "render": True})
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert trainer.warnings == [
        "The learning curve failed: OSError: no fonts. What was trained is saved.",
        "The film failed: RuntimeError: could not open display. What was trained is saved.",
        "Storing checkpoint.pt with the run failed: OSError: no space. What was trained is saved.",
        "Storing policy.pt with the run failed: OSError: no space. What was trained is saved.",
    ]
    _, (run,) = runs_of(workdir)
    assert run.info.status == "FINISHED"
    assert "could not open display" in run.data.tags["warnings"]
    assert load_policy("here/policy.pt").recurrent is False


def test_a_final_evaluation_that_fails_costs_nothing(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", **QUIET)
    monkeypatch.setattr(trainer, "eval", lambda config: (_ for _ in ()).throw(RuntimeError("no luck")))
    metrics = trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert metrics[data.ENV_STEPS] == BATCH
    assert trainer.warnings == ["The final evaluation failed: RuntimeError: no luck. What was trained is saved."]
    assert load_policy("here/policy.pt").recurrent is False
