import copy
import math

import pytest
import torch
from comparing import weights
from envs import Endless, Episodes, Machine, MaskedBandit, Steering, Terminating, Truncating
from torch import nn
from torch.distributions import TanhTransform, TransformedDistribution
from torch.utils._python_dispatch import TorchDispatchMode

from rl8 import Algorithm, DeviceSettings, RecurrentAlgorithm
from rl8.distributions import Normal, SquashedNormal
from rl8.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv
from rl8.execution import networks, pieces
from rl8.execution.perceptron.piecewise import Piecewise
from rl8.models import GRUModel, LSTMModel, MLPModel, Model, Output, TransformerModel
from rl8.policy.normalization import RunningMoments
from rl8.ppo.advantages import normalize_minibatch
from rl8.ppo.hyperparameters import CPU_NUM_ENVS
from rl8.ppo.metrics import UPDATE_METRICS
from rl8.ppo.options import fitting_defaults
from rl8.rollout.bootstrap import FinalSlots
from rl8.rollout.collect import collect
from rl8.specs import Categorical, Unbounded

SMALL = {"num_envs": 8, "horizon": 8, "model_config": {"hiddens": [16]}}
SMALL_RECURRENT = {"num_envs": 8, "horizon": 8, "seq_len": 4, "model_config": {"hidden_size": 8}}
KINDS = {"feedforward": (Algorithm, SMALL), "recurrent": (RecurrentAlgorithm, SMALL_RECURRENT)}


@pytest.fixture(params=KINDS)
def build(request):
    """Return a function that builds a small algorithm of either kind from a given seed."""
    algorithm_cls, defaults = KINDS[request.param]

    def build(env_cls=Episodes, *, seed=0, **options):
        torch.manual_seed(seed)
        if algorithm_cls.recurrent and options.get("enable_amp") and not has_lstm(options.get("amp_dtype", "bf16")):
            options["model_cls"] = GRUModel
        return algorithm_cls(env_cls, **{**defaults, **options})

    return build


def has_lstm(dtype):
    """Return whether oneDNN has an LSTM in this precision for this processor."""
    return dtype == "bf16" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def iterate(algorithm, count=1):
    """Return the metrics of the last of `count` iterations, as numbers."""
    for _ in range(count):
        metrics = algorithm.collect() | algorithm.step()
    return {name: value.item() for name, value in metrics.items()}


# ---------------------------------------------------------------------------------------------------- the interface


def test_metrics_are_tensors_of_the_promised_names(build):
    algorithm = build()
    collected, updated = algorithm.collect(), algorithm.step()
    spread = [f"{name}/{part}" for name in ("returns", "rewards") for part in ("mean", "std", "min", "max")]
    extra = ["monitors/explained_variance", "coefficients/entropy", "coefficients/vf", "coefficients/lr"]
    assert [name for name in collected if not name.startswith("episodes/")] == spread
    assert algorithm.env.has_ends == ("episodes/count" in collected)
    assert list(updated) == [*UPDATE_METRICS, *extra]
    assert all(value.shape == () for value in (collected | updated).values())
    assert all(torch.isfinite(value) for value in updated.values())
    if not algorithm.env.has_ends:  # else of whole episodes
        assert collected["returns/mean"].item() == pytest.approx(8 * collected["rewards/mean"].item(), rel=1e-5)
    assert (algorithm.env_steps, algorithm.iterations, algorithm.resets) == (64, 1, 1)


def test_step_without_collect_says_so(build):
    algorithm = build()
    with pytest.raises(RuntimeError, match=r"nothing to learn from. Call collect\(\)"):
        algorithm.step()
    iterate(algorithm)
    with pytest.raises(RuntimeError, match="nothing to learn from"):
        algorithm.step()


@pytest.mark.parametrize(
    ("algorithm_cls", "options", "error", "message"),
    [
        (Algorithm, {"gama": 0.9}, TypeError, "Unknown option 'gama'. Did you mean 'gamma'"),
        (
            Algorithm,
            {"view": "none"},
            TypeError,
            r"^view='none' is no option of Algorithm itself. Try rl8.Trainer\(env, view=",
        ),
        (Algorithm, {"compile": True}, TypeError, r"Try device=rl8.DeviceSettings\(compile=True\)\.$"),
        (Algorithm, {"device": "tpu"}, ValueError, "^device='tpu' is unknown"),
        (Algorithm, {"model_cls": LSTMModel}, ValueError, "algo=ppo trains feedforward.*Try algo=recurrent"),
        (
            RecurrentAlgorithm,
            {"model_cls": MLPModel},
            ValueError,
            "needs a model with memory, but MLPModel.*model=lstm",
        ),
        (Algorithm, {"seq_len": 2}, ValueError, "seq_len=2 needs a model with memory.*Try seq_len=1"),
        (Algorithm, {"sgd_minibatch_size": 5}, ValueError, "sgd_minibatch_size=5 does not divide.*e.g."),
        (Algorithm, {"distribution_cls": Normal}, ValueError, "Normal does not fit the action spec Categorical"),
        (Algorithm, {"optimizer_cls": nn.Linear}, TypeError, "no torch optimizer"),
        (
            Algorithm,
            {"optimizer_config": {"lr": -1.0}},
            ValueError,
            r"^optimizer_config\.lr=-1\.0 is out of range\..* > 0\.",
        ),
        (Algorithm, {"optimizer_config": {"lrr": 1.0}}, TypeError, "option of Adam 'lrr'. Did you mean 'lr'"),
        (Algorithm, {"lr_schedule": [[0, -1.0]]}, ValueError, r"^lr_schedule\[0\]'s value"),
    ],
)
def test_options_that_do_not_fit_are_refused(algorithm_cls, options, error, message):
    with pytest.raises(error, match=message):
        algorithm_cls(Episodes, **{"num_envs": 8, "horizon": 8, **options})


def test_a_precision_that_a_model_cannot_compute_in_is_refused():
    class Refusing(MLPModel):
        def forward(self, obs, state=None):
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("no such kernel\nhint")
            raise RuntimeError("bug")

    advice = {
        "fp16": "float16 .*: no such kernel. Try amp_dtype='bf16', or",
        "bf16": "bfloat16 .*kernel. Try enable_amp=False",
    }
    for dtype, expected in advice.items():
        with pytest.raises(ValueError, match=f"Refusing can't compute in {expected}"):
            Algorithm(Episodes, model_cls=Refusing, enable_amp=True, amp_dtype=dtype, **SMALL)
    with pytest.raises(RuntimeError, match="bug"):
        Algorithm(Episodes, model_cls=Refusing, **SMALL)


def test_what_makes_no_environment_is_refused():
    with pytest.raises(TypeError, match=r"made a Linear, which is no rl8.env.Env. Derive it from Env"):
        Algorithm(lambda num_envs, horizon, device: nn.Linear(1, 1), num_envs=8)


def test_defaults_stay_within_the_limits_of_the_class(build):
    class Limited(Episodes):
        max_num_envs, max_horizon = 12, 4

    assert Algorithm(Limited).hparams.batch_size == 48
    assert Algorithm(Limited, num_envs=6).rollout.rewards.shape == (4, 6)
    with pytest.raises(ValueError, match="num_envs"):
        Algorithm(Limited, num_envs=13)


@pytest.mark.parametrize("env_cls", [MaskedBandit, Machine, Steering, ContinuousDummyEnv])
def test_every_kind_of_spec_is_trained(build, env_cls):
    algorithm = build(env_cls, normalize_obs=True, sgd_minibatch_size=32)
    before = weights(algorithm)
    assert all(math.isfinite(value) for value in iterate(algorithm, 2).values())
    assert not torch.equal(weights(algorithm), before)


@pytest.mark.parametrize(
    ("model_cls", "config"), [(GRUModel, {"num_layers": 2}), (TransformerModel, {"window": 4, "size": 16})]
)
def test_every_kind_of_model_is_trained(model_cls, config):
    algorithm_cls = RecurrentAlgorithm if model_cls is GRUModel else Algorithm
    algorithm = algorithm_cls(Episodes, model_cls=model_cls, model_config=config, num_envs=8, horizon=8)
    before = weights(algorithm)
    iterate(algorithm, 2)
    assert not torch.equal(weights(algorithm), before)


class CountReads(TorchDispatchMode):
    """Counts operations that wait for the device to tell the host a value."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket._qualified_op_name
        self.reads += any(
            part in name for part in ("local_scalar", "nonzero", "equal", "masked_select", "is_same_size")
        )
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("env_cls", [Episodes, MaskedBandit, Machine, Steering])
def test_an_iteration_never_waits_for_the_device(build, env_cls, monkeypatch):
    monkeypatch.setattr(RunningMoments, "looks", False)  # which it does on a CPU alone
    algorithm = build(env_cls, normalize_obs=True, sgd_minibatch_size=16, max_grad_norm=0.5, entropy_coeff=0.1)
    hparams = algorithm.hparams  # on a CPU final observations are asked for: nobody waits there
    algorithm.rollout.finals = FinalSlots(hparams.num_envs, hparams.horizon, algorithm.device)
    algorithm.works.steps_at_once = False  # so are values by steps without autograd
    algorithm.policy.side_by_side = False  # and by looking for the ends of episodes
    iterate(algorithm)
    with CountReads() as count:
        algorithm.collect()
        algorithm.step()
    assert count.reads == 0
    with CountReads() as count:
        algorithm.env_steps += int(algorithm.rollout.rewards.sum())
    assert count.reads == 1


# -------------------------------------------------------------------------------------------------------- repeating


def test_a_parameter_can_be_frozen_between_iterations(build):
    algorithm = build(CartPole, num_envs=4, horizon=4)
    iterate(algorithm)
    frozen = algorithm.policy.model.policy_head.linear.weight.requires_grad_(False)
    before, others = frozen.clone(), weights(algorithm)
    iterate(algorithm)
    assert torch.equal(frozen, before)
    assert not torch.equal(weights(algorithm), others)


def test_the_same_seed_gives_the_same_run(build):
    one, other, third = (build(seed=seed, sgd_minibatch_size=16) for seed in (3, 3, 4))
    runs = []
    for algorithm in (one, other, third):
        torch.manual_seed(algorithm is third)
        runs.append((iterate(algorithm, 2), weights(algorithm)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])


def test_collect_twice_with_one_seed_is_identical(build):
    algorithm = build(horizons_per_env_reset=1)
    rollouts = []
    for _ in range(2):
        torch.manual_seed(5)
        algorithm.collect()
        rollouts.append(
            [t.clone() for t in (algorithm.rollout.obs, algorithm.rollout.actions, algorithm.rollout.values)]
        )
    for one, other in zip(*rollouts, strict=True):
        assert torch.equal(one, other)


def test_deterministic_collection_takes_the_mode(build):
    algorithm = build(ContinuousDummyEnv, num_envs=4, horizon=4)
    algorithm.collect(deterministic=True)
    rollout = algorithm.rollout
    batch = rollout.minibatch(torch.arange(4).unsqueeze(0))
    features = algorithm.policy.model(batch.seen, batch.state).features
    mode = algorithm.policy.distribution(features, batch.seen).mode()
    torch.testing.assert_close(batch.actions, mode)
    algorithm.collect()
    assert not torch.equal(rollout.actions[0], mode[0])


def test_a_cpu_gets_few_environments_by_default_and_never_more_than_the_class_allows():
    class Few(Endless):
        max_num_envs = 7

    assert Algorithm(Endless).hparams.num_envs == CPU_NUM_ENVS
    assert Algorithm(Few).hparams.num_envs == 7
    assert Algorithm(Endless, num_envs=300, horizon=1).hparams.num_envs == 300
    assert fitting_defaults(Endless, "cuda:1", {}) == {"num_envs": 8192, "horizon": 32}


@pytest.mark.parametrize(("every", "resets"), [(1, 4), (2, 2), (3, 2), (-1, 1)])
def test_horizons_per_env_reset(build, every, resets):
    algorithm = build(horizons_per_env_reset=every)
    for horizon in range(4):
        before = algorithm.rollout.obs[-1].clone()
        algorithm.collect()
        first = algorithm.rollout.obs[algorithm.rollout.history]
        is_reset = horizon == 0 or (every > 0 and horizon % every == 0)
        assert torch.equal(first, before) != is_reset
    assert algorithm.resets == resets


@pytest.mark.parametrize(("env_cls", "every"), [(Episodes, -1), (Terminating, -1), (Truncating, -1), (Endless, 1)])
def test_where_episodes_end_the_default_is_to_go_on(build, env_cls, every):
    assert build(env_cls).hparams.horizons_per_env_reset == every
    assert build(env_cls, horizons_per_env_reset=3).hparams.horizons_per_env_reset == 3


def test_settings_reach_the_environment_at_its_resets_only(build):
    algorithm = build(horizons_per_env_reset=2)
    seen = []
    for noise in (3.0, 4.0, 5.0, None):
        algorithm.collect(env_config=None if noise is None else {"noise": noise})
        seen.append(algorithm.env.noise.item())
    assert seen == [3.0, 3.0, 5.0, 5.0]
    with pytest.raises(ValueError, match=r"setting of Episodes.reset\(\) 'nois'. Did you mean 'noise'"):
        algorithm.collect(env_config={"nois": 1.0})


def test_settings_may_be_drawn_for_each_environment_anew(build):
    algorithm = build(horizons_per_env_reset=1)
    draws = []
    for _ in range(2):
        algorithm.collect(env_config={"noise": {"low": 1.0, "high": 2.0}})
        draws.append(algorithm.env.noise.clone())
    assert draws[0].shape == (8,)
    assert not torch.equal(*draws)
    assert all(((draw >= 1) & (draw <= 2)).all() for draw in draws)


# ------------------------------------------------------------------------------------------------------- the update


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_accumulated_gradients_equal_one_batch(build, max_grad_norm):
    after = []
    for options in ({}, {"sgd_minibatch_size": 16, "accumulate_grads": True}):
        algorithm = build(max_grad_norm=max_grad_norm, **options)
        torch.manual_seed(1)
        metrics = iterate(algorithm)
        after.append((weights(algorithm), metrics))
    torch.testing.assert_close(after[0][0], after[1][0], rtol=1e-4, atol=2e-5)
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-3, abs=1e-4)


def test_minibatches_without_accumulation_take_more_steps(build):
    steps = {}
    for accumulate in (False, True):
        algorithm = build(sgd_minibatch_size=16, accumulate_grads=accumulate, num_sgd_iters=3)
        iterate(algorithm)
        steps[accumulate] = int(next(iter(algorithm.optimizer.state.values()))["step"])
    assert steps == {False: 12, True: 3}


@pytest.mark.parametrize("minibatch_size", [None, 48])
@pytest.mark.parametrize("piece_size", [1, 4, 12, 20, 10**6])
def test_any_piece_size_gives_the_same_update(build, minibatch_size, piece_size):
    after = []
    for size in (10**6, piece_size):
        algorithm = build(
            num_envs=12, sgd_minibatch_size=minibatch_size, device=DeviceSettings(piece_size=size), vf_clip_param=0.1
        )
        torch.manual_seed(1)
        metrics = iterate(algorithm)
        after.append((weights(algorithm), metrics))
    torch.testing.assert_close(after[0][0], after[1][0], rtol=1e-4, atol=2e-5)
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-3, abs=1e-4)


@pytest.fixture
def two_threads(monkeypatch):
    """Let two threads share minibatches of any size."""
    monkeypatch.setattr(pieces, "MIN_STEPS_PER_THREAD", 1)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("minibatch_size", [None, 32])
def test_threads_share_an_update(build, minibatch_size):
    after = []
    for threads in (1, 2, 2):
        device = DeviceSettings(piece_size=12, num_threads=threads)
        algorithm = build(device=device, sgd_minibatch_size=minibatch_size)
        assert (
            len(
                algorithm.execution._shares(
                    next(
                        algorithm.rollout.minibatches(
                            algorithm.hparams.num_minibatches, shuffle=algorithm.hparams.shuffle_minibatches
                        )
                    )
                )
            )
            == threads
        )
        metrics = iterate(algorithm, 2)
        after.append((weights(algorithm), metrics))
    torch.testing.assert_close(after[0][0], after[1][0], rtol=1e-4, atol=2e-5)
    assert after[1][1] == after[2][1]  # whichever thread is first
    assert torch.equal(after[1][0], after[2][0])


@pytest.mark.usefixtures("two_threads")
def test_a_policy_that_draws_numbers_is_evaluated_in_order(build):
    shared = {"device": DeviceSettings(num_threads=2), "distribution_cls": SquashedNormal, "entropy_coeff": 0.1}
    algorithms = [build(Steering, **shared) for _ in range(2)]
    for algorithm in algorithms:
        torch.manual_seed(1)
        iterate(algorithm, 2)
        assert len(algorithm.execution._shares(slice(0, 64))) == 1
    assert torch.equal(*(weights(algorithm) for algorithm in algorithms))


WIDE = {"num_envs": 256, "horizon": 32, "model_config": {"hiddens": [128, 128]}}


def wide(**options):
    """Build an algorithm whose networks and minibatches are large enough for sorting."""
    torch.manual_seed(0)
    cls = options.pop("cls", Algorithm)
    return cls(options.pop("env_cls", CartPole), **{**WIDE, **options})


@pytest.mark.parametrize(
    ("options", "sorts"),
    [
        ({}, True),
        ({"normalize_obs": True}, True),
        ({"sgd_minibatch_size": 4096}, True),
        ({"sgd_minibatch_size": 2048}, False),
        ({"num_envs": 64}, False),
        ({"sgd_minibatch_size": 4096, "device": DeviceSettings(num_threads=2)}, False),
        ({"enable_amp": True}, False),
        ({"model_config": {"hiddens": [128, 128], "activation": "tanh"}}, False),
        ({"model_config": {"hiddens": [64, 64]}}, False),
        ({"model_config": {"hiddens": [128, 128], "window": 4}}, True),
        ({"model_config": {"hiddens": [128, 128], "window": 16}}, False),
        ({"env_cls": MaskedBandit, "model_cls": TransformerModel, "model_config": {}}, False),
        ({"cls": RecurrentAlgorithm, "model_config": {}}, False),
    ],
)
def test_env_steps_are_sorted_where_that_is_faster(options, sorts, monkeypatch):
    monkeypatch.setattr(networks, "_gains", lambda net, rows: True)
    before = torch.get_num_threads()
    algorithm = wide(**options)
    iterate(algorithm)
    torch.set_num_threads(before)
    assert algorithm.execution.sorted == sorts
    algorithm.collect()
    assert not (sorts and algorithm.execution._forward)


def test_env_steps_stay_where_they_are_if_sorting_does_not_gain(monkeypatch):
    algorithm = wide(num_envs=1024, horizon=8)
    for gains in (True, False, True):
        monkeypatch.setattr(networks, "_gains", lambda net, rows, gains=gains: gains)
        sorted_before = algorithm.execution.sorted
        algorithm.collect()
        assert (algorithm.execution._forward is None) == sorted_before
        algorithm.step()
        assert algorithm.execution.sorted == gains


MINIBATCHES = [(None, True), (4096, False), (4096, True)]


@pytest.mark.parametrize(("minibatch_size", "shuffle"), MINIBATCHES)
@pytest.mark.parametrize("normalize_obs", [False, True])
def test_sorting_changes_an_update_by_rounding_only(minibatch_size, shuffle, normalize_obs, monkeypatch):
    after, gains, forward, taken = [], Piecewise.gains, Piecewise.forward, []
    monkeypatch.setattr(Piecewise, "forward", lambda *args: taken.append(1) or forward(*args))
    for sorts in (False, True):
        monkeypatch.setattr(Piecewise, "gains", gains if sorts else lambda *args: False)
        algorithm = wide(
            sgd_minibatch_size=minibatch_size,
            shuffle_minibatches=shuffle,
            normalize_obs=normalize_obs,
            vf_clip_param=0.1,
        )
        if not sorts:
            algorithm.execution._sorts = False
        torch.manual_seed(1)
        metrics = iterate(algorithm)
        after.append((weights(algorithm), metrics))
        assert minibatch_size or bool(taken) == sorts
    # Where a unit is zero up to rounding, one env step more or less counts.
    torch.testing.assert_close(after[0][0], after[1][0], rtol=1e-2, atol=1e-4)
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-2, abs=1e-3)


@pytest.mark.parametrize(("minibatch_size", "shuffle"), MINIBATCHES)
def test_sorted_minibatches_have_the_env_steps_of_unsorted_ones(minibatch_size, shuffle):
    algorithm = wide(sgd_minibatch_size=minibatch_size, shuffle_minibatches=shuffle)
    algorithm.collect()
    every = torch.arange(8192)
    algorithm.execution.begin_update()
    ranks = algorithm.execution._ranks
    for rows in algorithm.rollout.minibatches(
        algorithm.hparams.num_minibatches, shuffle=algorithm.hparams.shuffle_minibatches
    ):
        plain, ordered = every[rows].flatten(), every[algorithm.execution.arranged(rows)].flatten()
        assert torch.equal(ordered.sort().values, plain.sort().values)
        assert (ranks[ordered].diff() > 0).all()


def test_runs_of_one_seed_are_equal_to_the_last_bit_when_sorted():
    one, other = wide(), wide()
    for algorithm in (one, other):
        torch.manual_seed(1)
        iterate(algorithm, 3)
    assert one.execution.sorted
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize(("minibatch_size", "shuffle"), [(8, False), (8, True), (32, False), (32, True), (64, True)])
def test_trap_4_sequences_are_shuffled_whole(build, shuffle, minibatch_size):
    algorithm = build(sgd_minibatch_size=minibatch_size, shuffle_minibatches=shuffle)
    length, num_envs, horizon = algorithm.hparams.seq_len, 8, 8
    orders = []
    for _ in range(2):
        visited = []
        for rows in algorithm.rollout.minibatches(
            algorithm.hparams.num_minibatches, shuffle=algorithm.hparams.shuffle_minibatches
        ):
            places = torch.arange(horizon * num_envs)[rows].reshape(length, -1)
            assert places.numel() == minibatch_size
            steps, envs = places // num_envs, places % num_envs
            assert (steps % length == torch.arange(length).unsqueeze(1)).all()  # steps 0 ... L - 1 of one sequence
            assert (steps // length == steps[0] // length).all()
            assert (envs == envs[0]).all()
            visited += places.T.flatten().tolist()
        assert sorted(visited) == list(range(horizon * num_envs))
        orders.append(visited)
    assert (orders[0] != orders[1]) == (shuffle and minibatch_size < 64)


def test_trap_5_advantages_are_normalized_over_the_batch(build):
    algorithm = build(sgd_minibatch_size=16)
    algorithm.collect()
    algorithm.works.prepare()
    advantages = algorithm.rollout.advantages
    assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
    assert advantages.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    per_minibatch = advantages.flatten().view(4, 16)
    assert (per_minibatch.mean(1).abs() > 1e-2).any()


def test_trap_5_one_sample_gives_no_nan():
    with pytest.raises(ValueError, match=r"one sample has no std. Try normalize_advantages=False"):
        Algorithm(Steering, num_envs=1, horizon=1)
    for options in ({"horizon": 1, "normalize_advantages": False}, {"horizon": 2, "sgd_minibatch_size": 1}):
        algorithm = Algorithm(Steering, num_envs=1, **options)
        assert all(math.isfinite(value) for value in iterate(algorithm, 3).values())
        assert torch.isfinite(weights(algorithm)).all()
        assert iterate(algorithm)["returns/std"] == 0


def test_trap_6_statistics_change_after_the_update_only(build):
    algorithm = build(normalize_obs=True)
    moments = algorithm.policy.normalizers[0].moments
    algorithm.collect()
    assert moments.count == 0
    algorithm.step()
    assert moments.count == 64
    seen = algorithm.rollout.obs[algorithm.rollout.history : -1].flatten(0, 1)
    torch.testing.assert_close(moments.mean.float(), seen.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments.var.float(), seen.var(0, correction=0), rtol=1e-4, atol=1e-5)


def test_trap_7_actions_are_clipped_only_at_the_environments_door(build):
    algorithm = build(Steering, distribution_cls=Normal)
    taken = []

    def step(action):
        taken.append(action.clone())
        return algorithm.env.step(action)

    algorithm.rollout.start(algorithm.env.reset())
    collect(algorithm.env, algorithm.policy, algorithm.rollout, step=step)
    stored, given = algorithm.rollout.actions, torch.stack(taken)
    assert stored.abs().max() > 1.5
    assert given.abs().max() == 1
    assert torch.equal(given, stored.clamp(-1, 1))
    batch = algorithm.rollout.minibatch(torch.arange(8).unsqueeze(0))
    with torch.no_grad():
        logp, _, _ = algorithm.policy.evaluate(batch.seen, stored[:1], batch.state)
    torch.testing.assert_close(logp[0], algorithm.rollout.logp[0])


class Extreme(Model):
    """Asks for actions far out in the tails of the squashing function."""

    def __init__(self, observation_spec, action_spec, *, mean):
        super().__init__(observation_spec, action_spec)
        self.mean = nn.Parameter(torch.tensor(float(mean)))

    def forward(self, obs, state=None):
        mean = self.mean + 0 * obs
        return Output({"mean": mean, "log_std": torch.zeros_like(mean)}, mean[..., 0])


@pytest.mark.parametrize("mean", [-60, 0, 20, 60])
def test_trap_8_squashed_actions_keep_an_accurate_logp(mean):
    algorithm = Algorithm(
        Steering,
        num_envs=64,
        horizon=4,
        distribution_cls=SquashedNormal,
        model_cls=Extreme,
        model_config={"mean": mean},
        num_sgd_iters=1,
    )
    metrics = iterate(algorithm)
    stored = algorithm.rollout.actions
    assert (stored - mean).abs().mean() < 2  # before squashing
    squash = TanhTransform(cache_size=1)  # remembers u, so that nothing is lost in float64
    reference = TransformedDistribution(torch.distributions.Normal(torch.full_like(stored, mean).double(), 1.0), squash)
    expected = reference.log_prob(squash(stored.double()))
    torch.testing.assert_close(algorithm.rollout.logp.double(), expected.squeeze(-1), rtol=1e-5, atol=1e-4)
    assert metrics["monitors/kl_div"] == pytest.approx(0, abs=1e-6)


def test_trap_9_a_std_pushed_to_extremes_trains_on():
    algorithm = Algorithm(ContinuousDummyEnv, **SMALL)
    for extreme in (-1e3, 1e3):
        with torch.no_grad():
            algorithm.policy.model.policy_head.log_stds[0].fill_(extreme)
        iterate(algorithm)
        assert torch.isfinite(weights(algorithm)).all()


def test_trap_10_schedules_are_in_env_steps(build):
    algorithm = build(
        lr_schedule=[[0, 1e-3], [64, 5e-4], [192, 1e-4]],
        entropy_coeff_schedule=[[0, 0.1], [256, 0.5]],
        entropy_coeff_schedule_kind="interp",
    )
    seen = []
    for _ in range(4):
        metrics = iterate(algorithm)  # 64 env steps each; read where they begin
        assert algorithm.optimizer.param_groups[0]["lr"] == pytest.approx(metrics["coefficients/lr"])
        seen.append((metrics["coefficients/lr"], metrics["coefficients/entropy"]))
    assert [lr for lr, _ in seen] == pytest.approx([1e-3, 5e-4, 5e-4, 1e-4])
    assert [coeff for _, coeff in seen] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_entropy_coefficient_acts(build):
    after = {}
    for coeff in (0.0, 5.0):
        algorithm = build(Endless, entropy_coeff=coeff, optimizer_config={"lr": 1e-2})
        after[coeff] = iterate(algorithm, 4)
    assert after[5.0]["losses/total"] < after[0.0]["losses/total"] - 3
    assert after[5.0]["losses/entropy"] > after[0.0]["losses/entropy"]


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("env_cls", [Episodes, Steering])
def test_trap_13_the_ratio_is_1_in_the_first_minibatch(build, precision, env_cls):
    amp = {} if precision == "float32" else {"enable_amp": True, "amp_dtype": precision}
    algorithm = build(env_cls, num_sgd_iters=1, normalize_obs=True, **amp)
    iterate(algorithm)  # the statistics of observations are no longer the initial ones
    algorithm.collect()
    ratios = []
    evaluate = algorithm.policy.evaluate

    def spied(seen, actions, state, is_last):
        out = evaluate(seen, actions, state, is_last)
        ratios.append(out[0].detach())
        return out

    algorithm.policy.evaluate = spied
    old = algorithm.rollout.logp.clone()
    metrics = algorithm.step()
    assert len(ratios) == 1
    torch.testing.assert_close(
        ratios[0].flatten().sort().values, old.flatten().sort().values, rtol=0, atol=1e-5 if not amp else 1e-3
    )
    assert metrics["monitors/clip_fraction"] == 0
    assert metrics["monitors/kl_div"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_weights(build, dtype):
    algorithm = build(enable_amp=True, amp_dtype=dtype, sgd_minibatch_size=16)
    before = weights(algorithm)
    iterate(algorithm, 4)
    assert {parameter.dtype for parameter in algorithm.parameters} == {torch.float32}
    assert torch.isfinite(weights(algorithm)).all()
    assert not torch.equal(weights(algorithm), before)
    assert algorithm.execution.scaler.is_enabled() == (dtype == "fp16")


def test_gradients_under_fp16_are_clipped_in_their_own_scale(build):
    options = {"num_sgd_iters": 1, "max_grad_norm": 1e-3, "model_cls": GRUModel if build().recurrent else MLPModel}
    norms = {}
    for amp in ({}, {"enable_amp": True, "amp_dtype": "fp16"}):
        algorithm = build(Endless, **options, **amp)
        algorithm.execution.scaler._init_scale = 256.0  # torch's own overflows at first and skips the step
        before = weights(algorithm)
        norms[len(amp)] = iterate(algorithm)["monitors/grad_norm"]
        assert not torch.equal(weights(algorithm), before)
    assert norms[2] == pytest.approx(norms[0], rel=0.1)


def test_an_overflow_under_fp16_skips_the_step_and_halves_the_scale(build):
    algorithm = build(enable_amp=True, amp_dtype="fp16", num_sgd_iters=1)
    scaler = algorithm.execution.scaler
    scaler._init_scale = 1e30
    before = weights(algorithm)
    iterate(algorithm)
    assert torch.equal(weights(algorithm), before)
    assert scaler.get_scale() == pytest.approx(5e29)


def test_trap_14_rewards_without_spread_stay_as_they_are(build):
    algorithm = build(Endless)
    for constant in (0.0, 1e-9):
        algorithm.collect()
        algorithm.rollout.rewards.fill_(constant)
        metrics = algorithm.step()
        assert algorithm.rollout.returns.abs().max() < 10
        assert torch.isfinite(metrics["losses/total"])


def test_trap_14_reward_sums_carry_over_horizons_and_start_anew_at_resets():
    algorithm = Algorithm(Endless, **{**SMALL, "horizons_per_env_reset": 2, "gamma": 0.5})
    sums = []
    for _ in range(3):
        algorithm.collect()
        algorithm.rollout.rewards.fill_(1.0)
        algorithm.step()
        sums.append(algorithm.reward_scaler.sums[0].item())
    # after n rewards of 1: 2 - 2^(1 - n)
    assert sums == pytest.approx([2 - 2**-7, 2 - 2**-15, 2 - 2**-7], abs=1e-6)


def test_rewards_in_metrics_are_raw_and_learning_does_not_see_their_scale(build):
    class Louder(Endless):
        def step(self, action):
            out = super().step(action)
            out["rewards"] = out["rewards"] * 1000
            return out

    runs = [iterate(build(env_cls)) for env_cls in (Endless, Louder)]
    assert runs[1]["returns/mean"] == pytest.approx(1000 * runs[0]["returns/mean"], rel=1e-4)
    assert runs[1]["losses/vf"] == pytest.approx(runs[0]["losses/vf"], rel=0.05)


@pytest.mark.parametrize("accumulate", [False, True])
def test_target_kl_stops_early(build, accumulate):
    after = []
    for target in (None, 1e-6):
        algorithm = build(
            sgd_minibatch_size=16,
            accumulate_grads=accumulate,
            num_sgd_iters=5,
            target_kl_div=target,
            optimizer_config={"lr": 1e-2},
        )
        iterate(algorithm)
        after.append(int(next(iter(algorithm.optimizer.state.values()))["step"]))
    # the first minibatch (or pass) moves the policy, the second one measures how far and is the last
    assert after == [5 if accumulate else 20, 2]


def test_dual_and_value_clip_change_the_update(build):
    plain = build(num_sgd_iters=8, optimizer_config={"lr": 3e-2})
    iterate(plain, 2)
    for option in ({"dual_clip_param": 1.01}, {"vf_clip_param": 1e-3}):
        algorithm = build(num_sgd_iters=8, optimizer_config={"lr": 3e-2}, **option)
        iterate(algorithm, 2)
        assert torch.isfinite(weights(algorithm)).all()
        assert not torch.allclose(weights(algorithm), weights(plain))


class Halving(torch.optim.Optimizer):
    """Halves every parameter, whatever the gradient."""

    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(group["lr"])


def test_any_optimizer_may_be_used(build):
    algorithm = build(optimizer_cls=Halving, optimizer_config={"lr": 0.25}, num_sgd_iters=2)
    before = weights(algorithm)
    assert iterate(algorithm)["coefficients/lr"] == 0.25
    torch.testing.assert_close(weights(algorithm), before / 16)
    algorithm = build(optimizer_cls=torch.optim.SGD, optimizer_config={"lr": 0.1, "momentum": 0.9})
    before = weights(algorithm)
    iterate(algorithm)
    assert not torch.equal(weights(algorithm), before)


def test_gradients_are_clipped_by_their_norm(build):
    steps = {}
    for limit in (None, 1e-3):
        algorithm = build(
            optimizer_cls=torch.optim.SGD, optimizer_config={"lr": 1.0}, max_grad_norm=limit, num_sgd_iters=1
        )
        before = weights(algorithm)
        metrics = iterate(algorithm)
        steps[limit] = (weights(algorithm) - before).norm().item()
        assert metrics["monitors/grad_norm"] > 2e-3  # as it was before clipping, and known without it too
    assert steps[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert steps[None] > 2e-3


def test_frozen_parameters_stay():
    class Frozen(MLPModel):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.value_net.requires_grad_(False)

    algorithm = Algorithm(Episodes, model_cls=Frozen, **SMALL)
    before = nn.utils.parameters_to_vector(algorithm.policy.model.value_net.parameters()).clone()
    iterate(algorithm)
    assert torch.equal(nn.utils.parameters_to_vector(algorithm.policy.model.value_net.parameters()), before)


def test_a_model_without_a_parameter_that_learns_is_refused():
    class Frozen(MLPModel):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.requires_grad_(False)

    with pytest.raises(ValueError, match=r"^Frozen has no parameter that learns.*remove requires_grad_\(False\)"):
        Algorithm(Episodes, model_cls=Frozen, **SMALL)


def test_a_ready_model_and_a_function_as_env_cls():
    def make(num_envs, horizon, device):
        return DiscreteDummyEnv(num_envs, horizon, bounds=5.0, device=device)

    model = MLPModel(Unbounded(1), Categorical(2, shape=(1,)), feature_shapes={"logits": (1, 2)}, hiddens=[8])
    algorithm = Algorithm(make, model=model, num_envs=8, horizon=4)
    assert algorithm.policy.model is model
    iterate(algorithm)
    assert algorithm.rollout.obs.abs().max() <= 9


def test_the_policy_improves_on_its_own_advantages(build):
    """One update makes good actions likelier than bad ones."""
    algorithm = build(Endless, num_sgd_iters=2, num_envs=64, optimizer_config={"lr": 1e-3})
    algorithm.collect()
    algorithm.step()
    rollout = algorithm.rollout
    rows = torch.arange(64).unsqueeze(0)
    batch = rollout.minibatch(rows)
    with torch.no_grad():
        logp, _, _ = algorithm.policy.evaluate(batch.seen, batch.actions, batch.state)
    assert ((logp - batch.logp) * batch.advantages).mean() > 0


def test_compiled_functions_give_the_eager_results(monkeypatch):
    """The same functions traced whole; Inductor itself would take a minute, and draws other random numbers."""
    compiled = []

    def trace(function, **options):
        compiled.append(function.__name__)
        return torch._dynamo.optimize("aot_eager")(function)

    monkeypatch.setattr(torch, "compile", trace)
    results = []
    for compile_ in (False, True):
        torch.manual_seed(0)
        algorithm = Algorithm(
            CartPole,
            num_envs=8,
            horizon=4,
            model_config={"hiddens": [8], "activation": "elu"},  # small work that is not computed in C
            device=DeviceSettings(compile=compile_),
        )
        results.append({**algorithm.collect(), **algorithm.step()})
    assert compiled == ["act", "step", "_loss_of"]
    for name, eager in results[0].items():
        torch.testing.assert_close(results[1][name], eager, msg=name, rtol=1e-4, atol=1e-5)


class Layered(Model):
    """Has a layer that behaves otherwise in training mode."""

    def __init__(self, observation_spec, action_spec, *, layer):
        super().__init__(observation_spec, action_spec)
        self.first, self.layer = nn.Linear(observation_spec.shape[0], 16), layer
        self.logits, self.last = nn.Linear(16, action_spec.n), nn.Linear(16, 1)

    def forward(self, obs, state=None):
        hidden = self.first(obs)
        hidden = self.layer(hidden.flatten(0, 1)).view(hidden.shape).tanh()
        return Output({"logits": self.logits(hidden)}, self.last(hidden).squeeze(-1))


@pytest.mark.parametrize("num_envs", [1, 8])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d(16), nn.Dropout(0.5), nn.LayerNorm(16)], ids=lambda layer: str(layer))
def test_trap_13_the_ratio_is_1_whatever_the_layers(layer, num_envs):
    layer = copy.deepcopy(layer)
    options = {"num_envs": num_envs, "horizon": 16, "num_sgd_iters": 1, "optimizer_config": {"lr": 1e-12}}
    algorithm = Algorithm(CartPole, model_cls=Layered, model_config={"layer": layer}, **options)
    for _ in range(3):
        algorithm.collect()
        metrics = algorithm.step()
        assert abs(metrics["monitors/kl_div"].item()) < 1e-6
        assert metrics["monitors/clip_fraction"].item() == 0
    if isinstance(layer, nn.BatchNorm1d):
        assert layer.num_batches_tracked == 3  # once per horizon, after its update
        assert (layer.running_var != 1).all()


def test_batch_normalisation_without_running_statistics_is_refused():
    layer = nn.BatchNorm1d(16, track_running_stats=False)
    with pytest.raises(ValueError, match=r"^Layered.layer is a BatchNorm1d that keeps no running .*torch.nn.LayerNorm"):
        Algorithm(CartPole, model_cls=Layered, model_config={"layer": layer}, num_envs=8, horizon=4)


def decay(policy, batch):
    """The mean square of the value network's first weights: its gradient is known."""
    return policy.model.value_net.layers[0].weight.square().mean()


@pytest.mark.parametrize(
    "options", [{}, {"sgd_minibatch_size": 16}, {"sgd_minibatch_size": 16, "accumulate_grads": True}]
)
def test_an_extra_loss_is_learned_from_and_logged(options):
    norms, logged = [], []
    for weight in (0.0, 100.0):
        torch.manual_seed(3)
        algorithm = Algorithm(CartPole, **SMALL, **options, extra_losses={"decay": (weight, decay)})
        before = decay(algorithm.policy, None).item()
        metrics = algorithm.collect() | algorithm.step()
        for _ in range(5):
            algorithm.collect()
            algorithm.step()
        norms.append(decay(algorithm.policy, None).item() / before)
        logged.append(metrics["losses/decay"].item())
        assert metrics["losses/decay"].item() == pytest.approx(before, rel=0.2)
    assert norms[1] < norms[0] - 0.01


def test_an_extra_loss_can_not_come_later():
    algorithm = Algorithm(CartPole, **SMALL)
    with pytest.raises(TypeError, match="does not support item assignment"):
        algorithm.extra_losses["decay"] = (1.0, decay)
    with pytest.raises(AttributeError, match="extra_losses"):
        algorithm.extra_losses = {"decay": (1.0, decay)}


def test_an_extra_loss_is_part_of_the_total():
    torch.manual_seed(3)
    plain = Algorithm(CartPole, **SMALL, num_sgd_iters=1)
    torch.manual_seed(3)
    more = Algorithm(
        CartPole, **SMALL, num_sgd_iters=1, extra_losses={"two": (3.0, lambda policy, batch: batch.logp.mean() * 0 + 2)}
    )
    totals = []
    for algorithm in (plain, more):
        torch.manual_seed(4)
        totals.append((algorithm.collect() | algorithm.step())["losses/total"].item())
    assert totals[1] == pytest.approx(totals[0] + 6, abs=1e-4)


def test_an_extra_loss_that_is_no_number_is_refused_by_its_name():
    algorithm = Algorithm(CartPole, **SMALL, extra_losses={"mine": (0.1, lambda policy, batch: batch.logp)})
    algorithm.collect()
    with pytest.raises(TypeError, match=r"extra_losses\['mine'\]: its function returned .* Try .mean\(\)"):
        algorithm.step()


@pytest.mark.parametrize(
    ("losses", "kind", "message"),
    [
        ({"vf": (1.0, decay)}, ValueError, r"losses/vf is PPO's own. Try another name"),
        (
            {"decay": decay},
            TypeError,
            r"is no pair of a weight and a function. Try extra_losses=\{'decay': \(",
        ),
        (5, TypeError, r"^extra_losses=5 is no mapping from names"),
        ({1: (1.0, decay)}, TypeError, r"is no mapping from names. Accepted: a weight and a function by name"),
        ({"decay": (math.nan, decay)}, ValueError, r"^extra_losses\['decay'\]'s weight=nan is out of range"),
    ],
)
def test_extra_losses_that_are_none_are_refused(losses, kind, message):
    with pytest.raises(kind, match=message):
        Algorithm(CartPole, **SMALL, extra_losses=losses)


def test_a_schedule_moves_every_coefficient_from_its_own_value(build):
    points = {
        "clip_param": [[128, 0.0]],
        "vf_clip_param": [[0, 1.0], [128, 0.5]],
        "vf_coeff": [[64, 0.5], [65, 0.1]],
        "lr": [[128, 0.0]],
        "entropy_coeff": [[128, 0.2]],
    }
    algorithm = build(schedules=points)
    names = ("clip_param", "vf_clip_param", "vf", "lr", "entropy")
    metrics = [iterate(algorithm) for _ in range(3)]  # 64 env steps each
    seen = [[each[f"coefficients/{name}"] for name in names] for each in metrics]
    assert seen[0] == pytest.approx([0.2, 1.0, 1.0, 1e-3, 0.0])
    assert seen[1] == pytest.approx([0.1, 0.75, 0.5, 5e-4, 0.1])  # halfway
    assert seen[2] == pytest.approx([0.0, 0.5, 0.1, 0.0, 0.2])


def test_a_scheduled_coefficient_is_learned_with():
    def run(**options):
        torch.manual_seed(0)
        algorithm = Algorithm(Terminating, **SMALL, **options)
        iterate(algorithm, 2)
        return weights(algorithm)

    limits = {"clip_param": 0.01, "vf_clip_param": 0.01, "dual_clip_param": 1.1, "vf_coeff": 0.3}
    scheduled = run(schedules={name: [[0, value], [1000, value]] for name, value in limits.items()})
    torch.testing.assert_close(scheduled, run(**limits))
    assert not torch.equal(scheduled, run())


@pytest.mark.parametrize("weighted", [False, True])
def test_a_minibatch_normalizes_its_own_advantages(weighted):
    algorithm = Algorithm(Endless, num_envs=2, horizon=4)
    rollout = algorithm.rollout
    rollout.values.zero_()
    rollout.returns.copy_(torch.tensor([[1.0, 3.0], [9.0, 9.0], [5.0, 7.0], [0.0, 0.0]]))
    rollout.advantages.fill_(-1.0)
    if weighted:
        rollout.weights = torch.ones(4, 2)
        rollout.weights[2] = 0.0
    rows = torch.tensor([[0, 1, 4, 5]])  # 1, 3, 5, 7
    normalize_minibatch(rollout, rows)
    # mean 4, std sqrt(5); weighted 1 and 3 alone count: mean 2, std 1
    expected = torch.tensor([-1.0, 1.0, 3.0, 5.0]) if weighted else torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5
    torch.testing.assert_close(rollout.advantages.flatten()[rows[0]], expected)
    assert (rollout.advantages[1] == -1).all()
    normalize_minibatch(rollout, slice(0, 2))
    torch.testing.assert_close(rollout.advantages[0], torch.tensor([-1.0, 1.0]))


def test_normalizing_minibatches_acts():
    def run(per_minibatch):
        torch.manual_seed(0)
        options = {"normalize_advantages_per_minibatch": per_minibatch, "sgd_minibatch_size": 16}
        algorithm = Algorithm(Endless, **SMALL, **options)
        iterate(algorithm)
        return weights(algorithm)

    assert not torch.allclose(run(True), run(False))


def test_rewards_are_clipped_after_scaling():
    algorithm = Algorithm(Endless, **SMALL, normalize_rewards=False, clip_rewards=0.5, gamma=0.0, gae_lambda=0.0)
    algorithm.collect()
    algorithm.rollout.rewards.copy_(torch.linspace(-2, 2, 64).reshape(8, 8))
    algorithm.compute_advantages()
    expected = algorithm.rollout.rewards.clamp(-0.5, 0.5)
    torch.testing.assert_close(algorithm.rollout.returns, expected, rtol=1e-4, atol=1e-5)
    assert Algorithm(Endless, **SMALL, clip_rewards=3.0).reward_scaler.clip == 3.0
    assert Algorithm(Endless, **SMALL).reward_scaler.clip == 10.0


class Shared(Model):
    """One layer gives features and values."""

    def __init__(self, observation_spec, action_spec):
        super().__init__(observation_spec, action_spec)
        self.linear = nn.Linear(observation_spec.shape.numel(), action_spec.n)

    def forward(self, obs, state=None):
        logits = self.linear(obs.flatten(2))
        return Output({"logits": logits.unsqueeze(-2)}, logits.mean(-1))


def test_a_critic_with_a_rate_of_its_own(build):
    options = {"critic_lr": 5e-3, "schedules": {"lr": [[128, 0.0]]}}
    algorithm, other = build(**options), build(**options)
    iterate(algorithm, 2)
    actor, critic = algorithm.optimizer.param_groups
    named = {id(parameter): name for name, parameter in algorithm.policy.named_parameters()}
    assert all("value" in named[id(parameter)] for parameter in critic["params"])
    assert not any("value" in named[id(parameter)] for parameter in actor["params"])
    assert len(actor["params"]) + len(critic["params"]) == len(algorithm.parameters)
    assert (actor["lr"], critic["lr"]) == pytest.approx((5e-4, 2.5e-3))  # halfway of 128 env steps, both
    saved = copy.deepcopy(algorithm.state_dict())
    expected = iterate(algorithm)
    other.load_state_dict(saved)
    assert iterate(other) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"The checkpoint was made with algo\.critic_lr"):
        build().load_state_dict(saved)


def test_a_critic_without_parameters_of_its_own_has_no_rate():
    with pytest.raises(ValueError, match=r"in Shared nothing belongs to the value alone.*Try critic_lr=None"):
        Algorithm(DiscreteDummyEnv, num_envs=4, horizon=4, model_cls=Shared, critic_lr=1e-2)
