"""What is typed: the words of a command line, each of them read and checked by itself.

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping, Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl8.checks import closest, first_line
from rl8.config.catalog import EXTRAS, GROUPS, folders, options, root_file, unknown_option
from rl8.config.files import check_endings, check_file
from rl8.config.keys import check_key
from rl8.kinds import as_text, dotted

COMMANDS = ("train", "resume", "eval", "play", "export")


def check_once(words: Sequence[str]) -> None:
    """Refuse a key that is typed twice, by itself or as a part of a mapping: the last would win and nobody be told.

    Args:
        words: What was typed, flags and names of files among it.

    Raises:
        ValueError: If one is typed twice.
    """
    seen: dict[str, str] = {}
    for word in words:
        if word.startswith("-") or not ("=" in word or word.startswith("~")) or os.path.exists(word):  # noqa: PTH110 (pathlib's raises for long names)
            continue
        for leaf in _leaves(word):
            other = next((known for known in seen if _overlap(known, leaf)), None)
            if other is not None:
                both, start = (seen[other], word), f"{leaf}="
                given = [
                    each.removeprefix(start) if all(one.startswith(start) for one in both) else each for each in both
                ]
                raise ValueError(
                    f"{max(other, leaf, key=len)} is typed twice: {given[0]} and {given[1]}. Type it once."
                )
            seen[leaf] = word


def _leaves(word: str) -> list[str]:
    """Return the keys that a word sets: of a mapping those in it."""
    key = word.partition("=")[0].lstrip("+~").strip()
    if "={" in word:
        with contextlib.suppress(OverrideParseException, HydraException, ValueError):
            value = OverridesParser.create().parse_overrides([word])[0].value()
            if isinstance(value, Mapping) and value:
                return [f"{key}.{name}" for name, _ in dotted(value)]
    return [key]


def _overlap(one: str, other: str) -> bool:
    """Return whether a key is another or a part of it; an option of a group is there to be changed."""
    short, long = sorted((one, other), key=len)
    return short == long or ("." in short and long.startswith(f"{short}."))


def parse(line: str) -> Override:
    """Return one word of the command line as Hydra understands it.

    Raises:
        ValueError: If it is no override.
    """
    key, equals, value = line.partition("=")
    if key.strip() and key != key.strip():
        raise ValueError(
            f"{line!r} has spaces around the =. Accepted: key=value in one word. "
            f"Try {key.strip()}={shlex.quote(value.strip())}."
        )
    if not key or not (equals or key.startswith("~")):
        near = closest(key, [*GROUPS, *COMMANDS]) if key.isidentifier() else None
        if key in COMMANDS:
            raise ValueError(f"{line!r} is a command. Accepted: it as the first word. Try rl8 {key} ...")
        guess = f" Did you mean {f'{near}=<option>' if near in GROUPS else near!r}?" if near else ""
        name, _, text = key.partition(":")
        advice = f"{near}=<option>" if near in GROUPS else f"{name or 'key'}={text or '<value>'}"
        advice = f"it first: rl8 {near} ..." if near in COMMANDS else f"{advice}, in one word"
        raise ValueError(
            f"{line!r} is no override.{guess} Accepted: group=option, key.name=value, +key=value to add, ~key to "
            f"remove. Try {advice}; `rl8 --help` lists groups and commands."
        )
    try:
        return _read(line)
    except (OverrideParseException, HydraException, ValueError) as error:
        if not _readable(f"{key}=1"):
            near = closest(key.lstrip("+~"), [*GROUPS, *root_file()])
            guess = f" Did you mean {near!r}?" if near else ""
            raise ValueError(
                f"Unknown key {key!r}.{guess} Accepted: letters a to z, digits and _, with dots between names."
            ) from error
        if (group := key.lstrip("+~")) in GROUPS:
            raise ValueError(unknown_option(group, value, list(options(group)))) from error
        if value[:1] in ("[", "{") and value[-1:] not in ("]", "}") and not key.startswith("~"):
            raise ValueError(
                f"{line} can't be read: {value[0]} is not closed. Accepted: [a, b] or {{key: value}}, and "
                f"where there are spaces quotes around the whole word, where a shell splits: '{key}={value[0]}...'."
            ) from error
        name, quoted = key.lstrip("+"), value.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
        advice = f" Try '{name}=\"{quoted}\"'." if "'" not in value and _readable(f'{name}="{quoted}"') else ""
        if key.startswith("~"):
            advice = f" Try {key}."
        reason = first_line(error)
        reason = "it has a character that needs quotes" if "Exception" in reason else reason  # the grammar's own words
        raise ValueError(
            f"{key}={value} can't be read: {reason}. Accepted: a number, a word, [a, b], {{key: value}}, "
            f"or text in quotes.{advice}"
        ) from error


def check_single(override: Override, reference: DictConfig) -> None:
    """Refuse what adds a key that is there, or changes or removes one that is not.

    Args:
        override: What was typed.
        reference: What there is: the config that the chosen files make, or a run's.

    Raises:
        ValueError: If it is one of these.
    """
    key, line = override.key_or_group, override.input_line
    if override.is_delete() and override.is_hydra_override():
        raise ValueError(f"{line!r}: Hydra's own keys can't be removed. Accepted: a value. Try {key}=<value>.")
    if override.is_force_add():
        return  # what is added may be anywhere: the whole config is checked afterwards, wherever its keys come from
    parent = ""
    with contextlib.suppress(OmegaConfBaseException):  # as below
        parent = OmegaConf.select(reference, key.rpartition(".")[0] or "seed")
    if override.is_delete() and OmegaConf.is_list(parent):
        raise ValueError(
            f"{line!r} removes an entry of a list. Accepted: another list. "
            f"Try {key.rpartition('.')[0]}={shlex.quote(as_text(parent))}."
        )
    there, value = True, None
    try:
        check_key(
            key, None if override.is_delete() else text_of(override), reference, "~" if override.is_delete() else ""
        )
        value = OmegaConf.select(reference, key, throw_on_missing=False)
    except OmegaConfBaseException:
        pass  # it refers to what only a job knows
    except ValueError:
        if not override.is_add():
            raise
        there = False
    if override.is_add() and there and not OmegaConf.is_dict(value):
        raise ValueError(
            f"{line!r} adds {key}, which is there already. Accepted: {key}=<value> to change it. "
            f"Try {key}={shlex.quote(text_of(override))}."
        )
    if override.is_delete() and value is None:
        raise ValueError(f"{line!r} has nothing to remove: {key} is null. Accepted: {key}=<value>, or nothing.")
    if override.is_delete() and override.value() not in (None, "", value):
        raise ValueError(
            f"{line!r} removes nothing: {key} is {as_text(value)}. Accepted: that value, or none. Try ~{key}."
        )


def typed(overrides: Sequence[str]) -> list[str]:
    """Return the keys of single values that overrides set or remove, Hydra's own left out."""
    parsed = [parse(line) for line in overrides]
    return [item.key_or_group for item in parsed if not is_group(item) and not item.is_hydra_override()]


def is_group(override: Override) -> bool:
    """Return whether an override chooses an option of a group."""
    key = override.key_or_group
    if key in GROUPS or "/" in key or override.package is not None:
        return True
    return "." not in key and bool(_loader().get_group_options(key))


def check_choice(override: Override) -> None:
    """Refuse an override of a group that leaves the run without a part, or names an option that does not exist."""
    group, value = override.key_or_group, override.value()
    if "/" in group and group.split("/")[0] in GROUPS and not _loader().get_group_options(group):
        key = group.replace("/", ".")
        raise ValueError(
            f"Unknown key {group!r}. Accepted: names with dots. Try {key}={shlex.quote(text_of(override))}."
        )
    if group.startswith("hydra/"):
        known = _loader().get_group_options(group)
        if known and isinstance(value, str) and value not in known:
            extra = EXTRAS.get(value) if group == "hydra/launcher" else None
            raise ValueError(
                unknown_option(group, value, known)
                if extra is None
                else f"{group}={value} needs a plugin of Hydra's. Type: pip install 'rl8[{extra}]'."
            )
    if group not in GROUPS:
        return  # the rest of Hydra's, and groups of the user's own: Hydra lists their options
    known = list(options(group))
    if override.is_delete() and group == "experiment":
        return
    if override.is_delete() or value is None:
        none = " Try ~experiment to have none." if group == "experiment" else ""
        raise ValueError(
            f"{override.input_line!r} leaves no {group}. Accepted: {group}=<option>, one of {', '.join(known)}.{none}"
        )
    if not isinstance(value, str) or value not in known:
        text = text_of(override)
        if text in known:
            raise ValueError(
                f"{group}={text} is read as a number or a truth, not as the option of that name. Accepted: the name in "
                f"quotes that reach rl8. Try {group}=\\'{text}\\'."
            )
        for folder in folders()[1:]:
            check_endings(folder, group, str(value))
        raise ValueError(unknown_option(group, text_of(override), known))
    if override.is_add() or override.is_force_add():
        raise ValueError(f"{override.input_line!r}: {group} is chosen already. Try {group}={value}.")
    for folder in folders()[1:]:
        if (folder / group / f"{value}.yaml").is_file():
            check_file(folder / group / f"{value}.yaml", group)


def _read(line: str) -> Override:
    return OverridesParser.create(_loader()).parse_overrides([line])[0]


def _readable(line: str) -> bool:
    try:
        _read(line)
    except (OverrideParseException, HydraException, ValueError):
        return False
    return True


def _loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def text_of(override: Override) -> str:
    """Return the value as it was typed."""
    line = str(override.input_line)
    return line.partition("=")[2] or "null"
