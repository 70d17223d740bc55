"""The reference of the configuration: pages made of the files in conf/, whose comments say what each key does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import yaml

CONF: Final = Path(__file__).resolve().parent.parent / "conf"


class Row(NamedTuple):
    """One key of a file.

    Attributes:
        key: As it is typed, `algo.gamma`.
        value: What the file sets, as it is written there; empty for a key that has keys.
        comment: What the file says of it.
        heading: What stands above it on lines of its own, each with its `#`.
    """

    key: str
    value: str
    comment: str
    heading: str


def groups() -> dict[str, list[Path]]:
    """Return each group's files, by its name as it is typed, `hydra/launcher`."""
    found: dict[str, list[Path]] = {}
    for path in sorted(CONF.glob("*/**/*.yaml")):
        found.setdefault(path.parent.relative_to(CONF).as_posix(), []).append(path)
    return found


def rows(path: Path) -> list[Row]:
    """Return the keys of a file in its order, without Hydra's own."""
    lines = path.read_text(encoding="utf-8").splitlines()
    package = "" if path.parent == CONF or "@package _global_" in lines[0] else path.parent.relative_to(CONF).as_posix()
    node = yaml.compose("\n".join(lines))
    return [] if node is None else list(_rows(node, lines, package.replace("/", ".")))


def description(path: Path) -> str:
    """Return what a file says at its top: the lines before the first key, or before the first empty one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = lines[1:] if "@package" in lines[0] else lines
    end = next(number for number, line in enumerate(start) if not line.startswith("#"))
    return _text("\n".join(start[:end]))


def defaults() -> dict[str, tuple[str, str]]:
    """Return the option that each group has by default, and what the root file says of the group."""
    lines = (CONF / "config.yaml").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        match = re.match(r"  - (?:optional )?([a-z]+): (\S+)\s+# (.*)", line)
        if match:
            found[match[1]] = (match[2], match[3])
    return found


def pages() -> dict[str, str]:
    """Return the pages in Markdown by their names: `index` for the root, and one for each group."""
    chosen = defaults()
    found = {"index": _root(chosen)}
    for group, files in groups().items():
        parts = [f"# {group}\n"]
        if group in chosen:
            parts.append(f"{chosen[group][1][0].upper()}{chosen[group][1][1:]}. Chosen by `{group}=<option>`.\n")
        for path in files:
            parts.append(f"## {group}={path.stem}\n\n{description(path)}\n")
            if group in chosen and chosen[group][0] == path.stem:
                parts.append("This is the option that is taken where none is typed.\n")
            parts.append(table(rows(path)))
        found[group.replace("/", "_")] = "\n".join(parts)
    return found


def table(found: list[Row]) -> str:
    """Return keys as tables, each below what stands above its first key in the file."""
    parts: list[str] = []
    for number, row in enumerate(found):
        if row.heading or number == 0:
            parts.append(f"\n{_text(row.heading)}\n\n| key | value | what |\n|---|---|---|\n")
        value = "`{}`".format(row.value.replace("|", "\\|")) if row.value else ""
        parts.append(f"| `{row.key}` | {value} | {_cell(row.comment)} |\n")
    return "".join(parts)


def _root(chosen: dict[str, tuple[str, str]]) -> str:
    """Return the first page: the groups, and the keys that are in none."""
    parts = [
        "# Configuration\n",
        "Made of the files in `conf/`. A run is composed of one option of each group; what is typed wins over all of "
        "them, and an environment's file may set what suits it in any group. `rl8 --cfg job` prints the whole.\n",
        "| group | by default | what |\n|---|---|---|",
    ]
    for group in groups():
        option, what = chosen.get(group, ("", "Hydra's, for sweeps"))
        parts.append(f"| [{group}]({group.replace('/', '_')}.md) | {f'`{option}`' if option else ''} | {_cell(what)} |")
    parts.append("\n## Keys in no group\n")
    parts.append(table([row for row in rows(CONF / "config.yaml") if not row.key.startswith("hydra")]))
    return "\n".join(parts)


def _rows(node: yaml.Node, lines: list[str], prefix: str) -> Iterator[Row]:
    """Yield the keys of a mapping."""
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        if key.value == "defaults":
            continue
        name = f"{prefix}.{key.value}" if prefix else key.value
        above = _heading(lines, key.start_mark.line) if key.start_mark.column == 0 else ""
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            comment = _comment(lines[key.end_mark.line][key.end_mark.column :])
            if comment or above:
                yield Row(name, "", comment, above)
            yield from _rows(value, lines, name)
            continue
        start, end = value.start_mark, value.end_mark
        written = lines[start.line][start.column : end.column]
        yield Row(name, written, _comment(lines[end.line][end.column :]), above)


def _heading(lines: list[str], number: int) -> str:
    """Return the comments right above a key; those at the top of the file are its description."""
    first = number
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(lines[first:number]) if first else ""


def _comment(rest: str) -> str:
    """Return the comment in what follows a value."""
    return rest.partition("# ")[2].strip()


def _text(comments: str) -> str:
    """Return lines of comments in Markdown; those that are indented are commands."""
    parts = []
    for line in comments.splitlines():
        text = line.removeprefix("#").removeprefix(" ")
        parts.append(f"\n`{text.strip()}`\n" if text.startswith("  ") else _plain(text))
    return "\n".join(parts)


def _cell(text: str) -> str:
    """Return a text as it may stand in a table."""
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return a text whose signs mean nothing in Markdown, its code apart: a `<number>` would be a tag."""
    parts = re.split(r"(`[^`]*`)", text)  # code is at odd places
    signs = {"<": "&lt;", "{": "&#123;", "*": "&#42;"}
    parts[::2] = [part.translate(str.maketrans(signs)) for part in parts[::2]]
    return "".join(parts)
