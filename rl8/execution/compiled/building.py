"""Builds `small.c` with the system's C compiler, once on a machine: the result is kept in the user's cache folder."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import torch

SOURCE: Final = Path(__file__).with_name("small.c")
COMPILERS: Final = ("cc", "gcc", "clang")
TIMEOUT_S: Final = 120.0

# NaN and infinity must stay what they are, and sums in their order: no -ffast-math.
OPTIONS: Final = (
    "-O3",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-shared",
)

# What torch's own code uses on this processor.
VECTORS: Final = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": (
        *("-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"),
        "-mprefer-vector-width=512",
    ),
}


@functools.cache
def library() -> ctypes.CDLL | str:
    """Return the library, built now if it was not before, or the reason why there is none."""
    compiler = _compiler()
    if compiler is None:
        return f"there is no C compiler (looked for $CC and {', '.join(COMPILERS)})"
    options = [*OPTIONS, *VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())]
    made_of = [*options, compiler, platform.system(), platform.machine(), SOURCE.read_text()]
    name = f"small-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so"
    try:
        folder = _folder()
        if not (folder / name).exists():
            _build([compiler, *options], folder / name)
        return ctypes.CDLL(str(folder / name))
    except subprocess.CalledProcessError as error:
        return f"{compiler} failed: {(error.stderr.strip().splitlines() or ['it said nothing'])[-1]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{compiler} gave nothing that could be loaded: {error}"


def _compiler() -> str | None:
    found = (shutil.which(name) for name in (os.environ.get("CC") or "", *COMPILERS) if name)
    return next((path for path in found if path), None)


def _folder() -> Path:
    """Return where libraries are kept: the user's cache, or a folder of this process where that can't be written."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rl8"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # the latter where nobody knows a home folder
        return Path(tempfile.mkdtemp(prefix="rl8-"))


def _build(command: list[str], path: Path) -> None:
    """Build the library, complete wherever it can be seen: several processes may do so at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        subprocess.run(
            [*command, "-o", str(made), str(SOURCE), "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        made.replace(path)
