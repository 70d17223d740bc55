"""Keys that a config does not have: what is said about them, with the nearest one that it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf

from rl8 import names
from rl8.checks import closest, listed
from rl8.config.targets import options_of
from rl8.kinds import as_text
from rl8.ppo.schedule_options import LINEAR, SCHEDULED

# Parts whose every option is listed in rl8's own file: a plus sign would add nothing.
CLOSED: Final = ("algo",)


def check_key(key: str, value: str | None, reference: DictConfig, mark: str = "") -> None:
    """Refuse a key that a config does not have, naming the nearest one that it has.

    Args:
        key: Dotted name, as typed.
        value: What was to be set, as typed; None where nothing was.
        reference: The config that the chosen files make.
        mark: What stood before the key.

    Raises:
        ValueError: If there is no such key.
    """
    parts = key.split(".")
    node: Any = reference
    for depth, part in enumerate(parts):
        if OmegaConf.is_list(node) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif OmegaConf.is_dict(node) and part in list(node.keys()):  # `in node` denies what is missing (???)
            if depth == len(parts) - 1:
                return  # its value may refer to what only a job knows
            if OmegaConf.is_interpolation(node, part):
                _check_followed(parts, depth, node, value)
            node = None if OmegaConf.is_missing(node, part) else node[part]
        else:
            raise ValueError(_no_key(parts, depth, node, reference, value, mark))


def _check_followed(parts: Sequence[str], depth: int, node: Any, value: str | None) -> None:
    """Refuse to set a part of what follows another key: it has no parts of its own."""
    raw = OmegaConf.to_container(node, resolve=False)
    followed = str(raw[parts[depth]]) if isinstance(raw, dict) else ""
    key, parent = ".".join(parts), ".".join(parts[: depth + 1])
    source = re.fullmatch(r"\$\{([\w.]+)\}", followed)
    if value is None or source is None:
        return
    advice = ".".join([source[1], *parts[depth + 1 :]])
    raise ValueError(
        f"{key}={value}: {parent} follows {source[1]} and has no entries of its own. Accepted: a value for {parent} "
        f"itself, or one for {advice}. Try {advice}={shlex.quote(value)}."
    )


def unknown_key(key: str, parent: str, known: Sequence[str], guess: str | None = None, where: str = "") -> str:
    """Return the message for a key that is not among the `known` ones under `parent`.

    Args:
        key: The key, as typed.
        parent: Where it was looked for; empty for the top.
        known: The keys that are there.
        guess: What it was meant to be; by default the nearest known one.
        where: What shows all of them, where they are many; by default a command.
    """
    name = key.rpartition(".")[2]
    near = closest(name, known)
    what = "hydra" if parent.partition(".")[0] == "hydra" else "job"
    where = where or f"`rl8 --cfg {what}{f' --package {parent}' if parent else ''}` prints them"
    guess = guess or (near and f"{parent}.{near}".lstrip("."))
    hint = f" Did you mean {guess!r}?" if guess else ""
    return f"Unknown key {key!r}.{hint} Accepted{f' in {parent}' if parent else ''}: {listed(known, name, where)}."


def _no_key(parts: Sequence[str], depth: int, node: Any, reference: DictConfig, value: str | None, mark: str) -> str:
    key, parent, rest = ".".join(parts), ".".join(parts[:depth]), ".".join(parts[depth + 1 :])
    if not OmegaConf.is_dict(node):
        # a mapping where there is none yet, and else what is there
        nested = f"'{parent}={{{'.'.join(parts[depth:])}: {value}}}'"
        adds = node is None and depth == len(parts) - 1 and value is not None
        advice = nested if adds else f"{parent}={shlex.quote(as_text(node))}"
        return (
            f"Unknown key {key!r}: {parent} is {as_text(node)}, which has no keys. Accepted: a value for {parent} "
            f"itself. Try {advice}."
        )
    known = [str(name) for name in node if name != "hydra"]
    if not known:
        return (
            f"Unknown key {key!r}: {parent} is empty with the option that is chosen. Accepted: keys of another one. "
            f"Try {parent}=<option>; `rl8 --help` lists them."
        )
    has_class = "_target_" in node and parent not in CLOSED and depth == len(parts) - 1
    takes = options_of(parent, node["_target_"]) if has_class else None
    if takes is not None and value is not None and parts[-1] in takes:
        return f"Unknown key {key!r}: the file of {parent} does not list it. Try +{key}={shlex.quote(value)}."
    if takes is not None:
        known += [name for name in takes if name not in known]
    # what a class takes besides may be called like a key elsewhere
    is_open = depth > 0 and (depth < len(parts) - 1 or (has_class and takes is None))
    elsewhere = () if is_open or parts[0] == "hydra" else paths(reference)
    namesakes = [path for path in elsewhere if path.rpartition(".")[2] == parts[-1]]
    near = closest(parts[depth], [name for name in known if takes is None or name in takes])
    translated = names.ours(parts[depth]) if depth == len(parts) - 1 else None
    if near is not None and takes is not None and parts[-1].startswith(near):  # epsilon is eps, where there is an eps
        translated = None
    if translated == f"{parent}=<option>" and near is None:  # the group is chosen: list its keys
        translated = None
    guess = translated or (namesakes[0] if namesakes else near and ".".join(filter(None, (parent, near, rest))))
    if translated and value == LINEAR and (name := translated.rpartition(".")[2]) in SCHEDULED:
        guess = f"algo.schedules.{name}"
    if guess and "=" in guess:
        return f"Unknown key {key!r}. Try {guess}."
    if has_class and takes is None and not guess and value is not None:
        return (
            f"Unknown key {key!r}: the file of {parent} does not list it. Accepted in {parent}: "
            f"{listed(known, parts[-1])}, or with a plus sign "
            f"what else the class {node['_target_']} takes: +{key}={value} if it takes that."
        )
    form = names.form(parts[depth]) if translated else None
    if form is not None and value is not None:
        return f"{unknown_key(key, parent, known, guess)} Try {guess}=<value>: {form}."
    advice = f"{mark}{guess}"
    if value is not None:
        advice += f"={value}"
    if any(letter.isspace() for letter in advice):
        advice = shlex.quote(advice)
    # a group's keys have values; what is null is not removed
    typeable = guess and (value is None or not OmegaConf.is_dict(reference.get(guess)))
    typeable = typeable and not (mark == "~" and OmegaConf.select(reference, str(guess)) is None)
    return unknown_key(key, parent, known, guess) + (f" Try {advice}." if typeable else "")


def paths(node: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield every key of a config by its dotted name, those of Hydra left out."""
    for key in node:
        if prefix or key != "hydra":
            value = None if OmegaConf.is_config(node) and OmegaConf.is_missing(node, key) else node[key]
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from paths(value, f"{prefix}{key}.")
