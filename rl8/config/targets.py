"""Names of classes in a config (`my_env.MyEnv`), looked up without importing anything.

Importing an environment's module loads torch, which takes seconds; a mistyped name is found in milliseconds by
searching the module's file and reading the names that it defines.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

from rl8.checks import closest
from rl8.config.catalog import option_with

_DEEPEST: Final = 8  # of classes whose constructor is that of another


def check_target(key: str, target: object) -> str:
    """Return `target` if it can be the dotted name of a class; whether it is one shows only once it is imported.

    Args:
        key: Where the name stands in the config, e.g. `"env._target_"`.
        target: The name, e.g. `"rl8.env.CartPole"`.

    Raises:
        ValueError: If the name is not dotted, its module is missing, belongs to Python's standard library (nothing
            there is a part of a training run) or does not define the name.
    """
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise ValueError(
            f"{key}={target!r} is no class. Accepted: module.Class, where the module is rl8's, installed, or a file "
            f"in {Path.cwd()}. Try {key}=my_module.MyClass."
        )
    parts = target.split(".")
    if parts[0] in sys.stdlib_module_names:
        raise ValueError(
            f"{key}={target!r} is in Python's standard library, which is not allowed here. Accepted: classes of rl8, "
            f"of torch, of installed packages and of files in {Path.cwd()}. Try {key}=my_module.MyClass."
        )
    spec, depth = _find_module(parts)
    names = _defined_names(spec)
    if depth == len(parts):
        classes = _classes(names or {})
        only = classes[0] if len(classes) == 1 else "<Class>"
        raise ValueError(
            f"{key}={target!r} is a module. Accepted: a class in it{': ' * bool(classes)}{', '.join(classes)}. "
            f"Try {key}={target}.{only}."
        )
    if depth == 0 or (names is not None and parts[depth] not in names):
        is_class = depth == len(parts) - 1
        raise ValueError(_no_name(key, parts, depth, names or {}) if is_class else _no_module(key, parts, depth, spec))
    return target


# What the program gives itself: how many arguments of a constructor by position, and which by name.
GIVEN: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "env": (2, ("device",)),
    "model": (2, ("feature_shapes",)),
    "distribution": (2, ()),
    "algo.optimizer": (1, ()),
}
GIVEN.update({f"{name}_config": GIVEN[name] for name in ("model", "distribution")})  # as one file has them
GIVEN["optimizer_config"] = GIVEN["algo.optimizer"]


def options_of(key: str, target: object) -> list[str] | None:
    """Return the options that a class takes, as its source says; None if only running it can tell.

    Args:
        key: Where the config has the class, e.g. `"env"`.
        target: Its dotted name.
    """
    count, names = GIVEN.get(key, (0, ()))
    found = _arguments(str(target))
    return None if found is None else [name for name in found[count:] if name not in names]


def _arguments(target: str, depth: int = 0) -> list[str] | None:
    """Return the names of a constructor's arguments, first those that may be given by position; see `options_of`."""
    parts = target.split(".")
    spec, found = _find_module(parts)
    tree = _tree(spec)
    if tree is None or spec is None or found != len(parts) - 1 or depth > _DEEPEST:
        return None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            origin = next((alias.name for alias in node.names if (alias.asname or alias.name) == parts[-1]), None)
            if origin is not None and node.module and not node.level:
                return _arguments(f"{node.module}.{origin}", depth + 1)
        if not isinstance(node, ast.ClassDef) or node.name != parts[-1] or node.decorator_list:
            continue
        constructor = next(
            (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__new__")),
            None,
        )
        if constructor is None:  # inherited, perhaps
            base = node.bases[0].id if len(node.bases) == 1 and isinstance(node.bases[0], ast.Name) else None
            return _arguments(f"{spec.name}.{base}", depth + 1) if base is not None and not node.keywords else None
        given = constructor.args
        named = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        return None if given.kwarg is not None else named[1:]
    return None


def _find_module(parts: Sequence[str]) -> tuple[ModuleSpec | None, int]:
    """Return the deepest module along a dotted name, and how many parts of the name it takes."""
    importlib.invalidate_caches()  # the user's file may be newer than what this process last saw of its folder
    try:
        spec = importlib.util.find_spec(parts[0])
    except ValueError:  # a module of this name runs without a spec, as __main__ may
        spec = None
    depth = 0
    while spec is not None:
        depth += 1
        if depth == len(parts) or spec.submodule_search_locations is None:
            break
        deeper = PathFinder.find_spec(".".join(parts[: depth + 1]), spec.submodule_search_locations)
        if deeper is None:
            break
        spec = deeper
    return spec, depth


def _defined_names(spec: ModuleSpec | None) -> dict[str, bool] | None:
    """Return the top-level names of a module's source, true for its own classes; None if only running it can tell."""
    tree = _tree(spec)
    if tree is None:
        return None
    names: dict[str, bool] = {}
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names[node.name] = isinstance(node, ast.ClassDef)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0]: False for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = False
        else:
            pending += ast.iter_child_nodes(node)
    if not names and any(isinstance(node, ast.Raise) for node in tree.body):
        return None  # as above: it ends before it defines anything
    # a module with __getattr__ or a star import has names that its text does not show
    return None if {"*", "__getattr__"} & names.keys() else names


def _tree(spec: ModuleSpec | None) -> ast.Module | None:
    """Return a module's source, parsed; None where there is none."""
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None  # the import will say what is wrong, with the line


def _no_name(key: str, parts: Sequence[str], depth: int, names: Mapping[str, bool]) -> str:
    module, name = ".".join(parts[:depth]), parts[depth]
    public = sorted(name for name in names if not name.startswith("_"))
    near = closest(name, _classes(names)) or closest(name, public)
    group = key.removesuffix("._target_")
    # a file of the user's own names the class wrongly: another option would leave out what else it says
    option = option_with(group, f"{module}.{near}") if near and parts[0] == "rl8" else None
    advice = f" Try {f'{group}={option}' if option else f'{key}={module}.{near}'}." if near else ""
    accepted = ", ".join(_classes(names) or public) or "nothing"
    return f"{key}={'.'.join(parts)!r}: module {module!r} has no {name!r}. Accepted: {accepted}.{advice}"


def _classes(names: Mapping[str, bool]) -> list[str]:
    """Return the classes that a module defines, else, as of a package, the names that look like some; sorted."""
    own = sorted(name for name, defined in names.items() if defined and not name.startswith("_"))
    return own or sorted({name for name in names if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name)} - {*typing.__all__})


def _no_module(key: str, parts: Sequence[str], depth: int, spec: ModuleSpec | None) -> str:
    here = sorted(path.stem for path in Path.cwd().glob("*.py"))
    near = closest(parts[depth], here if depth == 0 else _submodules(spec))
    prefix = "".join(f"{part}." for part in parts[:depth])
    advice = f" Try {key}={prefix}{near}.{parts[-1]}." if near else ""
    return (
        f"{key}={'.'.join(parts)!r}: there is no module {prefix + parts[depth]!r}. Accepted: a module of rl8, an "
        f"installed package, or a file in {Path.cwd()} (there: {', '.join(f'{name}.py' for name in here) or 'none'})."
        f"{advice}"
    )


def _submodules(spec: ModuleSpec | None) -> list[str]:
    folders = (spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in Path(folder).glob("[!._]*")]
    return sorted({path.stem for path in files if path.suffix == ".py" or (path / "__init__.py").exists()})
