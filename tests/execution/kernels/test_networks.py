from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from execution.kernels.samples import HEADS, TERMS, by_autograd, draw, logp_of
from rl8.execution.kernels.loss import Discrete, Gaussian, Samples
from rl8.execution.kernels.networks import Layer, act, cast, update


def layers(*widths, dtype=torch.float64):
    pairs = pairwise(widths)
    return [Layer(torch.randn(b, a, dtype=dtype) / a**0.5, 0.1 * torch.randn(b, dtype=dtype)) for a, b in pairs]


def outputs(inputs, net, activation):
    for layer in net[:-1]:
        inputs = getattr(torch, activation)(functional.linear(inputs, *layer))
    return functional.linear(inputs, *net[-1])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_gradient_by_both_networks(head, activation):
    terms = TERMS["everything"]
    features, _, samples, log_std = draw(head, 40, dtype=torch.float64)
    inputs = torch.randn(40, 5, dtype=torch.float64)
    policy, value = layers(5, 7, 6, features.shape[1]), layers(5, 8, 1)
    leaves = [tensor.requires_grad_() for layer in [*policy, *value] for tensor in layer]
    features, values = outputs(inputs, policy, activation), outputs(inputs, value, activation).squeeze(1)
    samples = samples._replace(logp=logp_of(head, features, samples, log_std)[0].detach() + 0.2 * samples.values)
    by_features, by_values, *expected = by_autograd(head, features.detach(), values.detach(), samples, terms, log_std)
    by_layers = torch.autograd.grad([features, values], leaves, [by_features, by_values])
    found = update(inputs, policy, value, head, samples, terms, activation=activation, log_std=log_std)
    mine = [tensor for layer in [*found.policy, *found.value] for tensor in layer]
    own = [found.parts] if log_std is None else [found.log_std, found.parts]
    for ours, theirs in zip([*mine, *own], [*by_layers, *expected], strict=True):
        assert not ours.requires_grad
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_probability_of_what_is_done_is_the_distributions(head, masked):
    drawn, _, samples, log_std = draw(head, 60, dtype=torch.float64, masked=masked)
    inputs = torch.randn(60, 5, dtype=torch.float64)
    policy, value = layers(5, 7, drawn.shape[1]), layers(5, 8, 1)
    noise = torch.empty_like(drawn).exponential_() if isinstance(head, Discrete) else torch.randn_like(drawn)
    acted = act(inputs, policy, value, head, noise, log_std=log_std, mask=samples.mask)
    torch.testing.assert_close(acted.values, outputs(inputs, value, "relu").squeeze(1))
    done = Samples(acted.actions, *samples[1:])
    if isinstance(head, Gaussian):
        done = done._replace(noise=noise)
    features = outputs(inputs, policy, "relu")
    logp = logp_of(head, features, done, log_std)[0]
    torch.testing.assert_close(acted.logp, logp, rtol=1e-7, atol=1e-7)
    if masked and isinstance(head, Discrete):
        starts = torch.tensor([sum(head.sizes[:k]) for k in range(len(head.sizes))])
        assert samples.mask.gather(1, acted.actions + starts).all()


def test_choices_are_drawn_as_often_as_they_are_probable():
    head, rows = Discrete((3, 2)), 20000
    policy = [Layer(torch.zeros(5, 1), torch.tensor([0.5, 0.2, 0.3, 0.9, 0.1]).log())]
    value = [Layer(torch.zeros(1, 1), torch.zeros(1))]
    noise = torch.empty(rows, 5).exponential_()
    actions = act(torch.zeros(rows, 1), policy, value, head, noise).actions
    shares = torch.cat([actions[:, 0].bincount(), actions[:, 1].bincount()]) / rows
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.2, 0.3, 0.9, 0.1]), rtol=0, atol=0.015)


def test_in_bf16_it_is_the_same_within_its_rounding():
    head, terms = HEADS["one of 2"], TERMS["everything"]
    _, _, samples, _ = draw(head, 500)
    inputs = torch.randn(500, 5)
    policy, value = layers(5, 32, 32, 2, dtype=torch.float32), layers(5, 32, 32, 1, dtype=torch.float32)
    exact = update(inputs, policy, value, head, samples, terms)
    rough = update(inputs, cast(policy, torch.bfloat16), cast(value, torch.bfloat16), head, samples, terms)
    for ours, theirs in zip([*rough.policy, *rough.value], [*exact.policy, *exact.value], strict=True):
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.dtype == torch.float32
            assert (mine - its).norm() < 0.05 * its.norm()
