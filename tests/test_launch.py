import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException

from rl8 import launch
from rl8.checks import is_mistake, place_of
from rl8.conditions import EnvSteps
from rl8.config.catalog import CONF, options, prepare
from rl8.config.compose import checked, composer
from rl8.config.schema import Part, check
from rl8.env import Env
from rl8.launch import Outcome, build, locate, parts, record_failure, stop_condition, summary, train, verify
from rl8.tracking.store import open_store
from rl8.trainer import Trainer

SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.eval_num_envs=4"]
QUIET = ["trainer.track=false", "trainer.view=none", "trainer.render=false", "goal.env_steps=48"]


def plan(*words):
    with composer():
        return check(*checked(words))


@pytest.fixture
def my_parts(program):
    """Make a folder with parts of a user's own the working directory."""
    workdir = program
    (workdir / "my_parts.py").write_text(
        "from rl8.env import DiscreteDummyEnv\n\n\n"
        "class Fine(DiscreteDummyEnv):\n"
        "    def __init__(self, num_envs, /, horizon=None, *, device='cpu', bounds=10.0, needed):\n"
        "        super().__init__(num_envs, horizon, device=device, bounds=bounds)\n\n\n"
        "class Greedy(DiscreteDummyEnv):\n"
        "    def __init__(self, num_envs, /, horizon=None, *, device='cpu', **anything):\n"
        "        super().__init__(num_envs, horizon, device=device)\n\n\n"
        "def other(n, steps, device):\n    return DiscreteDummyEnv(n, steps, device=device)\n\n\n"
        "class NoEnv:\n    pass\n\n\n"
        "def make(num_envs, /, horizon=None, *, device='cpu'):\n"
        "    return DiscreteDummyEnv(num_envs, horizon, device=device)\n\n\n"
        "class Stop:\n    def __init__(self):\n        pass\n\n\n"
        "number = 3\n"
    )
    (workdir / "my_syntax.py").write_text("class Fine(:\n    pass\n")
    (workdir / "my_crash.py").write_text("limit = 1\nvalue = limit / 0\n\n\nclass Fine:\n    pass\n")
    (workdir / "my_import.py").write_text("import no_such_package\n\n\nclass Fine:\n    pass\n")
    (workdir / "my_torch.py").write_text("import torch\n\nlimit = torch.zeros_\n\n\nclass Fine:\n    pass\n")
    prepare()
    return workdir


def env(target, **config):
    return Part("env._target_", target, "env", config)


def find(target, **config):
    return locate(env(target, **config), Env, "rl8.env.Env")


@pytest.mark.parametrize("algo", options("algo"))
@pytest.mark.parametrize("name", [name for name in options("env") if name != "cue_recall"])
def test_every_environment_builds_with_every_algorithm(workdir, name, algo):
    package = {"playground": "mujoco_playground"}.get(name, name)
    if name in ("envpool", "isaaclab", "mjlab", "playground") and find_spec(package) is None:
        with pytest.raises(ValueError, match=f"env={name} needs the package {package}, which is not installed"):
            build(plan(f"env={name}", f"algo={algo}", *SMALL, *QUIET), workdir)
        return
    trainer = build(plan(f"env={name}", f"algo={algo}", *SMALL, *QUIET), workdir)
    assert isinstance(trainer, Trainer)
    assert trainer.algorithm.recurrent is (algo == "recurrent")
    assert trainer.algorithm.hparams.num_envs == 4


@pytest.mark.parametrize(
    "words",
    [
        ["env=cue_recall", "algo=recurrent", "algo.seq_len=4", "algo.horizon=8"],
        ["model=transformer"],
        ["env=gymnasium", "model=transformer"],
        ["model=gru", "algo=recurrent"],
        ["model=mlp", "model.window=3"],
        ["distribution=categorical"],
        ["env=pendulum", "distribution=normal"],
        ["env=pendulum", "distribution=squashed_normal"],
        ["stop=plateau"],
        ["stop=never"],
        ["stop=wall_time"],
        ["algo.optimizer._target_=torch.optim.SGD"],
    ],
    ids=" ".join,
)
def test_every_other_option_builds(workdir, words):
    chosen = plan(*SMALL, *QUIET, *words)
    verify(chosen)
    trainer = build(chosen, workdir)
    if chosen.model is not None:
        assert f"rl8.models.{type(trainer.algorithm.policy.model).__name__}" == chosen.model.target


@pytest.mark.parametrize("name", options("env"))
def test_every_environment_leaves_the_choice_of_the_model(name):
    assert plan(f"env={name}", "model=cnn").model.target == "rl8.models.CNNModel"


def test_the_plan_reaches_the_parts(workdir):
    words = ["env.gravity=3", "network.hiddens=[8]", "algo.optimizer.lr=0.25", "trainer.steps_per_eval=7", "seed=5"]
    trainer = build(plan(*words, *SMALL, *QUIET), workdir / "files", words)
    algorithm = trainer.algorithm
    assert algorithm.env.gravity == 3.0
    assert algorithm.policy.model.policy_net.size == 8
    assert algorithm.optimizer.param_groups[0]["lr"] == 0.25
    assert trainer.settings.steps_per_eval == 7
    assert trainer.output_dir == workdir / "files"
    assert trainer.overrides == tuple(words)
    assert trainer.config["seed"] == 5
    assert trainer.stop_conditions[0].describe() == "env/steps >= 48"


def test_a_run_repeats_exactly_with_its_seed_and_not_with_another(workdir):
    def weights(seed, name):
        chosen = plan(f"seed={seed}", *SMALL, *QUIET)
        outcome = train(chosen, workdir / name)
        saved = torch.load(workdir / name / "policy.pt", weights_only=True)["weights"]
        return outcome, torch.cat([tensor.flatten().double() for tensor in saved.values()])

    (first, one), (again, same), (other, different) = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert first == again == Outcome(first.objective, None)
    assert torch.equal(one, same)
    assert other.objective != first.objective
    assert not torch.equal(one, different)


def test_a_metric_that_does_not_exist_is_found_before_training(workdir):
    with pytest.raises(ValueError, match=r"goal\.metric=eval/return: .*Did you mean 'eval/returns/"):
        build(plan("goal.metric=eval/return", *SMALL, *QUIET), workdir)


def test_stop_conditions():
    assert isinstance(stop_condition(plan("goal.env_steps=7")), EnvSteps)
    assert stop_condition(plan("stop._target_=null", "~stop.env_steps")) is None


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["stop.env_steps=0"], ValueError, r"stop\.env_steps=0 is out of range"),
        (
            ["+stop.foo=3"],
            TypeError,
            r"^Unknown key 'stop\.foo': rl8\.conditions\.EnvSteps does not take it\. Accepted: env",
        ),
        (
            ["stop=wall_time", "~stop.seconds"],
            TypeError,
            r"^stop\.seconds is missing: rl8\.conditions\.WallTime has no ",
        ),
        (
            ["stop._target_=rl8.specs.Unbounded", "~stop.env_steps"],
            ValueError,
            r"makes a Unbounded\. Accepted: a class",
        ),
        (
            ["stop._target_=rl8.conditions.Condition", "~stop.env_steps"],
            TypeError,
            r"Condition in .*conditions\.py lacks __call__, describe, .* def describe\(self\) -> str: \.\.\.$",
        ),
        (["algo.lr_schedule=3"], TypeError, r"algo\.lr_schedule=3 is no list"),
        (["algo.entropy_coeff_schedule=[]"], ValueError, r"algo\.entropy_coeff_schedule=\[\] has no points"),
    ],
)
def test_what_takes_more_than_one_option_to_check(words, error, message):
    with pytest.raises(error, match=message):
        verify(plan(*words))


def test_a_target_that_no_file_sets():
    chosen = replace(plan(), stop={"_target_": "rl8.conditions.HitsUpperBound", "key": "x", "upper_bound": None})
    with pytest.raises(ValueError, match=r"^stop\.upper_bound=null: .* Try goal\.target=100 with stop=target, else"):
        verify(chosen)


def test_hydras_own_refusals_pass_through():
    chosen = replace(plan(), stop={"_target_": "rl8.conditions.nothing"})
    with pytest.raises(InstantiationException, match="Error locating target"):
        stop_condition(chosen)


def test_parts_without_a_model_take_the_default():
    assert parts(plan("distribution=auto")).distribution_cls is None


@pytest.mark.parametrize(
    ("target", "config", "error", "message"),
    [
        ("my_parts.NoEnv", {}, TypeError, r"env\._target_=my_parts\.NoEnv is no Env\. .* Write class NoEnv\(Env\)"),
        ("my_parts.number", {}, TypeError, r"env\._target_=my_parts\.number is a int\. Accepted: a subclass"),
        ("my_parts.Fine", {}, TypeError, r"env\.needed is missing: my_parts\.Fine has no default for it"),
        ("my_parts.Fine", {"needed": 1, "bound": 3}, TypeError, r"'env\.bound'.* Did you mean 'env\.bounds'\?"),
        ("my_parts.make", {"foo": 1}, TypeError, r"'env\.foo': my_parts\.make takes none\. Leave it out"),
        ("my_syntax.Fine", {}, ValueError, r"can't be imported: SyntaxError: .*my_syntax\.py, line 1\)"),
        ("my_torch.Fine", {}, ValueError, r"can't be imported: AttributeError: .*zeros_.* \(my_torch\.py, line 3\)"),
        ("my_crash.Fine", {}, ValueError, r"can't be imported: ZeroDivisionError: .*\(my_crash\.py, line 2\)"),
        (
            "my_import.Fine",
            {},
            ValueError,
            r"can't be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
    ],
)
def test_classes_that_are_no_environments(my_parts, target, config, error, message, caplog):
    with pytest.raises(error, match=message):
        find(target, **config)
    assert caplog.records == []  # it is said once


def test_classes_and_functions_that_make_environments(my_parts):
    assert find("my_parts.Fine", needed=1).__name__ == "Fine"
    assert find("my_parts.Greedy", whatever=1).__name__ == "Greedy"
    assert find("my_parts.make")(2).num_envs == 2
    assert find("my_parts.other")(2, 3, device="cpu").num_envs == 2  # what is given by position may have any name


def test_mistakes_are_told_from_other_errors(my_parts):
    with pytest.raises(TypeError, match="is no Env") as mistake:
        find("my_parts.NoEnv")
    assert is_mistake(mistake.value)
    assert summary(mistake.value) == str(mistake.value)
    with pytest.raises(RuntimeError, match="size of tensor") as shapes:
        torch.zeros(2) + torch.zeros(3)
    assert not is_mistake(shapes.value)
    assert summary(shapes.value).startswith("RuntimeError: The size of tensor a")
    with pytest.raises(ValueError, match="invalid literal") as elsewhere:
        int("abc")
    assert not is_mistake(elsewhere.value)
    assert not is_mistake(ValueError("never raised"))


def test_a_failure_to_build_is_recorded(store_dir):
    record_failure(plan("trainer.track=false"), [], ValueError("not recorded"))
    record_failure(plan("trainer.experiment_name=failures"), ["seed=1"], ValueError("too bad"))
    client = open_store().client
    experiment = client.get_experiment_by_name("failures")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert client.search_runs([experiment.experiment_id])[0].data.tags["error"] == "ValueError: too bad"


def test_the_place_of_an_error_that_was_never_raised_is_unknown():
    assert place_of(ValueError("never raised")) == ""


def test_an_outcome_without_the_metric_is_nan(workdir):
    class Ended:
        stopped_by, closed = "SIGINT", False

        def run(self):
            return {}

        def close(self):
            self.closed = True

    trainer = Ended()
    outcome = launch.run(trainer, plan())
    assert trainer.closed
    assert math.isnan(outcome.objective)
    assert outcome.stopped_by == "SIGINT"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["stop=plateau"], "returns/mean within 0.1% for 5 values or env/steps >= 48"),
        (["stop=wall_time", "goal.env_steps=null", "algo.lr_schedule=null"], "wall time >= 600 s"),
        (["stop=env_steps"], "env/steps >= 48"),
        (["stop=never"], "never"),
    ],
)
def test_env_steps_stay_an_upper_bound(words, text):
    chosen = plan(*QUIET, *words)
    condition = launch.bounded(chosen, stop_condition(chosen))
    assert condition.describe() == text


def test_a_folder_is_checked_without_being_made(workdir):
    (workdir / "taken").write_text("a file")
    launch.check_folder("trainer.output_dir", workdir / "new" / "folder")
    (workdir / "conf" / "env").mkdir(parents=True)
    launch.check_folder("trainer.output_dir", Path("conf/runs"))
    for name in ("conf", "conf/env", str(CONF / "model")):
        with pytest.raises(ValueError, match=rf"^trainer.output_dir={name} can't be a run's folder: options are loo"):
            launch.check_folder("trainer.output_dir", Path(name))
    with pytest.raises(ValueError, match=r"^trainer\.output_dir=taken/x can't be a run's folder: .*taken is no folder"):
        launch.check_folder("trainer.output_dir", Path("taken/x"))
    with pytest.raises(ValueError, match="too long"):
        launch.check_folder("trainer.output_dir", workdir / ("x" * 300))
    assert sorted(path.name for path in workdir.iterdir()) == ["conf", "taken"]
