"""What messages tell a user to type, written so that it can be typed as it stands.

Whoever writes a message knows a key and a value, and not how the key came to be there: that is added here.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl8 import runs
from rl8.config import catalog, compose
from rl8.config.files import PACKAGE
from rl8.config.keys import paths
from rl8.kinds import as_text, dotted

# "Try key=value", and what comes behind it up to the sentence's end
_TRY = re.compile(r"\bTry .+?(?=\. |\.$|$)", re.MULTILINE)
_KEY = re.compile(r"(?<![\w.+~=-])([a-z]\w*(?:\.\w+)+)(?==)")
# A mapping, or a list with spaces, that no quotes enclose: a shell would take it apart.
_OPEN = re.compile(r"(?<!['\w.])(\+?[a-z][\w.]*=(?:\{[^{}]*\}|\[[^'{}]* [^'{}]*\]))(?!')")

# A value in quotes, as where what was typed can't be read
_QUOTED = re.compile(r"""'(\+?([a-z][\w.]*))="[^']*"'""")


# A class where a group's option may name it
_CLASS = re.compile(r"(?<![\w.])(env|model|distribution)\._target_=([\w.]*\w)")


def typeable(message: str, words: Sequence[str]) -> str:
    """Return a message whose advice has a plus sign at keys that no file has, and quotes where a shell needs them.

    Text in quotes is advised only where a key may be text; elsewhere what its file says. A key that was typed is named
    rather than those that follow it, and the user's own file where a key stands in one.

    Args:
        message: What a user will read.
        words: What was typed.
    """
    if words[:1] == ["resume"] and not any(word.startswith("trainer.resume=") for word in words):
        message = _resumed(message)
    try:
        with compose.composer():
            reference = _of_a_run(words) or compose.from_files([word for word in words if not word.startswith("-")])
            raw = OmegaConf.to_container(reference, resolve=False)
    except ValueError:
        return message  # which files there are is what the message is about
    message = _sourced(_named_as_typed(message, words, raw), words, reference)
    if not _TRY.search(message):
        return message

    def keyed(match: re.Match[str]) -> str:
        key = match.group(1)
        brings = re.search(rf"(?<![\w.]){key.split('.')[0]}=\w", match.string)  # the option that has it, in one advice
        return key if brings or key.split(".")[0] not in reference or _has(reference, key) else f"+{key}"

    def fitting(match: re.Match[str]) -> str:
        value = OmegaConf.select(reference, match.group(2), default="", throw_on_missing=False)
        texts = isinstance(value, str) or (value is None and not match.group(2).startswith("hydra."))
        return match.group() if texts else f"{match.group(1)}={as_text(value)}"

    def chosen(match: re.Match[str]) -> str:
        """Return the option of a class, unless the message is about the key that names it."""
        option = None if message.startswith(f"{match[1]}._target_") else catalog.option_with(match[1], match[2])
        return f"{match[1]}={option}" if option else match[0]

    def written(match: re.Match[str]) -> str:
        advice = _QUOTED.sub(fitting, _CLASS.sub(chosen, match.group()))
        return _OPEN.sub(lambda word: shlex.quote(word.group()), _KEY.sub(keyed, advice))

    return _TRY.sub(written, message)


def _named_as_typed(message: str, words: Sequence[str], raw: Any) -> str:
    """Return a message that names a key that was typed, e.g. `goal.metric`, where it would name one that follows it."""
    given = {word.partition("=")[0].lstrip("+") for word in words}
    for key, value in dotted(raw if isinstance(raw, dict) else {}):
        source = re.fullmatch(r"\$\{([\w.]+)\}", str(value))
        if source is not None and source[1] in given and key not in given:
            message = re.sub(rf"(?<![\w.]){re.escape(key)}(?![\w.]*\w)", source[1], message)
    return message


def _sourced(message: str, words: Sequence[str], reference: DictConfig) -> str:
    """Return a message with the user's own file in front, where the key that it names stands in one."""
    named = re.match(r"(?:Unknown key )?'?((?:[a-z_]\w*\.)+\w+)", message)
    if named is None or "hydra" not in reference:
        return message
    key, given = named[1], {word.partition("=")[0].lstrip("+~") for word in words}
    if any(key == one or key.startswith(f"{one}.") for one in given if "." in one):
        return message
    for group, option in reference.hydra.runtime.choices.items():
        for folder in catalog.folders()[1:]:
            path = folder / str(group) / f"{option}.yaml"
            if path.is_file() and key in _keys(path, str(group)):
                return f"{path}: {message}"
    return message


def _keys(path: Path, group: str) -> list[str]:
    """Return the keys that an option's file sets, as they are in the config."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    prefix = "" if PACKAGE in path.read_text(encoding="utf-8") else f"{group.replace('/', '.')}."
    return list(paths(content, prefix)) if isinstance(content, dict) else []


def _resumed(message: str) -> str:
    """Return a message of `rl8 resume`, where RUN is what training calls trainer.resume, and no new run is begun."""
    message = message.replace("Try trainer.resume=null.", "Try rl8 resume latest.")
    message = message.replace("Try trainer.resume=", "Try rl8 resume ").replace("trainer.resume=", "RUN=")
    return message.replace(", or trainer.branch=", ", or rl8 env=<option> trainer.branch=")


def _of_a_run(words: Sequence[str]) -> DictConfig | None:
    """Return the config of the run whose command was typed, with the groups that are typed besides; None without."""
    if words[:1] not in (["resume"], ["eval"], ["play"]):
        return None
    for word in words[1:]:
        with contextlib.suppress(ValueError):
            config = runs.find(word, "policy").config()
            if config is not None:
                reference: Any = OmegaConf.create(config)
                groups = [word for word in words[1:] if word.partition("=")[0] in catalog.GROUPS]
                chosen: Any = compose.from_files(groups)
                for group in {word.partition("=")[0] for word in groups}:
                    reference[group] = chosen[group]
                return cast(DictConfig, reference)
    return None


def _has(reference: DictConfig, key: str) -> bool:
    """Return whether files give a key a value or null."""
    parent, _, name = key.rpartition(".")
    try:
        node = OmegaConf.select(reference, parent)
    except OmegaConfBaseException:
        return True
    # `in node` denies what is missing (???)
    return name in list(node) if OmegaConf.is_dict(node) else OmegaConf.is_list(node)
