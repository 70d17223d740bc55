import copy
import sys
from functools import partial

import numpy as np
import pytest
import torch
from comparing import assert_same
from envs import Endless, Episodes, Machine, MaskedBandit, Randomized, Steering
from tensordict import TensorDict

from rl8 import Algorithm, RecurrentAlgorithm, specs
from rl8.checkpoint import (
    check_savable,
    load_checkpoint,
    load_policy,
    read_checkpoint,
    save_checkpoint,
    save_policy,
    start_from,
)
from rl8.distributions import Categorical, Normal
from rl8.env import CartPole
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
        (
            {"model_config": {"hiddens": [8]}},
            r"the networks' shapes differ .*policy_net.* \[16, 3\] there, \[8, 3\] here.*Accepted: the same shapes\.$",
        ),
        (
            {"model_config": {"hiddens": [16, 16]}},
            r"shapes differ \(rl8.models.mlp.MLPModel there, .*absent there, \[16, 16\] here.*same shapes\.$",
        ),
        ({"normalize_obs": True}, "it was made with algo.normalize_obs=false. Try algo.normalize_obs=false."),
        (
            {"optimizer_cls": torch.optim.SGD},
            r"_target_=torch.optim.sgd.SGD has no use for the state of torch.optim.ad",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(options, message, tmp_path):
    file = save_checkpoint(tmp_path / "checkpoint.pt", Algorithm(Endless, **SMALL))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(file, Algorithm(Endless, **{**SMALL, **options}))


def test_an_optimizer_that_keeps_more_is_refused(tmp_path):
    first = Algorithm(Endless, **SMALL)
    iterate(first, 1, None)
    file = save_checkpoint(tmp_path / "checkpoint.pt", first)
    with pytest.raises(
        ValueError, match=r"Adam keeps .*max_exp_avg_sq, step with its options here, and the checkpoint"
    ):
        load_checkpoint(file, Algorithm(Endless, optimizer_config={"amsgrad": True}, **SMALL))


def test_a_checkpoint_of_another_environment_names_it(tmp_path):
    file = save_checkpoint(tmp_path / "checkpoint.pt", Algorithm(Endless, **SMALL))
    with pytest.raises(ValueError, match=r"in envs:Endless .* envs:MaskedBandit has .* Try env\._target_=envs\.E"):
        load_checkpoint(file, Algorithm(MaskedBandit, **SMALL))


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    algorithm = Algorithm(Endless, **SMALL)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"PK not really")
    policy = save_policy(tmp_path / "policy.pt", algorithm)
    for file, message in (
        (tmp_path / "none.pt", "there is no checkpoint at .*none.pt. Try trainer.resume=null"),
        (tmp_path, "there is no checkpoint at"),
        (broken, "broken.pt can't be read as a checkpoint: it is damaged or of another kind"),
        (policy, "policy.pt is no checkpoint of this version of rl8"),
    ):
        with pytest.raises(ValueError, match=message):
            load_checkpoint(file, algorithm)
    torch.save({"format": 2}, broken)
    with pytest.raises(ValueError, match=r"is no policy of this version of rl8. Try the policy.pt of a run's folder"):
        load_policy(broken)


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    algorithm = Algorithm(Endless, **SMALL)
    file = save_checkpoint(tmp_path / "deep" / "checkpoint.pt", algorithm, {"number": 1})

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"deep/checkpoint.pt can't be written: No space left on device. What was there b"
    ):
        save_checkpoint(file, algorithm, {"number": 2}, keep=3)
    monkeypatch.undo()
    assert load_checkpoint(file, algorithm) == {"number": 1}
    assert [each.name for each in file.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("links", [True, False])
def test_the_last_few_checkpoints_are_kept_and_stand_in_for_one_another(links, tmp_path, monkeypatch, caplog):
    if not links:
        monkeypatch.setattr("os.link", lambda *arguments: (_ for _ in ()).throw(OSError("no links here")))
    algorithm = Algorithm(Endless, **SMALL)
    file = tmp_path / "checkpoint.pt"
    for number in range(5):
        save_checkpoint(file, algorithm, {"number": number}, keep=3)
    names = ["checkpoint.pt", "checkpoint.1.pt", "checkpoint.2.pt"]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names)
    assert [load_checkpoint(tmp_path / name, algorithm)["number"] for name in names] == [4, 3, 2]
    file.write_bytes(file.read_bytes()[:1000])
    saved = read_checkpoint(file)
    assert (saved.file.name, saved.extra) == ("checkpoint.1.pt", {"number": 3})
    assert len(saved.skipped) == 1
    assert load_checkpoint(file, algorithm) == {"number": 3}
    assert "checkpoint.pt can't be read as a checkpoint: it is damaged or of another kind. Going on from" in caplog.text
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint there can be read.*checkpoint.pt can't be read.*checkpoint.2"):
        load_checkpoint(file, algorithm)


def test_a_checkpoint_stands_for_its_policy(tmp_path):
    algorithm = Algorithm(Episodes, normalize_obs=True, **SMALL)
    iterate(algorithm, 1, None)
    policy = load_policy(save_checkpoint(tmp_path / "checkpoint.pt", algorithm))
    assert_same(policy.state_dict(), algorithm.policy.state_dict())


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


def ready_made(**config):
    return MLPModel(specs.Unbounded(3), specs.Categorical(3), feature_shapes={"logits": (3,)}, **config)


def test_a_policy_of_a_ready_made_model_knows_how_it_was_built(tmp_path):
    algorithm = Algorithm(Episodes, num_envs=6, horizon=8, model=ready_made(hiddens=[4]))
    policy = load_policy(save_policy(tmp_path / "policy.pt", algorithm))
    same_behaviour(policy, algorithm.policy, algorithm.env)
    again = Algorithm(Episodes, num_envs=6, horizon=8, model=policy.model)
    iterate(again, 1, None)
    loaded = load_policy(save_policy(tmp_path / "again.pt", again))
    same_behaviour(loaded, again.policy, again.env)


class Holding(MLPModel):
    """A model with an argument that no file can hold, and options that it passes on."""

    def __init__(self, *specs, hook=None, **config):
        super().__init__(*specs, **config)
        self.hook = hook

    class Nested(MLPModel):
        """A class inside another."""


def test_a_model_that_no_file_can_rebuild_is_asked_for(tmp_path):
    seen = (specs.Unbounded(3), specs.Categorical(3))
    model = Holding(*seen, feature_shapes={"logits": (3,)}, hook=lambda: None, hiddens=[4])
    algorithm = Algorithm(Episodes, num_envs=6, horizon=8, model=model)
    file = save_policy(tmp_path / "policy.pt", algorithm)
    with pytest.raises(ValueError, match=r"can't say how its model is built: .*load_policy\('.*policy.pt', model=Hold"):
        load_policy(file)
    same_behaviour(load_policy(file, model=ready_made(hiddens=[4])), algorithm.policy, algorithm.env)
    with pytest.raises(ValueError, match=r"Holding does not fit .*policy.pt: size mismatch"):
        load_policy(file, model=ready_made(hiddens=[5]))


def test_a_policy_of_a_class_inside_a_function_asks_for_the_model(tmp_path):
    class Local(MLPModel):
        pass

    file = save_policy(tmp_path / "policy.pt", Algorithm(Episodes, model_cls=Local, **SMALL))
    with pytest.raises(ValueError, match=r"no import gives its class.*model=Local\(...\)"):
        load_policy(file)


def test_a_policy_of_a_class_inside_a_class_is_loaded(tmp_path):
    algorithm = Algorithm(Episodes, model_cls=Holding.Nested, **SMALL)
    assert type(load_policy(save_policy(tmp_path / "policy.pt", algorithm)).model) is Holding.Nested


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"model_cls": "os:getcwd"},
            ValueError,
            "The file needs os.getcwd, and nothing is imported because a file says",
        ),
        ({"model_cls": "posix:system"}, ValueError, "The file needs posix.system, and nothing is imported"),
        ({"model_cls": "torch.hub:load"}, TypeError, "no subclass of rl8.models.Model"),
        (
            {"distribution_cls": "hostile:Own"},
            ValueError,
            r"If you trust it: import hostile first, or load_policy\(..., al",
        ),
        (
            {"model_config": {"hiddens": {"rl8:object": "subprocess:call"}}},
            ValueError,
            "needs subprocess.call, and noth",
        ),
    ],
)
def test_loading_runs_nothing_that_a_file_names(changed, error, message, tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text("from pathlib import Path\nPath('here').touch()\nclass Own:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = save_policy(tmp_path / "policy.pt", Algorithm(Episodes, **SMALL))
    content = torch.load(file, weights_only=True)
    torch.save({**content, "policy": {**content["policy"], **changed}}, file)
    with pytest.raises(error, match=message):
        load_policy(file)
    assert not (tmp_path / "here").exists()


def test_a_module_that_is_allowed_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text("from rl8.models import MLPModel\n\n\nclass Mine(MLPModel):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import my_models

    file = save_policy(tmp_path / "policy.pt", Algorithm(Episodes, model_cls=my_models.Mine, **SMALL))
    monkeypatch.delitem(sys.modules, "my_models")
    with pytest.raises(ValueError, match=r"needs my_models.Mine, and nothing is imported"):
        load_policy(file)
    assert type(load_policy(file, allow=["my_models"]).model).__name__ == "Mine"


def test_numbers_of_numpy_and_classes_are_saved_and_read(tmp_path):
    options = {
        "num_envs": 6,
        "horizon": 8,
        "gamma": np.float64(0.9),
        "optimizer_config": {"lr": np.float64(1e-3), "betas": (np.float64(0.8), 0.9)},
        "model_config": {"hiddens": [8], "hidden_gain": np.float32(0.5)},
    }
    algorithm = Algorithm(Episodes, **options)
    iterate(algorithm, 1, None)
    load_checkpoint(save_checkpoint(tmp_path / "checkpoint.pt", algorithm), Algorithm(Episodes, **options))
    same_behaviour(load_policy(save_policy(tmp_path / "p.pt", algorithm)), algorithm.policy, algorithm.env)


def test_what_could_not_be_read_again_is_refused_by_name():
    class Local(Categorical):
        pass

    for options, message in (
        (
            {"model_cls": Holding, "model_config": {"hook": lambda: None}},
            r"^model_config.hook=<function .*can't be saved",
        ),
        ({"distribution_cls": Local}, r"^distribution_cls=<class .*Local'> can't be saved: no import gives it back"),
    ):
        with pytest.raises(TypeError, match=message):
            check_savable(Algorithm(Episodes, num_envs=6, horizon=8, **options))


# ---------------------------------------------------------------------------------- what the configuration says now


def test_constants_and_optimizer_options_are_those_of_the_run_that_resumes(tmp_path):
    first = Algorithm(partial(CartPole, gravity=9.8), optimizer_config={"lr": 1e-2}, **SMALL)
    iterate(first, 2, None)
    file = save_checkpoint(tmp_path / "checkpoint.pt", first)
    options = {"optimizer_config": {"lr": 1e-5, "weight_decay": 0.1}, **SMALL}
    second = Algorithm(partial(CartPole, gravity=3.0, cart_mass=2.0), **options)
    load_checkpoint(file, second)
    assert second.env.gravity == 3.0
    assert second.env._push == pytest.approx(5.0 / 2.1)  # what follows from the constants
    assert torch.equal(second.env.state, first.env.state)
    (group,) = second.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0.1)
    assert iterate(second, 1, None)[0]["coefficients/lr"] == pytest.approx(1e-5)
    third = Algorithm(partial(CartPole, gravity=3.0, cart_mass=2.0), **options)
    load_checkpoint(save_checkpoint(file, second), third)
    assert_same(third.state_dict(), second.state_dict())


class Tensors(Endless):
    """Has a constant that it does not declare, and one that a reset draws."""

    def __init__(self, num_envs, /, horizon=None, *, pull=1.0, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.pull = torch.tensor(pull)
        self.dealt = torch.zeros(num_envs)

    def reset(self, *, config=None):
        self.dealt = torch.rand(self.num_envs)
        return super().reset(config=config)


def test_undeclared_tensors_are_constants_if_they_never_changed(tmp_path):
    first = Algorithm(partial(Tensors, pull=1.0), horizons_per_env_reset=-1, **SMALL)
    iterate(first, 1, None)
    file = save_checkpoint(tmp_path / "checkpoint.pt", first)
    second = Algorithm(partial(Tensors, pull=2.0), horizons_per_env_reset=-1, **SMALL)
    load_checkpoint(file, second)
    assert second.env.pull == 2.0
    assert torch.equal(second.env.dealt, first.env.dealt)


# ------------------------------------------------------------------------------------------------------ start from


def test_a_run_starts_from_the_weights_and_statistics_of_a_policy(tmp_path):
    first = Algorithm(Episodes, normalize_obs=True, **SMALL)
    iterate(first, 2, None)
    file = save_policy(tmp_path / "policy.pt", first)
    second = Algorithm(Episodes, normalize_obs=True, gamma=0.5, optimizer_cls=torch.optim.SGD, **SMALL)
    start_from(file, second)
    assert_same(second.policy.state_dict(), first.policy.state_dict())
    assert second.env_steps == 0
    iterate(second, 1, None)


@pytest.mark.parametrize(
    ("env_cls", "options", "message"),
    [
        (
            Episodes,
            {"model_config": {"hiddens": [8]}},
            r"init_from=.*policy.pt does not fit this run: the networks' shap",
        ),
        (Episodes, {"normalize_obs": True}, "Try algo.normalize_obs=true"),
        (Steering, {}, "with the observation_spec Unbounded.* and envs:Steering has"),
    ],
)
def test_a_policy_of_other_shapes_is_no_start(env_cls, options, message, tmp_path):
    options = dict(options)
    theirs = Algorithm(Episodes, **{**SMALL, "normalize_obs": options.pop("normalize_obs", False)})
    file = save_policy(tmp_path / "policy.pt", theirs)
    with pytest.raises(ValueError, match=message):
        start_from(file, Algorithm(env_cls, **{**SMALL, **options}))


def test_saving_changes_nothing(tmp_path):
    algorithm = Algorithm(Episodes, normalize_obs=True, **SMALL)
    iterate(algorithm, 1, None)
    before = copy.deepcopy(algorithm.state_dict())
    save_checkpoint(tmp_path / "checkpoint.pt", algorithm)
    save_policy(tmp_path / "policy.pt", algorithm)
    assert_same(algorithm.state_dict(), before)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.pt", "policy.pt"]
