"""What a run was made from: its config as flat names, package versions, git state, hardware and command."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from rl8.kinds import as_text, is_list

# MLflow stores a parameter's value in at most 6000 characters, a tag's in 5000 on the oldest supported servers.
PARAM_LIMIT: Final = 6000
TAG_LIMIT: Final = 5000
NAME_LIMIT: Final = 250
_PACKAGES: Final = ("rl8", "torch", "tensordict", "hydra-core", "omegaconf", "mlflow", "mlflow-skinny")


_SECRET: Final = re.compile(r"(^|[._-])(password|passwd|token|secret|credentials?|api[_-]?key|access[_-]?key)s?$", re.I)
_ADDRESS: Final = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^\s/@:'\"]*)(?P<password>:[^\s/@'\"]*)?@")
_SETTING: Final = re.compile(
    r"(?P<name>[\w.+-]*(?:password|passwd|token|secret|api[_-]?key|access[_-]?key)s?)(?P<equals>\s*[=:]\s*)"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s,}\]]+)",
    re.I,
)
MASK: Final = "***"


def redact(text: str) -> str:
    """Return a text without passwords and tokens: of addresses (`user:***@host`) and of settings named like secrets.

    Whatever leaves the process goes through here: tags, parameters, files of MLflow, messages about addresses.
    """

    def address(match: re.Match[str]) -> str:
        user = match["user"] if match["password"] is not None else ""  # alone it may be a token
        return f"{match['scheme']}{user}{':' if user else ''}{MASK}@"

    def setting(match: re.Match[str]) -> str:
        return f"{match['name']}{match['equals']}{'null' if match['value'] == 'null' else MASK}"

    return _SETTING.sub(setting, _ADDRESS.sub(address, text))


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a nested config as dotted names and text, e.g. `{"algo.gamma": "0.99"}`.

    Values read as they would be typed on the command line (`null`, `true`, `[256, 256]`). Lists that hold mappings
    are numbered (`stop.conditions.0.key`). Values over the store's limit are cut, and secrets masked.
    """
    masked = {
        name: MASK if _SECRET.search(name) and value != "null" else redact(value) for name, value in _leaves(config, "")
    }
    return {clean_name(name): cut(value, PARAM_LIMIT) for name, value in masked.items()}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif is_list(value) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}" if name else str(index))
    elif name:
        yield name, as_text(value)


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a nested config as YAML, in its own order; values that YAML has no form for as text."""
    import yaml

    return str(yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if is_list(value):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else as_text(value)


def clean_name(name: str) -> str:
    """Return `name` as MLflow accepts it: letters, digits and `_-. /:`, no part that reads as a path, cut to 250."""
    parts = re.sub(r"[^\w\-. /:]", "_", name).split("/")
    # MLflow refuses names that os.path.normpath would change, such as "a//b", "/a" and "a/../b"
    safe = "/".join(re.sub(r"^\.*$|^\.\.", "_", part) for part in parts)
    return safe[:NAME_LIMIT].rstrip("/.")


def cut(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters; a cut is marked by an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def versions() -> dict[str, str]:
    """Return the version of Python and of each installed package that shapes a run, by package name."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if "mlflow" in found:  # the full package pins its skinny part, so one of the two says it all
        found.pop("mlflow-skinny", None)
    return found


def git_state(folder: Path) -> dict[str, str]:
    """Return `commit`, `branch` and `dirty` of the repository that `folder` lies in; empty where there is none.

    Untracked files do not make a repository dirty: `outputs/` and the like appear in every run.
    """
    command = ["git", "-C", str(folder), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",  # a branch's name may be of another encoding
            timeout=5,
            check=True,
            # status would otherwise rewrite the index and collide with a git command of the user
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.splitlines()
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    head = dict(line[2:].split(" ", 1) for line in answer if line.startswith("# "))
    commit = head.get("branch.oid", "(initial)")
    if commit == "(initial)":
        return {}
    dirty = any(not line.startswith("# ") for line in answer)
    return {"commit": commit, "branch": head.get("branch.head", ""), "dirty": as_text(dirty)}


def hardware(device: str) -> str:
    """Return what computes, e.g. `NVIDIA H200` or `AMD EPYC 9654, 2 cores`."""
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu_model()}, {cores} cores"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def command_line() -> str:
    """Return the command that started this process, as one could paste it into a shell."""
    program, *arguments = sys.orig_argv or sys.argv
    return redact(shlex.join([Path(program).name, *arguments]))


def user() -> str:
    """Return the name of the user, or `unknown` in a container that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def provenance(device: str | None = None, folder: Path | None = None) -> dict[str, str]:
    """Return the tags that say what a run was made from.

    Args:
        device: Where the run computes, e.g. `"cuda:0"`; None leaves device and hardware out.
        folder: The folder whose git state is recorded; the working directory by default.
    """
    command = command_line()
    tags = {
        "command": command,
        "host": platform.node(),
        "mlflow.user": user(),
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL",
        **{f"version.{package}": version for package, version in versions().items()},
    }
    git = git_state(folder or Path.cwd())
    tags |= {f"git.{key}": value for key, value in git.items()}
    if git:
        tags["mlflow.source.git.commit"] = git["commit"]
    if device is not None:
        tags |= {"device": device, "hardware": hardware(device)}
    return {name: cut(redact(value), TAG_LIMIT) for name, value in tags.items()}


def origin() -> Path:
    """Return the folder that rl8 was started in, also where Hydra has changed the working directory for a job."""
    module = sys.modules.get("hydra.core.hydra_config")
    if module is not None and module.HydraConfig.initialized():
        started = module.HydraConfig.get().runtime.cwd
        if Path(started) != Path.cwd():
            return Path(started)
    return Path()
