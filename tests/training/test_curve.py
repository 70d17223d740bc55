import pytest
from envs import Endless
from short_runs import BATCH, QUIET

from rl8 import Trainer, data
from rl8.conditions import EnvSteps

pytestmark = pytest.mark.usefixtures("workdir")


def test_a_long_history_is_thinned_out(monkeypatch):
    monkeypatch.setattr("rl8.training.curve.MAX_HISTORY", 5)
    trainer = Trainer(Endless, steps_per_eval=2, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(7 * BATCH)])
    # when 6 comes, 3 is dropped of 1, 3, 5, and 4 of 2, 4, which were evaluated
    assert [metrics[data.ITERATIONS] for metrics in trainer.history] == [1, 2, 5, 6, 7]


def test_a_resumed_run_draws_all_of_its_curve(monkeypatch):
    drawn = []
    monkeypatch.setattr("rl8.view.plots.learning_curve", lambda history, *a, **k: drawn.append(history))
    monkeypatch.setattr("rl8.training.curve.MAX_CURVE", 4)
    Trainer(Endless, output_dir="first", **QUIET).run(stop_conditions=[EnvSteps(4 * BATCH)])
    Trainer(Endless, resume="first", **QUIET).run(stop_conditions=[EnvSteps(6 * BATCH)])
    Trainer(Endless, resume="first", **QUIET).run(stop_conditions=[EnvSteps(7 * BATCH)])
    assert [[m[data.ITERATIONS] for m in history] for history in drawn] == [
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6],
        [1, 3, 5, 7],
    ]
