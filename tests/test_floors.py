"""A file imports only from its own floor and those below, and never in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rl8

PACKAGE = Path(rl8.__file__).parent

FLOORS = [
    {"atomic", "calls", "checks", "data", "devices", "guest", "kinds", "names", "parallel", "rng", "settings", "specs"},
    {"nn"},
    {"callbacks", "conditions", "distributions", "env"},
    {"models"},
    {"policy"},
    {"rollout"},
    {"execution"},
    {"ppo"},
    {"checkpoint", "reported", "runs", "seeds", "stored", "tracking", "view"},
    {"files", "parts", "trainer", "training"},
    {"__main__", "cli", "config", "fileconfig", "jobs", "launch", "resume", "sweeps", "use"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Loaded before a config is checked, so that help and mistakes are answered at once.
TORCH_FREE = [
    "callbacks",
    "checks",
    "cli",
    "conditions",
    "config.catalog",
    "config.compose",
    "config.overrides",
    "config.schema",
    "config.targets",
    "config.values",
    "data",
    "fileconfig",
    "guest",
    "jobs",
    "kinds",
    "launch",
    "names",
    "parallel.launched",
    "parallel.launcher",
    "ppo.effects",
    "ppo.hyperparameters",
    "ppo.schedules",
    "resume",
    "runs",
    "seeds",
    "settings",
    "sweeps.folder",
    "sweeps.job",
    "sweeps.sweep",
    "tracking.moved",
    "tracking.provenance",
    "tracking.run",
    "tracking.secrets",
    "tracking.store",
    "tracking.sweeps",
    "tracking.thinning",
    "use",
    "use.evaluate",
    "use.export",
    "use.play",
    "use.task",
    "view.plots",
    "view.progress",
]


def modules():
    """Return every module of the package by its dotted name, `rl8.` left out, with its source file."""
    files = [path for path in PACKAGE.glob("**/*.py") if path.parent != PACKAGE or path.stem != "__init__"]
    named = ((path.relative_to(PACKAGE).with_suffix(""), path) for path in files if "conf" not in path.parts)
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in named}


def imported(file):
    """Return the modules of the package that a file imports, at any depth of its code."""
    names, known = set(), modules()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in dotted:
            parts = name.split(".")[1:] if name.startswith("rl8.") else []
            while parts and ".".join(parts) not in known:  # a name in the module
                parts = parts[:-1]
            names |= {".".join(parts)} if parts else set()
    return names


def room(module):
    return module.split(".")[0]


def test_every_room_has_a_floor():
    assert {room(module) for module in modules()} == set(FLOOR)


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_imports_come_from_no_higher_floor(name):
    for module, file in modules().items():
        if room(module) == name:
            higher = {other for other in imported(file) if FLOOR[room(other)] > FLOOR[name]}
            assert not higher, f"{module} is on floor {FLOOR[name]} and imports from above: {sorted(higher)}"


def circle(uses):
    """Return what remains of a graph of imports once everything that no circle holds is taken away."""
    while free := {name for name, others in uses.items() if not others & set(uses)}:
        uses = {name: others for name, others in uses.items() if name not in free}
    return sorted(uses)


def test_no_room_imports_in_a_circle():
    uses = {name: set() for name in FLOOR}
    for module, file in modules().items():
        uses[room(module)] |= {room(other) for other in imported(file)} - {room(module)}
    assert not circle(uses)


def test_no_module_imports_in_a_circle():
    assert not circle({module: imported(file) - {module} for module, file in modules().items()})


def test_every_room_says_what_is_in_it():
    for module, file in modules().items():
        if file.stem == "__init__":
            assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), module


def test_what_checks_a_config_loads_neither_torch_nor_mlflow():
    modules = ", ".join(["rl8", *(f"rl8.{name}" for name in TORCH_FREE)])
    heavy = "torch tensordict mlflow matplotlib numpy"
    code = f"import sys, {modules}; sys.exit(' '.join(n for n in '{heavy}'.split() if n in sys.modules) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported too early: {done.stderr}"
