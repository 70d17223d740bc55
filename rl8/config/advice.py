"""What messages tell a user to type, written so that it can be typed as it stands.

Whoever writes a message knows a key and a value, and not how the key came to be there: that is added here.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl8 import runs
from rl8.config import catalog, compose
from rl8.kinds import as_text

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

    Text in quotes is advised only where a key may be text; elsewhere what its file says. A key of `network` that was
    typed is named rather than the model's own that it sets.

    Args:
        message: What a user will read.
        words: What was typed.
    """
    for name in {word.partition("=")[0][8:] for word in words if word.startswith("network.")}:
        message = re.sub(rf"\bmodel\.{re.escape(name)}\b", f"network.{name}", message)
    if words[:1] == ["resume"] and not any(word.startswith("trainer.resume=") for word in words):
        message = _resumed(message)
    if not _TRY.search(message):
        return message
    try:
        with compose.composer():
            reference = _of_a_run(words) or compose.from_files([word for word in words if not word.startswith("-")])
    except ValueError:
        return message  # which files there are is what the message is about

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
