import sys
from types import ModuleType

import pytest

from rl8.env.adapters.envpool import EnvPoolEnv, PoolEnv
from tests.env.adapters.tasks import Pool
from tests.env.adapters.test_gymnasium import FIRST, SECOND, transitions


def test_what_ended_is_reset_at_once_so_that_every_step_is_a_step():
    first, second = transitions(PoolEnv(Pool()), 6)
    assert first[:4] == FIRST
    assert second[:4] == SECOND
    assert [len(first), len(second)] == [6, 6]


def test_a_pool_must_return_all_environments():
    with pytest.raises(ValueError, match="batch_size=1 of this pool differs from num_envs=2"):
        PoolEnv(Pool(batch_size=1))


def test_a_task_by_its_id(monkeypatch):
    given = []
    module = ModuleType("envpool")
    module.__spec__ = sys.__spec__
    module.list_all_envs = lambda: ["CartPole-v1", "Pong-v5"]
    module.make = lambda id, **options: given.append((id, options)) or Pool()
    monkeypatch.setitem(sys.modules, "envpool", module)
    env = EnvPoolEnv(2, id="Pong-v5", kwargs={"num_threads": 3})
    env.validate()
    assert given[0][0] == "Pong-v5"
    assert given[0][1].keys() == {"num_threads", "env_type", "num_envs", "seed"}
    env.close()
    assert env.vec.closed
    with pytest.raises(ValueError, match=r"env.id=Pong-v4 is no task of EnvPool. Did you mean env.id=Pong-v5\?"):
        EnvPoolEnv(2, id="Pong-v4")


@pytest.mark.filterwarnings("ignore:.*Box (low|high)'s precision")
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
