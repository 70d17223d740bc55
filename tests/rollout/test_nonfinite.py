import pytest
import torch
from envs import Episodes, Machine

from rl8 import Algorithm, Trainer
from rl8.env import ContinuousDummyEnv
from rl8.rollout.nonfinite import first_nonfinite

NAN, INF = float("nan"), float("inf")


def collected(env_cls=Episodes, **options):
    algorithm = Algorithm(env_cls, num_envs=4, horizon=8, horizons_per_env_reset=-1, **options)
    algorithm.collect()
    return algorithm.rollout


def test_a_horizon_of_finite_numbers_has_none():
    assert first_nonfinite(collected()) is None


# What is broken: rows of the rollout, and what is said. The last observation of four, `obs[8]`, follows step 7.
BROKEN = {
    "observation": ([("obs", 3, 2, NAN)], r"^The observation obs is nan at step 3 of 8 in environment 2. The environ"),
    "last observation": ([("obs", 8, 0, -INF)], r"^The observation obs is -inf at step 8 of 8 in environment 0. "),
    "reward": ([("rewards", 5, 1, INF)], r"^The reward is inf at step 5 of 8 in environment 1. The environment return"),
    "policy": ([("logp", 0, 3, NAN)], r"^The action's log-probability is nan at step 0 .* so the policy has diverged"),
    "value": ([("values", 8, 3, NAN)], r"^The policy's value is nan at step 8 of 8 in environment 3. .*lower learning"),
    "observation and what follows": (
        [("obs", 3, 2, NAN), ("logp", 3, 2, NAN), ("rewards", 2, 0, 1.0), ("rewards", 3, 2, NAN)],
        r"^The observation obs is nan at step 3",
    ),
    "policy and what follows": (
        [("logp", 3, 2, NAN), ("rewards", 3, 2, NAN), ("obs", 4, 2, NAN)],
        r"^The action's log-p",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_first_one_in_time_is_named(name):
    places, message = BROKEN[name]
    rollout = collected()
    for series, t, n, value in places:
        getattr(rollout, series)[t, n] = value
    found = first_nonfinite(rollout)
    assert found is not None
    with pytest.raises(ValueError, match=message):
        raise ValueError(found)


def test_a_final_observation_counts_where_an_episode_ended_only():
    rollout = collected()
    ends = rollout.is_last.nonzero()
    rollout.final_values[~rollout.is_last] = NAN
    assert first_nonfinite(rollout) is None
    t, n = ends[0].tolist()
    rollout.final_values[t, n] = NAN
    assert first_nonfinite(rollout).startswith(
        f"The value of a final observation (final_obs) is nan at step {t} of 8 in environment {n}. The environment"
    )


def test_an_entry_of_several_is_named_and_windows_are_counted_from_the_horizon_on():
    rollout = collected(Machine, model_config={"hiddens": [8], "window": 3})
    assert rollout.history == 2
    rollout.obs["arm", "load"][rollout.history + 4, 1] = NAN
    assert first_nonfinite(rollout).startswith(
        "The observation obs['arm']['load'] is nan at step 4 of 8 in environment 1."
    )


class Diverges(ContinuousDummyEnv):
    """Observes NaN while its rewards are fine."""

    def reset(self, *, config=None):
        self.state = torch.zeros(self.num_envs, 1)
        return self.state

    def step(self, action):
        out = super().step(torch.ones_like(action))
        return out.set("obs", torch.where(self.state > 20, NAN, self.state))


def test_training_says_what_it_was():
    trainer = Trainer(Diverges, num_envs=4, horizon=8, horizons_per_env_reset=-1, track=False, view="none")
    trainer.step()
    trainer.step()
    with pytest.raises(
        FloatingPointError, match=r"after 96 env steps, .* The observation obs is nan at step 5 of 8 in"
    ):
        trainer.step()
