"""Build the documentation: the README, policies.md as the page of `rl8.use`, and the reference of every module.

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
import rl8.use

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "_build"


def main() -> None:
    """Write the pages to docs/_build."""
    readme = (HERE.parent / "README.md").read_text(encoding="utf-8")
    policies = (HERE / "policies.md").read_text(encoding="utf-8")
    rl8.use.__doc__ = f"{policies}\n\n# The modules\n\n{rl8.use.__doc__}"
    linked = readme.replace("](docs/policies.md", "](rl8/use.html")
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
