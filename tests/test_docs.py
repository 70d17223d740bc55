"""The code of the pages in docs/ does what it says."""

import re
from pathlib import Path

import gymnasium
import pytest
from envs import MaskedBandit
from omegaconf import OmegaConf

from rl8 import Algorithm, RecurrentAlgorithm, load_policy
from rl8.checkpoint import save_policy
from rl8.cli import MODULES
from rl8.config.compose import checked, composer
from rl8.env import CueRecall, Pendulum

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "policies.md").read_text()


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
    commands = re.findall(r"`rl8 (\w+) RUN", PAGE)
    assert commands == ["eval", "play", "export"]
    assert set(commands) <= set(MODULES)


def test_what_is_said_of_options_runs(workdir):
    page = (ROOT / "docs" / "options.md").read_text()
    variables = {}
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        exec(block, variables)
    assert variables["clip"] == pytest.approx(0.2 * (1 - 0.064))
    assert 1e-5 <= variables["rate"] <= 1e-2
    assert variables["action"].shape == (1,)
    assert {"rnd/reward", "curriculum/level"} <= variables["metrics"].keys()


def test_its_keys_are_those_of_the_files():
    page = (ROOT / "docs" / "options.md").read_text()
    with composer():
        cfg, _ = checked([])
    keys = set(re.findall(r"`((?:algo|model|network|trainer)\.[a-z_.]+)`", page))
    assert len(keys) > 15
    for key in keys:
        node, _, last = key.rpartition(".")
        assert last in OmegaConf.select(cfg, node), key
