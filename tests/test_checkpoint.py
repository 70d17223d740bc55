import copy

import pytest
import torch
from comparing import assert_same
from envs import Endless, Episodes, Machine, MaskedBandit, Randomized, Steering
from tensordict import TensorDict

from rl8 import Algorithm, RecurrentAlgorithm, specs
from rl8.checkpoint import load_checkpoint, load_policy, save_checkpoint, save_policy
from rl8.distributions import Normal
from rl8.models import GRUModel, LSTMModel, MLPModel, TransformerModel

SMALL = {"num_envs": 6, "horizon": 8, "model_config": {"hiddens": [16]}}
RECURRENT = {"num_envs": 6, "horizon": 8, "model_config": {"hidden_size": 8}}


class Drawn(Endless):
    """Draws, at each reset, something that lies beside the state."""

    def reset(self, *, config=None):
        self.index = torch.randint(10, (self.num_envs,))
        self.scale = TensorDict({"x": torch.rand(self.num_envs)}, [self.num_envs])
        return super().reset(config=config)


# Name: algorithm, environment, its options, the settings of its resets.
RUNS = {
    "feedforward": (Algorithm, Episodes, {**SMALL, "sgd_minibatch_size": 16}, None),
    "normalized": (Algorithm, Episodes, {**SMALL, "normalize_obs": True, "horizons_per_env_reset": -1}, None),
    "scheduled": (
        Algorithm,
        Endless,
        {
            **SMALL,
            "lr_schedule": [[0, 1e-3], [400, 1e-4]],
            "lr_schedule_kind": "interp",
            "entropy_coeff_schedule": [[0, 0.1], [144, 0.01]],
            "horizons_per_env_reset": 3,
        },
        None,
    ),
    "sgd with momentum": (
        Algorithm,
        Endless,
        {**SMALL, "optimizer_cls": torch.optim.SGD, "optimizer_config": {"lr": 0.01, "momentum": 0.9}},
        None,
    ),
    "fp16": (Algorithm, Steering, {**SMALL, "enable_amp": True, "amp_dtype": "fp16"}, None),
    "composite": (Algorithm, Machine, {**SMALL, "horizons_per_env_reset": -1, "normalize_obs": True}, None),
    "masked": (Algorithm, MaskedBandit, {**SMALL, "horizons_per_env_reset": -1}, None),
    "windowed": (
        Algorithm,
        Episodes,
        {
            **SMALL,
            "model_cls": TransformerModel,
            "model_config": {"window": 11, "size": 8},
            "horizons_per_env_reset": -1,
        },
        None,
    ),
    "recurrent": (RecurrentAlgorithm, Episodes, {**RECURRENT, "horizons_per_env_reset": -1}, None),
    "recurrent, state reset": (
        RecurrentAlgorithm,
        Endless,
        {**RECURRENT, "model_cls": GRUModel, "seqs_per_state_reset": 3, "horizons_per_env_reset": -1},
        None,
    ),
    "random parameters": (
        Algorithm,
        Endless,
        {**SMALL, "horizons_per_env_reset": 4},
        {"noise": {"low": 0.5, "high": 3.0}},
    ),
    "random when built": (Algorithm, Randomized, {**SMALL, "horizons_per_env_reset": -1}, None),
    "drawn beside the state": (Algorithm, Drawn, {**SMALL, "horizons_per_env_reset": -1}, None),
}


def iterate(algorithm, count, config):
    metrics = [algorithm.collect(env_config=config) | algorithm.step() for _ in range(count)]
    return [{name: value.item() for name, value in each.items()} for each in metrics]


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("run", RUNS)
def test_trap_11_a_resumed_run_equals_an_unbroken_one(run, before, tmp_path):
    algorithm_cls, env_cls, options, config = RUNS[run]
    torch.manual_seed(1)
    unbroken = algorithm_cls(env_cls, **options)
    iterate(unbroken, before, config)
    file = save_checkpoint(tmp_path / "checkpoint.pt", unbroken, {"note": "kept", "numbers": [1, 2.5]})
    expected = iterate(unbroken, 3, config)

    torch.manual_seed(2)
    resumed = algorithm_cls(env_cls, **options)
    iterate(resumed, 1, config)  # what was done before is forgotten
    assert load_checkpoint(file, resumed) == {"note": "kept", "numbers": [1, 2.5]}
    assert (resumed.env_steps, resumed.iterations) == (48 * before, before)
    assert iterate(resumed, 3, config) == expected
    assert_same(resumed.state_dict(), unbroken.state_dict())


def test_a_state_in_memory_may_be_loaded_twice():
    algorithm = Algorithm(Endless, **SMALL)
    iterate(algorithm, 1, None)
    saved = copy.deepcopy(algorithm.state_dict())
    runs = []
    for _ in range(2):
        algorithm.load_state_dict(saved)
        runs.append(iterate(algorithm, 2, None))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 12}, "algo.num_envs=12 differs from the checkpoint's. Try algo.num_envs=6"),
        ({"horizon": 4}, "algo.horizon=4 differs from the checkpoint's. Try algo.horizon=8"),
        ({"model_config": {"hiddens": [8]}}, "does not fit this run: size mismatch.*Resume with the options"),
        ({"model_config": {"hiddens": [16, 16]}}, "does not fit this run: Missing key.*policy_net.*Resume with"),
        ({"optimizer_cls": torch.optim.SGD, "normalize_obs": True}, "does not fit this run: Missing key.*normalizers"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(options, message, tmp_path):
    file = save_checkpoint(tmp_path / "checkpoint.pt", Algorithm(Endless, **SMALL))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(file, Algorithm(Endless, **{**SMALL, **options}))


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    algorithm = Algorithm(Endless, **SMALL)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK not really")
    policy = save_policy(tmp_path / "policy.pt", algorithm)
    for file, message in (
        (tmp_path / "none.pt", "There is no checkpoint at .*none.pt. Try trainer.resume=null"),
        (tmp_path, "There is no checkpoint at"),
        (broken, "broken.pt can't be read as a checkpoint: it is damaged or of another kind"),
        (policy, "policy.pt is no checkpoint of this version of rl8"),
    ):
        with pytest.raises(ValueError, match=message):
            load_checkpoint(file, algorithm)
    with pytest.raises(ValueError, match=r"is no policy of this version of rl8. Try the policy.pt of a run's folder"):
        load_policy(save_checkpoint(tmp_path / "checkpoint.pt", algorithm))


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    algorithm = Algorithm(Endless, **SMALL)
    file = save_checkpoint(tmp_path / "deep" / "checkpoint.pt", algorithm, {"number": 1})

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(file, algorithm, {"number": 2})
    assert load_checkpoint(file, algorithm) == {"number": 1}


def same_behaviour(policy, other, env):
    """Compare two policies on what they see first."""
    obs = env.reset()
    rows = torch.stack([obs] * (policy.views.history + 1))
    seen = policy.views.step(rows, torch.zeros(rows.shape[:2], dtype=torch.int32), policy.views.history)
    state = policy.initial_state(env.num_envs)
    one, two = (each.act(seen, state, deterministic=True) for each in (policy, other))
    torch.testing.assert_close(one.env_actions, two.env_actions)
    torch.testing.assert_close(one.logp, two.logp)
    torch.testing.assert_close(policy.values(seen, state), other.values(seen, state))


@pytest.mark.parametrize(
    ("algorithm_cls", "env_cls", "options"),
    [
        (Algorithm, Episodes, {}),
        (Algorithm, Steering, {"distribution_cls": Normal}),
        (Algorithm, Steering, {"enable_amp": True}),
        (Algorithm, Machine, {"model_config": {"hiddens": [8], "window": 3}}),
        (Algorithm, MaskedBandit, {"model_cls": TransformerModel, "model_config": {"size": 8}}),
        (RecurrentAlgorithm, Episodes, {"model_cls": LSTMModel, "model_config": {"num_layers": 2}}),
    ],
)
def test_a_saved_policy_behaves_as_the_trained_one(algorithm_cls, env_cls, options, tmp_path):
    algorithm = algorithm_cls(env_cls, num_envs=6, horizon=8, normalize_obs=True, **options)
    iterate(algorithm, 1, None)
    policy = load_policy(save_policy(tmp_path / "policy.pt", algorithm))
    assert not policy.training
    assert policy.observation_spec == algorithm.env.observation_spec
    assert policy.action_spec == algorithm.env.action_spec
    if not options.get("enable_amp"):
        same_behaviour(algorithm.policy, policy, algorithm.env)
    assert_same(policy.state_dict(), algorithm.policy.state_dict())


def test_trap_6_observation_statistics_are_saved_with_the_policy(tmp_path):
    algorithm = Algorithm(Episodes, normalize_obs=True, **SMALL)
    iterate(algorithm, 2, None)
    policy = load_policy(save_policy(tmp_path / "policy.pt", algorithm))
    moments, expected = policy.normalizers[0].moments, algorithm.policy.normalizers[0].moments
    assert expected.count == 96
    assert torch.equal(moments.count, expected.count)
    assert torch.equal(moments.mean, expected.mean)
    assert torch.equal(moments.var, expected.var)
    same_behaviour(algorithm.policy, policy, algorithm.env)


def test_a_policy_of_a_ready_made_model_asks_for_it(tmp_path):
    def make():
        return MLPModel(specs.Unbounded(3), specs.Categorical(3), feature_shapes={"logits": (3,)}, hiddens=[4])

    algorithm = Algorithm(Episodes, num_envs=6, horizon=8, model=make())
    file = save_policy(tmp_path / "policy.pt", algorithm)
    with pytest.raises(ValueError, match=r"handed over ready-made.*load_policy\('.*policy.pt', model=MLPModel"):
        load_policy(file)
    same_behaviour(load_policy(file, model=make()), algorithm.policy, algorithm.env)
    wrong = MLPModel(specs.Unbounded(3), specs.Categorical(3), feature_shapes={"logits": (3,)}, hiddens=[5])
    with pytest.raises(ValueError, match=r"MLPModel does not fit .*policy.pt: size mismatch"):
        load_policy(file, model=wrong)


def test_a_policy_whose_class_is_gone_says_which(tmp_path):
    class Local(MLPModel):
        pass

    file = save_policy(tmp_path / "policy.pt", Algorithm(Episodes, model_cls=Local, **SMALL))
    with pytest.raises(ValueError, match=r"needs .*Local, which can't be imported here. Put its file on the path"):
        load_policy(file)


def test_a_loaded_class_that_is_no_model_is_not_called(tmp_path):
    file = save_policy(tmp_path / "policy.pt", Algorithm(Episodes, **SMALL))
    content = torch.load(file, weights_only=True)
    torch.save({**content, "model_cls": "os.getcwd"}, file)
    with pytest.raises(TypeError, match=r"no subclass of rl8.models.Model"):
        load_policy(file)


def test_saving_changes_nothing(tmp_path):
    algorithm = Algorithm(Episodes, normalize_obs=True, **SMALL)
    iterate(algorithm, 1, None)
    before = copy.deepcopy(algorithm.state_dict())
    save_checkpoint(tmp_path / "checkpoint.pt", algorithm)
    save_policy(tmp_path / "policy.pt", algorithm)
    assert_same(algorithm.state_dict(), before)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt", "policy.pt"]
