"""Build the documentation: the README, the other pages with the modules that they are on, and the reference.

Called by `make docs`, which makes any warning an error.
"""

from __future__ import annotations

import pkgutil
import re
import shutil
import warnings
from pathlib import Path

import pdoc

import rl8
import rl8.parts
import rl8.use

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "_build"


def main() -> None:
    """Write the pages to docs/_build."""
    readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
    for page, module in (("policies", rl8.use), ("options", rl8.parts)):
        text = (HERE / f"{page}.md").read_text(encoding="utf-8")
        module.__doc__ = f"{text}\n\n# The modules\n\n{module.__doc__}"
    linked = readme.replace("](docs/policies.md", "](rl8/use.html").replace("](docs/options.md", "](rl8/parts.html")
    rl8.__doc__ = f"{linked}\n\n# Conventions\n\n{rl8.__doc__}"
    for name in rl8.__all__:  # pdoc looks for names where they are, and rl8's come when asked for
        setattr(rl8, name, getattr(rl8, name))
    # the constructor that NamedTuple writes does not know the module whose names its annotations are from
    warnings.filterwarnings("ignore", message="Error parsing type annotation ForwardRef")
    shutil.rmtree(OUTPUT, ignore_errors=True)
    pdoc.render.configure(docformat="google", footer_text=f"rl8 {rl8.__version__}")
    rl8.__all__ += [module.name for module in pkgutil.iter_modules(rl8.__path__) if module.name != "__main__"]
    pdoc.pdoc("rl8", output_directory=OUTPUT)
    for picture in re.findall(r"!\[[^]]*\]\((\S+)\)", readme):
        (OUTPUT / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parent / picture, OUTPUT / picture)
    print(f"wrote {OUTPUT / 'index.html'}")


if __name__ == "__main__":
    main()
