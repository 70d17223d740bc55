"""Make a virtual environment for each program of the comparison, under `experiments/.venvs` (git-ignored).

    python -m experiments.throughput.venvs            # those that are missing
    python -m experiments.throughput.venvs sb3 jax    # these, anew

Each has its own, because upstream's package is called rl8 too and pins other versions of what rl8 needs. About 4 GB in
all; the torch in them is pinned, so that pip takes the CPU wheel at hand where there is one.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
VENVS = HERE.parent / ".venvs"
NAMES = ("upstream", "sb3", "skrl", "jax")


def python_of(name: str) -> Path:
    """Return the interpreter of a program's virtual environment, whether or not it exists."""
    return VENVS / name / "bin" / "python"


def missing() -> list[str]:
    """Return the programs that have no complete virtual environment."""
    return [name for name in NAMES if not (VENVS / name / "complete").exists()]


def make(name: str) -> str | None:
    """Make one virtual environment anew; return what went wrong, or None."""
    folder = VENVS / name
    shutil.rmtree(folder, ignore_errors=True)
    VENVS.mkdir(exist_ok=True)
    (VENVS / ".gitignore").write_text("*\n")
    wanted = HERE / "requirements" / f"{name}.txt"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        # The same versions of everything that rl8 needs too, where the requirements leave a choice.
        [str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return next(reversed([line for line in done.stderr.splitlines() if "ERROR" in line]), done.stderr[-300:])
    (folder / "complete").write_text("")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; those that are missing by default")
    for name in parser.parse_args().names or missing():
        print(f"{name}: making {VENVS / name}", flush=True)
        error = make(name)
        print(f"{name}: {'ready' if error is None else error}", flush=True)


if __name__ == "__main__":
    main()
