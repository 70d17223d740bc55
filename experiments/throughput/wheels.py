"""Gather what `make bench-gpu` needs on a machine with Python 3.12 and torch that reaches no registry: `make wheels`.

    python -m experiments.throughput.wheels            # into .wheels/ (git-ignored), under 60 MiB

rl8's needs lie in `.wheels/`, those of each other program in a folder of its own below it: upstream's package is also
called rl8 and takes an older tensordict. Versions are those of `constraints.txt`. What the machine has (`PRESENT`) is
left out; every need of every wheel is checked to be either gathered or present.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from email.parser import HeaderParser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import Tag, parse_tag

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".wheels"
LIMIT_MIB = 60

NEEDS = (
    # the configuration
    *("hydra-core", "omegaconf", "antlr4-python3-runtime"),
    *("tensordict", "pyvers"),
    # MLflow's client, and the database that is its default store
    *("mlflow-skinny", "sqlalchemy", "alembic", "mako", "sqlparse", "cachetools", "databricks-sdk", "google-auth"),
    *("pyasn1", "pyasn1-modules", "cryptography", "cffi", "pycparser", "fastapi", "starlette", "uvicorn", "pydantic"),
    *("pydantic-core", "annotated-types", "typing-inspection", "gitpython", "gitdb", "smmap", "python-dotenv"),
    *("importlib-metadata", "opentelemetry-api", "opentelemetry-proto", "opentelemetry-sdk"),
    "opentelemetry-semantic-conventions",
    # newer than what other packages brought along there
    "typing-extensions",
    # the tests
    *("gymnasium", "farama-notifications"),
)
PEERS = {
    "upstream": (
        *("rl8==1.0.0", "torchrl==0.14.1", "tensordict==0.14.3", "hoptorch==0.1.4", "orjson==3.13.0", "pyvers==0.2.3"),
        *("mlflow-skinny==2.22.5", "cachetools==5.5.2", "importlib-metadata==8.9.0"),
    ),
    "skrl": ("skrl==2.1.1", "gymnasium==1.4.0", "farama-notifications==0.0.6"),
}
PRESENT = frozenset(
    (
        *("annotated-doc", "anyio", "click", "cloudpickle", "filelock", "h11", "jinja2", "markdown-it-py"),
        *("markupsafe", "matplotlib", "numpy", "packaging", "pandas", "protobuf", "psutil", "pygments", "pytest"),
        *("pytest-timeout", "pyyaml", "requests", "rich", "tensorboard", "torch", "tqdm", "urllib3", "zipp"),
    )
)
# pip takes a platform literally: each tag that wheels for such a machine carry.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)),
    *("manylinux2014_x86_64", "manylinux1_x86_64"),
)
ENVIRONMENT = {
    "extra": "",
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.12.3",
    "python_version": "3.12",
    "sys_platform": "linux",
}
TARGET = ("--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:")


def canonical(name: str) -> str:
    """Return a distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(names: Iterable[str], constraints: Path = ROOT / "constraints.txt") -> list[str]:
    """Return `name==version` for each name, as the constraints file has it for Python 3.12.

    Raises:
        ValueError: If a name has no line there.
    """
    found: dict[str, str] = {}
    for line in constraints.read_text().splitlines():
        requirement, _, marker = line.partition(";")
        if "==" in requirement and "python_version <" not in marker:
            name, _, version = requirement.partition("==")
            found[canonical(name)] = version.strip()
    missing = [name for name in names if canonical(name) not in found]
    if missing:
        raise ValueError(f"constraints.txt has no version of {', '.join(missing)}. Add a line NAME==VERSION for each.")
    return [f"{name}=={found[canonical(name)]}" for name in names]


def download(requirements: Sequence[str], folder: Path) -> None:
    """Fetch a wheel for each requirement, and build those that exist as source only (pure Python).

    Raises:
        subprocess.CalledProcessError: If pip fails; what it says has been printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = [requirement for requirement in requirements if requirement.startswith("antlr4")]
    fetched = [requirement for requirement in requirements if requirement not in built]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    command = [*pip, "download", "--quiet", "--no-deps", *TARGET, *platforms, "--dest", str(folder), *fetched]
    subprocess.run(command, check=True)
    if built:
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *built], check=True)


def needs_of(wheel: Path) -> list[str]:
    """Return the names that a wheel needs on Python 3.12 on Linux, extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        path = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(path).decode())
    parsed = map(Requirement, metadata.get_all("Requires-Dist") or [])
    return [canonical(one.name) for one in parsed if one.marker is None or one.marker.evaluate(ENVIRONMENT)]


def lacking(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return needs that nobody brings, by the wheel that has them; later folders may use earlier ones' wheels."""
    have = set(PRESENT)
    gaps: dict[str, list[str]] = {}
    for folder in folders:
        wheels = sorted(folder.glob("*.whl"))
        have |= {canonical(wheel.name.split("-")[0]) for wheel in wheels}
        for wheel in wheels:
            gap = [name for name in needs_of(wheel) if name not in have]
            if gap:
                gaps[wheel.name] = gap
    return gaps


def fits(tag: Tag) -> bool:
    """Return whether Python 3.12 on x86-64 Linux takes wheels of this tag."""
    stable = tag.abi == "abi3" and tag.interpreter.startswith("cp3") and int(tag.interpreter[3:]) <= 12
    python = tag.interpreter in ("py3", "py312") or (tag.interpreter, tag.abi) == ("cp312", "cp312") or stable
    return python and (tag.platform == "any" or tag.platform in PLATFORMS)


def unfit(folders: Sequence[Path]) -> list[str]:
    """Return wheels that Python 3.12 on x86-64 Linux would refuse."""
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("*.whl"))]
    return [wheel.name for wheel in wheels if not any(map(fits, parse_tag("-".join(wheel.stem.split("-")[-3:]))))]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    download(pins(NEEDS), FOLDER)
    for name, requirements in PEERS.items():
        download(requirements, FOLDER / name)
    (FOLDER / ".gitignore").write_text("*\n")
    size = sum(wheel.stat().st_size for wheel in FOLDER.rglob("*.whl")) / 2**20
    folders = [FOLDER, *(FOLDER / name for name in PEERS)]
    problems = [f"{wheel} needs {', '.join(gap)}" for wheel, gap in lacking(folders).items()]
    problems += [f"{wheel} does not fit Python 3.12 on x86-64 Linux" for wheel in unfit(folders)]
    if size > LIMIT_MIB:
        problems.append(f"{size:.1f} MiB are more than {LIMIT_MIB}")
    print(f"{len(list(FOLDER.rglob('*.whl')))} wheels, {size:.1f} MiB in {FOLDER}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
