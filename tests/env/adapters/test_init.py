import functools
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch

from rl8.cli import main
from rl8.conditions import HitsUpperBound
from rl8.env import CartPole
from rl8.env.adapters import wrap
from rl8.env.adapters.envpool import EnvPoolEnv, PoolEnv
from rl8.env.adapters.gymnasium import GymnasiumEnv, VectorEnv
from rl8.env.adapters.isaaclab import IsaacLabEnv
from rl8.env.adapters.manager import ManagerEnv
from rl8.env.adapters.mjlab import MjlabEnv
from rl8.env.adapters.playground import PlaygroundEnv
from rl8.ppo.algorithm import Algorithm
from rl8.trainer import Trainer
from tests.env.adapters.tasks import Count, Pool, Simulator, count_vec


@pytest.mark.parametrize(
    ("env", "kind", "count"),
    [
        (count_vec("NEXT_STEP"), VectorEnv, 2),
        (gym.make("CartPole-v1"), VectorEnv, 1),
        (Pool(), PoolEnv, 2),
        (Simulator(), ManagerEnv, 3),
    ],
    ids=["vector", "single", "pool", "simulator"],
)
def test_an_object_is_known_by_its_interface(env, kind, count):
    made = Algorithm(wrap(env), horizon=4).env
    assert type(made) is kind
    assert made.num_envs == count
    assert made.shared
    assert made.opaque


def test_options_go_to_what_speaks_to_it():
    made = wrap(Simulator(), groups=["critic"])(3)
    assert made.groups == ["critic"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'group'"):
        wrap(Simulator(), group="critic")(3)


def test_a_function_makes_others_for_evaluation(workdir):
    counts = []
    trainer = Trainer(
        wrap(lambda n: counts.append(n) or gym.make_vec("CartPole-v1", n)),
        num_envs=4,
        horizon=8,
        eval_num_envs=3,
        track=False,
        view="none",
    )
    trainer.step()
    trainer.eval()
    trainer.step()
    assert counts == [4, 3]
    assert trainer.algorithm.resets == 1
    trainer.close()


def test_an_object_is_evaluated_in_itself_and_training_begins_anew(workdir):
    trainer = Trainer(wrap(count_vec("SAME_STEP")), horizon=5, eval_horizon=6, track=False, view="none")
    trainer.step()
    trainer.step()
    assert trainer.algorithm.resets == 1
    # the first episodes of 2 environments: 0 + 1 and 0 + 1 + 2
    found = trainer.eval()
    assert found["eval/returns/mean"] == pytest.approx((1 + 3) / 2)
    assert found["eval/episodes/length/mean"] == 2.5
    trainer.step()
    assert trainer.algorithm.resets == 2
    assert trainer.algorithm.rollout.obs[0].eq(0).all()


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (CartPole, TypeError, "is an environment of rl8 already. Give its class as it is"),
        (CartPole(2), TypeError, "is an environment of rl8 already. Give its class as it is"),
        (3, TypeError, "3 is no environment that can be wrapped. Accepted: what has the interface of"),
    ],
)
def test_what_is_no_such_environment_is_refused(env, error, message):
    with pytest.raises(error, match=re.escape(message)):
        wrap(env)


def test_counts_must_agree():
    with pytest.raises(
        ValueError, match=r"num_envs=8, but the object that was wrapped has 2 environments. Try num_envs=2"
    ):
        Algorithm(wrap(count_vec("SAME_STEP")), num_envs=8)
    with pytest.raises(ValueError, match="num_envs=8, but the function that was wrapped made 2 environments"):
        Algorithm(wrap(lambda n: count_vec("SAME_STEP")), num_envs=8)
    with pytest.raises(TypeError, match="is no environment that can be wrapped"):
        wrap(lambda n: object())(1)


@pytest.mark.parametrize("env", [GymnasiumEnv, functools.partial(GymnasiumEnv, id="CartPole-v1"), wrap(Simulator())])
def test_a_reset_between_ends_is_refused_and_never_the_default(env):
    with pytest.raises(ValueError, match=r"^horizons_per_env_reset=4 would cut the episodes of .*Try horizons"):
        Algorithm(env, num_envs=3, horizon=4, horizons_per_env_reset=4)
    assert Algorithm(env, num_envs=3, horizon=4).hparams.horizons_per_env_reset == -1


def test_settings_for_a_reset_are_refused():
    algorithm = Algorithm(GymnasiumEnv, num_envs=2, horizon=4)
    with pytest.raises(ValueError, match=r"env_config={gravity: 3.7} has no effect"):
        algorithm.collect(env_config={"gravity": 3.7})


def test_resuming_begins_new_episodes_and_says_so(workdir, capsys):
    def trainer(**options):
        made = functools.partial(GymnasiumEnv, id="CartPole-v1")
        return Trainer(made, num_envs=2, horizon=16, track=False, view="plain", output_dir="out", **options)

    first = trainer()
    first.step()
    path = first.save("checkpoint.pt")
    second = trainer(resume=str(path))
    assert second.algorithm.env_steps == 32
    capsys.readouterr()
    second.run(stop_conditions=[HitsUpperBound("algorithm/steps", 2)])
    assert "Not an exact resume: the state of GymnasiumEnv can't be saved" in capsys.readouterr().out
    assert second.algorithm.env_steps == 64
    assert second.algorithm.resets == 2
    # not the episodes that the run began with
    assert not torch.equal(first.algorithm.rollout.obs[0], second.algorithm.rollout.obs[0])
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("cls", "package", "advice"),
    [
        (GymnasiumEnv, "gymnasium", r"pip install 'rl8\[gymnasium\]'"),
        (EnvPoolEnv, "envpool", r"pip install 'rl8\[envpool\]'"),
        (MjlabEnv, "mjlab", r"pip install 'rl8\[mjlab\]'"),
        (PlaygroundEnv, "mujoco_playground", r"pip install 'rl8\[playground\]'"),
        (IsaacLabEnv, "isaaclab", "Install Isaac Lab 2.3 into this environment by its own guide"),
    ],
)
def test_a_missing_package_is_named_with_what_to_type(cls, package, advice, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError,
        match=rf"env={package.removeprefix('mujoco_')} needs the package {package}, which is not installed. .*{advice}",
    ):
        cls(2)


def test_the_command_line_trains_films_and_closes(program, monkeypatch, capsys):
    made, closed = [], []

    class Vec(gym.vector.SyncVectorEnv):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)
            self.render_mode = "rgb_array"
            self.render = lambda: tuple(np.zeros((8, 8, 3), np.uint8) for _ in range(self.num_envs))

        def close_extras(self, **kwargs):
            closed.append(self)
            super().close_extras(**kwargs)

    monkeypatch.setattr("gymnasium.vector.SyncVectorEnv", Vec)
    words = ["goal.env_steps=1", "algo.num_sgd_iters=1", "trainer.eval_horizon=4", "trainer.track=false"]
    assert main(["env=gymnasium", "env.id=CartPole-v1", "env.kwargs={sutton_barto_reward: true}", *words]) == 0
    assert [vec.num_envs for vec in made] == [8, 16, 8, 16]  # for training and evaluation: tried, then in earnest
    assert {id(vec) for vec in made} == {id(vec) for vec in closed}
    assert "policy.gif" in capsys.readouterr().out


def test_libraries_stay_unimported_until_they_are_used():
    names = ", ".join(
        f"rl8.env.adapters.{name}" for name in ("gymnasium", "envpool", "mjlab", "isaaclab", "playground")
    )
    libraries = ["gymnasium", "envpool", "mjlab", "isaaclab", "jax", "mujoco_playground"]
    code = f"import sys, rl8.env.adapters, {names}; sys.exit(' '.join(set({libraries}) & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_single_environment_is_a_vector_of_one():
    made = wrap(Count(2, "truncated"))(1)
    made.validate()
    assert made.autoreset == "same_step"
