import pytest
import torch

from execution.kernels.samples import HEADS, TERMS, by_autograd, draw
from rl8.execution.kernels.loss import Discrete, Gaussian, Terms, loss_gradient


def check(head, drawn, terms, *, rows=None, **tolerance):
    features, values, samples, log_std = drawn
    found = loss_gradient(head, features, values, samples, terms, log_std=log_std, rows=rows)
    expected = by_autograd(head, features, values, samples, terms, log_std, rows)
    mine = [tensor for tensor in found if tensor is not None]
    assert len(mine) == len(expected)
    for ours, theirs in zip(mine, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_it_is_what_autograd_finds(head, terms):
    check(head, draw(head, 203, dtype=torch.float64), terms, rtol=1e-10, atol=1e-14)
    check(head, draw(head, 203), terms, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", [h for h in HEADS.values() if isinstance(h, Discrete)])
def test_forbidden_choices(head):
    drawn = draw(head, 101, dtype=torch.float64, masked=True)
    check(head, drawn, TERMS["everything"], rtol=1e-10, atol=1e-14)
    features, values, samples, _ = drawn
    gradient = loss_gradient(head, features, values, samples, TERMS["everything"]).features
    assert (gradient[~samples.mask] == 0).all()


@pytest.mark.parametrize("head", [h for h in HEADS.values() if isinstance(h, Gaussian)])
def test_a_standard_deviation_that_depends_on_the_state(head):
    check(head, draw(head, 50, dtype=torch.float64, by_state=True), TERMS["everything"], rtol=1e-10, atol=1e-14)


def test_a_log_std_past_its_limits_still_has_a_gradient():
    features, values, samples, _ = draw(HEADS["normal"], 50, dtype=torch.float64)
    log_std = torch.tensor([-12.0, 0.0, 7.0], dtype=torch.float64)
    samples = samples._replace(actions=features + 1e-5, logp=torch.full_like(samples.logp, 5.5))
    check(HEADS["normal"], (features, values, samples, log_std), TERMS["everything"], rtol=1e-9, atol=1e-12)


def test_pieces_of_a_minibatch_add_up():
    head, terms = HEADS["uneven"], TERMS["everything"]
    features, values, samples, _ = draw(head, 90, dtype=torch.float64)
    whole = loss_gradient(head, features, values, samples, terms)
    halves = [
        loss_gradient(
            head,
            features[part],
            values[part],
            type(samples)(*(None if field is None else field[part] for field in samples)),
            terms,
            rows=90,
        )
        for part in (slice(30), slice(30, None))
    ]
    torch.testing.assert_close(torch.cat([half.features for half in halves]), whole.features)
    torch.testing.assert_close(sum(half.parts for half in halves), whole.parts)


def test_a_live_entropy_coefficient():
    head, drawn = HEADS["one of 2"], draw(HEADS["one of 2"], 20, dtype=torch.float64)
    check(head, drawn, Terms(0.2, entropy_coeff=torch.tensor(0.3, dtype=torch.float64)), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_probability_ratio_past_all_numbers_stops_the_gradient_where_it_is_clipped(head):
    # exp(log ratio) is infinite in float32: with a positive advantage the objective is held at 1.2 times it. Autograd
    # makes 0 * inf of it, which is no number.
    features, values, samples, log_std = draw(head, 8)
    samples = samples._replace(logp=torch.full((8,), -500.0), advantages=torch.ones(8))
    found = loss_gradient(head, features, values, samples, Terms(0.2), log_std=log_std)
    assert (found.features == 0).all()
    assert found.parts[1] == pytest.approx(-1.2)


@pytest.mark.parametrize("name", ["features", "advantages", "values"])
def test_what_is_no_number_stays_visible(name):
    head = HEADS["one of 2"]
    features, values, samples, _ = draw(head, 8)
    if name == "advantages":
        samples.advantages[3] = torch.nan
    else:
        {"features": features, "values": values}[name][3] = torch.nan
    found = loss_gradient(head, features, values, samples, Terms(0.2, vf_clip_param=0.1))
    assert found.parts[0].isnan()
    assert (found.values if name == "values" else found.features)[3].isnan().any()
