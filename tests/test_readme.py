"""The README's code and commands do what it says."""

import re
import shlex
from pathlib import Path

import pytest

from rl8 import fileconfig
from rl8.cli import _check_jobs, parser
from rl8.config import compose
from rl8.launch import build, parts

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()

SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.track=false"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(language, start):
    return next(text for text in blocks(language) if text.startswith(start))


def commands():
    lines = [line for text in blocks("console") for line in text.splitlines() if line.startswith("$ rl8 ")]
    return [shlex.split(line[2:], comments=True)[1:] for line in lines]


def plans(words):
    args = parser().parse(words)
    compose.prepare()
    with compose.composer():
        return _check_jobs(args.overrides, args.config_name, args.multirun)[1]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_its_commands_compose(program, words):
    assert len(plans(words)) == {True: 4 if "seed=1,2,3,4" in words else 9, False: 1}["-m" in words]


def test_its_loop_runs(program):
    text = block("python", "from rl8 import Algorithm").replace("num_envs=128", "num_envs=32")
    variables = {}
    exec(text, variables)
    assert variables["algo"].iterations == 10


def test_its_trainer_runs(program, monkeypatch):
    monkeypatch.setattr("rl8.training.report.Report._start_tracker", lambda *args: None)
    text = block("python", "from rl8 import Trainer").replace("EnvSteps(50_000)", "EnvSteps(1)")
    exec(text, {})
    assert next((program / "outputs").glob("*/*/policy.pt")).is_file()


def test_its_environment_and_model_train(program):
    (program / "my_env.py").write_text(block("python", "# my_env.py"))
    (program / "my_model.py").write_text(block("python", "# my_model.py"))
    for group in ("env", "model"):
        (program / "conf" / group).mkdir(parents=True)
    (program / "conf" / "env" / "my_env.yaml").write_text(block("yaml", "# @package _global_"))
    (program / "conf" / "model" / "tiny.yaml").write_text("_target_: my_model.Tiny\nwidth: 64\n")
    trainer = build(plans(["env=my_env", "env.push=0.2", *SMALL])[0], program)
    trainer.algorithm.env.validate()
    assert trainer.algorithm.env.push == 0.2
    assert trainer.step()["env/steps"] == 16
    assert build(plans(["model=tiny", *SMALL])[0], program).step()["env/steps"] == 16


def test_its_file_is_accepted(program):
    (program / "config.yaml").write_text(block("yaml", "env_cls"))
    plan = fileconfig.plan_of(fileconfig.read(program / "config.yaml"), max_steps=1)
    assert parts(plan).env_cls.__name__ == "ContinuousDummyEnv"


def test_its_message_is_the_real_one(program, capfd):
    from rl8.cli import main

    shown = re.search(r"^\$ rl8 (algo\.gama=0\.9)\n(rl8: .*?), horizon, \.\.\.$", README, re.MULTILINE)
    assert shown is not None
    assert main([shown[1]]) == 2
    assert capfd.readouterr().err.startswith(shown[2])


def test_its_list_of_files_is_complete():
    tree = block("text", "conf/")
    for path in (ROOT / "rl8").iterdir():
        if path.name not in ("__init__.py", "__main__.py", "__pycache__", "py.typed"):
            assert re.search(rf"\b{re.escape(path.name)}", tree), path.name
