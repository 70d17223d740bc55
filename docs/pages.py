"""Which pages the site has, in which order, and where their links lead."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent

#: Pages of this folder by the section that they are in; those that are not there are left out, others come last.
SECTIONS: Final = {
    "Begin": ("quickstart", "concepts", "coming"),
    "Train": (
        "extending",
        "environments",
        "recurrent",
        "options",
        "sweeps",
        "tracking",
        "parallel",
        "performance",
        "reproducibility",
        "troubleshooting",
    ),
    "Use": ("runs", "policies", "deployment"),
}

PLANNED: Final = {page for pages in SECTIONS.values() for page in pages}
IN_SITE: Final = re.compile(r"docs/([^/]+\.md|(api|configuration)/.*)")

_TARGET: Final = re.compile(r"(!?)\[([^]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_CODE: Final = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def sections(names: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each section and the pages in it.

    Args:
        names: Of the pages that are there, without `.md`.
    """
    for section, pages in SECTIONS.items():
        found = [page for page in pages if page in names]
        if found:
            yield section, found
    others = sorted(set(names) - PLANNED)
    if others:
        yield "More", others


def linked(text: str, path: Path) -> tuple[str, list[str]]:
    """Return a page as it stands in the site, and the pictures that it shows.

    Links lead to the site's pages. What is only in the repository, and a page that is not there yet, is named without
    a link.

    Args:
        text: In Markdown.
        path: Where it is in the repository.

    Returns:
        The text, and pictures by their path in the repository.
    """
    pictures: list[str] = []

    def place(match: re.Match[str]) -> str:
        shown, words, target, anchor = match[1], match[2], match[3], match[4] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        found = Path(os.path.normpath(path.parent / target)).relative_to(ROOT)
        if shown:
            pictures.append(found.as_posix())
        elif found == Path("README.md"):
            found = Path("index.md")
        elif found.parent == Path("docs") and found.stem in PLANNED and not (ROOT / found).exists():
            return words
        elif not IN_SITE.fullmatch(found.as_posix()):
            return words if words.strip("`") in found.as_posix() else f"{words} (`{found.as_posix()}`)"
        return f"{shown}[{words}]({_in_site(found)}{anchor})"

    parts = _CODE.split(text)  # code is at odd places
    parts[::2] = [_TARGET.sub(place, part) for part in parts[::2]]
    return "".join(parts), pictures


def _in_site(path: Path) -> PurePosixPath:
    """Return where a file of the repository is in the site: what is in docs/ stands at its top."""
    return PurePosixPath(*path.parts[1:]) if path.parts[0] == "docs" else PurePosixPath(*path.parts)
