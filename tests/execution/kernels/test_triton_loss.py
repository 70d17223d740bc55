import pytest
import torch

from execution.kernels.samples import HEADS, TERMS, draw
from execution.kernels.sides import compare
from rl8.execution.kernels import loss, triton_loss
from rl8.execution.kernels.loss import Discrete, Gaussian

# The interpreter computes with NumPy, which warns of what a GPU does silently.
numpy_warns = pytest.mark.filterwarnings("ignore:(overflow|invalid value|All-NaN slice) encountered:RuntimeWarning")


def check(head, drawn, terms, **options):
    features, values, samples, log_std = drawn
    arguments = (head, features, values, samples, terms)
    return compare(triton_loss.loss_gradient, loss.loss_gradient, *arguments, log_std=log_std, **options)


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_every_head_and_every_term(head, terms):
    check(head, draw(head, 77), terms)


@pytest.mark.parametrize("rows", [1, 31, 64, 1025])
def test_any_number_of_rows(rows):
    for head in (HEADS["one of 2"], HEADS["squashed"]):
        check(head, draw(head, rows), TERMS["everything"], rows=2048)


@pytest.mark.parametrize("head", [h for h in HEADS.values() if isinstance(h, Discrete)])
def test_forbidden_choices(head):
    features, values, samples, log_std = draw(head, 70, masked=True)
    found = check(head, (features, values, samples, log_std), TERMS["everything"])
    assert (found[0].cpu()[~samples.mask] == 0).all()


@pytest.mark.parametrize("head", [h for h in HEADS.values() if isinstance(h, Gaussian)])
def test_a_standard_deviation_that_depends_on_the_state(head):
    check(head, draw(head, 50, by_state=True), TERMS["everything"])


def test_features_in_bf16_and_in_columns():
    head = HEADS["two of 3"]
    features, values, samples, _ = draw(head, 40)
    check(head, (features.bfloat16(), values.bfloat16(), samples, None), TERMS["everything"])
    check(head, (features.T.contiguous().T, values, samples, None), TERMS["everything"])


@numpy_warns
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_extreme_values(head):
    features, values, samples, log_std = draw(head, 32, spread=40.0)
    if isinstance(head, Gaussian):
        features, log_std = 40 * features, torch.tensor([-12.0, 6.0, 0.0][: head.size])
        samples = samples._replace(actions=features + log_std.clamp(-10, 5).exp() * torch.randn_like(features))
    samples = samples._replace(logp=torch.linspace(-60, 20, 32), advantages=1e3 * samples.advantages)
    # Gradients of very different sizes: each is compared with the largest of its column.
    check(head, (features, 1e4 * values, samples, log_std), TERMS["everything"], rtol=2e-4, atol=1e-4)


@numpy_warns
@pytest.mark.parametrize("name", ["features", "advantages", "values"])
def test_what_is_no_number_stays_visible(name):
    head = HEADS["one of 2"]
    features, values, samples, _ = draw(head, 20)
    {"features": features, "values": values, "advantages": samples.advantages}[name][3] = torch.nan
    by_features, by_values, parts = check(head, (features, values, samples, None), TERMS["everything"])
    assert parts[0].isnan()
    assert (by_values if name == "values" else by_features)[3].isnan().any()
