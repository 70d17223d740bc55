import pytest
import torch
from envs import Episodes, Machine
from tensordict import TensorDict

from rl8 import Algorithm, Trainer
from rl8.env import ContinuousDummyEnv, Env
from rl8.rollout.nonfinite import evidence, first_nonfinite
from rl8.specs import Categorical, Unbounded

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


class Blowing(Env):
    """Environment 1 observes, or is rewarded by, no number once it has taken more than `limit` steps."""

    what, limit = "obs", 10**6

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec, self.action_spec = Unbounded(1), Categorical(2)

    def reset(self, *, config=None):
        self.state = torch.zeros(self.num_envs, 1)
        return self.state.clone()

    def step(self, action):
        self.state = self.state + 1
        out = TensorDict({"obs": self.state / 100, "rewards": action.float()}, [self.num_envs])
        out[self.what][1] = torch.where(self.state[1, 0] > self.limit, NAN, out[self.what][1])
        return out


@pytest.mark.parametrize("what", ["obs", "rewards"])
@pytest.mark.parametrize("options", [{}, {"sgd_minibatch_size": 8}, {"normalize_obs": True}], ids=str)
def test_environments_that_went_wrong_are_left_out_and_the_others_learned_from(what, options, monkeypatch):
    algorithm = Algorithm(Blowing, num_envs=4, horizon=8, horizons_per_env_reset=-1, **options)
    algorithm.skips_nonfinite = True
    monkeypatch.setattr(Blowing, "what", what)
    algorithm.collect()
    assert algorithm.step()["monitors/nonfinite_envs"].item() == 0
    monkeypatch.setattr(Blowing, "limit", 12)
    before = [parameter.clone() for parameter in algorithm.parameters]
    metrics = algorithm.collect() | algorithm.step()
    assert metrics["monitors/nonfinite_envs"].item() == 1
    assert all(value.isfinite() for value in metrics.values())
    assert all(parameter.isfinite().all() for parameter in algorithm.parameters)
    assert any((one != other).any() for one, other in zip(before, algorithm.parameters, strict=True))
    assert algorithm.rollout.weights.sum(0).tolist() == pytest.approx([32 / 3, 0, 32 / 3, 32 / 3])
    assert not algorithm.rollout.obs[:, 1].isnan().any()
    monkeypatch.setattr(Blowing, "limit", 10**6)
    resets = algorithm.resets
    algorithm.reset_next()
    algorithm.collect()
    assert algorithm.resets == resets + 1
    assert algorithm.step()["monitors/nonfinite_envs"].item() == 0
    assert (algorithm.rollout.weights == 1).all()


def test_a_minibatch_whose_gradient_is_no_number_moves_nothing():
    algorithm = Algorithm(ContinuousDummyEnv, num_envs=4, horizon=8, num_sgd_iters=1, optimizer_cls=torch.optim.SGD)
    algorithm.skips_nonfinite = True
    algorithm.collect()
    before = [parameter.clone() for parameter in algorithm.parameters]
    algorithm.parameters[0].register_hook(lambda gradient: gradient * NAN)
    algorithm.step()
    assert all(torch.equal(one, other) for one, other in zip(before, algorithm.parameters, strict=True))


def test_evidence_is_the_horizon_of_the_environments_that_went_wrong():
    rollout = collected()
    rollout.rewards[5, 2] = INF
    kept = evidence(rollout)
    assert kept["environments"].tolist() == [2]
    assert kept["obs"].shape == (9, 1, *rollout.obs.shape[2:])
    assert torch.equal(kept["rewards"], rollout.rewards[:, 2:3])
