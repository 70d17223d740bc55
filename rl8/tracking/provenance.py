"""What a run was made from: its config as flat names, package versions, git state, hardware and command."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from rl8.kinds import as_text, is_list
from rl8.tracking.secrets import MASK, is_secret, redacted

# MLflow stores a parameter's value in at most 6000 characters, a tag's in 5000 on the oldest supported servers.
PARAM_LIMIT: Final = 6000
TAG_LIMIT: Final = 5000
NAME_LIMIT: Final = 250
_PACKAGES: Final = ("rl8", "torch", "tensordict", "hydra-core", "omegaconf", "mlflow", "mlflow-skinny")


_logger = logging.getLogger(__name__)


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a nested config as dotted names and text, e.g. `{"algo.gamma": "0.99"}`.

    Values read as they would be typed on the command line (`null`, `true`, `[256, 256]`). Lists that hold mappings
    are numbered (`stop.conditions.0.key`). Values over the store's limit are cut, and secrets masked.
    """
    return {clean_name(name): cut(value, PARAM_LIMIT) for name, value in _leaves(config, "")}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif is_list(value) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}.{index}" if name else str(index))
    elif name:
        yield name, MASK if is_secret(name, value) else as_text(value)


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a nested config as YAML, in its own order; values that YAML has no form for as text, secrets masked."""
    import yaml

    return str(yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): MASK if is_secret(str(key), item) else _plain(item) for key, item in value.items()}
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
    """Return `text` as a store takes it: without secrets, as UTF-8, in at most `limit` characters.

    A cut is marked by an ellipsis; what is no UTF-8 (a file name of another encoding) is shown escaped.
    """
    text = redacted(text).encode("utf-8", "backslashreplace").decode("utf-8")
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
            encoding="utf-8",
            errors="backslashreplace",  # a branch may have any name
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
    return redacted(shlex.join([Path(program).name, *arguments]))


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
        folder: The folder whose git state is recorded; by default the one that rl8 was started in.
    """
    tags: dict[str, str] = {"mlflow.source.type": "LOCAL"}
    for part in (_process, lambda: _repository(folder or origin()), lambda: _device(device)):
        tags |= _attempt(part)
    return {name: cut(value, TAG_LIMIT) for name, value in tags.items()}


def _attempt(part: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return some tags; none where they can't be found out, which is no reason to stop a run."""
    try:
        return part()
    except Exception as error:
        _logger.debug("Some of what the run was made from is not known: %r", error)
        return {}


def _process() -> dict[str, str]:
    command = command_line()
    return {
        "command": command,
        "host": platform.node(),
        "mlflow.user": user(),
        "mlflow.source.name": command,
        **{f"version.{package}": version for package, version in versions().items()},
    }


def _repository(folder: Path) -> dict[str, str]:
    git = git_state(folder)
    tags = {f"git.{key}": value for key, value in git.items()}
    return {**tags, "mlflow.source.git.commit": git["commit"]} if git else {}


def _device(device: str | None) -> dict[str, str]:
    return {} if device is None else {"device": device, "hardware": hardware(device)}


def origin() -> Path:
    """Return the folder that rl8 was started in, also where Hydra has changed the working directory for a job."""
    module = sys.modules.get("hydra.core.hydra_config")
    if module is not None and module.HydraConfig.initialized():
        started = module.HydraConfig.get().runtime.cwd
        if Path(started) != Path.cwd():
            return Path(started)
    return Path()
