import pytest
import torch
from envs import Drift

from rl8 import RecurrentAlgorithm
from rl8.models import GRUModel, LSTMModel, TransformerModel
from rl8.policy.policy import Policy
from rl8.specs import Bounded, Categorical, Composite, Unbounded
from rl8.use.deployed import DeployedPolicy

from .cases import OBSERVATIONS, build, seen, state_of, stored

L, B = 6, 4
both = pytest.mark.parametrize("model_cls", [LSTMModel, GRUModel])
layers = pytest.mark.parametrize("num_layers", [1, 3])
SPEC = OBSERVATIONS["nested"]


def make(model_cls, num_layers=1, **config):
    model, _ = build(model_cls, SPEC, Categorical(3), hidden_size=5, num_layers=num_layers, **config)
    obs = torch.stack([SPEC.rand(B) for _ in range(L)])
    return model, obs, state_of(model, B).apply(torch.randn_like)


@both
@layers
@pytest.mark.parametrize("config", [{}, {"hiddens": (7,)}, {"head_hiddens": (6,), "separate_value": True}])
def test_a_sequence_in_one_call_is_the_same_as_step_by_step(model_cls, num_layers, config):
    model, obs, start = make(model_cls, num_layers, **config)
    whole, state, steps = model(obs, start), start, []
    for t in range(L):
        steps.append(model(obs[t : t + 1], state))
        state = steps[-1].state
    torch.testing.assert_close(torch.cat([step.values for step in steps]), whole.values)
    logits = torch.cat([step.features["logits"] for step in steps])
    torch.testing.assert_close(logits, whole.features["logits"])
    assert ((state - whole.state).abs() < 1e-6).all()


@both
def test_the_start_state_matters_and_is_left_alone(model_cls):
    model, obs, start = make(model_cls)
    copy = start.clone()
    one, other = model(obs, start), model(obs, start.apply(torch.zeros_like))
    assert not torch.allclose(one.values, other.values)
    assert (start == copy).all()
    assert one.state is not start


@both
def test_later_steps_do_not_matter(model_cls):
    model, obs, start = make(model_cls)
    changed = obs.clone()
    changed["speed"][3:] += 1
    one, other = model(obs, start).values, model(changed, start).values
    assert torch.equal(one[:3], other[:3])
    assert not torch.allclose(one[3:], other[3:])


@both
def test_gradients_flow_through_the_whole_sequence(model_cls):
    model, obs, start = make(model_cls)
    start = start.apply(lambda leaf: leaf.requires_grad_())
    model(obs, start).values[-1].sum().backward()
    assert all((start[key].grad != 0).any() for key in model.state_keys)


@both
@layers
def test_the_state_has_the_shape_of_its_spec(model_cls, num_layers):
    model, obs, start = make(model_cls, num_layers)
    keys = ("hidden", "cell") if model_cls is LSTMModel else ("hidden",)
    assert {key: leaf.shape for key, leaf in model.state_spec.items()} == dict.fromkeys(keys, (num_layers, 5))
    model.state_spec.check(model(obs, start).state)
    assert not model.has_value_pass


@both
def test_the_state_stays_float32_under_mixed_precision(model_cls):
    model, obs, start = make(model_cls)
    if model_cls is LSTMModel and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bf16 LSTM for this processor")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = model(obs, start).state
    model.state_spec.check(state)


@pytest.mark.parametrize(
    ("option", "value", "kind", "message"),
    [
        ("hidden_size", 0, ValueError, r"^model.hidden_size=0 is out of range. Accepted: an integer >= 1"),
        ("num_layers", 1.5, TypeError, r"^model.num_layers=1.5 is not an integer"),
        ("hiddens", [0], ValueError, r"^model.hiddens=0 is out of range"),
    ],
)
def test_options_that_are_refused(option, value, kind, message):
    with pytest.raises(kind, match=message):
        build(LSTMModel, Unbounded(3), Categorical(3), **{option: value})


@pytest.mark.parametrize("cls", [LSTMModel, GRUModel])
def test_recurrent_layers_compute_in_float32_under_mixed_precision(cls):
    model, _ = build(cls, Unbounded(3), Categorical(2))
    kinds = []
    model.rnn.register_forward_hook(lambda layer, inputs, output: kinds.append(output[0].dtype))
    state = model.state_spec.zeros(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, 4, 3), state)
    assert kinds == [torch.float32]


@both
def test_a_separate_value_shares_no_memory_with_the_policy(model_cls):
    model, obs, start = make(model_cls, separate_value=True)
    one = model(obs, start)
    for prefix, kept, moved in (("", "values", "logits"), ("value_", "logits", "values")):
        changed = start.clone()
        for key in model.state_keys:
            changed[prefix + key] = changed[prefix + key] + 1
        other = model(obs, changed)
        found = {"values": torch.equal(one.values, other.values)}
        found["logits"] = torch.equal(one.features["logits"], other.features["logits"])
        assert found == {kept: True, moved: False}


@both
def test_heads_have_perceptrons_of_their_own(model_cls):
    model, _, _ = make(model_cls, head_hiddens=[6, 4])
    widths = [[layer.out_features for layer in net.layers] for net in (model.policy_net, model.value_net)]
    assert widths == [[6, 4], [6, 4]]
    assert model.policy_net.layers[0].weight is not model.value_net.layers[0].weight


@both
def test_widths_of_the_heads_are_refused_by_their_own_key(model_cls):
    with pytest.raises(ValueError, match=r"model\.head_hiddens=0"):
        make(model_cls, head_hiddens=[0])


PICTURE = Composite(eye=Bounded(0, 255, (6, 7, 3), dtype=torch.uint8), speed=Unbounded(2))


@pytest.mark.parametrize("model_cls", [LSTMModel, GRUModel, TransformerModel])
@pytest.mark.parametrize("images", ["impala", [[4, 3, 1], [4, 2, 1]]])
def test_images_are_looked_at_step_by_step(model_cls, images):
    model, _ = build(model_cls, PICTURE, Categorical(3), images=images)
    inputs = seen(PICTURE, model, *stored(PICTURE, model, L, B))
    before = model(inputs, state_of(model, B))
    assert before.values.shape == (L, B)
    (before.features["logits"].square().sum() + before.values.sum()).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.encoder.parameters())
    for key in ("eye", "speed"):
        changed = inputs.clone()
        changed[key][-1] = 1 - changed[key][-1]
        after = model(changed, state_of(model, B)).values
        assert torch.equal(after[:-1], before.values[:-1])
        assert not torch.equal(after[-1], before.values[-1]), key


def test_which_way_a_dot_moves_is_remembered_from_one_frame_to_the_next():
    torch.manual_seed(1)
    algorithm = RecurrentAlgorithm(
        Drift,
        num_envs=64,
        horizon=8,
        horizons_per_env_reset=-1,
        seq_len=8,
        sgd_minibatch_size=128,
        gamma=0.0,
        model_cls=GRUModel,
        model_config={"hidden_size": 32, "images": [[8, 3, 1]], "hiddens": [32]},
        optimizer_config={"lr": 1e-2},
    )
    for _ in range(40):
        algorithm.collect()
        algorithm.step()
    algorithm.collect(deterministic=True)
    assert algorithm.rollout.rewards.mean().item() > 0.85


@both
def test_what_the_value_alone_sees_is_not_needed_to_act(model_cls):
    config = {"policy_obs": ["eye"], "value_obs": ["speed"], "separate_value": True, "images": "impala"}
    policy = Policy(PICTURE, Categorical(3), model_cls=model_cls, model_config=config)
    model, obs = policy.model, torch.stack([PICTURE.rand(B) for _ in range(L)])
    start = state_of(model, B).apply(torch.randn_like)
    before = model(obs, start)
    changed = obs.clone()
    changed["speed"] += 1
    after = model(changed, start)
    assert torch.equal(after.features["logits"], before.features["logits"])
    assert not torch.equal(after.values, before.values)
    torch.testing.assert_close(model.act(obs, start)[0]["logits"], before.features["logits"])
    acting = DeployedPolicy(policy)
    assert list(acting.observation_spec) == ["eye"]
    assert acting.predict({"eye": obs["eye"][0]}).shape == (B,)
    state = acting._memory._state
    assert (state["hidden"] != 0).any()
    assert (state["value_hidden"] == 0).all()


def test_gains_are_those_of_orthogonal_weights():
    gains = {"hidden_gain": 1.5, "policy_gain": 0.25, "value_gain": 2.0}
    sizes = {"hiddens": (4,), "head_hiddens": (8,), "hidden_size": 9}
    model, _ = build(LSTMModel, Unbounded(5), Categorical(2), activation="tanh", **sizes, **gains)
    hidden = [net.layers[0] for net in (model.trunk, model.policy_net, model.value_net)]
    lengths = [layer.weight.norm(dim=1).mean().item() for layer in (*hidden, model.policy_head.linear)]
    assert [*lengths, model.value_head.linear.weight.norm().item()] == pytest.approx([1.5, 1.5, 1.5, 0.25, 2.0])
    with pytest.raises(ValueError, match=r"^model\.hidden_gain=0 is out of range"):
        build(LSTMModel, Unbounded(5), Categorical(2), hidden_gain=0)


@pytest.mark.parametrize(
    ("spec", "config", "message"),
    [
        (
            PICTURE,
            {"policy_obs": ["eye"]},
            r"^model\.policy_obs=\[eye\]: policy and value share .*separate_value=true\.$",
        ),
        (
            PICTURE,
            {"images": "cnn"},
            r"^model\.images=\[\[32.* at least 36 x 36, .* Try 'model\.images=\[\[16,3,1\]\]'",
        ),
        (PICTURE, {"images": "nature"}, r"^model\.images='nature' is unknown\. Accepted: cnn, impala"),
        (Unbounded(3), {"images": "cnn"}, r"^model\.images=cnn finds no image in Unbounded.* Try model\.images=null"),
        (PICTURE, {"value_gain": 0}, r"^model\.value_gain=0 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused(spec, config, message):
    with pytest.raises(ValueError, match=message):
        build(LSTMModel, spec, Categorical(3), **config)
