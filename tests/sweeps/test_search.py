import math
import sys
from types import SimpleNamespace

import pytest

from rl8 import launch
from rl8.cli import main
from rl8.launch import Outcome
from rl8.sweeps import folder as kept

SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.eval_num_envs=4"]
QUIET = ["trainer.view=none", "trainer.render=false", "goal.env_steps=32", "trainer.track=false"]
SEARCH = ["-m", "hydra/sweeper=optuna", *SMALL, *QUIET, "hydra.sweep.dir=out"]


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""


@pytest.fixture
def training(monkeypatch):
    """Replace training: the return falls with the distance of gamma from 0.5, and a bit with the seed."""
    begun = []

    def run(trainer, plan):
        gamma, seed = plan.algorithm.options["gamma"], plan.seed
        begun.append((gamma, seed))
        for step in (100, 200):
            value = -abs(gamma - 0.5) - seed / 100 + step / 1000
            if any(stop({"eval/returns/mean": value, "env/steps": step}) for stop in trainer.stop_conditions):
                break
            assert not any(stop({"env/steps": step}) for stop in trainer.stop_conditions)
        return Outcome(value, trainer.stopped_by)

    trainer = SimpleNamespace(stop_conditions=(), stopped_by=None)
    monkeypatch.setattr(launch, "build", lambda plan, folder, words: SimpleNamespace(**vars(trainer)))
    monkeypatch.setattr(launch, "run", run)
    monkeypatch.setattr(launch, "rehearse", lambda plan, folder: launch.Rehearsal((), {}, ()))
    return SimpleNamespace(begun=begun, trainer=trainer)


def study(workdir, name="rl8", file="out/study.db"):
    optuna = pytest.importorskip("optuna", reason="the extra rl8[optuna] is not installed")
    return optuna.load_study(study_name=name, storage=f"sqlite:///{workdir / file}")


def test_a_grid_is_tried_once_with_every_seed(workdir, training, capfd):
    pytest.importorskip("optuna", reason="the extra rl8[optuna] is not installed")
    words = [*SEARCH, "hydra.sweeper.sampler=grid", "hydra.sweeper.trials=1", "algo.gamma=0.1,0.6,0.9", "seed=1,2"]
    assert main([*words, "hydra.sweeper.pruner=none"]) == 0
    assert sorted(training.begun) == [(gamma, seed) for gamma in (0.1, 0.6, 0.9) for seed in (1, 2)]
    best = study(workdir).best_trial
    assert best.params == {"algo.gamma": "0.6"}
    assert best.value == pytest.approx(-0.1 - 0.015 + 0.2)  # the mean over two seeds
    assert {"study-history.png"} <= {path.name for path in (workdir / "out").iterdir()}
    assert "best 0.085 in trial" in capfd.readouterr().out


def test_a_search_prunes_and_goes_on_where_it_was_interrupted(workdir, training, capsys):
    pytest.importorskip("optuna", reason="the extra rl8[optuna] is not installed")
    words = [*SEARCH, "hydra.sweeper.trials=8", "hydra.sweeper.startup=1", "trainer.steps_per_eval=1", "seed=1,2"]
    words += ["algo.gamma=interval(0.1, 0.9)"]
    run = launch.run

    def interrupted(trainer, plan):
        outcome = run(trainer, plan)
        return Outcome(outcome.objective, "SIGTERM" if len(training.begun) == 6 else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", interrupted)
        assert main(words) == 143
    assert [trial.state.name for trial in study(workdir).trials][2] == "RUNNING"
    assert main(words) == 0
    trials = study(workdir).trials
    states = [trial.state.name for trial in trials]
    assert len(trials) == 8
    assert {"COMPLETE", "PRUNED"} == set(states)
    assert training.begun[6] == training.begun[5]  # only what was interrupted is done again
    assert len(training.begun) == 2 * 8 + 1
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert min(abs(trial.params["algo.gamma"] - 0.5) for trial in done) < min(
        abs(trial.params["algo.gamma"] - 0.5) for trial in pruned
    )
    results = kept.results(workdir / "out")
    assert len(results) == 16
    ended = {trial.number for trial in pruned}
    assert {one.number // 2 for one in results if one.pruned} == ended
    count = sum(one.pruned for one in results)
    assert f"{16 - count} of 16 runs finished, {count} w" in capsys.readouterr().out


def test_a_failed_job_fails_its_trial_and_machines_share_a_study(workdir, training, monkeypatch):
    pytest.importorskip("optuna", reason="the extra rl8[optuna] is not installed")
    shared = [word for word in SEARCH[:-1] if word != "algo.horizon=4"]
    shared += ["hydra.sweeper.storage=sqlite:///shared.db", "hydra.sweeper.study_name=a", "seed=1"]
    shared += ["algo.horizon=int(interval(4,8))", "algo.gamma=0.1,0.9", "hydra.sweeper.sampler=random"]
    assert main([*shared, "hydra.sweeper.trials=2", "hydra.sweep.dir=one"]) == 0
    monkeypatch.setattr(launch, "run", lambda trainer, plan: Outcome(math.nan, None))
    assert main([*shared, "hydra.sweeper.trials=3", "hydra.sweep.dir=two"]) == 0
    trials = study(workdir, "a", "shared.db").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert all(isinstance(trial.params["algo.horizon"], int) for trial in trials)
    assert [one.number for one in kept.results(workdir / "two")] == [2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra.sweeper.sampler=tpee"], "hydra.sweeper.sampler='tpee' is unknown. Accepted: tpe, cmaes, grid, random"),
        (["hydra.sweeper.trials=0"], "hydra.sweeper.trials=0"),
        (["hydra.sweeper.trails=9"], "Unknown key 'hydra.sweeper.trails'"),
        (["hydra.sweeper.sampler=grid"], "hydra.sweeper.sampler=grid needs lists, and algo.gamma is an interval"),
    ],
)
def test_a_mistake_in_the_search_is_named_before_it_begins(words, message, workdir, capfd):
    pytest.importorskip("optuna", reason="the extra rl8[optuna] is not installed")
    assert main([*SEARCH, *words, "algo.gamma=interval(0.1, 0.9)"]) == 2
    assert message in capfd.readouterr().err
    assert not (workdir / "out").exists()


def test_without_optuna_the_extra_is_named(workdir, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main([*SEARCH, "algo.gamma=interval(0.1, 0.9)"]) == 2
    assert "hydra/sweeper=optuna needs optuna. Type: pip install 'rl8[optuna]'" in capfd.readouterr().err
