import pytest
import torch

from execution.kernels.samples import HEADS, TERMS, draw, logp_of
from execution.kernels.sides import compare
from execution.kernels.test_networks import layers
from rl8.execution.kernels import networks, triton_networks
from rl8.execution.kernels.loss import Discrete, Terms

FLOAT32, BF16 = torch.float32, torch.bfloat16


def networks_for(head, widths, depth, dtype=FLOAT32):
    size = sum(head.sizes) if isinstance(head, Discrete) else head.size
    made = [layers(depth, *widths, out, dtype=FLOAT32) for out in (size, 1)]
    return [networks.cast(net, dtype) for net in made]


def check_update(
    head, *, rows=33, depth=5, widths=(24, 40), dtype=FLOAT32, masked=False, spread=1.0, of=None, terms=None, **options
):
    _, _, samples, log_std = draw(head, rows, masked=masked)
    policy, value = networks_for(head, widths, depth, dtype)
    inputs = spread * torch.randn(rows, depth)
    features = networks.forward(inputs, policy, options.get("activation", "relu"))[-1].float()
    logp = logp_of(head, features, samples, log_std)[0] + (0.2 * samples.values if terms is None else 0.0)
    arguments = (inputs, policy, value, head, samples._replace(logp=logp), terms or TERMS["everything"])
    compare(triton_networks.update, networks.update, *arguments, log_std=log_std, rows=of, **options)


def check_act(head, *, rows=33, depth=5, widths=(24, 40), dtype=FLOAT32, masked=False, **options):
    drawn, _, samples, log_std = draw(head, rows, masked=masked)
    policy, value = networks_for(head, widths, depth, dtype)
    noise = torch.empty_like(drawn).exponential_() if isinstance(head, Discrete) else torch.randn_like(drawn)
    arguments = (torch.randn(rows, depth), policy, value, head, noise)
    keywords = {"log_std": log_std, "mask": samples.mask, **options}
    return compare(triton_networks.act, networks.act, *arguments, **keywords), samples


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_the_gradient_by_both_networks(head, activation):
    check_update(head, activation=activation)


@pytest.mark.parametrize(
    ("rows", "depth", "widths"), [(1, 1, (1, 1)), (65, 3, (17, 16)), (32, 70, (16, 130)), (40, 16, (256, 256))]
)
def test_odd_sizes(rows, depth, widths):
    check_update(HEADS["uneven"], rows=rows, depth=depth, widths=widths, rtol=1e-3)
    check_act(HEADS["uneven"], rows=rows, depth=depth, widths=widths)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_update_in_bf16(activation):
    # The policy is the one that collected: no ratio is so near its limit that rounding decides whether it is clipped.
    for head in (HEADS["one of 17"], HEADS["squashed"]):
        check_update(head, rows=130, dtype=BF16, terms=Terms(0.2), activation=activation, share=0.05)


def test_forbidden_choices():
    for head in (HEADS["one of 17"], HEADS["uneven"]):
        check_update(head, masked=True)
        (actions, *_), samples = check_act(head, rows=64, masked=True)
        starts = torch.tensor([sum(head.sizes[:k]) for k in range(len(head.sizes))])
        assert samples.mask.gather(1, actions.cpu() + starts).all()


def test_pieces_of_a_minibatch():
    check_update(HEADS["one of 2"], rows=20, of=100)


def test_extreme_inputs():
    check_update(HEADS["one of 2"], spread=1e4, activation="tanh", rtol=1e-3)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_acting(head, activation):
    check_act(head, activation=activation)


def test_acting_in_bf16():
    (actions, logp, values), _ = check_act(HEADS["normal"], rows=70, dtype=BF16, share=0.02)
    assert [tensor.dtype for tensor in (actions, logp, values)] == [FLOAT32] * 3


def test_a_row_that_allows_nothing_chooses_0():
    head = Discrete((3, 2))
    policy, value = networks_for(head, (16, 16), 2)
    mask = torch.tensor([[False, False, False, False, True]])
    arguments = (torch.randn(1, 2), policy, value, head, torch.ones(1, 5))
    actions = compare(triton_networks.act, networks.act, *arguments, mask=mask)[0]
    assert actions.tolist() == [[0, 1]]


def test_which_networks_the_kernels_know(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert triton_networks.fits(layers(5, 256, 100, 2), FLOAT32)
    assert triton_networks.fits(layers(5, 16, 16, 2), BF16)
    assert not triton_networks.fits(layers(5, 257, 16, 2), FLOAT32)
    assert not triton_networks.fits(layers(300, 16, 16, 2), FLOAT32)
    assert not triton_networks.fits(layers(5, 16, 2), FLOAT32)
    assert not triton_networks.fits(layers(5, 16, 16, 2), torch.float16)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert not triton_networks.fits(layers(5, 16, 16, 2), FLOAT32)
    assert triton_networks.fits(layers(5, 16, 16, 2), BF16)
