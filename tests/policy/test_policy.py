import pytest
import torch
from envs import Episodes, Machine, MaskedBandit, Steering
from tensordict import TensorDict
from torch import nn

from rl8 import specs
from rl8.data import ACTION_MASK
from rl8.distributions import Categorical, Normal, SquashedNormal
from rl8.models import GRUModel, LSTMModel, MLPModel, Model, Output, TransformerModel
from rl8.policy.policy import Policy, reset_where

FLAT, CHOICE = specs.Unbounded(3), specs.Categorical(2)


class Tiny(Model):
    """A model whose output can be spoilt."""

    def __init__(self, observation_spec, action_spec, *, spoil=lambda output: output, stateful=False):
        super().__init__(observation_spec, action_spec)
        self.head = nn.Linear(3, 3)
        self.spoil = spoil
        if stateful:
            self.state_spec = specs.Composite(count=specs.Unbounded(1))

    def forward(self, obs, state=None):
        out = self.head(obs)
        after = None if state is None else state.apply(lambda leaf: leaf + 1)
        return self.spoil(Output({"logits": out[..., :2]}, out[..., 2], after))


class Grasping(Tiny):
    def __init__(self, observation_spec, action_spec, *, sizes):
        super().__init__(observation_spec, action_spec)
        sizes["hidden"].append(3)


def test_what_a_model_does_to_its_keywords_is_not_what_it_was_built_with():
    given = {"sizes": {"hidden": [1]}}
    policy = Policy(FLAT, CHOICE, model_cls=Grasping, model_config=given)
    assert policy.model_config == given == {"sizes": {"hidden": [1]}}


class OtherNames(Tiny):
    def __init__(self, o, a, *, width=3):
        super().__init__(o, a)


def test_what_is_given_by_position_may_have_any_name():
    assert Policy(FLAT, CHOICE, model_cls=OtherNames, model_config={"width": 4}).model_config == {"width": 4}
    assert Policy(FLAT, CHOICE, model=OtherNames(FLAT, CHOICE, width=5)).model_config == {"width": 5}
    with pytest.raises(TypeError, match=r"Unknown option of OtherNames 'o'.* Accepted: width"):
        Policy(FLAT, CHOICE, model_cls=OtherNames, model_config={"o": FLAT})


def observe(spec, n):
    """Return random observations of one step, `[1, n, ...]`, with everything allowed."""
    obs = spec.rand(n)
    if isinstance(spec, specs.Composite) and ACTION_MASK in spec:
        obs[ACTION_MASK] = torch.ones_like(obs[ACTION_MASK])
    return obs.unsqueeze(0)


class WithoutSpecs(Tiny):
    def __init__(self, observation_spec, action_spec):
        Model.__init__(self)


class WithoutModel(Tiny):
    def __init__(self, observation_spec, action_spec):
        nn.Module.__init__(self)


class TooLate(Tiny):
    def __init__(self, observation_spec, action_spec):
        self.head = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution_cls": Categorical({"logits": torch.zeros(1, 2)}, CHOICE)}, "no subclass of rl8.distributions"),
        ({"distribution_cls": dict}, "no subclass of rl8.distributions.Distribution"),
        ({"model_cls": nn.Linear}, "no subclass of rl8.models.Model. Try rl8.models.MLPModel"),
        ({"model_cls": "mlp"}, "model_cls='mlp' is no subclass"),
        ({"model": nn.Linear(3, 2)}, "Linear is no subclass of rl8.models.Model. Derive it"),
        ({"model": Tiny(FLAT, CHOICE), "model_config": {"hiddens": [8]}}, "ready-made.*Give one or the other"),
        ({"model": Tiny(FLAT, CHOICE), "model_cls": MLPModel}, "ready-made.*Give one or the other"),
        (
            {"model_cls": WithoutSpecs},
            r"WithoutSpecs\.__init__ in .*test_policy\.py calls super\(\)\.__init__\(\) without",
        ),
        (
            {"model_cls": WithoutModel},
            r"^WithoutModel\.__init__ in .*test_policy\.py does not call .*\(observation_spec,",
        ),
        ({"model_cls": TooLate}, r"^TooLate\.__init__ in .*test_policy\.py sets layers before .*\(observation_spec,"),
        ({"model_config": {"hidens": [8]}}, "option of MLPModel 'hidens'. Did you mean 'hiddens'"),
    ],
)
def test_parts_that_are_none_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        Policy(FLAT, CHOICE, **options)


@pytest.mark.parametrize(
    ("spoil", "stateful", "message"),
    [
        (lambda out: out._replace(features={}), False, "Tiny returned no feature 'logits', which Categorical needs"),
        (lambda out: out._replace(features={"logits": out.values}), False, r"expected \[L, B, 2\]"),
        (lambda out: out._replace(values=out.values.unsqueeze(-1)), False, r"Drop the last dimension.*squeeze\(-1\)"),
        (lambda out: out._replace(state=None), True, "has a state_spec but returned no state"),
        (lambda out: out._replace(state=out.state.apply(lambda s: s[..., :0])), True, "Tiny's state.*shape"),
    ],
)
def test_what_a_model_returns_is_checked_once(spoil, stateful, message):
    with pytest.raises(ValueError, match=message):
        Policy(FLAT, CHOICE, model=Tiny(FLAT, CHOICE, spoil=spoil, stateful=stateful))


def spoil_logits(change):
    return lambda out: out._replace(features={"logits": change(out.features["logits"])})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_logits(torch.detach), r"^Tiny\.forward returned features without a gradient.*Look for \.detach\(\)"),
        (lambda out: out._replace(values=out.values.detach()), "returned values without a gradient"),
        (
            lambda out: Output({"logits": out.features["logits"].detach()}, out.values.detach()),
            "features and values without a gradient",
        ),
        (
            spoil_logits(torch.Tensor.double),
            r"^Tiny returned feature 'logits' in torch\.float64, expected torch\.float32",
        ),
        (lambda out: out._replace(values=out.values.double()), "returned values in torch.float64"),
        (spoil_logits(lambda logits: logits / 0 * 0), "feature 'logits' that are infinite or NaN.*before anything was"),
        (lambda out: out._replace(values=out.values.exp() / 0), "values that are infinite or NaN"),
    ],
)
def test_outputs_that_nothing_can_be_learned_from_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        Policy(FLAT, CHOICE, model=Tiny(FLAT, CHOICE, spoil=spoil))


def test_frozen_weights_no_critic_and_forbidden_actions_are_meant_so():
    frozen = Tiny(FLAT, CHOICE, spoil=spoil_logits(torch.detach)).requires_grad_(False)
    Policy(FLAT, CHOICE, model=frozen)
    Policy(FLAT, CHOICE, model=Tiny(FLAT, CHOICE, spoil=lambda out: out._replace(values=torch.zeros(1, 2))))
    forbid = torch.tensor([0.0, -torch.inf])
    Policy(FLAT, CHOICE, model=Tiny(FLAT, CHOICE, spoil=spoil_logits(lambda logits: logits + forbid)))


def test_a_model_in_double_precision_is_told_to_convert():
    message = r"^Tiny can't compute in float64 on this cpu: .* Convert it, self\.float\(\)"
    with pytest.raises(ValueError, match=message):
        Policy(FLAT, CHOICE, model=Tiny(FLAT, CHOICE).double())


def test_the_check_of_a_ready_model_draws_no_random_numbers():
    model = MLPModel(FLAT, CHOICE, feature_shapes=Categorical.feature_shapes(CHOICE))
    before = torch.get_rng_state()
    Policy(FLAT, CHOICE, model=model)
    assert torch.equal(torch.get_rng_state(), before)


class Dropping(Tiny):
    """Draws random numbers."""

    def forward(self, obs, state=None):
        return super().forward(nn.functional.dropout(obs, 0.5), state)


class Counting(Tiny):
    """Writes to a buffer."""

    def __init__(self, observation_spec, action_spec):
        super().__init__(observation_spec, action_spec)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, obs, state=None):
        self.calls += 1
        return super().forward(obs, state)


class Remembering(Tiny):
    """Keeps its last output as an attribute."""

    def forward(self, obs, state=None):
        self.last = super().forward(obs, state)
        return self.last


@pytest.mark.parametrize(
    ("model_cls", "distribution_cls", "pure"),
    [
        (Tiny, Categorical, True),
        (MLPModel, Categorical, True),
        (LSTMModel, Categorical, True),
        (TransformerModel, Categorical, True),
        (MLPModel, Normal, True),
        (MLPModel, SquashedNormal, False),  # its entropy is estimated from a sample
        (Dropping, Categorical, False),
        (Counting, Categorical, False),
        (Remembering, Categorical, False),
    ],
)
def test_what_threads_cannot_do_at_the_same_time_is_recognised(model_cls, distribution_cls, pure):
    action = CHOICE if distribution_cls is Categorical else specs.Unbounded(2)
    options = {"model_cls": model_cls, "distribution_cls": distribution_cls}
    assert Policy(FLAT, action, normalize_obs=True, **options).pure == pure


@pytest.mark.parametrize("env_cls", [Episodes, MaskedBandit, Machine, Steering])
@pytest.mark.parametrize("model_cls", [MLPModel, LSTMModel, GRUModel])
@pytest.mark.parametrize("normalize_obs", [False, True])
def test_actions_fit_the_specs_and_evaluation_repeats_them(env_cls, model_cls, normalize_obs):
    env = env_cls(5)
    policy = Policy(env.observation_spec, env.action_spec, model_cls=model_cls, normalize_obs=normalize_obs)
    assert policy.recurrent == (model_cls is not MLPModel)
    seen, state = env.reset().unsqueeze(0), policy.initial_state(5)
    act = policy.act(seen, state)
    env.action_spec.check(act.env_actions)
    assert act.logp.shape == (5,)
    with torch.no_grad():
        logp, entropy, values = policy.evaluate(seen, act.actions.unsqueeze(0), state)
        torch.testing.assert_close(logp[0], act.logp)
        torch.testing.assert_close(values[0], policy.values(seen, state)[0])
    assert entropy.shape == (1, 5)
    if model_cls is MLPModel:
        assert act.state is None
        assert act.values is None
    else:
        torch.testing.assert_close(act.values, values[0])
        assert act.state.shape == (5,)


def test_deterministic_actions_are_the_mode_and_draw_nothing():
    policy = Policy(FLAT, specs.Unbounded(2))
    seen = observe(FLAT, 4)
    before = torch.get_rng_state()
    act = policy.act(seen, deterministic=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(act.actions, policy.distribution(policy.model(seen).features, seen).mode()[0])
    assert not torch.equal(policy.act(seen).actions, act.actions)


@pytest.mark.parametrize(("env_cls", "component"), [(MaskedBandit, None), (Machine, "gear")])
def test_forbidden_actions_are_never_taken(env_cls, component):
    env = env_cls(2000)
    policy = Policy(env.observation_spec, env.action_spec)
    obs = env.reset()
    mask = obs[ACTION_MASK] if component is None else obs[ACTION_MASK][component]
    for deterministic in (False, True):
        taken = policy.act(obs.unsqueeze(0), deterministic=deterministic).actions
        taken = taken if component is None else taken[component]
        assert mask.gather(-1, taken.unsqueeze(-1)).all()
        assert len(taken.unique()) > 1


def test_only_numbers_are_normalized():
    env = Machine(4)
    policy = Policy(env.observation_spec, env.action_spec, normalize_obs=True)
    assert policy.normalized == [("arm", "angle"), ("arm", "load")]
    obs = TensorDict({**env.reset()}, [4])
    obs["arm"]["load"] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    policy.update_normalizers(obs)
    moments = policy.normalizers[1].moments
    assert moments.mean == 2.5
    assert moments.var == 1.25


@pytest.mark.parametrize("key", ["a.b", "a/b", "obs"])
@pytest.mark.parametrize("window", [1, 3])
def test_normalization_takes_any_key(key, window):
    spec = specs.Composite({key: specs.Unbounded(2)})
    policy = Policy(spec, CHOICE, normalize_obs=True, model_config={"window": window})
    policy.update_normalizers(spec.rand(10))
    assert policy.normalizers[0].moments.count == 10
    assert torch.isfinite(policy.evaluate(*_step(policy, spec))[0]).all()


def _step(policy, spec):
    rows = torch.stack([spec.rand(2) for _ in range(policy.views.history + 1)])
    ages = torch.full(rows.shape[:2], policy.views.history, dtype=torch.int32)
    return policy.views.step(rows, ages, policy.views.history), torch.zeros(1, 2, dtype=torch.int64)


class Recorder(Model):
    """Keeps what it was given, and whether mixed precision was on."""

    def __init__(self, observation_spec, action_spec, *, window=1):
        super().__init__(observation_spec, action_spec)
        self.windows = {} if window == 1 else {"obs": window}
        self.scale = nn.Parameter(torch.ones(()))
        self.given = []

    def forward(self, obs, state=None):
        self.given.append((obs, torch.is_autocast_enabled("cpu")))
        batch = (obs if isinstance(obs, torch.Tensor) else obs["obs_mask"]).shape[:2]
        return Output({"logits": self.scale * torch.zeros(*batch, 2)}, torch.zeros(batch))


def test_padding_stays_zero_when_observations_are_normalized():
    model = Recorder(specs.Unbounded(1), CHOICE, window=3)
    policy = Policy(specs.Unbounded(1), CHOICE, model=model, normalize_obs=True)
    policy.update_normalizers(torch.tensor([[4.0], [6.0]]))  # mean 5, std 1
    rows = torch.tensor([3.0, 4.0, 7.0]).reshape(3, 1, 1)
    seen = policy.views.step(rows, torch.tensor([[5], [0], [1]]), 2)  # an episode began at the second row
    before = seen.clone()
    policy.act(seen)
    assert model.given[-1][0]["obs"].flatten().tolist() == [0.0, -1.0, 2.0]
    assert (seen == before).all()  # the storage is not written


def test_networks_run_in_the_given_precision():
    model = Recorder(FLAT, CHOICE)
    policy = Policy(FLAT, CHOICE, model=model, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    seen = observe(FLAT, 2)
    policy.act(seen)
    policy.values(seen)
    policy.evaluate(seen, torch.zeros(1, 2, dtype=torch.int64))
    assert [enabled for _, enabled in model.given] == [True] * 4
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("model_cls", [LSTMModel, GRUModel])
def test_ends_inside_a_sequence_start_the_state_anew(model_cls):
    policy = Policy(FLAT, CHOICE, model_cls=model_cls, model_config={"num_layers": 2, "hidden_size": 8})
    obs, actions = torch.randn(6, 2, 3), torch.randint(2, (6, 2))
    state = policy.initial_state(2).apply(torch.randn_like)
    is_last = torch.zeros(6, 2, dtype=torch.bool)
    with torch.no_grad():
        whole = policy.evaluate(obs, actions, state)
        for one, other in zip(whole, policy.evaluate(obs, actions, state, is_last), strict=True):
            torch.testing.assert_close(one, other)
        is_last[2, 1] = True  # the second environment's episode ends at step 2
        logp, _, values = policy.evaluate(obs, actions, state, is_last)
        fresh_logp, _, fresh_values = policy.evaluate(obs[3:], actions[3:], policy.initial_state(2))
    torch.testing.assert_close(values[:, 0], whole[2][:, 0])
    torch.testing.assert_close(values[:3], whole[2][:3])
    torch.testing.assert_close(values[3:, 1], fresh_values[:, 1])
    torch.testing.assert_close(logp[3:, 1], fresh_logp[:, 1])
    assert not torch.allclose(values[3:, 1], whole[2][3:, 1])


def test_reset_where_zeroes_the_ended_ones_only():
    state = TensorDict({"hidden": torch.ones(3, 2, 4), "count": torch.ones(3)}, [3])
    after = reset_where(torch.tensor([False, True, False]), state)
    assert after["hidden"].sum((1, 2)).tolist() == [8, 0, 8]
    assert after["count"].tolist() == [1, 0, 1]
    assert reset_where(torch.tensor([True, False, False]), torch.ones(3, 2)).tolist() == [[0, 0], [1, 1], [1, 1]]
    assert state["count"].tolist() == [1, 1, 1]


def test_trap_9_an_extreme_std_parameter_gives_no_nan():
    policy = Policy(FLAT, specs.Unbounded(2), distribution_cls=Normal)
    seen = observe(FLAT, 4)
    for extreme in (-1e4, 1e4):
        with torch.no_grad():
            policy.model.policy_head.log_stds[0].fill_(extreme)
        act = policy.act(seen)
        logp, entropy, _ = policy.evaluate(seen, act.actions.unsqueeze(0))
        (logp + entropy).sum().backward()
        assert torch.isfinite(logp).all()
        assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)


def test_a_window_of_every_model_is_seen():
    policy = Policy(FLAT, CHOICE, model_cls=TransformerModel, model_config={"window": 4, "size": 16})
    assert policy.views.history == 3
    assert policy.views.windows == {"obs": 4}


@pytest.mark.parametrize(
    ("mask", "action", "message"),
    [
        (specs.Binary(2, dtype=torch.bool), specs.Categorical(3), "expected one bool per choice of .*Try Binary"),
        (specs.Binary(3), specs.Categorical(3), "expected one bool per choice"),
        (specs.Binary(3, dtype=torch.bool), specs.Unbounded(3), "has no choices to mask"),
        (
            specs.Composite(turn=specs.Binary(3, dtype=torch.bool)),
            specs.Composite(move=specs.Categorical(3)),
            "masks 'turn', which is no",
        ),
        (
            specs.Composite(move=specs.Binary(2, dtype=torch.bool)),
            specs.Composite(move=specs.Categorical(3)),
            r"action_mask\['move'\] is",
        ),
    ],
)
def test_a_mask_that_does_not_fit_the_action_is_refused(mask, action, message):
    with pytest.raises(ValueError, match=message):
        Policy(specs.Composite(action_mask=mask, x=specs.Unbounded(2)), action)


class Returning(Model):
    """Returns what it is told."""

    result: object = None

    def forward(self, obs, state=None):
        return self.result


class Alone(Model):
    def forward(self, obs):
        return None


def test_a_model_that_returns_something_else_is_told_what_to_return():
    Returning.result = torch.zeros(1, 2, 2)
    message = r"^Returning.forward returned a Tensor. Return rl8.models.Output\(features, values\): .* logits, values"
    with pytest.raises(TypeError, match=message):
        Policy(FLAT, CHOICE, model_cls=Returning)


def test_a_forward_that_takes_no_state_is_named_with_its_file():
    message = r"^Alone.forward\(obs\) in .*test_policy.py is called .* Write def forward\(self, obs, state=None\)"
    with pytest.raises(TypeError, match=message):
        Policy(FLAT, CHOICE, model_cls=Alone)
