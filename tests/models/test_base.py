import pytest
import torch
from tensordict import TensorDict

from rl8.distributions import default_distribution
from rl8.models import GRUModel, LSTMModel, MLPModel, Model, Output, TransformerModel
from rl8.specs import Categorical, Composite, Unbounded

from .cases import ACTIONS, OBSERVATIONS, build, leaves_of, masked, seen, state_of, stored, with_other_padding

L, B = 3, 4
SMALL = {
    "mlp": (MLPModel, {"hiddens": (8, 8)}),
    "windowed mlp": (MLPModel, {"hiddens": (8,), "window": 3}),
    "linear": (MLPModel, {"hiddens": ()}),
    "lstm": (LSTMModel, {"hidden_size": 8, "num_layers": 2, "hiddens": (6,)}),
    "gru": (GRUModel, {"hidden_size": 8}),
    "transformer": (TransformerModel, {"window": 3, "size": 8, "num_heads": 2, "num_layers": 1}),
}
every_model = pytest.mark.parametrize("model", SMALL)
every_action = pytest.mark.parametrize("action", ACTIONS)


def run(name, observation_spec, action_spec, **more):
    """Return a model, what it sees, what it makes of it, and the distribution of actions."""
    model_cls, config = SMALL[name]
    model, distribution_cls = build(model_cls, observation_spec, action_spec, **{**config, **more})
    inputs = seen(observation_spec, model, *stored(observation_spec, model, L, B, age=0))
    return model, inputs, model(inputs, state_of(model, B)), distribution_cls


def check(model, output, distribution, action_spec):
    """Check the shapes of what a model returned, and that every parameter gets a finite gradient of it."""
    actions = distribution.sample()
    if isinstance(actions, TensorDict):
        assert actions.batch_size == (L, B)
    else:
        assert actions.shape == (L, B, *action_spec.shape)
    logp, entropy = distribution.logp(actions), distribution.entropy()
    assert output.values.shape == logp.shape == entropy.shape == (L, B)
    (logp.mean() + 0.1 * entropy.mean() + output.values.square().mean()).backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values()), grads
    assert all((grad != 0).any() for name, grad in grads.items() if "head.linear" in name)


@every_model
@every_action
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_every_model_takes_every_kind_of_observation_and_action(model, observation, action):
    observation_spec, action_spec = OBSERVATIONS[observation], ACTIONS[action]
    model, inputs, output, distribution_cls = run(model, observation_spec, action_spec)
    check(model, output, distribution_cls(output.features, action_spec), action_spec)
    if output.state is not None:
        model.state_spec.check(output.state)
    if model.has_value_pass:
        features, state = model.act(inputs)
        assert state is None
        assert all(map(torch.equal, leaves_of(features), leaves_of(output.features)))
        assert torch.equal(model.value(inputs), output.values)


@every_model
@pytest.mark.parametrize("action", [name for name, spec in ACTIONS.items() if masked(spec)])
def test_every_model_takes_action_masks(model, action):
    action_spec, observation_spec = ACTIONS[action], masked(ACTIONS[action])
    model, inputs, output, distribution_cls = run(model, observation_spec, action_spec)
    mask, features = inputs["action_mask"], dict(output.features)
    mask |= True  # a row that allows nothing is a fault of the environment
    for key in mask.keys() if isinstance(mask, TensorDict) else [None]:
        part = mask if key is None else mask[key]
        part[..., -1] = False
        if key is None:
            features["action_mask"] = part
        else:
            features[key] = {**features[key], "action_mask": part}
    check(model, output, distribution_cls(features, action_spec), action_spec)


@every_model
def test_the_std_may_depend_on_the_observation(model):
    for kwargs, same in (({}, True), ({"state_dependent_std": True, "log_std": -1.0}, False)):
        _, _, output, _ = run(model, Unbounded(3), Unbounded(2), **kwargs)
        log_std = output.features["log_std"]
        assert log_std.shape == (L, B, 2)
        assert (log_std == log_std[0, 0]).all() == same
        torch.testing.assert_close(log_std, torch.full_like(log_std, kwargs.get("log_std", 0.0)), atol=0.2, rtol=0)


@every_model
def test_the_first_policy_is_nearly_uniform(model):
    _, _, output, distribution_cls = run(model, Unbounded(3), Categorical(4))
    torch.testing.assert_close(
        distribution_cls(output.features, Categorical(4)).entropy().exp(), torch.full((L, B), 4.0), atol=0.2, rtol=0
    )


@every_model
def test_time_and_environments_are_told_apart(model):
    """What a model makes of one environment does not depend on the others, and without a state nor on other steps."""
    spec = OBSERVATIONS["composite"]
    model, inputs, output, _ = run(model, spec, Categorical(3))
    for b in range(B):
        alone = model(inputs[:, b : b + 1], state_of(model, 1))
        torch.testing.assert_close(alone.values, output.values[:, b : b + 1])
    if model.state_spec is None:
        torch.testing.assert_close(model(inputs[1:2]).values, output.values[1:2])


@pytest.mark.parametrize("model", ["windowed mlp", "transformer"])
@pytest.mark.parametrize("observation", ["flat", "categorical", "nested"])
def test_padding_may_hold_anything(model, observation):
    model, inputs, output, _ = run(model, OBSERVATIONS[observation], Categorical(3))
    other = model(with_other_padding(inputs, OBSERVATIONS[observation], model))
    assert torch.equal(other.values, output.values)
    assert torch.equal(other.features["logits"], output.features["logits"])


@every_model
def test_a_saved_model_is_the_same_model(model):
    spec = OBSERVATIONS["nested"]
    name = model
    model, inputs, output, _ = run(name, spec, Categorical(3))
    other, _, _, _ = run(name, spec, Categorical(3))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs, state_of(other, B)).values, output.values)


# The contract


class Tiny(Model):
    def __init__(self, observation_spec, action_spec, *, width=32):
        super().__init__(observation_spec, action_spec)
        self.trunk = torch.nn.Linear(observation_spec.shape[0], width)
        self.logits, self.out = torch.nn.Linear(width, action_spec.n), torch.nn.Linear(width, 1)

    def forward(self, obs, state=None):
        hidden = self.trunk(obs).tanh()
        return Output({"logits": self.logits(hidden)}, self.out(hidden).squeeze(-1))


class Halfway(Tiny):
    def value(self, obs):
        return self.out(self.trunk(obs).tanh()).squeeze(-1)


class Remembering(Halfway):
    def __init__(self, observation_spec, action_spec):
        super().__init__(observation_spec, action_spec)
        self.state_spec = Composite(count=Unbounded(1))


def test_a_model_of_ones_own_needs_forward_alone():
    model = Tiny(Unbounded(3), Categorical(2))
    output = model(torch.randn(L, B, 3))
    assert (output.state, model.state_spec, model.windows) == (None, None, {})
    assert not model.has_value_pass
    action_spec = Categorical(2)
    check(model, output, default_distribution(action_spec)(output.features, action_spec), action_spec)


def test_values_have_a_pass_of_their_own_where_a_model_says_so():
    assert Halfway(Unbounded(3), Categorical(2)).has_value_pass
    assert not Remembering(Unbounded(3), Categorical(2)).has_value_pass


@pytest.mark.parametrize(
    ("model_cls", "call", "message"),
    [
        (Model, "forward", r"Model must define forward\(obs, state\)"),
        (Tiny, "value", "Tiny does not compute values on their own"),
        (Tiny, "inputs", r"Tiny has perceptrons and so must define inputs\(obs\)"),
        (Halfway, "act", r"Halfway defines value\(\) and so must define act\(obs, state\)"),
    ],
)
def test_what_is_missing_is_named(model_cls, call, message):
    model = model_cls(Unbounded(3), Categorical(2))
    with pytest.raises(NotImplementedError, match=message):
        getattr(model, call)(torch.randn(L, B, 3))
