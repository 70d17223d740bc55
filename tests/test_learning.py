"""Training reaches what is known to be the optimum, from a fixed seed, on one core."""

import pytest
import torch
from envs import MaskedBandit, Steering

from rl8 import Algorithm, Normal, RecurrentAlgorithm
from rl8.env import ContinuousDummyEnv, CueRecall, DiscreteDummyEnv, Lander
from rl8.models import GRUModel
from rl8.rollout.evaluation import Evaluator


def train(algorithm, iterations):
    for _ in range(iterations):
        algorithm.collect()
        algorithm.step()


def test_discrete_dummy():
    """Starting within 5 units, the best policy walks to the origin and then steps to and fro around it."""

    class Near(DiscreteDummyEnv):
        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, bounds=5.0, device=device)

    algorithm = Algorithm(
        Near,
        num_envs=64,
        horizon=16,
        sgd_minibatch_size=256,
        gamma=0.9,
        model_config={"hiddens": [32]},
        optimizer_config={"lr": 3e-3},
    )
    train(algorithm, 40)
    evaluator = Evaluator(Near, algorithm.policy, num_envs=256, horizon=16)
    achieved = evaluator.run()["returns/mean"].item()
    position = evaluator.rollout.obs[0].clone()
    best = torch.zeros(256)
    for _ in range(16):  # step towards the origin
        position = position - torch.where(position > 0, 1.0, -1.0)
        best -= position.squeeze(-1).abs()
    assert achieved > best.mean() - 0.02 * best.mean().abs()


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_continuous_dummy(normalize_obs):
    """Within 2 units of the origin after 16 steps from anywhere in +-10, in 95% of environments."""

    class Near(ContinuousDummyEnv):
        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, bounds=10.0, device=device)

    algorithm = Algorithm(
        Near,
        num_envs=64,
        horizon=16,
        sgd_minibatch_size=256,
        gamma=0.9,
        normalize_obs=normalize_obs,
        model_config={"hiddens": [32]},
        optimizer_config={"lr": 3e-3},
    )
    train(algorithm, 60)
    evaluator = Evaluator(Near, algorithm.policy, num_envs=256, horizon=16)
    evaluator.run()
    assert (evaluator.env.state.abs() < 2).float().mean() > 0.95


@pytest.mark.parametrize("distribution_cls", [None, Normal])
def test_bounded_actions(distribution_cls):
    algorithm = Algorithm(
        Steering,
        num_envs=64,
        horizon=8,
        distribution_cls=distribution_cls,
        gamma=0.5,
        sgd_minibatch_size=128,
        model_config={"hiddens": [16]},
        optimizer_config={"lr": 1e-2},
    )
    train(algorithm, 40)
    evaluator = Evaluator(Steering, algorithm.policy, num_envs=8, horizon=4)
    assert evaluator.run()["rewards/min"] > -0.1  # the action is off by less than that; it started 0.5 off


def test_masked_bandit():
    """The best arm of those allowed is pulled, and no forbidden one ever was."""
    algorithm = Algorithm(
        MaskedBandit,
        num_envs=64,
        horizon=8,
        gamma=0.0,
        sgd_minibatch_size=128,
        horizons_per_env_reset=-1,
        model_config={"hiddens": [32]},
        optimizer_config={"lr": 3e-3},
    )
    train(algorithm, 40)
    evaluator = Evaluator(MaskedBandit, algorithm.policy, num_envs=256, horizon=16)
    assert evaluator.run()["rewards/mean"] > -0.02
    assert algorithm.env.state["forbidden"].sum() == 0
    assert evaluator.env.state["forbidden"].sum() == 0


def correct(algorithm, env_cls=CueRecall, delay=8):
    """Return the share of right answers; every episode of `delay` + 1 steps has one."""
    horizon = 4 * (delay + 1)
    evaluator = Evaluator(env_cls, algorithm.policy, num_envs=512, horizon=horizon, seq_len=algorithm.hparams.seq_len)
    return (delay + 1) * evaluator.run()["rewards/mean"].item()


def test_a_recurrent_policy_recalls_a_cue_of_eight_steps_ago():
    algorithm = RecurrentAlgorithm(
        CueRecall,
        num_envs=128,
        horizon=18,
        seq_len=18,
        seqs_per_state_reset=-1,
        gamma=0.9,
        sgd_minibatch_size=576,
        model_config={"hidden_size": 32},
        optimizer_config={"lr": 5e-3},
    )
    for _ in range(8):
        train(algorithm, 10)
        if (share := correct(algorithm)) > 0.99:  # mostly after 30 or 40 iterations
            break
    assert share > 0.99


def test_a_feedforward_policy_guesses_it():
    algorithm = Algorithm(
        CueRecall,
        num_envs=128,
        horizon=18,
        gamma=0.9,
        sgd_minibatch_size=576,
        model_config={"hiddens": [32]},
        optimizer_config={"lr": 5e-3},
    )
    train(algorithm, 20)
    assert correct(algorithm) == pytest.approx(1 / 4, abs=0.04)  # 2048 answers: four standard errors


class Soon(CueRecall):
    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, num_cues=3, delay=3, device=device)


def test_a_window_that_reaches_the_cue_recalls_it():
    algorithm = Algorithm(
        Soon,
        num_envs=128,
        horizon=16,
        gamma=0.9,
        sgd_minibatch_size=512,
        horizons_per_env_reset=-1,
        model_config={"hiddens": [32], "window": 4},
        optimizer_config={"lr": 5e-3},
    )
    train(algorithm, 25)
    assert correct(algorithm, Soon, delay=3) > 0.99


def test_short_sequences_over_many_horizons_recall_it_too():
    """Gradients through 4 steps reach the cue; the state goes on from horizon to horizon."""
    algorithm = RecurrentAlgorithm(
        Soon,
        model_cls=GRUModel,
        num_envs=128,
        horizon=12,
        seq_len=4,
        seqs_per_state_reset=-1,
        gamma=0.9,
        horizons_per_env_reset=-1,
        sgd_minibatch_size=384,
        model_config={"hidden_size": 32},
        optimizer_config={"lr": 5e-3},
    )
    train(algorithm, 40)
    assert correct(algorithm, Soon, delay=3) > 0.99


def test_a_lander_that_crashes_and_has_a_time_limit():
    """Landings are rewarded at the end of an episode only, which the default lets go on over horizons."""
    algorithm = Algorithm(
        Lander,
        num_envs=64,
        horizon=64,
        gamma=0.99,
        sgd_minibatch_size=512,
        model_config={"hiddens": [64, 64]},
        optimizer_config={"lr": 1e-3},
    )
    first = algorithm.collect()["env/landed"]
    algorithm.step()
    evaluator = Evaluator(Lander, algorithm.policy, num_envs=128, horizon=200)
    for _ in range(5):
        train(algorithm, 8)
        if (landed := evaluator.run()["env/landed"]) > 0.9:  # mostly after 24 or 32 iterations
            break
    assert algorithm.resets == 1
    assert first < 0.2
    assert landed > 0.9
