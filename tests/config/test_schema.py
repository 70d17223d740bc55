from collections.abc import Sequence
from typing import Any

import pytest
from omegaconf import OmegaConf

from rl8.config.compose import checked, composer
from rl8.config.schema import Goal, check, convert, part
from rl8.config.values import options
from rl8.kinds import check_list
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.settings import TrainerSettings


def plan(*words):
    with composer():
        return check(*checked(words))


def test_a_plan_holds_what_the_config_says():
    found = plan("env=pendulum", "env.gravity=5", "algo.gamma=0.5", "seed=3", "model=transformer", "device=cuda")
    assert found.env.target == "rl8.env.Pendulum"
    assert found.env.options["gravity"] == 5.0
    assert found.algorithm.options["gamma"] == 0.5
    assert found.model is not None
    assert found.model.options["window"] == 8
    assert found.distribution is None
    assert found.optimizer.options == {"lr": 1e-3}
    assert found.device.device == "cuda"
    assert found.seed == 3
    assert Hyperparameters(**found.algorithm.options).gamma == 0.5


def test_what_is_recorded_is_converted_and_resolved():
    config = plan("goal.env_steps=1e5", "algo.clip_param=1").config
    assert config["goal"]["env_steps"] == 100_000
    assert config["stop"] == {"_target_": "rl8.conditions.EnvSteps", "env_steps": 100_000}
    assert config["algo"]["clip_param"] == 1.0
    assert config["algo"]["optimizer"] == {"_target_": "torch.optim.Adam", "lr": 2e-3}
    assert config["algo"]["lr_schedule"] == [[0, 2e-3], [100_000, 0]]
    assert isinstance(config["goal"]["env_steps"], int)
    assert "hydra" not in config


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1e6, int, 1_000_000),
        (3, int, 3),
        (3, float, 3.0),
        (None, int | None, None),
        (2.0, int | None, 2),
        (True, bool, True),
        (7, str, "7"),
        ("a", str | None, "a"),
        ([1], Any, [1]),
    ],
)
def test_values_convert_where_nothing_is_lost(value, hint, expected):
    found = convert("key", value, hint, None)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "default", "message"),
    [
        (1.5, int, 3, r"key=1\.5 is of the wrong kind\. Accepted: an integer\. Try key=3\."),
        ("abc", float, 0.5, r"key=abc is of the wrong kind\. Accepted: a number\. Try key=0\.5\."),
        (True, int, 3, r"key=true is of the wrong kind"),
        (True, str, "a", r"key=true is of the wrong kind\. Accepted: text"),
        (None, float, 0.5, r"key=null is of the wrong kind"),
        (1, bool, True, r"key=1 is of the wrong kind\. Accepted: true or false\. Try key=true\."),
        ("x", int | None, None, r"Accepted: an integer or null\. Try key=null\."),
        (float("inf"), int, 3, r"key=inf is of the wrong kind"),
    ],
)
def test_values_of_another_kind_are_refused(value, hint, default, message):
    with pytest.raises(TypeError, match=message):
        convert("key", value, hint, default)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["+algo.gama=1"],
            r"Unknown key 'algo\.gama'\. Did you mean 'algo\.gamma'\? Accepted in algo: .*gamma, .* and 31 more",
        ),
        (["+foo=1"], r"Unknown key 'foo'\. Accepted: env, model"),
        (["+network.foo=1"], r"Unknown key 'network\.foo'"),
        (["+trainer.veiw=live"], r"Did you mean 'trainer\.view'\?"),
        (["algo.gamma=abc"], r"algo\.gamma=abc is of the wrong kind\. Accepted: a number\. Try algo\.gamma=0\.97"),
        (["algo.horizon=0"], r"algo\.horizon=0 is out of range\. Accepted: an integer >= 1\. Try algo\.horizon=64\."),
        (["trainer.steps_per_eval=0"], r"Accepted: an integer >= 1 or null\. Try trainer\.steps_per_eval=10\."),
        (
            ["trainer.wandb=true"],
            r"wandb='true' is unknown\. Accepted: online, offline or null\. Try trainer\.wandb=on",
        ),
        (["trainer.run_name=[1]"], r"Accepted: text or null\. Try trainer\.run_name=mine\."),
        (["trainer.resume=[1]"], r"Accepted: text or null\. Try trainer\.resume=latest\."),
        (["algo.gamma=1.5"], r"algo\.gamma=1\.5 is out of range\. Accepted: a number in \[0, 1\]"),
        (["algo.sgd_minibatch_size=5000"], r"does not divide num_envs \* horizon = 8192"),
        (["algo.sgd_minibatch_size=x"], r"Accepted: an integer or null\. Try algo\.sgd_minibatch_size=1024\."),
        (["algo.sgd_minibatch_size=x", "algo.num_envs=3"], r"Try algo\.sgd_minibatch_size=null\."),
        (["algo.num_envs=1.5"], r"algo\.num_envs=1\.5 is of the wrong kind\. Accepted: an integer"),
        (["algo.optimizer.lr=linear"], r"a number that moves has a schedule .* Try algo\.schedules\.lr=linear\.$"),
        (["algo.vf_clip_param=linear"], r"^algo\.vf_clip_param=linear: .* Try algo\.schedules\.vf_clip_param=linear\."),
        (["algo.optimizer.lr=abc"], r"algo\.optimizer\.lr=abc is of the wrong kind"),
        (["algo.optimizer._target_=torch.optim.Adm"], r"Try algo\.optimizer\._target_=torch\.optim\.Adam"),
        (
            ["algo.optimizer=adamw"],
            r"algo\.optimizer=adamw is no group .* Try algo\.optimizer\._target_=torch\.optim\.AdamW",
        ),
        (["algo.optimizer=3"], r"algo\.optimizer=3 is no group .* Try algo\.optimizer\._target_=torch\.optim\.Adam\."),
        (["algo.optimizer=torch.optim.SGD"], r"Try algo\.optimizer\._target_=torch\.optim\.SGD\."),
        (["~algo.optimizer"], r"algo\.optimizer has no _target_"),
        (["algo._target_=rl8.ppo.algorithm.Algoritm"], r"Try algo=ppo\."),
        (["~algo._target_"], r"algo\._target_=None is no class"),
        (["env._target_=null"], r"env has no _target_\. Accepted: the name of a class"),
        (["distribution._target_=rl8.distributions.Norml"], r"Try distribution=normal\."),
        (["+distribution.low=3"], r"distribution has no _target_\. Accepted: .* in the YAML file's top level: `_t"),
        (["env._target_=null"], r"whose first line is `# @package _global_`, under `env:`: `_target_: my_module"),
        (
            ["+callbacks._target_=my.Watch", "+callbacks.every=3"],
            r"callbacks\._target_=my\.Watch is no callback\. .* Try callbacks=none '\+callbacks\.watch={_target_: my",
        ),
        (["+callbacks.mine=3"], r"callbacks\.mine=3 is no callback\. .* `mine: {_target_: my_module\.MyCallback}`"),
        (["+callbacks.mine.every=3"], r"callbacks\.mine has no _target_\. Accepted: .*, under `mine:`: `_target_: "),
        (["env.gravity=abc"], r"env\.gravity=abc is of the wrong kind\. Accepted: a number\. Try env\.gravity=9\.8"),
        (["env.integrator=true"], r"env\.integrator=true is of the wrong kind\. Accepted: text"),
        (["model.hiddens=3"], r"model\.hiddens=3 is of the wrong kind\. Accepted: a list"),
        (["model.hiddens=[a]"], r"model\.hiddens\.0=a is of the wrong kind\. Accepted: an integer"),
        (["network.hiddens=3"], r"network\.hiddens=3 is of the wrong kind"),
        (["network.log_std=abc"], r"network\.log_std=abc is of the wrong kind\. Accepted: a number"),
        (["goal.env_steps=0"], r"goal\.env_steps=0 is out of range\. Accepted: an integer >= 1"),
        (["goal.target=abc"], r"goal\.target=abc is of the wrong kind\. Accepted: a number or null"),
        (["goal=3"], r"goal=3 is no group of options"),
        (["stop.env_steps=abc"], r"stop\.env_steps=abc is of the wrong kind"),
        (["stop._target_=rl8.conditions.EnvStep"], r"Try stop=env_steps\."),
        (["seed=-1"], r"seed=-1 is out of range\. Accepted: an integer >= 0\. Try seed=1"),
        (["seed=abc"], r"seed=abc is of the wrong kind"),
        (["trainer.view=fancy"], r"trainer\.view='fancy' is unknown\. Accepted: auto, live, plain, none"),
        (["trainer.env_config=3"], r"trainer\.env_config=3 is no mapping"),
        (["device.device=tpu"], r"device\.device='tpu' is unknown"),
        (
            ["goal.env_steps=${goal.nothing}"],
            r"goal\.env_steps: Interpolation key 'goal\.nothing' not found\. Try goal",
        ),
        (["seed=???"], r"seed: Missing mandatory value: seed\. Try seed=<value>"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises((TypeError, ValueError), match=message):
        plan(*words)


def test_env_numbers_may_be_many_or_drawn():
    assert plan("env.gravity={low: 5, high: 10}").env.options["gravity"] == {"low": 5, "high": 10}
    assert plan("env.gravity=[5, 10]").env.options["gravity"] == [5, 10]


def test_env_numbers_that_a_file_draws_may_be_fixed(workdir):
    draws = {"_target_": "rl8.env.CartPole", "gravity": {"low": 5, "high": 10}}
    assert part("env", {**draws, "gravity": 7}, draws).options == {"gravity": 7}
    assert part("env", {**draws, "gravity": {"low": 6, "high": 10}}, draws).options["gravity"] == {"low": 6, "high": 10}
    with pytest.raises(TypeError, match=r"env\.gravity=abc is of the wrong kind\. Accepted: a mapping"):
        part("env", {**draws, "gravity": "abc"}, draws)


def test_a_stop_condition_may_be_nested():
    both = "{_target_: rl8.conditions.WallTime, seconds: 5}, {_target_: rl8.conditions.EnvSteps, env_steps: 9}"
    words = ["stop._target_=rl8.conditions.And", f"+stop.conditions=[{both}]", "~stop.env_steps"]
    assert plan(*words).stop["conditions"][1] == {"_target_": "rl8.conditions.EnvSteps", "env_steps": 9}
    with pytest.raises(ValueError, match=r"stop\.conditions\.1\._target_='rl8\.conditions\.EnvStep'"):
        plan(*[word.replace("EnvSteps,", "EnvStep,") for word in words])


def test_without_a_stop_condition_training_goes_on():
    assert plan("stop._target_=null", "~stop.env_steps").stop is None


def test_files_may_leave_open_what_the_command_line_fills(workdir):
    cfg = OmegaConf.create({"hydra": {}})
    with composer():
        cfg, reference = checked(["goal.target=3"])
        reference.goal.target = "${nothing}"
        assert check(cfg, reference).goal.target == 3.0


def test_options_of_a_dataclass():
    assert options("trainer", {"steps_per_eval": 2.0}, TrainerSettings).steps_per_eval == 2
    with pytest.raises(ValueError, match=r"Unknown key 'goal\.metrc'\. Did you mean 'goal\.metric'\?"):
        options("goal", {"metrc": "returns/mean"}, Goal)


def test_hydras_own_keys_are_no_options():
    found = part("model", {"_target_": "rl8.models.MLPModel", "_partial_": True, "window": 2}, None)
    assert found is not None
    assert found.options == {"window": 2}
    assert found.name_key == "model._target_"


@pytest.mark.parametrize("env", ["cartpole", "pendulum", "mountain_car", "cue_recall", "continuous_dummy"])
def test_a_typed_rate_is_the_one_that_its_schedule_starts_with(env):
    for rate in (0.5, 1e-6):
        found = plan(f"env={env}", f"algo.optimizer.lr={rate}", "goal.env_steps=1000")
        assert found.optimizer.options["lr"] == rate
        assert found.algorithm.options["lr_schedule"] == [[0, rate], [1000, 0]]


def test_an_absolute_schedule_sets_the_rate_unless_both_are_typed():
    words = ["env=discrete_dummy", "algo.lr_schedule=[[0,0.25],[100,0.5]]"]
    found = plan(*words)
    assert found.optimizer.options["lr"] == found.config["algo"]["optimizer"]["lr"] == 0.25
    with pytest.raises(ValueError, match=r"^algo.optimizer.lr=0.125 would have no effect: .* starts with 0.25. Try "):
        plan(*words, "algo.optimizer.lr=0.125")


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (
            "state",
            Sequence[str] | None,
            r"key=state is of the wrong .* Accepted: a list or null\. Try 'key=\[state\]'",
        ),
        (3, Sequence[int], r"key=3 is of the wrong kind\. Accepted: a list\. Try 'key=\[3\]'"),
        ({"a": 1}, list[str] | None, r"key={a: 1} is of the wrong kind\. Accepted: a list or null\. Try 'key=null'"),
        (None, tuple[int, ...], r"key=null is of the wrong kind\. Accepted: a list\. Try 'key=\[\]'"),
    ],
)
def test_what_must_be_a_list_is_no_text_or_number(value, hint, message):
    with pytest.raises(TypeError, match=message):
        check_list("key", value, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (["a"], Sequence[str]),
        (None, Sequence[str] | None),
        ((1, 2), tuple[int, ...]),
        ("a", str | Sequence[str]),
        (1, Any),
    ],
)
def test_lists_and_what_else_a_type_allows_are_taken(value, hint):
    check_list("key", value, hint)


def test_a_value_of_another_kind_is_answered_with_the_files_own():
    with pytest.raises(TypeError, match=r"^algo.num_envs=many is of the wrong kind. .* Try algo.num_envs=128"):
        plan("algo.num_envs=many")


def test_a_linear_schedule_ends_at_the_goal():
    found = plan("algo.schedules.clip_param=linear", "goal.env_steps=5000").algorithm.options["schedules"]
    assert found["clip_param"] == [[5000, 0.0]]
    assert found["vf_coeff"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algo.schedules.clip_param=linear", "goal.env_steps=null", "stop=never"], r"linear ends at goal\.env_steps"),
        (["algo.schedules.dual_clip_param=linear"], r"dual_clip_param=linear reaches 0.*numbers > 1"),
        (["algo.schedules.dual_clip_param=[[0,2],[9,1]]"], r"dual_clip_param reaches 1\. Accepted: numbers > 1"),
        (["algo.schedules.vf_clip_param=[[9,1]]"], r"begins after env step 0, and algo\.vf_clip_param=null"),
        (["algo.schedules.clip_param=[[0,-1]]"], r"algo\.schedules\.clip_param\[0\]'s value=-1 is out of range"),
        (
            ["env=discrete_dummy", "algo.schedules.lr=linear", "algo.lr_schedule=[[0,1]]"],
            r"two schedules of one",
        ),
        (["algo.schedules=3"], r"algo\.schedules=3 is no mapping"),
    ],
)
def test_schedules_that_say_nothing_are_refused(words, message):
    with pytest.raises((TypeError, ValueError), match=message):
        plan(*words)
