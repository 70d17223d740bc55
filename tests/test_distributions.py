import inspect
import math
import textwrap
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode

from rl8 import specs
from rl8.distributions import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Binary,
    Categorical,
    CompositeDistribution,
    Distribution,
    MultiCategorical,
    Normal,
    SquashedNormal,
    default_distribution,
)

CONF = Path(__file__).parents[1] / "conf" / "distribution"
LOW, HIGH = (-0.1, 2.0, -1000.0), (0.3, 7.0, 10.0)  # three unequal intervals, none centred at zero
DRAWS = 200_000


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def nested_spec():
    return specs.Composite(
        gear=specs.Categorical(4),
        arm=specs.Composite(
            torque=specs.Bounded(LOW, HIGH), speed=specs.Unbounded(2), fingers=specs.MultiCategorical([2, 5, 3])
        ),
        lamps=specs.Binary(3),
    )


CASES = {
    "categorical": (Categorical, specs.Categorical(5)),
    "categorical_shape_1": (Categorical, specs.Categorical(3, shape=(1,))),
    "categorical_shape_2_3": (Categorical, specs.Categorical(4, shape=(2, 3))),
    "multicategorical_equal": (MultiCategorical, specs.MultiCategorical([3, 3])),
    "multicategorical_unequal": (MultiCategorical, specs.MultiCategorical([2, 5, 1, 3])),
    "binary": (Binary, specs.Binary(4)),
    "normal": (Normal, specs.Unbounded(3)),
    "normal_scalar": (Normal, specs.Unbounded(())),
    "normal_bounded": (Normal, specs.Bounded(LOW, HIGH)),
    "squashed": (SquashedNormal, specs.Bounded(LOW, HIGH)),
    "squashed_unbounded": (SquashedNormal, specs.Unbounded((2, 2))),
    "composite": (CompositeDistribution, nested_spec()),
    "composite_of_composites": (CompositeDistribution, specs.Composite(arm=nested_spec()["arm"], lamp=specs.Binary(1))),
}
each_case = pytest.mark.parametrize(("cls", "spec"), CASES.values(), ids=CASES.keys())


def random_features(shapes, batch, dtype=torch.float32, scale=1.0):
    return {
        key: random_features(shape, batch, dtype, scale)
        if isinstance(shape, dict)
        else (scale * torch.randn(*batch, *shape)).to(dtype).requires_grad_()
        for key, shape in shapes.items()
    }


def leaves(features):
    for value in features.values():
        yield from leaves(value) if isinstance(value, dict) else [value]


def make(cls, spec, batch=(7,), **options):
    features = random_features(cls.feature_shapes(spec), batch, **options)
    return cls(features, spec), features


def one(cls, spec, **features):
    """Return a distribution for given features, plain lists of numbers."""
    return cls({key: torch.as_tensor(value) for key, value in features.items()}, spec)


# What holds for all


@each_case
@pytest.mark.parametrize("batch", [(7,), (4, 6), (1, 1)], ids=str)
def test_shapes_dtypes_and_ranges(cls, spec, batch):
    distribution, _ = make(cls, spec, batch)
    for actions in (distribution.sample(), distribution.mode()):
        assert distribution.logp(actions).shape == batch
        sent = distribution.to_env(actions)
        flat = sent.reshape(-1) if isinstance(spec, specs.Composite) else sent.reshape(-1, *spec.shape)
        spec.check(flat, "action")
        if isinstance(spec, specs.Composite):
            assert actions.batch_size == torch.Size(batch)
            assert actions["arm"].batch_size == torch.Size(batch)
        else:
            assert actions.shape == (*batch, *spec.shape)
            assert not actions.requires_grad
    assert distribution.entropy().shape == batch


@each_case
def test_log_probabilities_are_float32_from_half_precision_features(cls, spec):
    for dtype in (torch.bfloat16, torch.float16):
        half, features = make(cls, spec, dtype=dtype)
        wide = cls(widen(features), spec)
        torch.manual_seed(1)
        actions = half.sample()
        assert half.logp(actions).dtype == half.entropy().dtype == torch.float32
        # The same numbers in a wider type: not even rounding may differ.
        assert torch.equal(half.logp(actions), wide.logp(actions))
        half.logp(actions).sum().backward()
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(features))


def widen(features):
    return {key: widen(value) if isinstance(value, dict) else value.detach().float() for key, value in features.items()}


@each_case
def test_log_probabilities_survive_autocast(cls, spec):
    distribution, features = make(cls, spec)
    actions = distribution.sample()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = cls(features, spec)
        assert torch.equal(again.logp(actions), distribution.logp(actions))
        assert again.entropy().dtype == torch.float32


@each_case
def test_float64_stays_float64(cls, spec):
    distribution, _ = make(cls, spec, dtype=torch.float64)
    assert distribution.logp(distribution.sample()).dtype == torch.float64


@each_case
def test_logp_has_the_gradient_of_finite_differences(cls, spec):
    distribution, features = make(cls, spec, batch=(2,), dtype=torch.float64)
    actions = distribution.sample()
    flat = list(leaves(features))

    def rebuild(values):
        queue = iter(values)

        def refill(node):
            return {key: refill(value) if isinstance(value, dict) else next(queue) for key, value in node.items()}

        torch.manual_seed(0)  # an estimated entropy uses the same noise each time
        return cls(refill(features), spec)

    def logp(*values):
        return rebuild(values).logp(actions)

    def entropy(*values):
        return rebuild(values).entropy()

    assert torch.autograd.gradcheck(logp, flat)
    assert torch.autograd.gradcheck(entropy, flat)


@each_case
@pytest.mark.parametrize("scale", [0.0, 50.0, 500.0])
def test_extreme_features_give_finite_numbers_and_gradients(cls, spec, scale):
    distribution, features = make(cls, spec, batch=(64,), scale=scale)
    for actions in (distribution.sample(), distribution.mode()):
        logp, entropy = distribution.logp(actions), distribution.entropy()
        assert logp.isfinite().all()
        assert entropy.isfinite().all()
        gradients = torch.autograd.grad((logp + entropy).sum(), list(leaves(features)), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)


@each_case
def test_the_seed_repeats_a_sample(cls, spec):
    distribution, _ = make(cls, spec)
    torch.manual_seed(3)
    first, entropy = distribution.sample(), distribution.entropy()
    torch.manual_seed(3)
    assert (distribution.sample() == first).all()
    assert torch.equal(distribution.entropy(), entropy)


class NoHostReads(TorchDispatchMode):
    """Fails where values are read on the host or decide a shape: what a CUDA graph cannot hold."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.", "multinomial")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert not any(word in name for word in self.FORBIDDEN), name
        assert "lift_fresh" not in name, "a constant is copied from the host at every call"
        return func(*args, **(kwargs or {}))


@each_case
def test_nothing_reads_values_on_the_host(cls, spec):
    _, features = make(cls, spec)
    with NoHostReads():
        distribution = cls(features, spec)
        actions = distribution.sample()
        distribution.mode()
        distribution.to_env(actions)
        (distribution.logp(actions) + distribution.entropy()).sum().backward()


@each_case
def test_constants_made_in_inference_mode_serve_training_too(cls, spec):
    spec = spec.to("cpu")  # a fresh one, of which nothing has been computed yet
    with torch.inference_mode():
        distribution, _ = make(cls, spec)
        actions = distribution.to_env(distribution.sample())
        assert distribution.logp(actions if isinstance(actions, TensorDict) else distribution.sample()) is not None
    distribution, features = make(cls, spec)
    (distribution.logp(distribution.sample()) + distribution.entropy()).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves(features))


@each_case
def test_compiles_to_one_graph(cls, spec):
    _, features = make(cls, spec)

    def act(features):
        distribution = cls(features, spec)
        actions = distribution.sample()
        return actions, distribution.mode(), distribution.to_env(actions), distribution.logp(actions)

    torch._dynamo.reset()
    compiled = torch.compile(act, backend="eager", fullgraph=True)
    actions, _, _, logp = compiled(features)
    torch.testing.assert_close(logp, cls(features, spec).logp(actions))
    torch._dynamo.reset()


# Categorical


def test_categorical_golden():
    # Logits log(1), log(2), log(5): probabilities 1/8, 2/8, 5/8.
    distribution = one(Categorical, specs.Categorical(3), logits=[[0.0, math.log(2), math.log(5)]])
    assert [distribution.logp(torch.tensor([k])).exp().item() for k in range(3)] == pytest.approx([0.125, 0.25, 0.625])
    # 1/8 log 8 + 2/8 log 4 + 5/8 log(8/5) = 0.259930 + 0.346574 + 0.293752
    assert distribution.entropy().item() == pytest.approx(0.900256, abs=1e-6)
    assert distribution.mode().item() == 2


def test_categorical_agrees_with_torch():
    distribution, features = make(Categorical, specs.Categorical(6, shape=(2,)), batch=(50,), scale=5.0)
    reference = torch.distributions.Categorical(logits=features["logits"])
    actions = distribution.sample()
    torch.testing.assert_close(distribution.logp(actions), reference.log_prob(actions).sum(-1))
    torch.testing.assert_close(distribution.entropy(), reference.entropy().sum(-1))
    assert torch.equal(distribution.mode(), reference.mode)


def test_categorical_draws_with_its_probabilities():
    probabilities = torch.tensor([0.02, 0.5, 0.3, 0.18])
    draws = one(Categorical, specs.Categorical(4), logits=probabilities.log().expand(DRAWS, 4)).sample()
    frequencies = draws.bincount(minlength=4) / DRAWS
    # Four standard errors of a frequency are at most 4 * 0.5 / sqrt(200,000) = 0.0045.
    torch.testing.assert_close(frequencies, probabilities, atol=0.0045, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_masked_choice_has_no_probability_and_is_never_drawn(dtype):
    # The forbidden choices have by far the highest logits.
    logits = torch.tensor([1.0, 90.0, 2.0, 90.0]).to(dtype).expand(DRAWS, 4)
    mask = torch.tensor([True, False, True, False]).expand(DRAWS, 4)
    distribution = one(Categorical, specs.Categorical(4), logits=logits, action_mask=mask)
    draws = distribution.sample()
    assert set(draws.unique().tolist()) == {0, 2}
    assert distribution.mode()[0] == 2
    allowed = one(Categorical, specs.Categorical(2), logits=logits[:, ::2].float())
    torch.testing.assert_close(distribution.logp(draws), allowed.logp(draws // 2))
    torch.testing.assert_close(distribution.entropy(), allowed.entropy())
    assert distribution.logp(torch.ones_like(draws)).exp().max() == 0


def test_a_masked_choice_gets_no_gradient_and_spoils_no_other():
    logits = torch.randn(100, 6, requires_grad=True)
    mask = torch.rand(100, 6) < 0.5
    mask[:, 0] = True
    distribution = one(Categorical, specs.Categorical(6), logits=logits, action_mask=mask)
    (distribution.logp(distribution.sample()) + distribution.entropy()).sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~mask] == 0).all()
    assert logits.grad[mask].abs().max() > 0


@pytest.mark.parametrize("n", [1, 2, 7, 8, 20])
@pytest.mark.parametrize("shape", [(), (2,)], ids=str)
def test_short_and_long_rows_have_torchs_log_probabilities_and_gradients(n, shape):
    logits = torch.randn(5, 3, *shape, n, requires_grad=True)
    distribution = one(Categorical, specs.Categorical(n, shape), logits=logits)
    ours, torchs = distribution.log_probs, torch.log_softmax(logits, dim=-1)
    torch.testing.assert_close(ours, torchs)
    weights = torch.randn(5, 3, *shape, n)
    gradients = [torch.autograd.grad((weights * table).sum(), logits)[0] for table in (ours, torchs)]
    torch.testing.assert_close(*gradients)


def test_one_allowed_choice_is_certain():
    mask = torch.eye(3, dtype=torch.bool)
    distribution = one(Categorical, specs.Categorical(3), logits=torch.zeros(3, 3), action_mask=mask)
    assert torch.equal(distribution.sample(), torch.arange(3))
    assert torch.equal(distribution.logp(torch.arange(3)), torch.zeros(3))
    assert torch.equal(distribution.entropy(), torch.zeros(3))


def test_nothing_allowed_breaks_nothing():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    distribution = one(Categorical, specs.Categorical(3), logits=torch.zeros(2, 3), action_mask=mask)
    assert torch.equal(distribution.sample(), torch.zeros(2, dtype=torch.int64))
    assert distribution.entropy().isfinite().all()


def test_a_clock_of_zero_cannot_choose_a_masked_action(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "exponential_", torch.Tensor.zero_)
    mask = torch.tensor([[False, True]])
    distribution = one(Categorical, specs.Categorical(2), logits=torch.zeros(1, 2), action_mask=mask)
    assert distribution.sample().item() == 1


def test_categorical_mask_may_come_in_a_tensordict():
    features = TensorDict({"logits": torch.zeros(4, 2), "action_mask": torch.tensor([[False, True]] * 4)}, [4])
    assert Categorical(features, specs.Categorical(2)).sample().tolist() == [1] * 4


@pytest.mark.parametrize("shape", [(1,), (2,), (2, 2)])
def test_categorical_mask_may_be_flat(shape):
    mask = torch.rand(5, *shape, 3) < 0.5
    mask[..., 0] = True
    spec, logits = specs.Categorical(3, shape), torch.randn(5, *shape, 3)
    flat, shaped = (one(Categorical, spec, logits=logits, action_mask=m) for m in (mask.flatten(1), mask))
    assert flat.sample().shape == (5, *shape)
    assert torch.equal(flat.log_probs, shaped.log_probs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_categorical_actions_take_the_specs_dtype(dtype):
    distribution, _ = make(Categorical, specs.Categorical(2, dtype=dtype))
    sent = distribution.to_env(distribution.sample())
    assert sent.dtype == dtype
    assert torch.equal(distribution.logp(sent), distribution.logp(sent.long()))


# MultiCategorical


@pytest.mark.parametrize("nvec", [[4, 4], [2, 5, 1, 3], [7]], ids=str)
def test_multicategorical_is_a_product_of_categoricals(nvec):
    spec = specs.MultiCategorical(nvec)
    distribution, features = make(MultiCategorical, spec, batch=(30,), scale=3.0)
    parts = [torch.distributions.Categorical(logits=part) for part in features["logits"].split(nvec, dim=-1)]
    actions = distribution.sample()
    expected = sum(part.log_prob(actions[:, i]) for i, part in enumerate(parts))
    torch.testing.assert_close(distribution.logp(actions), expected)
    torch.testing.assert_close(distribution.entropy(), sum(part.entropy() for part in parts))
    assert torch.equal(distribution.mode(), torch.stack([part.mode for part in parts], dim=-1))
    # Gradients reach the logits as through separate distributions.
    gradient = torch.autograd.grad((distribution.logp(actions) + distribution.entropy()).sum(), features["logits"])
    reference = torch.autograd.grad(expected.sum() + sum(part.entropy().sum() for part in parts), features["logits"])
    torch.testing.assert_close(gradient, reference, atol=1e-5, rtol=1e-5)


def test_multicategorical_draws_every_choice_and_none_of_the_padding():
    spec = specs.MultiCategorical([2, 5, 1, 3])
    draws = one(MultiCategorical, spec, logits=torch.zeros(DRAWS, 11)).sample()
    for i, n in enumerate(spec.nvec):
        frequencies = draws[:, i].bincount() / DRAWS
        torch.testing.assert_close(frequencies, torch.full((n,), 1 / n), atol=0.0045, rtol=0)


def test_the_mode_is_allowed_however_improbable():
    features = {"logits": torch.tensor([[-2e9, -3e9, 5.0]]), "action_mask": torch.tensor([[True, True, False]])}
    assert Categorical(features, specs.Categorical(3)).mode().item() == 0
    logits = torch.tensor([[-2e9, -3e9, 1.0, 2.0, 3.0, 4.0]])
    assert MultiCategorical({"logits": logits}, specs.MultiCategorical([2, 4])).mode().tolist() == [[0, 3]]


@pytest.mark.parametrize("nvec", [[3, 3], [2, 4]], ids=str)
def test_multicategorical_mask_is_laid_out_as_the_logits(nvec):
    mask = torch.tensor([False, True, True, False, True, False]) if nvec == [2, 4] else torch.tensor([0, 1, 0, 1, 0, 1])
    features = {"logits": torch.randn(DRAWS, 6), "action_mask": mask.bool().expand(DRAWS, 6)}
    distribution = MultiCategorical(features, specs.MultiCategorical(nvec))
    draws = distribution.sample()
    for column, part in zip(draws.unbind(-1), mask.split(nvec), strict=True):
        assert column.unique().tolist() == part.nonzero().flatten().tolist()
    assert distribution.logp(draws).isfinite().all()
    assert distribution.entropy().min() >= 0


# Binary


def test_binary_agrees_with_torch():
    distribution, features = make(Binary, specs.Binary(4), batch=(50,), scale=5.0)
    reference = torch.distributions.Bernoulli(logits=features["logits"])
    actions = distribution.sample()
    assert actions.dtype == torch.int8
    torch.testing.assert_close(distribution.logp(actions), reference.log_prob(actions.float()).sum(-1))
    torch.testing.assert_close(distribution.entropy(), reference.entropy().sum(-1), atol=1e-5, rtol=1e-5)
    assert torch.equal(distribution.mode(), reference.mode.nan_to_num().to(torch.int8))


def test_binary_draws_with_its_probabilities():
    probabilities = torch.tensor([0.0, 0.1, 0.5, 1.0])
    draws = one(Binary, specs.Binary(4), logits=probabilities.logit().expand(DRAWS, 4)).sample()
    torch.testing.assert_close(draws.float().mean(0), probabilities, atol=0.0045, rtol=0)


def test_binary_mask_holds_elements_at_zero():
    mask = torch.tensor([True, False]).expand(1000, 2)
    logits = torch.full((1000, 2), 40.0, requires_grad=True)
    distribution = one(Binary, specs.Binary(2), logits=logits, action_mask=mask)
    draws = distribution.sample()
    assert draws.unique(dim=0).tolist() == [[1, 0]]
    assert distribution.logp(draws).abs().max() < 1e-6
    (distribution.logp(draws) + distribution.entropy()).sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, 1] == 0).all()


# Normal


def test_normal_golden():
    # mean 1, std 2, action 5: z = 2, logp = -2 - log 2 - 0.918939 = -3.612086; entropy = log 2 + 1.418939 = 2.112086
    distribution = one(Normal, specs.Unbounded(1), mean=[[1.0]], log_std=[[math.log(2)]])
    assert distribution.logp(torch.tensor([[5.0]])).item() == pytest.approx(-3.612086, abs=1e-6)
    assert distribution.entropy().item() == pytest.approx(2.112086, abs=1e-6)
    assert distribution.mode().item() == 1.0


def test_normal_agrees_with_torch():
    distribution, features = make(Normal, specs.Unbounded((2, 3)), batch=(50,))
    reference = torch.distributions.Normal(features["mean"], features["log_std"].exp())
    actions = distribution.sample()
    torch.testing.assert_close(distribution.logp(actions), reference.log_prob(actions).sum((-1, -2)))
    torch.testing.assert_close(distribution.entropy(), reference.entropy().sum((-1, -2)))


def test_normal_samples_have_mean_and_std():
    mean, std = torch.tensor([-3.0, 40.0]), torch.tensor([0.5, 10.0])
    features = {"mean": mean.expand(DRAWS, 2), "log_std": std.log().expand(DRAWS, 2)}
    draws = Normal(features, specs.Unbounded(2)).sample()
    assert ((draws.mean(0) - mean).abs() < 4 * std / math.sqrt(DRAWS)).all()
    torch.testing.assert_close(draws.std(0), std, rtol=0.01, atol=0)


@pytest.mark.parametrize("cls", [Normal, SquashedNormal])
def test_log_std_may_be_shared_by_the_batch(cls):
    mean, log_std = torch.randn(4, 6, 3), torch.randn(3)
    shared = one(cls, specs.Unbounded(3), mean=mean, log_std=log_std)
    spread = one(cls, specs.Unbounded(3), mean=mean, log_std=log_std.expand(4, 6, 3))
    torch.manual_seed(1)
    actions, entropy = shared.sample(), shared.entropy()
    torch.manual_seed(1)
    assert torch.equal(spread.sample(), actions)
    torch.testing.assert_close(spread.entropy(), entropy)
    torch.testing.assert_close(spread.logp(actions), shared.logp(actions))


def test_normal_is_clipped_at_the_environments_door_only():
    spec = specs.Bounded(LOW, HIGH, dtype=torch.float64)
    distribution = one(Normal, spec, mean=torch.zeros(1000, 3), log_std=torch.full((1000, 3), 3.0))
    actions = distribution.sample()
    sent = distribution.to_env(actions)
    spec.check(sent, "action")
    inside = (actions >= spec.low) & (actions <= spec.high)
    assert (~inside).any(0).all()
    assert torch.equal(sent[inside], actions.double()[inside])
    # The stored action still has the log-probability of what was drawn.
    reference = torch.distributions.Normal(0.0, math.exp(3.0)).log_prob(actions).sum(-1)
    torch.testing.assert_close(distribution.logp(actions), reference)


def test_normal_clips_where_only_one_side_is_bounded():
    spec = specs.Bounded([0.0, -math.inf], [math.inf, 0.0])
    distribution = one(Normal, spec, mean=[[0.0, 0.0]], log_std=[[0.0, 0.0]])
    assert distribution.to_env(torch.tensor([[-5.0, -5.0], [5.0, 5.0]])).tolist() == [[0.0, -5.0], [5.0, 0.0]]


def test_unbounded_actions_reach_the_environment_unchanged():
    distribution, _ = make(Normal, specs.Unbounded(3), scale=50.0)
    actions = distribution.sample()
    assert torch.equal(distribution.to_env(actions), actions)


@pytest.mark.parametrize("cls", [Normal, SquashedNormal])
def test_std_stays_in_its_range_whatever_the_feature(cls):
    log_std = torch.tensor([[-1e30, -11.0, 0.0, 6.0, 1e30]])
    distribution = one(cls, specs.Unbounded(5), mean=torch.zeros(1, 5), log_std=log_std)
    expected = torch.tensor([[LOG_STD_MIN, LOG_STD_MIN, 0.0, LOG_STD_MAX, LOG_STD_MAX]])
    torch.testing.assert_close(distribution.std, expected.exp())
    assert distribution.logp(distribution.sample()).isfinite().all()


@pytest.mark.parametrize("start", [LOG_STD_MIN - 1, LOG_STD_MAX + 1])
def test_a_log_std_that_overshot_can_come_back(start):
    log_std = torch.tensor([start], requires_grad=True)
    optimizer = torch.optim.SGD([log_std], lr=1.0)
    for _ in range(20):
        # The log-density of an action two standard deviations from the mean is highest at log_std = log 2.
        logp = Normal({"mean": torch.zeros(1), "log_std": log_std}, specs.Unbounded(1)).logp(torch.tensor([2.0]))
        optimizer.zero_grad()
        (-logp).backward()
        log_std.grad.clamp_(-1, 1)
        optimizer.step()
    assert LOG_STD_MIN < log_std.item() < LOG_STD_MAX


# SquashedNormal


def squashed(mean, std, low, high):
    features = {"mean": torch.tensor([mean]), "log_std": torch.tensor([std]).log()}
    return SquashedNormal(features, specs.Bounded(low, high, dtype=torch.float64))


def transformed(mean, std, low, high):
    """Return torch's own squashed normal, float64."""
    base = torch.distributions.Normal(torch.tensor(mean).double(), torch.tensor(std).double())
    half = (high - low) / 2
    squash = [
        torch.distributions.TanhTransform(cache_size=1),
        torch.distributions.AffineTransform(low + half, half),
    ]
    return torch.distributions.TransformedDistribution(base, squash)


INTERVALS = pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.1, 0.3), (2.0, 7.0), (-1000.0, 10.0)])


@INTERVALS
def test_squashed_normal_agrees_with_torch_where_that_is_accurate(low, high):
    u = torch.linspace(-4, 4, 201)
    reference = transformed(0.7, 1.3, low, high)
    actions = low + (high - low) * (u.double().tanh() + 1) / 2
    logp = squashed(0.7, 1.3, low, high).logp(u[:, None])
    torch.testing.assert_close(logp.double(), reference.log_prob(actions), atol=2e-5, rtol=1e-5)


@INTERVALS
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.5, 0.4), (2.0, 2.0)])
def test_squashed_density_integrates_to_one_over_the_interval(low, high, mean, std):
    distribution = squashed(mean, std, low, high)
    # Trapezoids over the action, not over u: closely spaced at the ends, where the density may rise steeply.
    u = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    actions = distribution.to_env(u).squeeze(-1)
    density = distribution.logp(u).exp()
    assert torch.trapezoid(density, actions).item() == pytest.approx(1.0, abs=1e-4)


@INTERVALS
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.5, 0.4), (2.0, 2.0)])
def test_squashed_entropy_estimate_has_the_integral_as_its_mean(low, high, mean, std):
    distribution = squashed(mean, std, low, high)
    u = torch.linspace(mean - 10 * std, mean + 10 * std, 200_001, dtype=torch.float64)[:, None]
    density_of_u = torch.distributions.Normal(mean, std).log_prob(u.squeeze(-1)).exp()
    entropy = -torch.trapezoid(density_of_u * distribution.logp(u).double(), u.squeeze(-1)).item()
    features = {"mean": torch.full((DRAWS, 1), mean), "log_std": torch.full((DRAWS, 1), math.log(std))}
    estimates = SquashedNormal(features, specs.Bounded(low, high)).entropy()
    error = estimates.std().item() / math.sqrt(DRAWS)
    assert estimates.mean().item() == pytest.approx(entropy, abs=4 * error)


def test_squashed_entropy_gradient_has_the_mean_of_the_integrals_gradient():
    # The integral's derivatives by central differences, the estimate's by autograd.
    def entropy(mean, log_std):
        std = math.exp(log_std)
        u = torch.linspace(mean - 10 * std, mean + 10 * std, 100_001, dtype=torch.float64)[:, None]
        density = torch.distributions.Normal(mean, std).log_prob(u.squeeze(-1)).exp()
        return -torch.trapezoid(density * squashed(mean, std, -1.0, 1.0).logp(u).double(), u.squeeze(-1)).item()

    mean, log_std, h = 0.6, 0.2, 1e-2
    slope_mean = (entropy(mean + h, log_std) - entropy(mean - h, log_std)) / (2 * h)
    slope_log_std = (entropy(mean, log_std + h) - entropy(mean, log_std - h)) / (2 * h)
    features = {
        "mean": torch.full((DRAWS, 1), mean, requires_grad=True),
        "log_std": torch.full((DRAWS, 1), log_std, requires_grad=True),
    }
    SquashedNormal(features, specs.Bounded(-1.0, 1.0, shape=1)).entropy().sum().backward()
    for name, slope in (("mean", slope_mean), ("log_std", slope_log_std)):
        gradients = features[name].grad
        error = gradients.std().item() / math.sqrt(DRAWS)
        assert gradients.mean().item() == pytest.approx(slope, abs=4 * error + 2e-3)


def test_squashed_logp_is_exact_far_in_the_tails():
    # log(1 - tanh(u)^2) = log 4 - 2|u| to float32 beyond |u| = 9. With mean u and std 1, on (-1, 1):
    # logp = -0.918939 - log 4 + 2|u| = 2|u| - 2.305233
    u = torch.tensor([-500.0, -50.0, -20.0, 20.0, 50.0, 500.0])[:, None]
    distribution = one(SquashedNormal, specs.Unbounded(1), mean=u, log_std=torch.zeros_like(u))
    torch.testing.assert_close(distribution.logp(u), 2 * u.abs().squeeze(-1) - 2.305233, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("distance", [0.0, 1.0, 20.0])
def test_squashed_gradients_are_finite_and_right_far_in_the_tails(distance):
    u = torch.linspace(-50, 50, 101)[:, None].expand(-1, 3)
    features = {
        "mean": (u + distance).clone().requires_grad_(),
        "log_std": torch.full_like(u, 0.5).clone().requires_grad_(),
    }
    distribution = SquashedNormal(features, specs.Bounded(LOW, HIGH))
    logp = distribution.logp(u)
    assert logp.isfinite().all()
    logp.sum().backward(retain_graph=True)
    # d logp / d mean = (u - mean) / std^2: the squashing has no part in it.
    torch.testing.assert_close(features["mean"].grad, torch.full_like(u, -distance / math.e), atol=1e-4, rtol=1e-4)
    distribution.entropy().sum().backward()
    assert all(feature.grad.isfinite().all() for feature in features.values())


def test_squashed_actions_stay_inside_asymmetric_bounds_in_float32():
    spec = specs.Bounded(LOW, HIGH)
    u = torch.cat([torch.linspace(-60, 60, 10_001), torch.tensor([-1e30, 1e30])])[:, None].expand(-1, 3)
    distribution = one(SquashedNormal, spec, mean=u, log_std=torch.zeros_like(u))
    actions = distribution.to_env(u)
    spec.check(actions, "action")
    assert torch.equal(actions[-2], spec.low)
    assert torch.equal(actions[-1], spec.high)
    assert (actions[:10_001].diff(dim=0) >= 0).all()
    middle = distribution.to_env(torch.zeros(1, 3))
    torch.testing.assert_close(middle, ((spec.low + spec.high) / 2)[None])


def test_squashed_actions_take_the_specs_dtype():
    for dtype in (torch.float64, torch.bfloat16):
        spec = specs.Bounded(LOW, HIGH, dtype=dtype)
        distribution, _ = make(SquashedNormal, spec, batch=(1000,), scale=5.0)
        spec.check(distribution.to_env(distribution.sample()), "action")


def test_squashed_normal_takes_an_unbounded_spec_to_plus_minus_one():
    distribution = one(SquashedNormal, specs.Unbounded(1), mean=[[0.5]], log_std=[[0.0]])
    assert distribution.to_env(distribution.mode()).item() == pytest.approx(math.tanh(0.5))
    same = one(SquashedNormal, specs.Bounded(-1.0, 1.0, shape=1), mean=[[0.5]], log_std=[[0.0]])
    u = torch.tensor([[1.5]])
    assert distribution.logp(u).item() == pytest.approx(same.logp(u).item())


# Composite


def test_composite_sums_its_components():
    spec = nested_spec()
    distribution, features = make(CompositeDistribution, spec)
    actions = distribution.sample()
    parts = {
        ("gear",): Categorical,
        ("arm", "torque"): SquashedNormal,
        ("arm", "speed"): Normal,
        ("arm", "fingers"): MultiCategorical,
        ("lamps",): Binary,
    }
    total = 0.0
    for path, cls in parts.items():
        own_features, own_spec, own_actions = features, spec, actions
        for key in path:
            own_features, own_spec, own_actions = own_features[key], own_spec[key], own_actions[key]
        part = cls(own_features, own_spec)
        total = total + part.logp(own_actions)
        sent = distribution.to_env(actions)
        for key in path:
            sent = sent[key]
        assert torch.equal(sent, part.to_env(own_actions))
    torch.testing.assert_close(distribution.logp(actions), total)
    exact = specs.Composite(a=specs.Categorical(3), b=specs.Unbounded(2))
    distribution, features = make(CompositeDistribution, exact)
    entropy = Categorical(features["a"], exact["a"]).entropy() + Normal(features["b"], exact["b"]).entropy()
    torch.testing.assert_close(distribution.entropy(), entropy)


def test_composite_feature_shapes_are_nested():
    assert CompositeDistribution.feature_shapes(nested_spec()) == {
        "gear": {"logits": (4,)},
        "arm": {
            "torque": {"mean": (3,), "log_std": (3,)},
            "speed": {"mean": (2,), "log_std": (2,)},
            "fingers": {"logits": (10,)},
        },
        "lamps": {"logits": (3,)},
    }


@pytest.mark.parametrize("where", ["inside", "beside", "tensordict"])
def test_composite_masks_by_component(where):
    spec = specs.Composite(
        a=specs.Categorical(3), b=specs.Composite(c=specs.MultiCategorical([2, 3])), d=specs.Binary(2)
    )
    n = 1000
    a = torch.tensor([False, True, False]).expand(n, 3)
    c = torch.tensor([True, False, False, False, True]).expand(n, 5)
    features = random_features(CompositeDistribution.feature_shapes(spec), (n,))
    if where == "inside":
        features["a"]["action_mask"] = a
        features["b"]["c"]["action_mask"] = c
    elif where == "beside":
        features["action_mask"] = {"a": a, "b": {"c": c}}
    else:
        features["action_mask"] = TensorDict({"a": a, "b": {"c": c}}, [n])
        features = TensorDict(features, [n])
    draws = CompositeDistribution(features, spec).sample()
    assert draws["a"].unique().tolist() == [1]
    assert draws["b", "c"].unique(dim=0).tolist() == [[0, 2]]
    assert draws["d"].unique().tolist() == [0, 1]


def test_composite_components_can_be_chosen():
    class Drive(CompositeDistribution):
        components = {"steering": Normal}  # noqa: RUF012

    spec = specs.Composite(steering=specs.Bounded(-1.0, 1.0), throttle=specs.Bounded(0.0, 1.0))
    distribution, _ = make(Drive, spec)
    assert [type(part) for part in distribution.parts.values()] == [Normal, SquashedNormal]

    with pytest.raises(ValueError, match=r"Drive\.components: Unknown component 'steering'.*Did you mean 'steer'"):
        Drive.feature_shapes(specs.Composite(steer=specs.Bounded(-1.0, 1.0)))


# Choice and refusal


@pytest.mark.parametrize(
    ("cls", "spec", "shapes"),
    [
        (Categorical, specs.Categorical(3), {"logits": (3,)}),
        (Categorical, specs.Categorical(3, shape=(2, 1)), {"logits": (2, 1, 3)}),
        (MultiCategorical, specs.MultiCategorical([2, 5]), {"logits": (7,)}),
        (Binary, specs.Binary(shape=(2, 3)), {"logits": (2, 3)}),
        (Normal, specs.Unbounded((2, 3)), {"mean": (2, 3), "log_std": (2, 3)}),
        (Normal, specs.Bounded(-math.inf, 1.0), {"mean": (1,), "log_std": (1,)}),
        (SquashedNormal, specs.Bounded(LOW, HIGH), {"mean": (3,), "log_std": (3,)}),
        (CompositeDistribution, specs.Composite(a=specs.Categorical(2)), {"a": {"logits": (2,)}}),
    ],
)
def test_default_distribution_and_feature_shapes(cls, spec, shapes):
    assert default_distribution(spec) is cls
    assert cls.feature_shapes(spec) == shapes


INTEGERS = specs.Bounded(0, 5, shape=2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("cls", "spec", "message"),
    [
        (
            Categorical,
            specs.Unbounded(2),
            r"distribution=Categorical does not fit the action spec Unbounded\(.*takes Normal",
        ),
        (
            Categorical,
            specs.MultiCategorical([2]),
            r"Accepted: a Categorical spec\. .*auto, which takes MultiCategorical",
        ),
        (MultiCategorical, specs.Categorical(2), r"Accepted: a MultiCategorical spec\. .*which takes Categorical here"),
        (Binary, specs.Categorical(2), r"distribution=Binary does not fit .*Accepted: a Binary spec"),
        (
            Normal,
            specs.Categorical(2),
            r"distribution=Normal does not fit .*Type distribution=auto, which takes Categorical",
        ),
        (Normal, INTEGERS, r"floating dtype\. Change it: whole numbers are choices, e\.g\. Categorical\(n=5\)"),
        (SquashedNormal, specs.Categorical(2), r"SquashedNormal does not fit .*which takes Categorical here"),
        (SquashedNormal, INTEGERS, r"SquashedNormal does not fit .*whole numbers are choices"),
        (SquashedNormal, specs.Bounded(0.0, math.inf), r"finite limits and low < high.*which takes Normal here"),
        (
            SquashedNormal,
            specs.Bounded([0.0, 1.0], [1.0, 1.0]),
            r"finite limits and low < high.*which takes Normal here",
        ),
        (SquashedNormal, specs.Bounded(-3e38, 3e38), r"finite limits and low < high.*which takes Normal here"),
        (CompositeDistribution, specs.Binary(2), r"Accepted: a Composite spec\. .*which takes Binary here"),
        (CompositeDistribution, specs.Composite(a=INTEGERS), r"auto knows no distribution for the action spec Bounded"),
    ],
)
def test_specs_that_do_not_fit_are_refused(cls, spec, message):
    with pytest.raises(ValueError, match=message):
        cls.feature_shapes(spec)


def test_specs_without_a_default_are_refused():
    class Text(specs.Spec):
        pass

    with pytest.raises(
        ValueError, match=r"distribution=auto knows no distribution.*Categorical\(n=5\) or Bounded.*_target_="
    ):
        default_distribution(Text(3, None, None))
    with pytest.raises(ValueError, match=r"knows no distribution.*whole numbers are choices"):
        default_distribution(specs.Unbounded(2, dtype=torch.int64))


# Custom distributions


def test_the_documented_example_is_a_working_distribution():
    doc = inspect.getdoc(Distribution)
    code = textwrap.dedent(doc.split("```python\n")[1].split("```")[0])
    scope = {"Distribution": Distribution, "Unbounded": specs.Unbounded, "torch": torch, "math": math}
    exec(code, scope)
    laplace, spec = scope["Laplace"], specs.Unbounded(2)
    with pytest.raises(ValueError, match=r"Laplace does not fit Categorical"):
        laplace.feature_shapes(specs.Categorical(2))
    distribution, features = make(laplace, spec, batch=(DRAWS,))
    reference = torch.distributions.Laplace(features["mean"], features["log_scale"].exp())
    actions = distribution.sample()
    torch.testing.assert_close(distribution.logp(actions), reference.log_prob(actions).sum(-1))
    torch.testing.assert_close(distribution.entropy(), reference.entropy().sum(-1))
    assert torch.equal(distribution.mode(), features["mean"])
    assert distribution.to_env(actions) is actions
    # Distances from the mean, in scales, have mean 1 and standard error 1 / sqrt(2 * DRAWS).
    distances = (actions - features["mean"]).abs() / features["log_scale"].exp()
    assert distances.mean().item() == pytest.approx(1.0, abs=4 / math.sqrt(2 * DRAWS))


def test_an_unfinished_subclass_cannot_be_built():
    class Unfinished(Distribution):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Unfinished({}, specs.Unbounded(1))


# conf/distribution


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_distribution_config_names_a_distribution(path):
    config = OmegaConf.load(path)
    assert list(config) == ["_target_"]
    if path.stem == "auto":
        assert config["_target_"] is None
    else:
        assert issubclass(get_class(config["_target_"]), Distribution)
