import pytest
from envs import Drift, Endless, Episodes
from short_runs import BATCH, QUIET

from rl8 import RecurrentTrainer, Trainer
from rl8.conditions import EnvSteps
from rl8.rollout.rollout import Rollout

pytestmark = pytest.mark.usefixtures("workdir")


def test_the_memory_of_a_large_rollout_is_stated(capsys, monkeypatch):
    monkeypatch.setattr(Rollout, "megabytes", lambda self: 1234.0)
    Trainer(Endless, **{**QUIET, "view": "plain"}).run(stop_conditions=[EnvSteps(BATCH)])
    assert "8 envs x 8 steps, 1.2 GB" in capsys.readouterr().out


@pytest.mark.parametrize(("steps", "said"), [(BATCH, False), (3 * BATCH, True)])
def test_a_rate_that_falls_to_0_before_the_end_is_worth_a_line(capsys, steps, said):
    trainer = Trainer(Endless, lr_schedule=[[0, 1e-3], [2 * BATCH, 0.0]], **{**QUIET, "view": "plain"})
    trainer.run(stop_conditions=[EnvSteps(steps)])
    assert ("learning rate is 0 from 128 env steps on" in capsys.readouterr().out) is said


@pytest.mark.parametrize(
    ("env", "options", "said"),
    [
        (Episodes, {"horizons_per_env_reset": 2}, True),
        (Episodes, {}, False),
        (Endless, {"horizons_per_env_reset": 2}, False),
    ],
)
def test_a_reset_that_cuts_episodes_off_is_said_at_the_start(env, options, said, workdir, capsys):
    trainer = Trainer(env, **{**QUIET, "view": "plain"}, **options)
    trainer.run(stop_conditions=[EnvSteps(1)])
    steps = 2 * trainer.algorithm.hparams.horizon
    text = f"a reset every {steps} steps cuts them off. algo.horizons_per_env_reset=-1 lets them go on."
    assert (text in capsys.readouterr().out) == said


@pytest.mark.parametrize(("cls", "key"), [(Trainer, "model"), (RecurrentTrainer, "model.images")])
def test_images_that_are_taken_as_numbers_are_said_at_the_start(cls, key, capsys):
    trainer = cls(Drift, **{**QUIET, "view": "plain"})
    trainer.run(stop_conditions=[EnvSteps(1)])
    assert f"4 x 6 x 1, flattened to numbers; {key}=impala looks at them" in capsys.readouterr().out
