"""The catalog of options: where their files are, what each group has, and what to say of one that it has not.

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from rl8.checks import check_path, closest

GROUPS = ("env", "model", "distribution", "algo", "trainer", "device", "stop", "callbacks", "experiment")
# The extras of rl8 that bring Hydra's launchers.
EXTRAS: Final = {"joblib": "joblib", "ray": "ray", "submitit_local": "submitit", "submitit_slurm": "submitit"}
_HERE = Path(__file__).resolve().parents[1]
# a wheel carries the files inside the package, a clone beside it
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
# `--config-dir`, which Hydra's plugin class cannot be handed when it builds the plugin
_extra_folders: list[Path] = []


def folders() -> list[Path]:
    """Return where options are looked for: rl8's own folder, the user's `conf/`, those of `--config-dir`."""
    found = [CONF]
    for folder in (Path.cwd() / "conf", *_extra_folders):
        if folder.is_dir() and folder.resolve() not in [known.resolve() for known in found]:
            found.append(folder)
    return found


class UserFolder(SearchPathPlugin):
    """Lets Hydra find the options in the user's own folders, after rl8's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the user's folders that exist; Hydra warns about any that do not. Other programs have their own."""
        if not any(Path(str(part.path).removeprefix("file://")) == CONF for part in search_path.get_path()):
            return
        for folder in folders()[1:]:
            search_path.append("user", f"file://{folder}")


def prepare(extra: Sequence[str] = ()) -> None:
    """Make the user's own files findable: YAML under `conf/` and `extra`, modules in the working directory.

    Raises:
        ValueError: If a folder in `extra` does not exist.
    """
    for folder in extra:
        if not check_path("--config-dir", folder).is_dir():
            raise ValueError(f"--config-dir={folder} is no folder. Accepted: a folder with files like env/my_env.yaml.")
    _extra_folders[:] = [Path(folder).resolve() for folder in extra]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    Plugins.instance().register(UserFolder)


def options(group: str) -> dict[str, str]:
    """Return a group's options and what each is for: the comment that its file starts with."""
    found: dict[str, str] = {}
    for folder in folders():
        for path in sorted((folder / group).glob("*.yaml")):
            with path.open(encoding="utf-8", errors="replace") as file:
                comments = itertools.takewhile(lambda line: line.startswith("#"), file)
                text = [line[1:].strip() for line in comments if "@package" not in line]
            found.setdefault(path.stem, text[0] if text else "")
    return found


def option_with(group: str, target: str) -> str | None:
    """Return the option of a group whose file names a class: the one called like it, else the only one; or None."""
    found = []
    parts = target.split(".")
    # a package's own name for it, which files have, and where it is defined
    known = (target, ".".join([*parts[:2], parts[-1]]) if parts[0] == "rl8" else target)
    for folder in folders():
        for path in sorted((folder / group).glob("*.yaml")):
            with contextlib.suppress(Exception):  # a file of the user's that is not chosen may be anything
                content: Any = OmegaConf.to_container(OmegaConf.load(path))
                if (content.get(group) or content).get("_target_") in known:
                    found.append(path.stem)
    called = {part.replace("_", "").lower() for part in parts[-2:]}
    named = [option for option in found if option.replace("_", "").lower() in called]
    return named[0] if named else found[0] if len(found) == 1 else None


@functools.lru_cache(maxsize=1)
def root_file() -> dict[str, Any]:
    """Return the contents of rl8's own config.yaml, nothing resolved."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def defaults() -> dict[str, str]:
    """Return the option that each group has if none is chosen."""
    chosen: dict[str, str] = {}
    for entry in root_file()["defaults"]:
        if isinstance(entry, dict):
            chosen |= {name.split()[-1]: option for name, option in entry.items()}
    return {group: chosen[group] for group in GROUPS if group in chosen}


def unknown_option(group: str, value: str, known: Sequence[str]) -> str:
    """Return the message for an option that a group does not have."""
    if group == "device" and value.startswith("cuda:"):
        return f"device={value} is unknown. Accepted: {', '.join(known)}. Try device=cuda device.device={value}."
    near = {"gpu": "cuda"}.get(value) if group == "device" else closest(value, known)
    guess = f" Did you mean {group}={near}?" if near else ""
    own = "" if near or group not in GROUPS or not value.isidentifier() else f", or your own conf/{group}/{value}.yaml"
    return f"{group}={value} is unknown.{guess} Accepted: {', '.join(known)}{own}."


def check_ambiguity(choices: Mapping[str, Any]) -> None:
    """Refuse an option whose name a file of rl8's own and a different one of the user's share: rl8's would win."""
    for group in GROUPS:
        places = [folder / group / f"{choices.get(group)}.yaml" for folder in folders()]
        files = [path for path in places if path.is_file()]
        if len({path.read_bytes() for path in files}) > 1:
            name = files[-1].stem
            raise ValueError(
                f"{group}={name} is ambiguous: {files[-1]} has the name of an option of rl8's own. Accepted: names "
                f"that rl8 does not have. Rename it, e.g. my_{name}.yaml, and type {group}=my_{name}."
            )
