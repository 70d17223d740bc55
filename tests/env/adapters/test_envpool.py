import re
import sys
import warnings
from collections import namedtuple
from types import ModuleType, SimpleNamespace

import gymnasium
import numpy as np
import pytest

from rl8.env.adapters.envpool import EnvPoolEnv, PoolEnv
from rl8.specs import Unbounded
from tests.env.adapters.tasks import Pool
from tests.env.adapters.test_gymnasium import FIRST, SECOND, transitions


def test_what_ended_is_reset_at_once_so_that_every_step_is_a_step():
    first, second = transitions(PoolEnv(Pool()), 6)
    assert first[:4] == FIRST
    assert second[:4] == SECOND
    assert [len(first), len(second)] == [6, 6]


class Wide(Pool):
    """Gives limits of float32 as float64, as EnvPool does, and warns of something else."""

    single_observation_space = property(lambda self: wide_space(), lambda self, space: None)


def wide_space():
    warnings.warn("it is late", stacklevel=1)
    return gymnasium.spaces.Box(np.zeros(1), np.full(1, 9.0), (1,), np.float32)


def test_limits_in_double_precision_are_no_warning_and_others_are():
    said = []
    for make in (wide_space, lambda: PoolEnv(Wide())):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made = make()
        said.append([re.sub(r".*WARN: | precision.*", "", str(warning.message)) for warning in caught])
    assert made.observation_spec == Unbounded(1)
    assert said == [["it is late", "Box low's", "Box high's"], ["it is late"]]


def test_a_pool_must_return_all_environments():
    with pytest.raises(ValueError, match="batch_size=1 of this pool differs from num_envs=2"):
        PoolEnv(Pool(batch_size=1))


@pytest.fixture
def given(monkeypatch):
    """Stand for EnvPool; what pools were asked for."""
    asked = []
    config = namedtuple("Config", ["num_envs", "num_threads", "max_episode_steps", "base_path", "env_seed"])
    module = ModuleType("envpool")
    module.__spec__ = sys.__spec__
    module.list_all_envs = lambda: ["CartPole-v1", "Pong-v5"]
    module.make_spec = lambda id: SimpleNamespace(config=config(1, 0, 500, "/", []))
    module.make = lambda id, **options: asked.append((id, options)) or Pool()
    monkeypatch.setitem(sys.modules, "envpool", module)
    return asked


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_thread": 3}, r"Unknown keyword in env.kwargs 'num_thread'. Did you mean 'num_threads'\?"),
        ({"num_threads": -3}, "env.kwargs.num_threads=-3 is out of range"),
        ({"num_threads": "many"}, "env.kwargs.num_threads=many is of the wrong kind. Accepted: an integer"),
        ({"max_episode_steps": 0}, "env.kwargs.max_episode_steps=0 is out of range. Accepted: an integer >= 1"),
        ({"num_envs": 4}, r"env.kwargs={num_envs: 4}: algo.num_envs says num_envs.* Try env.kwargs=null"),
        (3, "env.kwargs=3 is no mapping"),
    ],
)
def test_keywords_are_checked_before_the_library_has_them(given, kwargs, message):
    with pytest.raises((TypeError, ValueError), match=message):
        EnvPoolEnv(2, kwargs=kwargs)
    assert given == []


def test_a_task_by_its_id(given):
    env = EnvPoolEnv(2, id="Pong-v5", kwargs={"num_threads": 3})
    env.validate()
    assert given[0][0] == "Pong-v5"
    assert given[0][1].keys() == {"num_threads", "env_type", "num_envs", "seed"}
    env.close()
    assert env.vec.closed
    with pytest.raises(ValueError, match=r"env.id=Pong-v4 is no task of EnvPool. Did you mean env.id=Pong-v5\?"):
        EnvPoolEnv(2, id="Pong-v4")


def test_the_library_itself_trains():
    pytest.importorskip(
        "envpool", reason="the extra rl8[envpool] is not installed: it takes 700 MB", exc_type=ImportError
    )
    import torch

    from rl8.ppo.algorithm import Algorithm

    algorithm = Algorithm(EnvPoolEnv, num_envs=16, horizon=64)
    algorithm.collect()
    algorithm.step()
    rollout = algorithm.rollout
    ends = rollout.is_last.nonzero()
    assert len(ends) > 10
    for t, row in ends.tolist():
        # the first observation of an episode is within 0.05 of 0; the step after it moves on from there
        assert rollout.obs[t + 1, row].abs().max() <= 0.05
        if t + 2 < len(rollout.obs):
            assert not torch.equal(rollout.obs[t + 1, row], rollout.obs[t + 2, row])
    assert rollout.rewards.eq(1).all()
    algorithm.env.close()
