import copy
import random
import sys

import pytest
import torch
from comparing import weights
from envs import Endless, Episodes, Machine, MaskedBandit
from torch import nn

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.distributions import Normal, SquashedNormal
from rl8.env import CartPole, Pendulum
from rl8.models import MLPModel
from rl8.ppo.metrics import UPDATE_METRICS

BASE = {"num_envs": 8, "horizon": 8, "num_sgd_iters": 3}
CASES = {
    "choices": (CartPole, {}),
    "relu, wide": (CartPole, {"model_config": {"hiddens": [40, 24, 8]}}),
    "episodes": (Episodes, {"model_config": {"hiddens": [16], "activation": "tanh"}}),
    "minibatches, shuffled": (CartPole, {"sgd_minibatch_size": 16, "shuffle_minibatches": True}),
    "minibatches, in order": (CartPole, {"sgd_minibatch_size": 16, "shuffle_minibatches": False}),
    "everything clipped": (
        CartPole,
        {"vf_clip_param": 0.05, "dual_clip_param": 1.5, "clip_param": 0.1, "max_grad_norm": 0.1, "entropy_coeff": 0.05},
    ),
    "gradients as they are": (CartPole, {"max_grad_norm": None, "vf_coeff": 0.5}),
    "entropy falls": (CartPole, {"entropy_coeff": 0.1, "entropy_coeff_schedule": [[0, 0.1], [100, 0.0]]}),
    "stops early": (CartPole, {"target_kl_div": 1e-4, "sgd_minibatch_size": 16}),
    "normal": (Pendulum, {"distribution_cls": Normal, "entropy_coeff": 0.01}),
    "squashed": (Pendulum, {"distribution_cls": SquashedNormal, "entropy_coeff": 0.01}),
    "std of the state": (Pendulum, {"model_config": {"hiddens": [16], "state_dependent_std": True}}),
    "normalised": (CartPole, {"normalize_obs": True, "normalize_rewards": True}),
}
UNKNOWN = {
    "masks": (Algorithm, MaskedBandit, {}),
    "accumulated": (Algorithm, Endless, {"accumulate_grads": True, "sgd_minibatch_size": 16}),
    "mixed precision": (Algorithm, Endless, {"enable_amp": True}),
    "another optimizer": (Algorithm, Endless, {"optimizer_cls": torch.optim.AdamW}),
    "weight decay": (Algorithm, Endless, {"optimizer_config": {"weight_decay": 0.1}}),
    "a window": (Algorithm, Endless, {"model_config": {"window": 2}}),
    "another activation": (Algorithm, Endless, {"model_config": {"activation": "elu"}}),
    "no hidden layer": (Algorithm, Endless, {"model_config": {"hiddens": []}}),
    "components": (Algorithm, Machine, {}),
    "a state": (RecurrentAlgorithm, Endless, {}),
    "too large": (Algorithm, Endless, {"num_envs": 1024, "model_config": {"hiddens": [64]}}),
}


@pytest.fixture(params=["torch", "compiled"], autouse=True)
def _way(request, monkeypatch):
    """Compute small updates by torch's operations, or by a compiled function where Numba is installed."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="the extra rl8[fast] is not installed")
    else:
        monkeypatch.setitem(sys.modules, "rl8.execution.compiled", None)


def build(env_cls, options, *, seed=0, plain=False):
    torch.manual_seed(seed)
    algorithm = Algorithm(env_cls, **{**BASE, **options})
    if plain:
        algorithm.execution._small = None
    return algorithm


def iterate(algorithm, count, *, seed=0):
    """Return the metrics of `count` iterations, as numbers; random numbers start at `seed`."""
    torch.manual_seed(seed)
    found = [algorithm.collect() | algorithm.step() for _ in range(count)]
    return [{name: metrics[name].item() for name in UPDATE_METRICS} for metrics in found]


def acts(algorithm):
    return algorithm.execution._small_acts


def same(one, other, **tolerance):
    torch.testing.assert_close(weights(one), weights(other), **{"rtol": 1e-4, "atol": 2e-5, **tolerance})


@pytest.mark.parametrize(("env_cls", "options"), CASES.values(), ids=CASES)
def test_it_learns_what_autograd_learns(env_cls, options):
    small, plain = build(env_cls, options), build(env_cls, options, plain=True)
    found, expected = iterate(small, 3), iterate(plain, 3)
    assert acts(small)
    assert not acts(plain)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-5)
    same(small, plain)


@pytest.mark.parametrize("seed", range(6))
def test_any_shape_and_any_options(seed):
    draw = random.Random(seed)
    options = {
        "num_envs": draw.randint(1, 12),
        "horizon": draw.choice([4, 8, 12]),
        "model_config": {
            "hiddens": [draw.randint(1, 40) for _ in range(draw.randint(1, 3))],
            "activation": draw.choice(["relu", "tanh"]),
        },
        "vf_clip_param": draw.choice([None, 0.1]),
        "dual_clip_param": draw.choice([None, 2.0]),
        "max_grad_norm": draw.choice([None, 0.3]),
        "entropy_coeff": draw.choice([0.0, 0.02]),
    }
    options["sgd_minibatch_size"] = options["num_envs"] * draw.choice([options["horizon"], 4])
    env_cls = draw.choice([CartPole, Pendulum, Episodes])
    small, plain = build(env_cls, options, seed=seed), build(env_cls, options, seed=seed, plain=True)
    iterate(small, 2, seed=seed)
    iterate(plain, 2, seed=seed)
    assert acts(small)
    same(small, plain)


@pytest.mark.parametrize(("kind", "env_cls", "options"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_it_does_not_know_is_left_to_autograd(kind, env_cls, options):
    algorithm = kind(env_cls, **{**BASE, "model_config": {}, **options})
    algorithm.collect()
    algorithm.step()
    assert not acts(algorithm)


def test_a_model_of_ones_own_is_left_to_autograd():
    class Mine(MLPModel):
        pass

    algorithm = build(CartPole, {"model_cls": Mine})
    iterate(algorithm, 1)
    assert not acts(algorithm)


def test_what_changes_later_is_left_to_autograd():
    small, plain = build(CartPole, {}), build(CartPole, {}, plain=True)
    iterate(small, 1)
    iterate(plain, 1)
    assert acts(small)
    seen = []
    next(small.policy.model.parameters()).register_hook(lambda gradient: seen.append(gradient.shape))
    iterate(small, 1)
    iterate(plain, 1)
    assert seen
    assert not acts(small)
    same(small, plain)


@pytest.mark.parametrize("plain_first", [False, True])
def test_a_checkpoint_goes_on_either_way(plain_first):
    one = build(CartPole, {}, plain=plain_first)
    iterate(one, 2)
    saved = copy.deepcopy(one.state_dict())
    other = build(CartPole, {}, seed=1, plain=not plain_first)
    iterate(other, 1)  # has a state of its own by now
    other.load_state_dict(saved)
    iterate(one, 2, seed=3)
    iterate(other, 2, seed=3)
    assert acts(one) != acts(other)
    same(one, other)
    mine, theirs = one.optimizer.state_dict(), other.optimizer.state_dict()
    assert mine["state"].keys() == theirs["state"].keys()
    for index, kept in theirs["state"].items():
        assert mine["state"][index].keys() == kept.keys()
        for name, tensor in kept.items():
            torch.testing.assert_close(mine["state"][index][name], tensor, rtol=1e-3, atol=1e-6)


def test_a_frozen_parameter_is_left_to_autograd():
    model_config = {"hiddens": [8]}
    probe = build(CartPole, {"model_config": model_config})
    model = copy.deepcopy(probe.policy.model)
    model.policy_head.linear.bias.requires_grad_(False)
    algorithm = build(CartPole, {"model": model})
    iterate(algorithm, 1)
    assert not acts(algorithm)


def test_weights_that_are_replaced_are_learned_from():
    small, plain = build(CartPole, {}), build(CartPole, {}, plain=True)
    iterate(small, 1)
    iterate(plain, 1)
    for algorithm in (small, plain):
        for parameter in algorithm.policy.parameters():
            parameter.data = parameter.detach() * 0.5
        iterate(algorithm, 1)
    assert acts(small)
    same(small, plain)


def test_gradients_can_be_looked_at():
    small, plain = build(CartPole, {"num_sgd_iters": 1}), build(CartPole, {"num_sgd_iters": 1}, plain=True)
    iterate(small, 1)
    iterate(plain, 1)
    for ours, theirs in zip(small.policy.parameters(), plain.policy.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_a_layer_that_was_replaced_is_left_to_autograd():
    probe = build(CartPole, {"model_config": {"hiddens": [8]}})
    model = copy.deepcopy(probe.policy.model)
    model.policy_net.layers[0] = nn.utils.parametrizations.weight_norm(model.policy_net.layers[0])
    algorithm = build(CartPole, {"model": model})
    iterate(algorithm, 1)
    assert not acts(algorithm)


def test_one_function_acts_where_it_is_installed(request):
    compiled = request.node.callspec.params["_way"] == "compiled"
    assert (build(CartPole, {}).execution._small._compiled is not None) == compiled
    assert build(Pendulum, {}).execution._small._compiled is None


@pytest.mark.parametrize("name", ["advantages", "logp", "returns"])
def test_what_is_no_number_stays_visible(name):
    algorithm = build(CartPole, {})
    iterate(algorithm, 1)
    algorithm.collect()
    small = algorithm.execution._small
    algorithm._prepare()
    getattr(algorithm.rollout, name)[0, 0] = torch.nan
    assert small.begin()
    found = small(slice(0, 64))
    assert found[0].isnan()
    assert found[6].isnan()
    assert weights(algorithm).isnan().any()


def test_where_what_is_no_number_is_skipped_autograd_learns():
    algorithm = build(CartPole, {})
    algorithm.skips_nonfinite = True
    iterate(algorithm, 1)
    assert not acts(algorithm)


def test_steps_that_count_differently_are_left_to_autograd():
    algorithm = build(CartPole, {})
    iterate(algorithm, 1)
    algorithm.collect()
    algorithm.rollout.weights = torch.ones_like(algorithm.rollout.rewards)
    algorithm.step()
    assert not acts(algorithm)


def test_further_losses_are_left_to_autograd():
    algorithm = build(CartPole, {"extra_losses": {"nothing": (1.0, lambda policy, batch: batch.logp.sum() * 0)}})
    iterate(algorithm, 1)
    assert not acts(algorithm)


def test_the_ratio_is_1_in_the_first_minibatch():
    algorithm = build(CartPole, {"num_sgd_iters": 1, "normalize_obs": True})
    found = iterate(algorithm, 2)[1]
    assert acts(algorithm)
    assert found["monitors/kl_div"] == pytest.approx(0.0, abs=1e-6)
    assert found["monitors/clip_fraction"] == 0
