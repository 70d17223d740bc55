"""The code of the pages in docs/ does what it says."""

import re
import shlex
from pathlib import Path

import gymnasium
import pytest
from commands import plans_of
from envs import MaskedBandit
from omegaconf import OmegaConf

from rl8 import Algorithm, RecurrentAlgorithm, load_policy
from rl8.checkpoint import save_policy
from rl8.cli import MODULES, main
from rl8.config.compose import checked, composer
from rl8.data import EPISODE_METRICS, EVAL_EPISODES
from rl8.env import CueRecall, Pendulum
from rl8.launch import build
from rl8.reported import EVAL_METRICS, METRICS, NONFINITE

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGE = PAGES["policies"]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


# Pages that begin in an empty folder: in order, their files are saved there, their code and their commands run.
FROM_NOTHING = (
    "coming",
    "concepts",
    "environments",
    "extending",
    "performance",
    "quickstart",
    "recurrent",
    "reproducibility",
)
PART = re.compile(
    r"(?:`(?P<file>[\w/]+\.(?:py|yaml))`:\n\n)?^```(?P<language>python|yaml|console)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# Pages whose commands train for an iteration at this size; those of the others are composed and checked.
TRAINED = ("extending", "recurrent")
SMALL = [
    "algo.num_envs=4",
    "algo.horizon=144",
    "algo.sgd_minibatch_size=288",
    "algo.num_sgd_iters=1",
    "trainer.track=false",
    "trainer.view=none",
]
COMMANDS = [
    line
    for page in sorted(PAGES.keys() - {"troubleshooting", *FROM_NOTHING})
    for text in blocks(page, "console")
    for line in text.splitlines()
]


@pytest.fixture
def policies(workdir):
    """Save the policies that the page loads, hardly trained."""
    for name, algorithm_cls, env in (
        ("pendulum", Algorithm, Pendulum),
        ("cue", RecurrentAlgorithm, CueRecall),
        ("bandit", Algorithm, MaskedBandit),
    ):
        algorithm = algorithm_cls(env, num_envs=4, horizon=4)
        algorithm.collect()
        algorithm.step()
        (workdir / "outputs" / name).mkdir(parents=True)
        save_policy(workdir / "outputs" / name / "policy.pt", algorithm)


@pytest.mark.usefixtures("policies")
def test_what_is_said_of_policies_in_use_runs():
    blocks = re.findall(r"^## \d\. .*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    variables = {}
    for block in blocks:
        exec(block, variables)
    assert variables["total"] < 0.0
    assert variables["rewards"].shape == (4,)
    assert variables["actions"].shape == (1024, 1)
    assert load_policy("outputs/cue").predict(variables["obs"]).shape == (4,)
    for env in (variables["env"], variables["envs"]):
        assert isinstance(env.unwrapped, (gymnasium.Env, gymnasium.vector.VectorEnv))
        env.close()


def test_its_commands_are_there():
    commands = re.findall(r"^\$ rl8 (\w+) (?:latest|outputs/)", "".join(blocks("runs", "console")), re.MULTILINE)
    assert set(commands) == {"resume", "eval", "play"}
    assert set(commands) <= set(MODULES)


def test_what_is_said_of_options_runs(workdir):
    variables = {}
    for block in blocks("options", "python"):
        exec(block, variables)
    assert variables["clip"] == pytest.approx(0.2 * (1 - 0.064))
    assert 1e-5 <= variables["rate"] <= 1e-2
    assert variables["action"].shape == (1,)
    assert {"rnd/reward", "curriculum/level"} <= variables["metrics"].keys()


def test_its_keys_are_those_of_the_files():
    with composer():
        cfg, _ = checked([])
    keys = set(re.findall(r"`((?:algo|model|network|trainer)\.[a-z_.]+)`", PAGES["options"]))
    assert len(keys) > 15
    for key in keys:
        node, _, last = key.rpartition(".")
        assert last in OmegaConf.select(cfg, node), key


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_accepted(line, program):
    assert line.startswith("$ rl8 ")
    plans_of(shlex.split(line)[2:])


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_a_page_does_what_it_says(name, program, monkeypatch):
    # MLflow and pictures take seconds, and have tests of their own
    for method, result in {"report.Report._start_tracker": None, "curve.Curve.draw": None}.items():
        monkeypatch.setattr(f"rl8.training.{method}", lambda *args, result=result: result)
    monkeypatch.setattr("rl8.training.evaluation.Evaluation.film", lambda *args: [])
    monkeypatch.syspath_prepend(str(program))
    variables = {}
    parts = list(PART.finditer(PAGES[name]))
    assert parts
    for part in parts:
        if part["file"]:
            path = program / part["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(part["text"])
        if part["language"] == "python":
            exec(part["text"], variables)
        elif part["language"] == "console":
            for line in part["text"].splitlines():
                assert line.startswith("$ rl8 ")
                plans = plans_of([*shlex.split(line)[2:], *(SMALL if name in TRAINED else [])])
                if name in TRAINED:
                    assert build(plans[0], program).step()["env/steps"] == 576


def test_a_name_of_theirs_is_answered(program, capfd):
    command, shown = re.search(r"^```text\n\$ rl8 (.*)\n(.*) \.\.\.\n```$", PAGES["coming"], re.MULTILINE).groups()
    assert main([command]) == 2
    assert capfd.readouterr().err.startswith(shown)


def test_every_page_is_run_by_a_test():
    others = {"deployment", "options", "parallel", "policies", "runs", "sweeps", "tracking", "troubleshooting"}
    assert PAGES.keys() == others | set(FROM_NOTHING)


MESSAGES = [text.splitlines() for text in blocks("troubleshooting", "console")]


@pytest.mark.parametrize(("command", "shown"), MESSAGES, ids=[lines[0] for lines in MESSAGES])
def test_messages_are_the_real_ones(command, shown, program, capfd):
    assert main(shlex.split(command)[2:]) == 2
    said = capfd.readouterr().err.strip()
    if shown.endswith("..."):
        assert said.startswith(shown.removesuffix("...").rstrip())
    else:
        assert said == shown
    assert not (program / "outputs").exists()


@pytest.mark.usefixtures("policies")
def test_what_is_said_of_deployment_runs(program):
    for words in (["onnx", "-o", "policy.onnx"], ["torch"]):
        assert main(["export", "outputs/pendulum", "--format", *words]) == 0
    onnx, torch = blocks("deployment", "python")
    variables = {}
    exec(onnx, variables)
    exec(torch, variables)
    assert variables["actions"].shape == (5, 1)


def test_links_and_pictures_are_there():
    for name, text in PAGES.items():
        for target in re.findall(r"\]\((?!http)([^)#\s]+)", text):
            made = re.match(r"(api|configuration)/", target)  # when the site is built, which checks them
            assert made or (ROOT / "docs" / target).is_file(), f"{name}.md: {target}"


def test_what_is_said_of_several_processes_runs_in_one(workdir, capfd):
    ray, script = blocks("parallel", "python")
    exec(script, {})
    assert re.search(r"return -?[\d.]+ with 1 processes", capfd.readouterr().out)
    compile(ray, "docs/parallel.md", "exec")
    assert (workdir / "outputs" / "together" / "policy.pt").exists()


def test_commands_of_several_processes_are_accepted(workdir, capfd):
    lines = [line for text in blocks("parallel", "bash") for line in text.splitlines()]
    typed = [re.split(r"^rl8 |^torchrun .*-m rl8 ", line)[1] for line in lines]
    assert len(typed) == 12
    assert sum(line.startswith("resume latest") for line in typed) == 2
    for line in {re.sub(r"-m |hydra\S+ |(?<=seed=1)\S+", "", line) for line in typed}:
        if not line.startswith("resume"):
            assert main(["--cfg", "job", *line.split()]) == 0, capfd.readouterr().err


def test_every_metric_is_written_down():
    text = Path(__file__).parents[1].joinpath("docs/runs.md").read_text(encoding="utf-8")
    names = {*METRICS, *EVAL_METRICS, *EPISODE_METRICS, *(f"eval/{name}" for name in EVAL_EPISODES), NONFINITE}
    assert {name for name in names if f"`{name}`" not in text} == set()
