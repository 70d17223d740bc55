"""Build the site: the pages of this folder, the README, the configuration from conf/, and the API from its docstrings.

Called by `make docs`. Any warning is an error, and so is a page that loads something from elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import coming
import configuration
import griffe
import yaml
from mkdocs.__main__ import cli
from pages import HERE, ROOT, linked, sections

OUTPUT: Final = HERE / "_build"
LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?https?:|<link\b[^>]*\bhref=\"?https?:|@import"
)


def main() -> None:
    """Write the site to docs/_build."""
    # Material announces its successor on every build
    os.environ["NO_MKDOCS_2_WARNING"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pages"
        nav = written(source)
        settings = {
            "INHERIT": str(HERE / "mkdocs.yml"),
            "docs_dir": str(source),
            "site_dir": str(OUTPUT),
            "nav": nav,
            "plugins": {"mkdocstrings": {"handlers": {"python": {"paths": [str(ROOT)]}}}},
        }
        config = Path(folder) / "mkdocs.yml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        cli.main(["build", "--strict", "--clean", "--config-file", str(config)], standalone_mode=False)
    loaded = [str(path) for path in sorted(OUTPUT.glob("**/*.html")) if LOADED.search(path.read_text("utf-8"))]
    if loaded:
        sys.exit(f"These pages load something from elsewhere: {', '.join(loaded)}.")
    print(f"wrote {OUTPUT / 'index.html'}")


def written(source: Path) -> list[Any]:
    """Write all pages in Markdown, with the pictures that they show.

    Args:
        source: An empty folder, or none yet.

    Returns:
        The navigation as mkdocs takes it.
    """
    texts = {path.stem: path for path in sorted(HERE.glob("*.md"))}
    own = {"index": ROOT / "README.md", "changes": ROOT / "CHANGELOG.md"}
    for name, path in (texts | own).items():
        text, pictures = linked(coming.filled(path.read_text(encoding="utf-8")), path)
        _write(source / f"{name}.md", text)
        for picture in pictures:
            target = source / picture.removeprefix("docs/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / picture, target)
    shutil.copy(HERE / "site.css", source)
    for name, text in configuration.pages().items():
        _write(source / "configuration" / f"{name}.md", text)
    package = griffe.load("rl8", search_paths=[ROOT], resolve_aliases=True)
    for module in modules(package):
        _write(source / address(module), reference(module))
    found = sorted(configuration.pages(), key=lambda name: name != "index")
    start, *others = sections(texts.keys())
    return [
        {start[0]: ["index.md", *(f"{name}.md" for name in start[1])]},
        *({section: [f"{name}.md" for name in names]} for section, names in others),
        {"Configuration": [f"configuration/{name}.md" for name in found]},
        {"API": in_package(package)},
        {"Changes": ["changes.md"]},
    ]


def modules(package: griffe.Module) -> Iterator[griffe.Module]:
    """Yield a package and the modules in it, at any depth."""
    yield package
    for module in package.modules.values():
        if not module.is_alias and module.name != "__main__":
            yield from modules(module)


def reference(module: griffe.Module) -> str:
    """Return a module's page: what it defines, and links to what it hands on from other modules."""
    here = {name: one for name, one in module.members.items() if not (one.is_alias or name.startswith("_"))}
    own = [name for name, one in here.items() if one.is_class or one.is_function]
    handed = [name for name in module.exports or [] if name in module.members and module.members[name].is_alias]
    lines = [f"# {module.path}", "", f"::: {module.path}", "    options:", f"      members: {own or 'false'}", ""]
    if handed:
        lines += ["## From its modules", ""]
    for name in handed:
        target = module.members[name].final_target
        documented = target.is_class or target.is_function
        lines.append(f"- [`{name}`][{target.path}]" if documented else f"- `{name}`, of `{target.parent.path}`")
    return "\n".join(lines)


def address(module: griffe.Module) -> str:
    """Return where a module's page is; a package's begins the folder of its modules."""
    place = module.path.replace(".", "/")
    return f"api/{place}/index.md" if module.is_init_module else f"api/{place}.md"


def in_package(package: griffe.Module) -> list[Any]:
    """Return the navigation of a package: its own page, then its modules."""
    inside = [one for one in package.modules.values() if not one.is_alias and one.name != "__main__"]
    inside.sort(key=lambda one: one.name)
    return [address(package), *({one.name: in_package(one) if one.is_init_module else address(one)} for one in inside)]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
