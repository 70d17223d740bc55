import copy
import pickle

import numpy as np
import pytest
import torch
from envs import Drift, Endless, Episodes, Machine, MaskedBandit, Steering
from tensordict import TensorDict

import rl8
from rl8 import Algorithm, RecurrentAlgorithm, specs
from rl8.checkpoint import save_policy
from rl8.distributions import Normal
from rl8.env import Pendulum
from rl8.models import CNNModel, GRUModel, MLPModel, TransformerModel
from rl8.policy.policy import Policy
from rl8.rollout.collect import collect
from rl8.rollout.rollout import Rollout
from rl8.use.deployed import DeployedPolicy

N = 6
SMALL = {"num_envs": N, "horizon": 8}
KINDS = {
    "feedforward": (Algorithm, Episodes, {"model_config": {"hiddens": [16, 8], "activation": "tanh"}}),
    "normalized": (Algorithm, Episodes, {"model_config": {"hiddens": [16]}, "normalize_obs": True}),
    "bounded": (Algorithm, Steering, {"model_config": {"hiddens": [16]}}),
    "clipped": (Algorithm, Steering, {"model_config": {"log_std": 2.0}, "distribution_cls": Normal}),
    "mixed precision": (Algorithm, Pendulum, {"enable_amp": True}),
    "composite": (Algorithm, Machine, {"model_config": {"hiddens": [16]}, "normalize_obs": True}),
    "asymmetric": (
        Algorithm,
        Machine,
        {"model_config": {"hiddens": [16], "policy_obs": ["arm", "phase"]}, "normalize_obs": True},
    ),
    "masked": (Algorithm, MaskedBandit, {"model_config": {"hiddens": [16]}}),
    "windowed": (Algorithm, Episodes, {"model_config": {"hiddens": [16], "window": 3}, "normalize_obs": True}),
    "windows of dictionaries": (Algorithm, Machine, {"model_config": {"hiddens": [16], "window": 3}}),
    "transformer": (Algorithm, Episodes, {"model_cls": TransformerModel, "model_config": {"size": 8, "window": 4}}),
    "pictures": (
        Algorithm,
        Drift,
        {"model_cls": CNNModel, "model_config": {"filters": [[4, 3, 1]], "size": 8, "window": 2}},
    ),
    "lstm": (RecurrentAlgorithm, Endless, {"model_config": {"hidden_size": 8}, "seqs_per_state_reset": 1}),
    "gru": (RecurrentAlgorithm, Endless, {"model_cls": GRUModel, "model_config": {"hidden_size": 8}}),
}


def trained(kind, folder):
    """Return an algorithm after an iteration, and its policy as a user loads it."""
    algorithm_cls, env_cls, options = KINDS[kind]
    algorithm = algorithm_cls(env_cls, **{**SMALL, **options})
    algorithm.collect()
    algorithm.step()
    return algorithm, rl8.load_policy(save_policy(folder / "policy.pt", algorithm))


def as_numpy(nested):
    return (
        nested.numpy() if isinstance(nested, torch.Tensor) else {key: as_numpy(nested[key]) for key in nested.keys()}  # noqa: SIM118
    )


def part(nested, index):
    return {key: part(value, index) for key, value in nested.items()} if isinstance(nested, dict) else nested[index]


def assert_equal(one, other):
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key, value in one.items():
            assert_equal(value, other[key])
    else:
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_in_use_acts_as_it_did_in_training(kind, tmp_path):
    algorithm, policy = trained(kind, tmp_path)
    env, hparams = algorithm.env, algorithm.hparams
    algorithm.policy.eval()
    rollout = Rollout(
        algorithm.policy, N, 8, seq_len=hparams.seq_len, seqs_per_state_reset=hparams.seqs_per_state_reset
    )
    rollout.start(env.reset())
    given, taken = [], []
    step = env.step

    def noted(actions):
        taken.append(actions.clone())
        result = step(actions)
        given.append((result["obs"].clone(), result))
        return result

    given.append((rollout.obs[rollout.history].clone(), {}))
    collect(env, algorithm.policy, rollout, deterministic=True, learns=False, step=noted)
    for (obs, result), actions in zip(given, taken, strict=False):
        ended = [result[key].reshape(N) for key in ("terminated", "truncated") if key in result]
        if ended:
            policy.reset(torch.stack(ended).any(0).numpy())
        assert_equal(policy.predict(as_numpy(obs)), as_numpy(actions))


@pytest.mark.parametrize("kind", KINDS)
def test_one_observation_or_several_numpy_or_tensors(kind, tmp_path):
    algorithm, policy = trained(kind, tmp_path)
    obs = algorithm.env.reset()
    arrays = as_numpy(obs)
    several = policy.predict(arrays)
    policy.reset()
    as_tensors = policy(obs)
    assert type(as_tensors) is type(algorithm.env.action_spec.zeros(1))
    assert_equal(as_numpy(as_tensors), several)
    for index in range(N):
        policy.reset()
        one = policy.predict(part(arrays, index))
        assert_equal(one, part(several, index))
    policy.reset()
    as_tensor = policy.predict(obs[2])
    assert_equal(as_numpy(as_tensor), part(several, 2))
    algorithm.env.action_spec.check(policy.predict(obs) if policy.reset() is None else None)


def test_its_network_can_be_trained_on_and_loaded_again(tmp_path):
    options = {"num_envs": 4, "horizon": 4}
    policy = rl8.load_policy(save_policy(tmp_path / "first.pt", Algorithm(Pendulum, **options)))
    again = rl8.load_policy(save_policy(tmp_path / "again.pt", Algorithm(Pendulum, model=policy.model, **options)))
    obs = np.ones(3)
    assert again.predict(obs) == policy.predict(obs)


def test_actions_lie_inside_the_bounds(tmp_path):
    for kind in ("bounded", "clipped"):
        _, policy = trained(kind, tmp_path)
        obs = np.linspace(-1, 1, 500, dtype=np.float32)[:, None]
        drawn = policy.predict(obs, deterministic=False)
        assert drawn.shape == (500, 1)
        assert drawn.dtype == np.float32
        assert np.abs(drawn).max() <= 1
        assert np.abs(drawn).max() > 0.9  # the limit itself, where it is clipped
        assert (drawn != policy.predict(obs, deterministic=False)).any()
        assert (policy.predict(obs) == policy.predict(obs)).all()


def test_a_policy_trained_in_mixed_precision_acts_as_in_training_to_the_last_bit(tmp_path):
    algorithm, policy = trained("mixed precision", tmp_path)
    seen = algorithm.rollout.seen(0)
    expected = algorithm.policy.eval().act(seen, deterministic=True).env_actions
    assert torch.equal(policy.predict(seen[0]), expected)
    with torch.no_grad():
        policy.policy.autocast = torch.no_grad
        assert not torch.equal(policy.policy.act(seen, deterministic=True).env_actions, expected)


def test_numbers_of_other_widths_and_lists_are_taken(tmp_path):
    _, policy = trained("feedforward", tmp_path)
    row = [0.5, 0.25, -1.0]
    expected = policy.predict(np.array(row, dtype=np.float32))
    assert isinstance(expected, np.integer)
    for same in (row, np.array(row), torch.tensor(row, dtype=torch.float64).numpy(), tuple(row)):
        assert policy.predict(same) == expected
    assert policy.predict(np.array([1, 0, 2])) == policy.predict([1.0, 0.0, 2.0])
    backwards = np.array(row, dtype=np.float32)[::-1]
    backwards.setflags(write=False)
    assert policy.predict(backwards) == policy.predict(row[::-1])


def test_what_is_observed_is_copied(tmp_path):
    _, policy = trained("windowed", tmp_path)
    _, other = trained("windowed", tmp_path)
    other.policy.load_state_dict(policy.policy.state_dict())
    obs = np.zeros((N, 3), np.float32)
    for step in range(4):
        obs[:] = np.sin(np.arange(3 * N).reshape(N, 3) + step)  # as a vector environment does, in place
        assert_equal(policy.predict(obs), other.predict(obs.copy()))


@pytest.mark.parametrize(
    ("kind", "obs", "error", "message"),
    [
        (
            "feedforward",
            np.zeros(4),
            ValueError,
            r"obs has shape \(4,\), the policy .* with \(3,\). .*\(n, 3\)",
        ),
        ("feedforward", torch.zeros(5, 4), ValueError, r"obs has shape \(5, 4\), the policy was trained with \(3,\)"),
        ("feedforward", np.zeros((2, 2, 3)), ValueError, r"obs has shape \(2, 2, 3\), the policy .* \(3,\)"),
        ("feedforward", np.zeros((3, 5)), ValueError, r"obs has shape \(3, 5\)"),
        ("feedforward", 1.0, ValueError, r"obs has shape \(\)"),
        ("feedforward", "abc", TypeError, r"obs is a str. Accepted: an array or tensor of shape \(3,\)"),
        ("feedforward", None, TypeError, r"obs is a NoneType"),
        ("feedforward", {"obs": np.zeros(3)}, TypeError, r"obs is a dict. Accepted: an array"),
        ("feedforward", [[0.0, 1.0, 2.0], [1.0]], ValueError, r"obs is no array"),
        ("feedforward", np.array(["a", "b", "c"]), TypeError, r"obs has dtype <U1, which is no float32"),
        ("feedforward", np.zeros(3, complex), TypeError, r"obs has dtype complex128, which is no float32"),
        ("feedforward", torch.zeros(3, dtype=torch.complex64), TypeError, r"obs has dtype complex64"),
        ("feedforward", [0.0, float("nan"), 1.0], ValueError, r"obs has values that are infinite or NaN"),
        ("masked", np.zeros(4), TypeError, r"obs is a ndarray. Accepted: a dictionary .* allowed, action_mask"),
        ("masked", {"allowed": np.zeros(4)}, ValueError, r"obs lacks action_mask. Accepted: the keys allowed, action"),
        (
            "masked",
            {"allowed": np.zeros(4), "action_masks": np.ones(4, bool)},
            ValueError,
            r"has action_masks, which the policy does not know.* Rename 'action_masks' to 'action_mask'\?",
        ),
        (
            "masked",
            {"allowed": np.zeros(4), "action_mask": np.ones((2, 4), bool)},
            ValueError,
            r"obs\['allowed'\] is one observation and obs\['action_mask'\] several",
        ),
        (
            "masked",
            {"allowed": np.zeros((3, 4)), "action_mask": np.ones((2, 4), bool)},
            ValueError,
            r"obs has 3 of 'allowed', 2 of 'action_mask'",
        ),
        (
            "masked",
            {"allowed": np.zeros(4), "action_mask": np.ones(4)},
            TypeError,
            r"obs\['action_mask'\] has dtype float64, which is no bool",
        ),
        ("feedforward", (np.zeros(3), {}), TypeError, r"^obs is a tuple of .* Write obs, info = env.reset\(\)"),
        (
            "masked",
            ({"allowed": np.zeros(4)}, {}),
            TypeError,
            r"^obs is a tuple of .* keys .*allowed.* Write obs, info",
        ),
    ],
)
def test_what_does_not_fit_is_refused(kind, obs, error, message, tmp_path):
    _, policy = trained(kind, tmp_path)
    with pytest.raises(error, match=message):
        policy.predict(obs)


@pytest.mark.parametrize("kind", ["windowed", "lstm", "transformer"])
def test_episodes_that_begin_anew_remember_nothing(kind, tmp_path):
    algorithm, policy = trained(kind, tmp_path)
    first, second = (as_numpy(algorithm.env.reset()) for _ in range(2))
    features = []
    policy.policy.model.register_forward_hook(lambda module, inputs, output: features.append(output.values[0]))
    if policy.policy.model.has_value_pass:
        act = policy.policy.model.act

        def noted(obs, state=None):
            found = act(obs, state)
            features.append(found[0]["logits"][0].sum(-1))
            return found

        policy.policy.model.act = noted
    policy.predict(second)
    fresh = features[-1]
    policy.reset()
    policy.predict(first)
    policy.predict(second)
    later = features[-1]
    policy.reset()
    policy.predict(first)
    mask = np.arange(N) % 2 == 0
    policy.reset(mask)
    policy.predict(second)
    assert not torch.isclose(fresh, later, rtol=1e-6).any()
    torch.testing.assert_close(features[-1], torch.where(torch.from_numpy(mask), fresh, later))


def test_a_memory_of_other_environments_is_not_used(tmp_path):
    _, policy = trained("gru", tmp_path)
    obs = np.zeros((N, 3), np.float32)
    policy.reset(True)  # there is nothing to forget yet
    policy.predict(obs)
    with pytest.raises(ValueError, match=r"obs holds 1 observation\(s\), and .* remembers 6 .*policy.reset\(\)"):
        policy.predict(obs[0])
    with pytest.raises(ValueError, match=r"mask has shape \(5,\), the policy acts for 6 environment\(s\)"):
        policy.reset(np.zeros(5, bool))
    with pytest.raises(TypeError, match=r"mask has dtype torch.int64. Accepted: bool"):
        policy.reset([0, 1, 0, 0, 0, 0])
    policy.reset()
    policy.predict(obs[0])
    policy.reset(np.True_)


def test_a_policy_that_remembers_nothing_refuses_the_same_masks(tmp_path):
    _, policy = trained("feedforward", tmp_path)
    with pytest.raises(TypeError, match=r"mask has dtype torch.int64. Accepted: bool"):
        policy.reset(3)
    policy.reset(np.zeros(5, bool))  # how many there will be is not known yet
    policy.predict(np.zeros((N, 3)))
    policy.reset(np.zeros(N, bool))
    with pytest.raises(ValueError, match=r"mask has shape \(5,\), the policy acts for 6 environment\(s\)"):
        policy.reset(np.zeros(5, bool))
    policy.reset()
    policy.reset(np.zeros(5, bool))


def test_the_state_starts_anew_as_often_as_in_training(tmp_path):
    _, policy = trained("lstm", tmp_path)
    assert policy.policy.steps_per_state_reset == 4
    obs, states = np.ones(3, np.float32), []
    policy.policy.model.register_forward_hook(lambda module, inputs, output: states.append(inputs[1]["hidden"].clone()))
    for _ in range(9):
        policy.predict(obs)
    assert [bool((state == 0).all()) for state in states] == [step % 4 == 0 for step in range(9)]


def test_a_layer_that_somebody_listens_to_is_called(tmp_path):
    trained("feedforward", tmp_path)
    inner = rl8.checkpoint.load_policy(tmp_path / "policy.pt")
    seen = []
    inner.model.policy_net.register_forward_hook(lambda *call: seen.append(1))
    DeployedPolicy(inner).predict(np.zeros(3, np.float32))
    assert seen == [1]


def test_weights_that_change_later_act(tmp_path):
    _, policy = trained("bounded", tmp_path)
    obs = np.ones(1, np.float32)
    before = policy.predict(obs)
    with torch.no_grad():
        policy.policy.model.policy_head.linear.bias.add_(1.0)
    assert policy.predict(obs) > before


class Scaled(MLPModel):
    def inputs(self, obs):
        return super().inputs(obs) * 0 + 1


def test_a_model_of_ones_own_is_called(tmp_path):
    algorithm = Algorithm(Episodes, **SMALL, model_cls=Scaled)
    policy = DeployedPolicy(algorithm.policy)
    drawn = np.random.default_rng(0).normal(size=(200, 3))
    assert len(set(policy.predict(drawn).tolist())) == 1


def test_a_policy_without_state_starts_from_zeros():
    algorithm = RecurrentAlgorithm(Endless, **SMALL)
    seen = algorithm.env.reset().unsqueeze(0)
    policy: Policy = algorithm.policy
    one, two = (policy.act(seen, state, deterministic=True) for state in (None, policy.initial_state(N)))
    assert torch.equal(one.logp, two.logp)


@pytest.mark.parametrize("kind", ["normalized", "windowed", "lstm"])
def test_a_policy_goes_to_other_processes(kind, tmp_path):
    _, policy = trained(kind, tmp_path)
    obs = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    policy.predict(obs)
    for other in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy)):
        assert_equal(other.predict(obs[::-1]), copy.deepcopy(policy).predict(obs[::-1]))


def test_an_observation_may_be_a_single_number():
    policy = DeployedPolicy(Policy(specs.Categorical(5), specs.Bounded(-1.0, 1.0, shape=())))
    one = policy.predict(3)
    assert isinstance(one, np.float32)
    assert policy.predict(np.int64(3)) == policy.predict(torch.tensor(3)).item() == policy.predict([2, 3])[1] == one
    assert policy.predict([0, 1, 2, 3]).shape == (4,)
    with pytest.raises(
        TypeError, match=r"obs has dtype float64, which is no int64. Accepted: numbers that become int64"
    ):
        policy.predict(3.0)


def test_a_training_policy_says_how_it_is_used():
    algorithm = Algorithm(Episodes, **SMALL)
    with pytest.raises(TypeError, match=r"rl8.DeployedPolicy\(policy\).predict\(obs\), or rl8.load_policy\(run\)"):
        algorithm.policy(algorithm.env.reset())
    assert DeployedPolicy(algorithm.policy).predict(algorithm.env.reset()).shape == (N,)


def test_a_run_folder_will_do(tmp_path):
    _, policy = trained("feedforward", tmp_path)
    again = rl8.load_policy(tmp_path)
    assert repr(again).startswith("DeployedPolicy(MLPModel, Unbounded(shape=(3,)")
    assert again.predict([0.1, 0.2, 0.3]) == policy.predict([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"RUN=.*none is no run"):
        rl8.load_policy(tmp_path / "none")
    with pytest.raises(TypeError, match=r"RUN=3 is no path. Accepted: text, or a pathlib.Path"):
        rl8.load_policy(3)
    with pytest.raises(ValueError, match=r"device='gpu' is no device. Accepted: cpu, cuda.* Try device='cpu'"):
        rl8.load_policy(tmp_path, device="gpu")


def test_tensordicts_give_tensordicts(tmp_path):
    algorithm, policy = trained("composite", tmp_path)
    obs = algorithm.env.reset()
    assert isinstance(policy.predict(obs), TensorDict)
    assert policy.predict(obs[0])["move"].shape == (2,)
    nested = policy.predict({key: obs[key] if key != "arm" else dict(obs["arm"].items()) for key in obs.keys()})  # noqa: SIM118
    assert type(nested) is dict
    assert isinstance(nested["move"], torch.Tensor)


def test_what_the_value_alone_saw_is_not_needed_to_act(tmp_path):
    algorithm, policy = trained("asymmetric", tmp_path)
    assert list(policy.observation_spec) == ["arm", "phase", "action_mask"]
    obs = algorithm.env.reset()
    expected = policy.predict(obs)
    for less in (obs.exclude("lamps"), {**obs.exclude("lamps").to_dict(), "lamps": None}):
        found = policy.predict(less)
        assert all(torch.equal(found[name], expected[name]) for name in ("move", "gear", "press"))
    with pytest.raises(ValueError, match=r"lacks phase. Accepted: the keys arm, phase, action_mask"):
        policy.predict(obs.exclude("phase"))
