"""With a stand-in of JAX's and Playground's signatures, and with the library itself where it is installed."""

import functools

import numpy as np
import pytest
import torch

from rl8.env.adapters.playground import PlaygroundEnv, _compiled
from rl8.ppo.algorithm import Algorithm
from rl8.specs import Bounded, Composite, Unbounded
from tests.env.adapters import jax_stand_in


@pytest.fixture
def playground(monkeypatch):
    jax_stand_in.put_in_place(monkeypatch)
    _compiled.cache_clear()
    yield
    _compiled.cache_clear()


pytestmark = pytest.mark.usefixtures("playground")
Env = functools.partial(PlaygroundEnv, task="Count")


def test_specs_and_the_contract():
    env = Env(3)
    assert env.observation_spec == Unbounded(2)
    assert env.action_spec == Bounded(-1.0, 1.0, (1,))
    env.validate()
    assert env.metric_names == {"reward/action"}  # env/steps is rl8's own


def run(env, steps, action=0.0):
    first = env.reset().clone()
    for _ in range(steps):
        out = env.step(torch.full((env.num_envs, 1), action))
    return first, out


def test_an_episode_is_truncated_with_its_true_last_observation_and_begins_anew():
    first, out = run(Env(3), 4)
    assert out["truncated"].all()
    assert not out["terminated"].any()
    torch.testing.assert_close(out["final_obs"], first + torch.tensor([0.0, 4.0]))
    assert out["obs"][:, 1].eq(0).all()
    assert out["obs"][:, 0].ne(first[:, 0]).all()


def test_between_ends_nothing_is_said_of_them():
    _, out = run(Env(3), 3)
    assert set(out.keys()) == {"obs", "rewards", "metrics"}


def test_an_end_by_the_task_is_no_truncation_even_at_the_time_limit():
    env = Env(2)
    run(env, 3)
    out = env.step(torch.tensor([[1.0], [0.5]]))
    assert out["terminated"].tolist() == [True, False]
    assert out["truncated"].tolist() == [False, True]
    assert out["rewards"].tolist() == out["metrics"]["reward/action"].tolist() == [1.0, 0.5]
    out = env.step(torch.tensor([[9.0], [0.0]]))  # held within -1 and 1, one step into the next episode
    assert out["terminated"].tolist() == [True, False]
    assert out["rewards"].tolist() == [1.0, 0.0]
    assert out["obs"][:, 1].tolist() == [0, 1]


def test_without_a_full_reset_an_environment_begins_as_it_first_did():
    env = Env(3, full_reset=False)
    first, out = run(env, 4)
    torch.testing.assert_close(out["obs"], first)
    assert env._state.info["steps"].tolist() == [4, 4, 4]  # as in Playground, what it keeps beside goes on
    assert not env.step(torch.zeros(3, 1)).keys() & {"terminated", "truncated"}


def test_memory_is_shared():
    env = Env(3)
    obs = env.reset()
    assert obs.data_ptr() == env._state.obs.ctypes.data
    actions = torch.zeros(3, 1)
    env.step(actions)
    assert env._lent[0].ctypes.data == actions.data_ptr()


def test_what_all_environments_share_is_left_alone():
    begin_where = Env(3).task.begin_where
    state, ages = begin_where(
        np.array([True, False, True]),
        {"rows": np.ones((3, 2)), "shared": np.ones(1)},
        {"rows": np.zeros((3, 2)), "shared": np.zeros(1)},
        np.array([5, 6, 7]),
    )
    assert state["rows"].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert state["shared"].tolist() == [0]
    assert ages.tolist() == [0, 6, 0]


def test_groups():
    env = PlaygroundEnv(2, task="GroupedCount")
    assert env.groups == ["state"]
    assert env.observation_spec == Unbounded(1)
    both = PlaygroundEnv(2, task="GroupedCount", groups=["state", "privileged_state"])
    assert both.observation_spec == Composite(state=Unbounded(1), privileged_state=Unbounded(2))
    both.validate()
    with pytest.raises(ValueError, match=r"Unknown observation group in env.groups 'stat'. Did you mean 'state'\?"):
        PlaygroundEnv(2, task="GroupedCount", groups=["stat"])
    with pytest.raises(ValueError, match=r"env.groups=\[\] leaves nothing to observe. Accepted: privileged_state"):
        PlaygroundEnv(2, task="GroupedCount", groups=[])
    with pytest.raises(ValueError, match=r"env.groups=\[state\]: Count observes one thing, without groups"):
        Env(2, groups=["state"])


def test_seeds_come_from_the_run():
    def observed(seed):
        torch.manual_seed(seed)
        env = Env(3)
        return [env.reset()[:, 0].tolist() for _ in range(2)]

    assert observed(1) == observed(1)
    assert observed(1) != observed(2)
    assert len({number for row in observed(1) for number in row}) == 6


def test_random_ages_end_episodes_apart():
    torch.manual_seed(0)
    env = Env(40, episode_length=10)
    env.reset()
    env.begin_at_random_ages()
    ended = [env.step(torch.zeros(40, 1)).get("truncated", torch.zeros(40)).sum() for _ in range(10)]
    assert sum(ended) == 40
    assert sum(count > 0 for count in ended) > 5


def test_it_trains_and_bootstraps_from_final_observations():
    algorithm = Algorithm(
        functools.partial(PlaygroundEnv, task="GroupedCount", groups=["state", "privileged_state"]),
        num_envs=4,
        horizon=8,
        model_config={"policy_obs": ["state"], "value_obs": ["privileged_state"]},
    )
    assert algorithm.hparams.bootstrap == "final_obs"
    metrics = algorithm.collect() | algorithm.step()
    assert algorithm.rollout.is_last is not None
    assert float(metrics["env/reward/action"]) == pytest.approx(float(metrics["rewards/mean"]), abs=1e-6)


def test_a_task_is_compiled_once_for_training_and_evaluation():
    assert Env(2).task is Env(3).task
    assert Env(2).task is not Env(2, episode_length=9).task


def test_an_action_is_repeated_as_the_task_says_and_what_follows_an_end_pays_nothing():
    env = Env(2, config={"action_repeat": 2})
    run(env, 1)
    out = env.step(torch.tensor([[0.25], [1.0]]))
    assert out["rewards"].tolist() == [0.5, 1.0]
    assert out["terminated"].tolist() == [False, True]
    assert out["truncated"].tolist() == [True, False]  # two actions are the four steps of an episode


def test_the_configuration_of_the_task():
    env = Env(2, config={"scales": {"action": 2.0}, "episode_length": 1})
    assert env.task.env.config == {
        "scales": {"action": 2.0}, "episode_length": 1, "impl": "jax", "ctrl_dt": 0.02, "sim_dt": 0.01,
        "action_repeat": 1,
    }  # fmt: skip
    assert run(env, 1, 0.5)[1]["rewards"].tolist() == [1.0, 1.0]
    assert Env(2, impl="warp").task.env.config["impl"] == "warp"
    assert Env(2, config={"impl": "warp"}).task.env.config["impl"] == "warp"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "Cout"}, ValueError, r"Unknown task in env.task 'Cout'. Did you mean 'Count'\?"),
        (
            {"config": {"scales": {"acton": 2}}},
            ValueError,
            r"Unknown entry of the task in env.config 'scales.acton'. Did you mean 'scales.action'\?",
        ),
        ({"config": {"episode_length": "a"}}, TypeError, r"env.config={episode_length: a} does not fit Count: Could"),
        ({"config": 3}, TypeError, "env.config=3 is no mapping"),
        (
            {"config": {"ctrl_dt": 0.001}},
            ValueError,
            r"env.config.ctrl_dt=0.001 is out of range. Accepted: a number >= 0.01",
        ),
        (
            {"config": {"ctrl_dt": 0.025}},
            ValueError,
            r"ctrl_dt=0.025 is no multiple of sim_dt=0.01, and would act as 0.02. .* Try 'env.config={ctrl_dt: 0.02}'",
        ),
        (
            {"config": {"episode_length": 0}},
            ValueError,
            r"env.config.episode_length=0 is out of range. Accepted: an integer >= 1",
        ),
        ({"config": {"action_repeat": 0}}, ValueError, r"env.config.action_repeat=0 is out of range"),
        ({"config": {"impl": "cpp"}}, ValueError, r"env.config.impl='cpp' is unknown. Accepted: jax, warp"),
        (
            {"config": {"scales": {"action": -1.0}}},
            ValueError,
            r"env.task=Count, env.config={scales.action: -1.0} can't be made: NotImplementedError: no negative scale",
        ),
        (
            {"episode_length": 9, "config": {"episode_length": 5}},
            ValueError,
            r"env.episode_length=9, but env.config={episode_length: 5}. Accepted: one of them",
        ),
        ({"config": {"sim_dt": 0.0}}, ValueError, r"env.config.sim_dt=0.0 is out of range. Accepted: a number > 0"),
        ({"impl": "torch"}, ValueError, r"env.impl='torch' is unknown. Accepted: jax, warp"),
        ({"episode_length": 0}, ValueError, r"env.episode_length=0 is out of range. Accepted: an integer >= 1 or null"),
        ({"render_mode": "human"}, ValueError, r"env.render_mode='human' is unknown. Accepted: rgb_array"),
        ({"device": "meta"}, ValueError, r"device=meta: JAX can't use it: Unknown backend meta.* try device=cpu"),
        ({"task": "Robot"}, ValueError, r"env.task=Robot needs the models of mujoco_menagerie, .* and that failed"),
    ],
)
def test_what_is_wrong_is_named(options, error, message):
    with pytest.raises(error, match=message):
        Env(2, **options)


def test_pictures_and_closing(monkeypatch):
    env = Env(2)
    assert not env.has_pictures
    with pytest.raises(NotImplementedError, match="PlaygroundEnv has no pictures"):
        env.render()
    env = Env(2, render_mode="rgb_array")
    run(env, 3)
    assert env.has_pictures
    assert env.render(1).shape == (240, 320, 3)
    assert env.render(1).max() == 3
    renderer = env._painter.renderer
    env.close()
    assert renderer.closed
    monkeypatch.setattr(jax_stand_in.Renderer, "fails", True)
    with pytest.raises(ValueError, match=r"MuJoCo can't draw on this machine: no OpenGL context. Accepted: a screen"):
        Env(2, render_mode="rgb_array")
