"""What a user installs: the wheel, its contents, the declared and the tested versions, the commands of the Makefile."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

import rl8
from rl8.config.catalog import CONF

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of what goes into it, so that nothing is left in the clone."""
    source = tmp_path_factory.mktemp("source")
    for name in ("rl8", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into a folder of its own; what it needs comes from this environment."""
    target = tmp_path_factory.mktemp("installed")
    done = run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel))
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_holds_package_config_types_and_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {f"rl8/conf/{path.relative_to(CONF)}" for path in CONF.glob("**/*.yaml")}
    package = {f"rl8/{path.relative_to(ROOT / 'rl8')}" for path in (ROOT / "rl8").glob("**/*.py")}
    assert conf | package | {"rl8/py.typed", f"rl8-{rl8.__version__}.dist-info/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"rl8", "hydra_plugins", f"rl8-{rl8.__version__}.dist-info"}


def test_an_installed_wheel_trains_from_an_empty_folder(installed, workdir):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    small = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "goal.env_steps=16"]
    quiet = ["trainer.track=false", "trainer.render=false", "trainer.eval_num_envs=4", "hydra.run.dir=out"]
    done = run(str(installed / "bin" / "rl8"), *small, *quiet, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (workdir / "out" / "policy.pt").is_file()
    where = run(sys.executable, "-m", "rl8", "--info", "searchpath", env=environment)
    assert f"file://{installed}/rl8/conf" in where.stdout


def test_metadata():
    found = metadata.metadata("rl8")
    assert found["Version"] == rl8.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.10"
    assert {entry.name: entry.value for entry in metadata.entry_points(group="console_scripts")}[
        "rl8"
    ] == "rl8.cli:main"


def constraints():
    """Return the pinned version of each package, for this version of Python."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = [Requirement(line) for line in lines]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    return {pin.name: pin.specifier for pin in pins if pin.marker is None or pin.marker.evaluate()}


def requirements():
    """Return what is needed on this machine, with every extra."""
    found = [Requirement(line) for line in metadata.requires("rl8") or []]
    extras = ["", *metadata.metadata("rl8").get_all("Provides-Extra", [])]
    return [need for need in found if not need.marker or any(need.marker.evaluate({"extra": name}) for name in extras)]


# Extras that are too heavy to install for the tests; they are tried where they are installed.
HEAVY = {"envpool", "hydra-ray-launcher", "mjlab", "playground", "ray"}


@pytest.mark.parametrize("name", sorted({requirement.name for requirement in requirements()} - HEAVY))
def test_every_dependency_is_pinned_within_its_range_and_tested_as_pinned(name):
    pins = constraints()
    version = str(pins[name.lower()]).removeprefix("==")
    assert all(version in requirement.specifier for requirement in requirements() if requirement.name == name)
    assert metadata.version(name).split("+")[0] == version


def test_what_the_package_imports_is_declared():
    files = [*(ROOT / "rl8").glob("**/*.py"), *(ROOT / "hydra_plugins").glob("**/*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    declared = {name.lower() for name in re.findall(r'"([\w.-]+)(?:\[\w+\])?[<>=~]', PYPROJECT)} | {"rl8"}
    known = {name: {one.lower() for one in owners} for name, owners in metadata.packages_distributions().items()}
    found = {name: known[name] for name in {name.split(".")[0] for name in names} if name in known}
    assert {"torch", "yaml", "filelock"} <= set(found)
    # type checkers alone import the last
    assert {name for name, owners in found.items() if not owners & declared} == {"typing_extensions"}


def test_torch_is_pinned_exactly():
    assert str(constraints()["torch"]) == "==2.13.0"
    assert default_environment()["python_version"] >= "3.10"


def test_no_file_names_a_package_index():
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run", "README.md"):
        assert not re.search(
            r"--(extra-)?index-url|--find-links|://[^ ]*pypi|pythonhosted", (ROOT / name).read_text()
        ), name


def test_the_version_has_a_changelog():
    assert re.search(rf"^## {re.escape(rl8.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_make_help_lists_every_command():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    done = run("make", "-C", str(ROOT), "--no-print-directory", "help")
    assert done.stderr == ""
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert listed == phony[1].split()
    assert {"setup", "train", "test", "check", "docs", "ui", "clean"} <= set(listed)


def test_make_installs_before_anything_else():
    tools = dict.fromkeys(("test", "check", "docs", "wheel"), "'.[dev,docs]'")
    for target, wanted in {"train": ".", "ui": ".", **tools}.items():
        done = run("make", "-C", str(ROOT), "--no-print-directory", "--dry-run", "VENV=none", "PYTHON=mypython", target)
        lines = done.stdout.splitlines()
        assert any("mypython -m venv none" in line for line in lines), target
        installed = [line.partition(" --constraint constraints.txt ")[2] for line in lines if "pip install" in line]
        assert installed == [f"--editable {wanted}"], target


def test_ci_runs_everything():
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    for target in ("check", "docs", "test"):
        assert re.search(rf"^make .*\b{target}\b", script, re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_errors_expected_in_tests_are_matched():
    for path in (ROOT / "tests").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.raises", "pytest.warns"):
                assert "match" in [keyword.arg for keyword in node.keywords], f"{path.name}, line {node.lineno}"
