"""The user's own YAML files: what is wrong with one is said before Hydra reads it."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any, Final

import yaml

from rl8.kinds import as_text

# Groups whose files set keys of other groups too, so that they start at the top of the config.
GLOBAL: Final = ("env", "experiment")
PACKAGE: Final = "# @package _global_"
# Keys that Hydra gives a meaning; they are no options of the class.
HYDRA_KEYS: Final = ("_target_", "_partial_", "_convert_", "_recursive_")

# What people write for `_target_`.
_TARGETS: Final = ("target", "_target", "target_", "class", "class_name", "_class_", "cls", "env_cls", "entry_point")


def check_file(path: Path, group: str) -> None:
    """Check the form of an option's file.

    Args:
        path: The file.
        group: The group that it is an option of.

    Raises:
        ValueError: If it can't be read, holds no mapping, lacks its first line or names its class by another key.
    """
    text = _text(path)
    for number, line in enumerate(text.splitlines(), start=1):
        key, colon, value = line.split("#")[0].partition(":")
        glued = colon and value.strip() and not value[0].isspace() and "//" not in value
        if glued and re.fullmatch(r"\s*[A-Za-z_]\w*", key):
            raise ValueError(
                f"{path}, line {number}: {line.strip()!r} has no space after the colon. Write `{key.strip()}: {value}`."
            )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return  # Hydra's own message has line and column
    if content is not None and not isinstance(content, dict):
        what = "a list" if isinstance(content, list) else "no keys"
        raise ValueError(f"{path} holds {what}. Accepted: lines like `key: value`. Start it with {_start(group)}.")
    content = content or {}
    nested = content.get(group)
    if isinstance(nested, dict) and "_target_" in nested and "@package" not in text:
        raise ValueError(f"{path} lacks its first line, {PACKAGE!r}: its keys would land under {group}. Add it.")
    if PACKAGE in text and "_target_" in content:
        raise ValueError(
            f"{path} has _target_ at its top level, which {PACKAGE!r} makes that of the whole config. Accepted: "
            f"_target_ and the class's options under `{group}:`, or a file without that line."
        )
    node = nested if isinstance(nested, dict) else content
    wrong = next((key for key in node if key in _TARGETS), None)
    if wrong is not None and "_target_" not in node:
        raise ValueError(f"{path} has {wrong!r} where the class is named by '_target_'. Write _target_: {node[wrong]}.")


def check_endings(folder: Path, group: str, option: str) -> None:
    """Raise ValueError if an option's file is there but ends in .yml, which Hydra does not look at."""
    path = folder / group / f"{option}.yml"
    if path.is_file():
        raise ValueError(f"{path} ends in .yml, and only .yaml is read. Rename it to {path.with_suffix('.yaml').name}.")


def no_class(key: str) -> str:
    """Return the message for a part that names no class: where its file does that."""
    group, _, name = key.partition(".")
    place = f"under `{name or group}:`" if name or group in GLOBAL else "in the YAML file's top level"
    if group in GLOBAL:
        place = f"in a YAML file whose first line is `{PACKAGE}`, {place}"
    return (
        f"{key} has no _target_. Accepted: the name of a class, {place}: "
        f"`_target_: my_module.MyClass`. Try {key}._target_=my_module.MyClass."
    )


def no_callback(name: str, value: Any) -> str:
    """Return the message for what stands where a callback does, e.g. a class without a name of its own."""
    text = as_text(value)
    target = text if "." in text else "my_module.MyCallback"
    own = target.rpartition(".")[2].lower() if name in HYDRA_KEYS else name
    return (
        f"callbacks.{name}={text} is no callback. Accepted: each one under a name of its own, in the YAML file "
        f"`{own}: {{_target_: {target}}}`, with its options beside _target_. "
        f"Try callbacks=none '+callbacks.{own}={{_target_: {target}}}'."
    )


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if raw.startswith(codecs.BOM_UTF8):
        raise ValueError(f"{path} starts with a byte order mark. Save it as UTF-8 without one.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no UTF-8 text (byte {error.start}). Save it as UTF-8, in an editor or with iconv."
        ) from error


def _start(group: str) -> str:
    return f"{PACKAGE!r} and `{group}:`" if group in GLOBAL else "`_target_: my_module.MyClass`"
