"""The files in conf/: complete, commented, and in agreement with the constructors that they stand for."""

import dataclasses
import inspect
import re

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from rl8.config.catalog import CONF, GROUPS, defaults, options, prepare, root_file
from rl8.config.compose import checked, composer
from rl8.config.schema import Goal, check
from rl8.launch import verify
from rl8.ppo.algorithm import RecurrentAlgorithm
from rl8.ppo.hyperparameters import CPU_NUM_ENVS, Hyperparameters
from rl8.settings import DeviceSettings, TrainerSettings

FILES = sorted(CONF.glob("**/*.yaml"))
OPTIONS = [(group, option) for group in GROUPS for option in options(group)]


def config(*words):
    with composer():
        return check(*checked(words)).config


def constructor_defaults(target, *given):
    """Return what a class's constructor takes beside the `given` arguments, with their defaults."""
    parameters = inspect.signature(get_class(target)).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name not in given}


def plain(values):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_resolves_and_is_in_range(group, option):
    extra = {"target": ["trainer.steps_per_eval=1"]}.get(option, [])
    with composer():
        verify(check(*checked([f"{group}={option}", *extra])))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_key_says_what_it_does(path):
    lines = path.read_text().splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert re.match(r"# [A-Z]", first), f"{path} does not begin with a sentence on what it is for"
    section = ""
    for line in lines:
        section = line.split(":")[0] if re.match(r"[a-z]", line) else section
        # what a file sets for other groups is explained in theirs, and Hydra documents its own
        foreign = section in (*GROUPS, "goal", "network", "hydra") and section not in (path.parent.name, "env")
        skipped = section == "hydra" or (foreign and "@package _global_" in lines[0])
        if skipped or not re.match(r" *[a-z_]+: \S", line):
            continue
        assert re.search(r" # \S", line), f"{path}: no comment on {line!r}"


def test_the_groups_are_those_of_the_folder():
    assert set(GROUPS) == {path.name for path in CONF.iterdir() if path.is_dir()} - {"hydra"} | {"experiment"}
    for group, option in defaults().items():
        assert option in options(group) or group == "experiment"


def test_algo_repeats_the_defaults_of_hyperparameters():
    algo = OmegaConf.to_container(OmegaConf.load(CONF / "algo" / "ppo.yaml"))
    assert algo.pop("_target_") == "rl8.ppo.algorithm.Algorithm"
    assert algo.pop("optimizer") == {"_target_": "torch.optim.Adam", "lr": 1e-3}
    assert algo == dataclasses.asdict(Hyperparameters())


def test_recurrent_repeats_the_defaults_of_its_class():
    algo = OmegaConf.to_container(OmegaConf.load(CONF / "algo" / "recurrent.yaml"))
    own = {name: value for name, value in algo.items() if name not in ("defaults", "_target_")}
    own["seq_len"] = root_file()["network"]["seq_len"]
    assert own == dict(RecurrentAlgorithm.defaults)


@pytest.mark.parametrize(
    ("file", "schema"),
    [("trainer/default", TrainerSettings), ("device/cpu", DeviceSettings), ("device/cuda", DeviceSettings)],
)
def test_settings_repeat_the_defaults_of_their_classes(file, schema):
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{file}.yaml"))
    expected = dataclasses.asdict(schema())
    if file == "device/cuda":
        expected["device"] = "cuda"
    if file == "device/cpu":  # which carries the sizes that suit a CPU beside its own settings
        assert values.pop("algo") == {"num_envs": CPU_NUM_ENVS}
        (values,) = values.values()
    assert values == expected


def test_the_root_file_repeats_the_defaults_of_goal():
    assert root_file()["goal"] == dataclasses.asdict(Goal())


@pytest.mark.parametrize("option", options("model"))
def test_models_repeat_the_defaults_of_their_constructors(option):
    root = OmegaConf.create(
        {"network": root_file()["network"], "model": OmegaConf.load(CONF / "model" / f"{option}.yaml")}
    )
    values = OmegaConf.to_container(root, resolve=True)["model"]
    expected = constructor_defaults(values.pop("_target_"), "observation_spec", "action_spec", "feature_shapes")
    assert values == plain(expected)


@pytest.mark.parametrize("option", options("env"))
def test_environments_repeat_the_defaults_of_their_constructors(option):
    values = OmegaConf.to_container(OmegaConf.load(CONF / "env" / f"{option}.yaml"))["env"]
    expected = constructor_defaults(values.pop("_target_"), "num_envs", "horizon", "device")
    assert values == plain(expected)


@pytest.mark.parametrize("option", [option for option in options("stop") if option != "target"])
def test_stop_conditions_repeat_the_defaults_of_their_constructors(option):
    values = OmegaConf.to_container(OmegaConf.load(CONF / "stop" / f"{option}.yaml"), resolve=False)
    for name, default in constructor_defaults(values["_target_"]).items():
        assert default is inspect.Parameter.empty or values[name] == default, name


@pytest.mark.parametrize("option", options("distribution"))
def test_distributions_name_a_class_or_leave_the_choice(option):
    target = OmegaConf.load(CONF / "distribution" / f"{option}.yaml")._target_
    assert (target is None) == (option == "auto")
    assert target is None or get_class(target).__name__.lower() == option.replace("_", "")


def test_a_fresh_config_is_the_python_default_but_for_what_the_environment_sets(program):
    (program / "conf" / "env").mkdir(parents=True)
    (program / "conf" / "env" / "bare.yaml").write_text("_target_: rl8.env.DiscreteDummyEnv\n")
    prepare()
    found = config("env=bare")
    expected = dataclasses.asdict(Hyperparameters(num_envs=CPU_NUM_ENVS))  # device/cpu.yaml repeats it
    assert {name: found["algo"][name] for name in expected} == expected
    assert found["model"]["hiddens"] == [256, 256]
