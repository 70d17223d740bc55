import pytest

from rl8.tracking.names import run_name, task_name
from rl8.tracking.store import FIXED_VARIABLE

LR = "algo.optimizer.lr"


@pytest.fixture(autouse=True)
def _no_sweep(monkeypatch):
    monkeypatch.delenv(FIXED_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("env", "algorithm", "config", "name"),
    [
        ("CartPole", "Algorithm", {"seed": 1}, "cartpole-ppo-seed1"),
        ("CueRecall", "RecurrentAlgorithm", {"seed": 0, "env": {"delay": 3}}, "cuerecall-recurrent-seed0"),
        ("Mine", "MyPPO", {}, "mine-myppo"),
        ("Mine", "Algorithm", {"seed": None, "env": None}, "mine-ppo"),
        ("Gymnasium", "Algorithm", {"seed": 2, "env": {"id": "ALE/Pong-v5"}}, "ale-pong-v5-ppo-seed2"),
        ("MjlabEnv", "Algorithm", {"seed": 2, "env": {"task": "Go1"}}, "go1-ppo-seed2"),
    ],
)
def test_a_run_is_named_for_what_it_is(env, algorithm, config, name):
    assert run_name(env, algorithm, config, ["seed=5", "algo.gamma=0.9"]) == name


def test_a_task_is_named_by_its_option_where_there_is_one():
    assert task_name("Gymnasium", {"env": {"id": "LunarLander-v3"}}) == "LunarLander-v3"
    assert task_name("Mine", {"env": {"id": 3}}) == "Mine"


@pytest.mark.parametrize(
    ("fixed", "overrides", "name"),
    [
        ("goal.env_steps", [f"{LR}=1e-3", "seed=2", "goal.env_steps=10"], "lr=1e-3, seed=2"),
        ("", ["model=lstm"], "model=lstm"),
        ("a.b", ["a.b=3", "+a.x=1", "b.x=2"], "a.x=1, b.x=2"),
        ("", ["env.password=secret"], "password=***"),
        ("seed", ["seed=1"], "cartpole-ppo-seed1"),
    ],
)
def test_a_job_of_a_sweep_is_named_by_what_varies(monkeypatch, fixed, overrides, name):
    monkeypatch.setenv(FIXED_VARIABLE, fixed)
    assert run_name("CartPole", "Algorithm", {"seed": 1}, overrides) == name
