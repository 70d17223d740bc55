from functools import partial

import pytest
import torch
from comparing import assert_same, snapshot
from envs import Episodes, Randomized, Steering
from tensordict import TensorDict
from torch import nn

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.env import CartPole, DiscreteDummyEnv, Lander
from rl8.models import MLPModel, TransformerModel
from rl8.policy.policy import Policy
from rl8.rollout.evaluation import MAX_FRAMES, Evaluator

SMALL = {"num_envs": 6, "horizon": 8}
KINDS = {
    "feedforward": (Algorithm, {"model_config": {"hiddens": [16]}}),
    "recurrent": (RecurrentAlgorithm, {"model_config": {"hidden_size": 8}}),
    "windowed": (Algorithm, {"model_cls": TransformerModel, "model_config": {"size": 8}}),
}


@pytest.fixture(params=KINDS)
def algorithm(request):
    """Return a small algorithm that has trained for an iteration and goes on without a reset."""
    algorithm_cls, options = KINDS[request.param]
    algorithm = algorithm_cls(Episodes, **SMALL, **options, normalize_obs=True, horizons_per_env_reset=-1)
    algorithm.collect()
    algorithm.step()
    return algorithm


def evaluator(algorithm, env_cls=Episodes, **options):
    hparams = algorithm.hparams
    defaults = {"num_envs": 4, "horizon": 5, "seq_len": 1, "seqs_per_state_reset": hparams.seqs_per_state_reset}
    return Evaluator(env_cls, algorithm.policy, **{**defaults, **options})


@pytest.mark.parametrize("deterministic", [True, False])
def test_trap_15_evaluation_leaves_training_alone(algorithm, deterministic):
    algorithm.policy.model.eval()  # a part that the user froze
    algorithm.collect()
    before = snapshot(algorithm)
    metrics = evaluator(algorithm).run(config={"noise": 2.0}, deterministic=deterministic)
    assert "returns/mean" in metrics
    assert_same(snapshot(algorithm), before)
    algorithm.step()  # what was collected is still there to learn from


class Failing(Episodes):
    """Fails in its third step."""

    def step(self, action):
        if self.state["time"].max() == 2:
            raise RuntimeError("simulated crash")
        return super().step(action)


def test_trap_15_a_failing_evaluation_restores_mode_and_random_numbers(algorithm):
    failing = evaluator(algorithm, Failing)
    algorithm.policy.train()
    before = snapshot(algorithm)
    with pytest.raises(RuntimeError, match="simulated crash"):
        failing.run(deterministic=False)
    assert_same(snapshot(algorithm), before)
    assert algorithm.policy.training


def test_trap_15_an_environment_that_draws_when_it_is_built_disturbs_nothing(algorithm):
    before = snapshot(algorithm)
    randomized = evaluator(algorithm, Randomized)
    assert_same(snapshot(algorithm), before)
    assert randomized.env.noise.shape == (4,)


def test_values_are_left_out(algorithm, monkeypatch):
    if algorithm.policy.model.has_value_pass:
        monkeypatch.setattr(algorithm.policy.model, "value", None)
    monkeypatch.setattr(algorithm.policy, "values", None)
    assert "returns/mean" in evaluator(algorithm).run()


def test_trap_6_statistics_are_frozen_in_evaluation(algorithm):
    moments = algorithm.policy.normalizers[0].moments
    assert moments.count == 48
    for _ in range(2):
        evaluator(algorithm).run()
    assert moments.count == 48


def test_trap_10_evaluation_does_not_advance_counters(algorithm):
    counters = (algorithm.env_steps, algorithm.iterations, algorithm.resets)
    evaluator(algorithm).run()
    assert (algorithm.env_steps, algorithm.iterations, algorithm.resets) == counters


class WithDropout(MLPModel):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.drop = nn.Dropout(0.9)

    def _inputs(self, obs):
        return self.drop(super()._inputs(obs))


def test_networks_are_in_evaluation_mode():
    torch.manual_seed(0)
    env = Steering(4)
    policy = Policy(env.observation_spec, env.action_spec, model_cls=WithDropout)
    modes = []
    policy.model.register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    policy.model.act = lambda obs, state: (policy.model(obs).features, None)
    first = Evaluator(Steering, policy, num_envs=4, horizon=5).run()
    assert modes
    assert not any(modes)
    assert first == Evaluator(Steering, policy, num_envs=4, horizon=5).run()


def test_each_evaluation_starts_from_a_reset(algorithm):
    steady = evaluator(algorithm)
    torch.manual_seed(3)
    first = steady.run()
    torch.manual_seed(3)
    assert steady.run() == first
    torch.manual_seed(4)
    assert steady.run() != first
    assert steady.run(config={"noise": 0.0})["rewards/mean"] > first["rewards/mean"]
    assert (steady.env.noise == 0).all()
    assert (algorithm.env.noise == 1).all()


def test_settings_that_do_not_exist_are_named(algorithm):
    with pytest.raises(ValueError, match=r"'nois'. Did you mean 'noise'"):
        evaluator(algorithm).run(config={"nois": 1.0})


def test_the_number_of_environments_stays_within_the_limit(algorithm):
    class Single(Episodes):
        max_num_envs = 1

    assert evaluator(algorithm, Single).env.num_envs == 1


def test_an_evaluation_may_end_inside_a_sequence():
    algorithm = RecurrentAlgorithm(Episodes, **SMALL)
    assert algorithm.hparams.seq_len == 4
    metrics = evaluator(algorithm, horizon=10, seq_len=4, seqs_per_state_reset=1).run()
    assert torch.isfinite(metrics["returns/mean"])


@pytest.mark.parametrize(("horizon", "frames"), [(5, 5), (MAX_FRAMES, MAX_FRAMES), (MAX_FRAMES + 1, 61)])
def test_films_are_thinned_out(horizon, frames):
    policy = Algorithm(DiscreteDummyEnv, **SMALL).policy
    film = Evaluator(DiscreteDummyEnv, policy, num_envs=1, horizon=horizon).film()
    assert len(film) == frames
    assert {(frame.shape, frame.dtype.name) for frame, _ in film} == {((400, 600, 3), "uint8")}


def test_a_film_shows_the_policy_at_work():
    algorithm = Algorithm(CartPole, **SMALL)
    before = snapshot(algorithm)
    (first, early), *_, (last, late) = Evaluator(CartPole, algorithm.policy, num_envs=1, horizon=6).film()
    assert (first != last).any()
    assert early.startswith("0.02 s   return -")
    assert late.startswith("0.12 s   return -")
    assert_same(snapshot(algorithm), before)


@pytest.mark.parametrize("limit", [2, 4, 27_000])
def test_whole_episodes_are_played_one_in_each_environment(algorithm, limit):
    found = evaluator(algorithm, episodes=True, max_episode_steps=limit, num_envs=5).run()
    lengths = [min(length, limit) for length in (3, 4, 5, 3, 4)]  # odd ones terminate, even ones are truncated
    assert found["episodes/length/mean"].item() == pytest.approx(sum(lengths) / 5)
    assert found["episodes/truncated"].item() == pytest.approx({2: 0, 4: 2, 27_000: 3}[limit] / 5)
    assert found["episodes/unfinished"].item() == pytest.approx({2: 5, 4: 1, 27_000: 0}[limit] / 5)
    assert found["returns/mean"] == pytest.approx(found["rewards/mean"].item() * sum(lengths) / 5, rel=1e-5)
    assert found["rewards/min"] <= found["rewards/mean"] <= found["rewards/max"]
    assert found["rewards/std"] <= found["rewards/max"] - found["rewards/min"]


class Late(Episodes):
    """`Episodes` that pay and report only what comes after the first, and one of 70 steps in environment 0."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.lengths[0] = 70

    def reset(self, *, config=None):
        obs = super().reset(config=config)
        self.state["episode"] = torch.zeros_like(self.index)
        return obs

    def step(self, action):
        episode = self.state["episode"]
        out = super().step(action)
        self.state["episode"] = episode + (out["terminated"] | out["truncated"]).long()
        out["rewards"], out["metrics"] = episode.float(), TensorDict({"episode": episode.float()}, [self.num_envs])
        return out


def test_nothing_of_later_episodes_counts(algorithm):
    found = evaluator(algorithm, Late, episodes=True).run()
    assert found["episodes/length/mean"] == (70 + 4 + 5 + 3) / 4
    assert [found[name] for name in ("returns/max", "rewards/max", "env/episode")] == [0, 0, 0]


def test_a_film_of_an_episode_ends_with_it():
    torch.manual_seed(1)
    env_cls = partial(Lander, max_episode_steps=250)
    algorithm = Algorithm(env_cls, num_envs=2, horizon=4)
    film = Evaluator(env_cls, algorithm.policy, num_envs=1, horizon=4, episodes=True)
    steps = film.run()["episodes/length/mean"]
    assert 10 < len(film.film()) <= min(steps, MAX_FRAMES)
