from functools import partial

import pytest
import torch
from envs import Endless, Episodes, Machine, Terminating, Truncating
from tensordict import TensorDict

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.env import ContinuousDummyEnv
from rl8.models import GRUModel, LSTMModel, MLPModel, TransformerModel
from rl8.policy.policy import Policy
from rl8.ppo.advantages import gae
from rl8.rollout.collect import collect, store_values
from rl8.rollout.rollout import Rollout
from rl8.specs import Categorical, Unbounded

SMALL_RNN = {"hidden_size": 8, "num_layers": 2}
# Name: class of the algorithm, model and its options.
MODELS = {
    "mlp": (Algorithm, MLPModel, {"hiddens": [16]}),
    "mlp window": (Algorithm, MLPModel, {"hiddens": [16], "window": 5}),
    "transformer": (Algorithm, TransformerModel, {"window": 11, "size": 16, "num_layers": 1}),
    "lstm": (RecurrentAlgorithm, LSTMModel, SMALL_RNN),
    "gru": (RecurrentAlgorithm, GRUModel, SMALL_RNN),
}
ENVS = {"episodes": Episodes, "terminating": Terminating, "truncating": Truncating, "endless": Endless}


def build(model, env_cls=Episodes, **options):
    algorithm_cls, model_cls, model_config = MODELS[model]
    defaults = {"num_envs": 6, "horizon": 8, "num_sgd_iters": 1, "horizons_per_env_reset": -1}
    return algorithm_cls(env_cls, model_cls=model_cls, model_config=model_config, **{**defaults, **options})


def sequences(rollout):
    """Return the places of all sequences, `[L, T / L * N]`, in a random order."""
    shape = (rollout.horizon // rollout.seq_len, rollout.seq_len, rollout.num_envs)
    places = torch.arange(rollout.rewards.numel()).view(shape).transpose(0, 1).flatten(1)
    return places[:, torch.randperm(places.shape[1])]


def assert_replays(algorithm):
    """Compare what the policy says of stored sequences with what was stored when they were collected."""
    batch = algorithm.rollout.minibatch(sequences(algorithm.rollout))
    with torch.no_grad():
        logp, _, values = algorithm.policy.evaluate(batch.seen, batch.actions, batch.state, batch.is_last)
    torch.testing.assert_close(logp, batch.logp, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, batch.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("model", ["mlp", "mlp window", "transformer"])
def test_a_replay_gives_the_collected_logp_and_values(model, env):
    algorithm = build(model, ENVS[env], normalize_obs=True)
    for _ in range(3):  # windows reach into the horizon before
        algorithm.collect()
        assert_replays(algorithm)
        algorithm.step()


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("model", ["lstm", "gru"])
@pytest.mark.parametrize("seq_len", [1, 4, 8])
@pytest.mark.parametrize("seqs_per_state_reset", [-1, 3])
def test_trap_3_a_recurrent_replay_gives_the_collected_logp_and_values(model, env, seq_len, seqs_per_state_reset):
    algorithm = build(model, ENVS[env], seq_len=seq_len, seqs_per_state_reset=seqs_per_state_reset)
    for _ in range(3):
        algorithm.collect()
        assert_replays(algorithm)
        algorithm.step()


def test_a_composite_rollout_replays():
    algorithm = Algorithm(Machine, num_envs=6, horizon=4, normalize_obs=True, model_config={"window": 3})
    for _ in range(2):
        algorithm.collect()
        assert_replays(algorithm)
        algorithm.step()


@pytest.mark.parametrize("model", MODELS)
def test_trap_1_truncation_bootstraps_from_the_final_observation(model):
    """The value is that of the observation before the reset, seen with the window or state of its own episode."""
    algorithm = build(model, num_envs=4, horizon=8, seq_len=1)
    finals, states = [], []

    def step(action):
        out = algorithm.env.step(action)
        finals.append(out["final_obs"].clone())
        return out

    def act(seen, state, **options):
        result = algorithm.policy.act(seen, state, **options)
        states.append(None if result.state is None else result.state.clone())
        return result

    rollout = algorithm.rollout
    rollout.start(algorithm.env.reset())
    collect(algorithm.env, algorithm.policy, rollout, act=act, step=step)
    next_values = rollout.next_values()
    checked = 0
    for t, n in torch.nonzero(rollout.is_last).tolist():
        if n % 2 == 1:  # terminated: nothing follows
            assert next_values[t, n] == 0
            continue
        age, history = rollout.ages[rollout.history + t, n] + 1, rollout.history
        obs = torch.cat([rollout.obs[: history + t + 1, n], finals[t][n : n + 1]])[-history - 1 :]
        seen = algorithm.policy.views.step(obs.unsqueeze(1), age.expand(history + 1, 1), history)
        state = None if states[t] is None else states[t][n : n + 1]
        with torch.no_grad():
            expected = algorithm.policy.values(seen, state)
        torch.testing.assert_close(next_values[t, n], expected[0, 0])
        assert not torch.isclose(next_values[t, n], rollout.values[t + 1, n])
        checked += 1
    assert checked >= 3
    alive = ~rollout.is_last
    assert torch.equal(next_values[alive], rollout.values[1:][alive])


@pytest.mark.parametrize("model", ["mlp", "lstm"])
def test_trap_1_truncation_cuts_the_trace(model):
    algorithm = build(
        model,
        Truncating,
        num_envs=4,
        horizon=8,
        seq_len=1,
        normalize_rewards=False,
        num_sgd_iters=1,
        normalize_advantages=False,
    )
    algorithm.collect()
    rollout = algorithm.rollout
    algorithm.works.prepare()
    before = rollout.advantages.clone()
    assert rollout.is_last[:, 0].tolist() == [False, False, True] * 2 + [False] * 2
    rollout.rewards[3:, 0] += 100.0  # what follows the truncation of environment 0 at its third step
    algorithm.works.prepare()
    assert torch.equal(rollout.advantages[:3, 0], before[:3, 0])
    assert (rollout.advantages[3:, 0] > before[3:, 0] + 1).all()


@pytest.mark.parametrize("model", MODELS)
def test_trap_2_the_last_transition_has_a_next_value(model):
    algorithm = build(model, Endless, normalize_rewards=False, normalize_advantages=False)
    algorithm.collect()
    rollout = algorithm.rollout
    with torch.no_grad():
        after = algorithm.policy.values(rollout.seen(rollout.horizon), rollout.state)[0]
    assert rollout.values.shape == (9, 6)
    torch.testing.assert_close(rollout.values[8], after)
    algorithm.works.prepare()
    hparams = algorithm.hparams
    expected = gae(
        rollout.rewards,
        rollout.values[:-1],
        torch.cat([rollout.values[1:-1], after.unsqueeze(0)]),
        torch.zeros(8, 6, dtype=torch.bool),
        gamma=hparams.gamma,
        gae_lambda=hparams.gae_lambda,
    )
    torch.testing.assert_close(rollout.advantages, expected)
    assert (rollout.advantages[-1].abs() > 1e-3).all()


@pytest.mark.parametrize("seqs_per_state_reset", [-1, 1, 2])
def test_trap_3_states_are_reset_per_environment(seqs_per_state_reset):
    algorithm = build("lstm", num_envs=6, seq_len=1, seqs_per_state_reset=seqs_per_state_reset)
    algorithm.collect()
    first = algorithm.rollout.states.clone()
    ended = algorithm.rollout.is_last.clone()
    algorithm.collect()
    for horizon, (states, ends) in enumerate([(first, ended), (algorithm.rollout.states, algorithm.rollout.is_last)]):
        for t in range(8):
            before = ends[t - 1] if t > 0 else (torch.ones(6, dtype=torch.bool) if horizon == 0 else ended[-1])
            due = seqs_per_state_reset > 0 and (horizon * 8 + t) % seqs_per_state_reset == 0
            is_zero = (states["hidden"][t] == 0).all(-1).all(-1)
            assert torch.equal(is_zero, before | due), (horizon, t)


@pytest.mark.parametrize("horizons_per_env_reset", [1, 2, -1])
def test_trap_3_the_state_starts_anew_with_the_environment(horizons_per_env_reset):
    algorithm = build("gru", Endless, seq_len=4, seqs_per_state_reset=-1, horizons_per_env_reset=horizons_per_env_reset)
    for horizon in range(4):
        algorithm.collect()
        starts = horizon == 0 or (horizons_per_env_reset > 0 and horizon % horizons_per_env_reset == 0)
        assert (algorithm.rollout.states["hidden"][0] == 0).all() == starts
        assert (algorithm.rollout.states["hidden"][1] != 0).any()


def test_trap_3_sequences_are_counted_over_horizons_since_the_environments_reset():
    algorithm = build("gru", Endless, seq_len=4, seqs_per_state_reset=3, horizons_per_env_reset=2)
    is_zero = []
    for _ in range(4):
        algorithm.collect()
        is_zero += (algorithm.rollout.states["hidden"] == 0).flatten(1).all(1).tolist()
    assert is_zero == [True, False, False, True] * 2


@pytest.mark.parametrize("piece_size", [None, 1, 5, 54, 1000])
@pytest.mark.parametrize("model", ["mlp", "mlp window"])
def test_values_do_not_depend_on_how_they_are_pieced(model, piece_size):
    algorithm = build(model)
    algorithm.collect()
    whole = algorithm.rollout.values.clone()
    torch.manual_seed(1)
    algorithm.rollout.start(algorithm.env.reset())
    values = partial(store_values, algorithm.policy, algorithm.rollout, piece_size=piece_size)
    collect(algorithm.env, algorithm.policy, algorithm.rollout, values=values)
    first = algorithm.rollout.values.clone()
    torch.manual_seed(1)
    algorithm.rollout.start(algorithm.env.reset())
    collect(algorithm.env, algorithm.policy, algorithm.rollout)
    torch.testing.assert_close(algorithm.rollout.values, first)
    assert not torch.allclose(whole, first)


def test_windows_cross_horizons_but_never_a_reset():
    algorithm = build("mlp window", num_envs=3, horizon=4)
    algorithm.collect()
    earlier = algorithm.rollout.obs.clone()
    algorithm.collect()
    rollout = algorithm.rollout
    assert torch.equal(rollout.obs[: rollout.history + 1], earlier[-rollout.history - 1 :])
    for t in range(4):
        seen = rollout.seen(t)
        for n in range(3):
            age = rollout.ages[rollout.history + t, n].item()
            assert seen["obs_mask"][0, n].sum() == min(age + 1, 5)
            times = seen["obs"][0, n, :, 0] * 10  # the environment tells its time in the episode
            expected = [max(age - back, 0) for back in range(4, -1, -1)]
            assert times.round().int().tolist() == expected
    algorithm.env.reset()
    rollout.start(algorithm.env.reset())
    assert (rollout.seen(0)["obs_mask"].sum(-1) == 1).all()


class Changeable(Terminating):
    """Reports ends only where `reports` says so."""

    reports = True

    def step(self, action):
        out = super().step(action)
        return out if self.reports else out.exclude("terminated")


def test_ends_of_an_earlier_horizon_are_forgotten():
    algorithm = build("mlp", Changeable)
    algorithm.collect()
    assert algorithm.rollout.is_last.any()
    Changeable.reports, before = False, Changeable.reports
    try:
        algorithm.collect()
    finally:
        Changeable.reports = before
    assert not algorithm.rollout.is_last.any()
    assert torch.equal(algorithm.rollout.next_values(), algorithm.rollout.values[1:])


@pytest.mark.parametrize("model", ["mlp", "lstm"])
def test_a_slice_and_places_give_the_same_minibatch(model):
    algorithm = build(model, seq_len=1)
    algorithm.collect()
    algorithm.works.prepare()
    rollout = algorithm.rollout
    by_slice, by_places = rollout.minibatch(slice(6, 18)), rollout.minibatch(torch.arange(6, 18).unsqueeze(0))
    for name in ("seen", "actions", "logp", "values", "advantages", "returns"):
        assert torch.equal(getattr(by_slice, name), getattr(by_places, name)), name
    assert by_slice.state is None
    assert (by_places.state is None) == (model == "mlp")


def test_collect_tells_each_step():
    algorithm = build("mlp")
    algorithm.rollout.start(algorithm.env.reset())
    steps = []
    collect(algorithm.env, algorithm.policy, algorithm.rollout, on_step=steps.append)
    assert steps == list(range(8))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_rewards_may_be_a_column(shape):
    env = ContinuousDummyEnv(6)
    policy = Policy(env.observation_spec, env.action_spec)
    rollout = Rollout(policy, 6, 2)
    rollout.start(env.reset())
    rewards = torch.arange(6.0)
    out = TensorDict({"obs": env.state, "rewards": rewards.reshape(shape)}, [6])
    rollout.store_step(0, out, None)
    assert torch.equal(rollout.rewards[0], rewards)


class Shrinks(ContinuousDummyEnv):
    """Observes itself in another shape or type once it has gone `limit` steps, or been reset as often."""

    limit = 6

    def change(self, obs):
        return obs[:, :1]

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec, self.action_spec = Unbounded(2), Categorical(2)

    def reset(self, *, config=None):
        self.state = torch.zeros(self.num_envs, 2)
        return self.state

    def step(self, action):
        self.state = self.state + 1
        obs = self.state if float(self.state[0, 0]) < self.limit else self.change(self.state)
        return TensorDict({"obs": obs, "rewards": torch.zeros(self.num_envs)}, [self.num_envs])


class Widens(Shrinks):
    def change(self, obs):
        return obs.double()


@pytest.mark.parametrize(
    ("cls", "fault"), [(Shrinks, r"shape \(6, 1\), expected \(n, 2\)"), (Widens, "dtype torch.float64")]
)
def test_what_changes_its_shape_or_type_after_validation_is_caught_by_the_horizons_end(cls, fault):
    algorithm = build("mlp", cls)
    with pytest.raises(
        ValueError, match=rf"step\(\) returns observations that break observation_spec: obs has {fault}"
    ):
        algorithm.collect()


def test_what_a_later_reset_observes_is_compared_too():
    algorithm = build("mlp", Shrinks, horizons_per_env_reset=1, horizon=4)
    algorithm.collect()
    algorithm.step()
    algorithm.env.reset = lambda *, config=None: torch.zeros(6, 1)
    with pytest.raises(
        ValueError, match=r"Shrinks.reset\(\) returns observations that break observation_spec: obs has sh"
    ):
        algorithm.collect()
