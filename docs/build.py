"""Build the documentation: the README, each page of this folder with the module that it is about, and the reference.

Called by `make docs`, which makes any warning an error.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
import warnings
from pathlib import Path

import pdoc

import rl8

# Each page, and the module whose page in the reference it begins.
PAGES = {
    "policies": "rl8.use",
    "deployment": "rl8.use.export",
    "options": "rl8.parts",
    "parallel": "rl8.parallel",
    "sweeps": "rl8.sweeps",
    "tracking": "rl8.tracking",
    "troubleshooting": "rl8.cli",
}

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "_build"
PICTURE = re.compile(r"!\[[^]]*\]\((\S+)\)")


def linked(text: str, module: str) -> str:
    """Return a text whose links to pages lead to where they are in the reference.

    Args:
        text: In Markdown.
        module: That it stands at.
    """
    up = "../" * module.count(".")
    for name, other in PAGES.items():
        text = re.sub(rf"\]\((docs/)?{name}\.md", f"]({up}{other.replace('.', '/')}.html", text)
    return text


def main() -> None:
    """Write the pages to docs/_build."""
    readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
    texts = {name: (HERE / f"{name}.md").read_text(encoding="utf-8") for name in PAGES}
    for name, text in texts.items():
        module = importlib.import_module(PAGES[name])
        module.__doc__ = f"{linked(text, PAGES[name])}\n\n# The module\n\n{module.__doc__}"
    rl8.__doc__ = f"{linked(readme, 'rl8')}\n\n# Conventions\n\n{rl8.__doc__}"
    for name in rl8.__all__:  # pdoc looks for names where they are, and rl8's come when asked for
        setattr(rl8, name, getattr(rl8, name))
    # the constructor that NamedTuple writes does not know the module whose names its annotations are from
    warnings.filterwarnings("ignore", message="Error parsing type annotation ForwardRef")
    shutil.rmtree(OUTPUT, ignore_errors=True)
    pdoc.render.configure(docformat="google", footer_text=f"rl8 {rl8.__version__}")
    rl8.__all__ += [module.name for module in pkgutil.iter_modules(rl8.__path__) if module.name != "__main__"]
    pdoc.pdoc("rl8", output_directory=OUTPUT)
    pictures = {OUTPUT / picture: HERE.parent / picture for picture in PICTURE.findall(readme)}
    for name, text in texts.items():
        folder = (OUTPUT / PAGES[name].replace(".", "/")).parent
        pictures |= {folder / picture: HERE / picture for picture in PICTURE.findall(text)}
    for target, picture in pictures.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, target)
    print(f"wrote {OUTPUT / 'index.html'}")


if __name__ == "__main__":
    main()
