"""The README's code and commands do what it says."""

import re
import shlex
from pathlib import Path

import pytest
from commands import plans_of

from rl8.launch import build

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


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_its_commands_are_accepted(program, words):
    plans_of(words)


def test_a_question_is_one_screen():
    for section in re.split(r"^## ", README, flags=re.MULTILINE):
        assert len(section.splitlines()) <= 42, section.splitlines()[0]


def test_its_loop_runs(program):
    text = block("python", "from rl8 import Algorithm").replace("num_envs=128", "num_envs=32")
    variables = {}
    exec(text, variables)
    assert variables["algo"].iterations == 10


def test_its_trainer_runs(program, monkeypatch):
    monkeypatch.setattr("rl8.training.report.Report._start_tracker", lambda *args: None)
    text = block("python", "from rl8 import Trainer, load_policy").replace("EnvSteps(50_000)", "EnvSteps(1)")
    variables = {}
    exec(text, variables)
    assert variables["action"] in (0, 1, 2)


def test_its_environment_trains(program):
    (program / "my_env.py").write_text(block("python", "# my_env.py"))
    (program / "conf" / "env").mkdir(parents=True)
    (program / "conf" / "env" / "my_env.yaml").write_text(block("yaml", "# @package _global_"))
    trainer = build(plans_of(["env=my_env", "env.push=0.2", *SMALL])[0], program)
    trainer.algorithm.env.validate()
    assert trainer.algorithm.env.push == 0.2
    assert trainer.step()["env/steps"] == 16


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
