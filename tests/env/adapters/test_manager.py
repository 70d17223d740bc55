import pytest
import torch

from rl8.env.adapters import wrap
from rl8.env.adapters.manager import ManagerEnv
from rl8.ppo.algorithm import Algorithm
from rl8.specs import Bounded, Composite, Unbounded
from tests.env.adapters.tasks import Simulator


def test_specs_are_those_of_the_group_for_the_policy():
    env = ManagerEnv(Simulator())
    assert env.observation_spec == Unbounded(2)
    assert env.action_spec == Unbounded(1)
    assert env.shared
    env.validate()


def test_groups_can_be_chosen():
    env = ManagerEnv(Simulator(), groups=["actor", "critic"])
    assert env.observation_spec == Composite(actor=Unbounded(2), critic=Composite(age=Unbounded(1)))
    env.validate()
    with pytest.raises(ValueError, match=r"Unknown observation group in env.groups 'crtic'. Did you mean 'critic'\?"):
        ManagerEnv(Simulator(), groups=["crtic"])


def test_what_the_simulator_overwrites_stays_as_it_was():
    env = ManagerEnv(Simulator())
    first = env.reset()
    out = env.step(torch.zeros(3, 1))
    env.step(torch.zeros(3, 1))
    assert first.eq(0).all()
    assert out["obs"].eq(1).all()


def run_to_the_limit(env):
    env.reset()
    for _ in range(3):
        env.step(torch.zeros(3, 1))
    return env.step(torch.zeros(3, 1))


def test_at_a_time_limit_there_is_no_last_observation():
    env = ManagerEnv(Simulator())
    out = run_to_the_limit(env)
    assert not env.has_final_obs
    assert "final_obs" not in out
    assert out["truncated"].all()
    assert not out["terminated"].any()
    assert out["obs"].eq(0).all()


def test_a_last_observation_that_is_not_there_cannot_be_wanted():
    with pytest.raises(ValueError, match=r"^bootstrap=final_obs needs .* Try bootstrap='last_value'\."):
        Algorithm(wrap(Simulator()), num_envs=3, horizon=2, bootstrap="final_obs")


def test_ends_by_hand_show_the_true_last_observation():
    out = run_to_the_limit(ManagerEnv(Simulator(), ends_by_hand=True))
    assert out["final_obs"].eq(4).all()
    assert out["obs"].eq(0).all()


def test_a_finite_horizon_is_an_end_like_any_other():
    simulator = Simulator()
    simulator.cfg.is_finite_horizon = True
    out = run_to_the_limit(ManagerEnv(simulator))
    assert out["terminated"].all()
    assert not out["truncated"].any()


def test_advantages_bootstrap_from_the_value_before_the_step():
    algorithm = Algorithm(
        lambda n, horizon, *, device: ManagerEnv(Simulator(max_episode_length=2)),
        num_envs=3,
        horizon=2,
        gamma=0.5,
        gae_lambda=0.0,
        horizons_per_env_reset=-1,
        normalize_rewards=False,
        normalize_advantages=False,
    )
    assert algorithm.hparams.bootstrap == "last_value"
    algorithm.collect()
    algorithm.works.prepare()
    rollout = algorithm.rollout
    # time limit after the second step: reward + gamma * value before it - value before it
    expected = rollout.rewards[1] + 0.5 * rollout.values[1] - rollout.values[1]
    expected = torch.where(rollout.terminated[1], rollout.rewards[1] - rollout.values[1], expected)
    torch.testing.assert_close(rollout.advantages[1], expected)


def test_random_ages_spread_over_an_episode():
    torch.manual_seed(0)
    simulator = Simulator(num_envs=200, max_episode_length=50)
    env = ManagerEnv(simulator)
    env.reset()
    assert simulator.episode_length_buf.eq(0).all()
    env.begin_at_random_ages()
    ages = simulator.episode_length_buf
    assert ages.min() >= 0
    assert ages.max() < 50
    assert ages.unique().numel() > 40


def test_actions_are_clipped_if_so_wished():
    env = ManagerEnv(Simulator(), clip_actions=1.5)
    assert env.action_spec == Bounded(-1.5, 1.5, (1,))
    env.reset()
    env.step(torch.tensor([[-9.0], [0.5], [9.0]]))
    assert env.sim.action.flatten().tolist() == [-1.5, 0.5, 1.5]
    with pytest.raises(ValueError, match=r"env.clip_actions=0 is out of range. Accepted: a number > 0 or null"):
        ManagerEnv(Simulator(), clip_actions=0)


def test_seeds_come_from_the_run():
    def seeds(seed):
        torch.manual_seed(seed)
        env = ManagerEnv(Simulator())
        env.reset()
        env.reset()
        return env.sim.seeds

    assert seeds(1) == seeds(1)
    assert seeds(1) != seeds(2)
    assert len(set(seeds(1))) == 2


def test_pictures_and_closing():
    env = ManagerEnv(Simulator())
    assert not env.has_pictures
    with pytest.raises(NotImplementedError, match="ManagerEnv has no pictures"):
        env.render()
    env.sim.render_mode = "rgb_array"
    assert env.render().shape == (4, 5, 3)
    env.close()
    assert env.sim.closed


@pytest.mark.parametrize("by_hand", [False, True])
def test_what_the_simulator_logs_of_episodes_is_reported_once(by_hand):
    env = ManagerEnv(Simulator(), ends_by_hand=by_hand)
    env.reset()
    assert env.metric_names == {"Curriculum/level", "Episode_Reward/action"}
    for _ in range(3):
        out = env.step(torch.ones(3, 1))
        assert out["metrics"]["Episode_Reward/action"].isnan().all()  # the log is the last reset's
    out = env.step(torch.ones(3, 1))
    assert out["truncated"].all()
    assert out["metrics"]["Episode_Reward/action"].tolist() == [4, 4, 4]
    assert out["metrics"]["Curriculum/level"].tolist() == [2 if by_hand else 3] * 3
    assert env.step(torch.ones(3, 1))["metrics"]["Curriculum/level"].isnan().all()
