import copy
import random

import pytest
import torch
from comparing import assert_same, weights
from envs import Endless, Episodes, Machine, MaskedBandit
from torch import nn

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.distributions import Normal, SquashedNormal
from rl8.env import CartPole, Pendulum
from rl8.execution import cpu
from rl8.execution.compiled.building import library
from rl8.execution.compiled.steps import CompiledSteps
from rl8.execution.kernels.loss import Terms
from rl8.execution.small import Recipe, SmallSteps, small_steps
from rl8.models import MLPModel
from rl8.policy.policy import Policy
from rl8.ppo.metrics import UPDATE_METRICS

BASE = {"num_envs": 8, "horizon": 8, "num_sgd_iters": 3}
CASES = {
    "choices": (CartPole, {}),
    "relu, wide": (CartPole, {"model_config": {"hiddens": [40, 24, 8]}}),
    "episodes": (Episodes, {"model_config": {"hiddens": [16], "activation": "tanh"}}),
    "no hidden layer": (CartPole, {"model_config": {"hiddens": []}}),
    "minibatches, shuffled": (CartPole, {"sgd_minibatch_size": 16, "shuffle_minibatches": True}),
    "minibatches, in order": (CartPole, {"sgd_minibatch_size": 16, "shuffle_minibatches": False}),
    "everything clipped": (
        CartPole,
        {"vf_clip_param": 0.05, "dual_clip_param": 1.5, "clip_param": 0.1, "max_grad_norm": 0.1, "entropy_coeff": 0.05},
    ),
    "gradients as they are": (CartPole, {"max_grad_norm": None, "vf_coeff": 0.5}),
    "entropy falls": (CartPole, {"entropy_coeff_schedule": [[0, 0.1], [100, 0.0]]}),
    "other gains": (CartPole, {"model_config": {"hidden_gain": 1.4, "policy_gain": 0.5, "value_gain": 1.0}}),
    "advantages by the minibatch": (
        CartPole,
        {"normalize_advantages_per_minibatch": True, "sgd_minibatch_size": 16},
    ),
    "coefficients that move": (
        CartPole,
        {
            "vf_clip_param": 0.2,
            "dual_clip_param": 3.0,
            "schedules": {
                "clip_param": [[100, 0.01]],
                "vf_clip_param": [[100, 0.01]],
                "dual_clip_param": [[100, 1.5]],
                "vf_coeff": [[100, 0.1]],
            },
        },
    ),
    "rewards clipped": (CartPole, {"clip_rewards": 0.5, "normalize_rewards": False}),
    "a rate that moves": (CartPole, {"schedules": {"lr": [[1000, 1e-5]]}}),
    "learning rate falls": (CartPole, {"lr_schedule": [[0, 1e-2], [100, 1e-4]], "lr_schedule_kind": "interp"}),
    "stops early": (CartPole, {"target_kl_div": 1e-4, "sgd_minibatch_size": 16}),
    "normal": (Pendulum, {"distribution_cls": Normal, "entropy_coeff": 0.01}),
    "squashed": (Pendulum, {"distribution_cls": SquashedNormal, "entropy_coeff": 0.01}),
    "a mask": (MaskedBandit, {"entropy_coeff": 0.05}),
    "a window": (Endless, {"model_config": {"window": 2}}),
    "normalised": (CartPole, {"normalize_obs": True, "normalize_rewards": True}),
}
NOTHING = {"nothing": (1.0, lambda policy, batch: batch.logp.sum() * 0)}
UNKNOWN = {
    "std of the state": (Algorithm, Pendulum, {"model_config": {"state_dependent_std": True}}),
    "accumulated": (Algorithm, Endless, {"accumulate_grads": True, "sgd_minibatch_size": 16}),
    "an adaptive rate": (Algorithm, Endless, {"desired_kl": 0.01, "sgd_minibatch_size": 16}),
    "two rates": (Algorithm, Endless, {"critic_lr": 1e-4}),
    "another value loss": (Algorithm, Endless, {"vf_huber_delta": 0.5}),
    "a std with bounds": (Algorithm, Pendulum, {"model_config": {"min_std": 0.1}}),
    "mixed precision": (Algorithm, Endless, {"enable_amp": True}),
    "further losses": (Algorithm, Endless, {"extra_losses": NOTHING}),
    "another optimizer": (Algorithm, Endless, {"optimizer_cls": torch.optim.AdamW}),
    "weight decay": (Algorithm, Endless, {"optimizer_config": {"weight_decay": 0.1}}),
    "not fused": (Algorithm, Endless, {"optimizer_config": {"foreach": True}}),
    "another activation": (Algorithm, Endless, {"model_config": {"activation": "elu"}}),
    "components": (Algorithm, Machine, {}),
    "a state": (RecurrentAlgorithm, Endless, {}),
    "a model of one's own": (Algorithm, Endless, {"model_cls": type("Mine", (MLPModel,), {})}),
    "too large": (Algorithm, Endless, {"num_envs": 1024, "model_config": {"hiddens": [64]}}),
}


@pytest.fixture(params=["torch", "C"])
def way(request, monkeypatch):
    """By what small steps are taken."""
    if request.param == "torch":
        monkeypatch.setattr(cpu, "library", lambda: "nothing is built here")
    elif isinstance(library(), str):
        pytest.skip(library())
    return request.param


@pytest.fixture
def taken(way, monkeypatch):
    """Rows of the optimizer steps that were taken without autograd so far."""
    rows = []
    kind = {"torch": SmallSteps, "C": CompiledSteps}[way]
    step = kind.__call__
    monkeypatch.setattr(kind, "__call__", lambda self, some: rows.append(some) or step(self, some))
    return rows


def build(env_cls, options, *, seed=0):
    torch.manual_seed(seed)
    return Algorithm(env_cls, **{**BASE, **options})


def iterate(algorithm, count, *, seed=0, small=True):
    """Return the metrics of `count` iterations, as numbers; random numbers start at `seed`."""
    torch.manual_seed(seed)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        if not small:
            patch.setattr(cpu, "small_steps", lambda *_: None)
            patch.setattr(cpu, "small_act", lambda *_: None)
            patch.setattr(cpu, "compiled_act", lambda *_: None)
        found = [algorithm.collect() | algorithm.step() for _ in range(count)]
    return [{name: metrics[name].item() for name in UPDATE_METRICS} for metrics in found]


def same(one, other, **tolerance):
    torch.testing.assert_close(weights(one), weights(other), **{"rtol": 1e-4, "atol": 2e-5, **tolerance})


@pytest.mark.parametrize(("env_cls", "options"), CASES.values(), ids=CASES)
def test_it_learns_what_autograd_learns(env_cls, options, taken):
    ours, plain = build(env_cls, options), build(env_cls, options)
    expected = iterate(plain, 3, small=False)
    assert not taken
    found = iterate(ours, 3)
    assert taken
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-5)
    same(ours, plain)


@pytest.mark.parametrize("case", ["choices", "normal", "squashed", "a mask", "a window", "normalised"])
def test_it_acts_as_the_policy_does(case, way, monkeypatch):
    env_cls, options = CASES[case]
    calls = []
    infer = Policy._infer
    monkeypatch.setattr(Policy, "_infer", lambda self, *rest: calls.append(rest) or infer(self, *rest))
    ours, plain = build(env_cls, options), build(env_cls, options)
    calls.clear()
    iterate(ours, 2)
    assert not calls
    iterate(plain, 1, small=False)
    assert len(calls) == plain.rollout.horizon
    plain.load_state_dict(ours.state_dict())
    torch.manual_seed(5)
    ours.collect()
    torch.manual_seed(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "small_act", lambda *_: None)
        patch.setattr(cpu, "compiled_act", lambda *_: None)
        plain.collect()
    tolerance = {"torch": 0.0, "C": 1e-5}[way]
    for name in ("actions", "logp", "values", "rewards"):
        found, expected = getattr(ours.rollout, name), getattr(plain.rollout, name)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(12))
def test_any_shape_and_any_options(seed, taken):
    draw = random.Random(seed)
    options = {
        "num_envs": draw.randint(1, 12),
        "horizon": draw.choice([4, 8, 12]),
        "model_config": {
            "hiddens": [draw.randint(1, 40) for _ in range(draw.randint(0, 3))],
            "activation": draw.choice(["relu", "tanh"]),
        },
        "clip_param": draw.choice([0.05, 0.2]),
        "vf_clip_param": draw.choice([None, 0.1]),
        "dual_clip_param": draw.choice([None, 2.0]),
        "vf_coeff": draw.choice([0.3, 1.0]),
        "max_grad_norm": draw.choice([None, 0.3]),
        "entropy_coeff": draw.choice([0.0, 0.02]),
        "optimizer_config": {"lr": 1e-3, "betas": [draw.choice([0.8, 0.9]), 0.99], "eps": draw.choice([1e-8, 1e-5])},
    }
    options["sgd_minibatch_size"] = options["num_envs"] * draw.choice([options["horizon"], 4])
    env_cls = draw.choice([CartPole, Pendulum, Episodes])
    ours, plain = build(env_cls, options, seed=seed), build(env_cls, options, seed=seed)
    iterate(plain, 2, seed=seed, small=False)
    assert not taken
    iterate(ours, 2, seed=seed)
    assert taken
    same(ours, plain)


@pytest.mark.parametrize(("kind", "env_cls", "options"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_it_does_not_know_is_left_to_autograd(kind, env_cls, options, taken):
    algorithm = kind(env_cls, **{**BASE, **options})
    iterate(algorithm, 1)
    assert not taken


def test_what_is_no_number_and_skipped_is_left_to_autograd(taken):
    algorithm = build(CartPole, {})
    algorithm.skips_nonfinite = True
    iterate(algorithm, 1)
    assert not taken


def test_steps_that_count_differently_are_left_to_autograd(taken):
    algorithm = build(CartPole, {})
    algorithm.collect()
    algorithm.rollout.weights = torch.ones_like(algorithm.rollout.rewards)
    algorithm.step()
    assert not taken


def listen_to_a_gradient(algorithm):
    next(algorithm.policy.parameters()).register_hook(lambda gradient: gradient)


def listen_to_a_network(algorithm):
    algorithm.policy.model.policy_net.register_forward_hook(lambda *_: None)


def test_who_listens_to_a_network_hears_it_act(way):
    algorithm, heard = build(CartPole, {}), []
    algorithm.collect()
    algorithm.policy.model.policy_net.register_forward_hook(lambda *_: heard.append(None))
    algorithm.collect()
    assert len(heard) == algorithm.rollout.horizon


def replace_a_function(algorithm):
    algorithm.policy.evaluate = algorithm.policy.evaluate


def replace_a_layer(algorithm):
    nn.utils.parametrizations.weight_norm(algorithm.policy.model.policy_net.layers[0])


def replace_an_activation(algorithm):
    algorithm.policy.model.policy_net.activation = nn.Softplus()


def listen_to_the_optimizer(algorithm):
    algorithm.optimizer.register_step_post_hook(lambda *_: None)


@pytest.mark.parametrize(
    "change",
    [
        listen_to_a_gradient,
        listen_to_a_network,
        replace_a_function,
        replace_a_layer,
        replace_an_activation,
        listen_to_the_optimizer,
    ],
    ids=lambda change: change.__name__,
)
def test_what_is_changed_later_is_left_to_autograd(change, taken):
    algorithm = build(CartPole, {})
    iterate(algorithm, 1)
    assert len(taken) == 3
    change(algorithm)
    iterate(algorithm, 1)
    assert len(taken) == 3


@pytest.mark.parametrize("numbers", [{"clip_param": 0.01}, {"max_grad_norm": 1e-3}, {"lr": 1e-2, "vf_coeff": 3.0}])
def test_numbers_that_are_changed_act(numbers, taken):
    ours, plain, unchanged = build(CartPole, {}), build(CartPole, {}), build(CartPole, {})
    for algorithm in (ours, plain):
        algorithm.change(**numbers)
    iterate(plain, 2, small=False)
    assert not taken
    iterate(ours, 2)
    iterate(unchanged, 2)
    assert taken
    same(ours, plain)
    assert not torch.allclose(weights(ours), weights(unchanged), rtol=1e-3, atol=1e-4)


def test_parameters_that_both_networks_share_are_left_to_autograd(taken):
    model = copy.deepcopy(build(CartPole, {}).policy.model)
    model.value_net = model.policy_net
    iterate(build(CartPole, {"model": model}), 1)
    assert not taken


def test_a_frozen_parameter_is_left_to_autograd(taken):
    model = copy.deepcopy(build(CartPole, {}).policy.model)
    model.policy_head.linear.bias.requires_grad_(False)
    iterate(build(CartPole, {"model": model}), 1)
    assert not taken


@pytest.mark.parametrize("ways", [(True, False), (False, True), (True, True)])
def test_a_checkpoint_goes_on_either_way(ways, way):
    one = build(CartPole, {})
    iterate(one, 2, small=ways[0])
    saved = copy.deepcopy(one.state_dict())
    other = build(CartPole, {}, seed=1)
    iterate(other, 1)  # has a state of its own by now
    other.load_state_dict(saved)
    iterate(one, 2, seed=3, small=ways[0])
    iterate(other, 2, seed=3, small=ways[1])
    mine, theirs = one.state_dict(), other.state_dict()
    if ways[0] == ways[1]:
        assert_same(mine, theirs)
        return
    same(one, other)
    for index, kept in theirs["optimizer"]["state"].items():
        assert mine["optimizer"]["state"][index].keys() == kept.keys()
        for name, tensor in kept.items():
            torch.testing.assert_close(mine["optimizer"]["state"][index][name], tensor, rtol=1e-3, atol=1e-6)


def test_one_seed_gives_one_run_bit_for_bit(taken):
    one, other = build(CartPole, {}), build(CartPole, {})
    assert iterate(one, 3) == iterate(other, 3)
    assert taken
    assert_same(one.state_dict(), other.state_dict())


def test_gradients_can_be_looked_at(way):
    ours, plain = build(CartPole, {"num_sgd_iters": 1}), build(CartPole, {"num_sgd_iters": 1})
    iterate(ours, 1)
    iterate(plain, 1, small=False)
    for mine, theirs in zip(ours.policy.parameters(), plain.policy.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_what_was_learned_before_an_error_stays(way, monkeypatch):
    algorithm = build(CartPole, {})
    before = weights(algorithm)
    steps = iter([None])

    def fails(_):
        if next(steps, "over") == "over":
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(algorithm, "_too_far", fails)
    algorithm.collect()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        algorithm.step()
    assert not torch.equal(weights(algorithm), before)
    assert {float(state["step"]) for state in algorithm.optimizer.state.values()} == {2.0}


@pytest.mark.parametrize("name", ["advantages", "logp", "returns"])
def test_what_is_no_number_stays_visible(name, way):
    algorithm = build(CartPole, {})
    algorithm.collect()
    algorithm.works.prepare()
    getattr(algorithm.rollout, name)[0, 0] = torch.nan
    recipe = Recipe(algorithm.optimizer, Terms(0.2), None, 64)
    steps = small_steps(algorithm.policy, algorithm.rollout, recipe)
    steps = steps if way == "torch" else CompiledSteps(library(), steps)
    found = steps(slice(0, 64))
    assert found[0].isnan()
    assert found[6].isnan()
    assert weights(algorithm).isnan().any()


def test_the_ratio_is_1_in_the_first_minibatch(taken):
    algorithm = build(CartPole, {"num_sgd_iters": 1, "normalize_obs": True})
    found = iterate(algorithm, 2)[1]
    assert taken
    assert found["monitors/kl_div"] == pytest.approx(0.0, abs=1e-6)
    assert found["monitors/clip_fraction"] == 0
