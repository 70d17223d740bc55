"""A file imports only from its own floor and those below, and never in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rl8

PACKAGE = Path(rl8.__file__).parent

FLOORS = [
    {
        "checks",
        "data",
        "graphs",
        "hyperparameters",
        "settings",
        "similarity",
        "specs",
        "targets",
        "thinning",
        "threads",
    },
    {"advantages", "losses", "nn", "normalization", "schedules"},
    {"conditions", "distributions", "env", "views"},
    {"models"},
    {"policy"},
    {"execution", "forward", "optim", "pieces", "rollout"},
    {"algorithm", "evaluation"},
    {"checkpoint", "movies", "outbox", "plots", "progress", "provenance", "readings", "store", "sweeps", "tracking"},
    {"trainer"},
    {"__main__", "cli", "compose", "fileconfig", "jobs", "launch", "schema"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Loaded before a config is checked, so that help and mistakes are answered at once.
TORCH_FREE = [
    "checks",
    "cli",
    "compose",
    "conditions",
    "data",
    "fileconfig",
    "hyperparameters",
    "jobs",
    "launch",
    "plots",
    "progress",
    "provenance",
    "schedules",
    "schema",
    "settings",
    "store",
    "sweeps",
    "targets",
    "thinning",
    "tracking",
]


def parts():
    """Return the modules and packages right under rl8, by name, with their source files."""
    files = {path.stem: [path] for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    folders = {path.parent.name: sorted(path.parent.glob("*.py")) for path in PACKAGE.glob("*/__init__.py")}
    return files | folders


def imported(file):
    """Return the names right under rl8 that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "rl8":
            dotted = [f"rl8.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            dotted = [node.module]
        else:
            continue
        names |= {name.split(".")[1] for name in dotted if name.startswith("rl8.")}
    return names - {"__version__"}


def test_every_file_has_a_floor():
    assert set(parts()) == set(FLOOR)


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_imports_come_from_no_higher_floor(name):
    for file in parts()[name]:
        higher = {other for other in imported(file) if FLOOR[other] > FLOOR[name]}
        assert not higher, f"{file.name} is on floor {FLOOR[name]} and imports from above: {sorted(higher)}"


def test_no_imports_in_a_circle():
    uses = {name: set().union(*map(imported, files)) - {name} for name, files in parts().items()}
    while uses:
        free = {name for name, others in uses.items() if not others & set(uses)}
        assert free, f"these import one another: {sorted(uses)}"
        uses = {name: others for name, others in uses.items() if name not in free}


def test_what_checks_a_config_loads_neither_torch_nor_mlflow():
    modules = ", ".join(["rl8", *(f"rl8.{name}" for name in TORCH_FREE)])
    heavy = "torch tensordict mlflow matplotlib numpy"
    code = f"import sys, {modules}; sys.exit(' '.join(n for n in '{heavy}'.split() if n in sys.modules) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported too early: {done.stderr}"
