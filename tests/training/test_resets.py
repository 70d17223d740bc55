import pytest
from envs import Endless
from short_runs import BATCH, QUIET

from rl8 import Trainer
from rl8.conditions import EnvSteps

pytestmark = pytest.mark.usefixtures("workdir")


def noises(trainer):
    """Return a list that the noise of each reset is added to: (training's, evaluation's)."""
    seen = {"train": [], "eval": []}
    for kind, env in (("train", trainer.algorithm.env), ("eval", trainer._evaluation.evaluator.env)):

        def reset(*, config=None, kind=kind, env=env):
            obs = type(env).reset(env, config=config)
            seen[kind].append(round(env.noise.item(), 3))
            return obs

        env.reset = reset
    return seen


def test_settings_of_a_run_and_of_a_step():
    trainer = Trainer(Endless, env_config={"noise": 2.0}, eval_env_config={"noise": 3.0}, **QUIET)
    seen = noises(trainer)
    trainer.step()
    trainer.step({"noise": 4.0})
    trainer.step()
    trainer.eval()
    trainer.eval({"noise": 5.0})
    trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    trainer.run(
        stop_conditions=[EnvSteps(7 * BATCH)],
        env_config={"noise": 6.0},
        eval_env_config={"noise": 7.0},
        steps_per_eval=1,
    )
    assert seen == {
        "train": [2.0, 4.0, 2.0, 2.0, 2.0, 6.0, 6.0],
        "eval": [3.0, 5.0, 3.0, 7.0, 7.0, 7.0],
    }  # tried once before the run


def test_dictionaries_are_handed_to_environments_as_copies():
    class Greedy(Endless):
        def reset(self, *, config=None):
            if config:
                config.pop("noise").clear()
            return super().reset()

    config = {"noise": {"low": 1.0, "high": 2.0}}
    trainer = Trainer(Greedy, env_config=config, eval_env_config=config, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(2 * BATCH)])
    assert config == {"noise": {"low": 1.0, "high": 2.0}}


def test_settings_of_resets_that_changed_act_at_once():
    options = {**QUIET, "horizons_per_env_reset": -1}
    Trainer(Endless, output_dir="a", env_config={"noise": 2.0}, **options).run(stop_conditions=[EnvSteps(BATCH)])
    assert Trainer(Endless, resume="a", env_config={"noise": 2.0}, **options).algorithm.env.noise == 2.0
    assert Trainer(Endless, resume="a", env_config={"noise": 3.0}, **options).algorithm.env.noise == 3.0
