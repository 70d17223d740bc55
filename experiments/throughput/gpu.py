"""Everything that needs a GPU, in two parts of under five minutes each: `make bench-gpu PART=a`, then `PART=b`, or

    python3 -m experiments.throughput.gpu a --out results
    python3 -m experiments.throughput.gpu b --out results

Part a: versions, a smoke test, profiles, both precisions from small to memory's end, kernels off and on, the tests
that need CUDA, small measurements. Part b: the other programs, CartPole from the command to solved, compilation, more
points.

Works on a bare machine with Python 3.12, torch and what `make wheels` has gathered into `.wheels/`, which is unpacked
into a temporary folder and found from there; nothing is installed. Each step is a process with a time limit, and its
results are written as they come, so that one that crashes or hangs takes nothing else with it. `table.md` is what goes
into the README and the study.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import figures
from .bench import RESULTS, Clock, Results
from .programs import ROOT, ProgramError

WHEELS = ROOT / ".wheels"
# Steps of each part in the order of what is wanted most, with the most seconds that each may take. Their sum leaves
# some of five minutes for starting processes.
PARTS: Mapping[str, Mapping[str, float]] = {
    "a": {"versions": 10, "smoke": 40, "profile": 50, "speeds": 60, "kernels": 40, "tests": 50, "peaks": 30},
    "b": {"compare": 150, "solve": 45, "compile": 45, "more": 45},
}
PART_S = 290.0
TINY_S = 200.0  # of a step where only its working counts


class Place:
    """Where programs find what they import.

    Args:
        folder: Where the wheels are unpacked, unless they are there; must stay as long as programs run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bare = any(WHEELS.glob("*.whl")) and importlib.util.find_spec("hydra") is None
        own = [self._unpack("site", WHEELS)] if self.bare else []
        self.own = {"PYTHONPATH": os.pathsep.join([*map(str, own), str(ROOT)])}
        # Not the repository: upstream's package has the same name.
        self.peers: dict[str, dict[str, str]] = {"rl8": self.own, "jax": {"PYTHONPATH": ""}}
        for wheels in sorted(path for path in WHEELS.glob("*") if path.is_dir() and self.bare):
            paths = [self._unpack(wheels.name, wheels), *own]
            self.peers[wheels.name] = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        self.peers["jax"]["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax")

    @property
    def pythons(self) -> dict[str, str] | None:
        """Interpreters by program: this one for all whose wheels are here, or None for their virtual environments."""
        return dict.fromkeys(self.peers, sys.executable) if self.bare else None

    def _unpack(self, name: str, wheels: Path) -> Path:
        target = self.folder / name
        if not target.exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
            flags = ["--no-deps", "--no-compile", "--no-cache-dir", "--target", str(target)]
            subprocess.run([*pip, *flags, *map(str, sorted(wheels.glob("*.whl")))], check=True)
        return target


def lines_of(
    command: Sequence[str], seconds: float, env: Mapping[str, str], *, cwd: Path = ROOT, errors: Path | None = None
) -> Iterator[str]:
    """Yield what a command prints, line by line as it comes; after so many seconds it and its children are killed.

    Args:
        command: The command.
        seconds: Its time.
        env: Environment variables, besides this process's.
        cwd: Its working directory.
        errors: File for standard error; among the lines if there is none.

    Raises:
        ProgramError: At the end, if it failed or was killed.
    """
    with tempfile.TemporaryFile("w+") as kept:
        sink = subprocess.STDOUT if errors is None else kept
        process = subprocess.Popen(
            list(command),
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            cwd=cwd,
            env={**os.environ, **env},
            start_new_session=True,
        )
        late = threading.Event()

        def kill() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(seconds, 1.0), kill)
        timer.start()
        assert process.stdout is not None
        try:
            yield from process.stdout
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
        kept.seek(0)
        said = kept.read()
        if errors is not None:
            errors.write_text(said)
    if late.is_set():
        raise ProgramError(f"stopped after {seconds:.0f} s")
    if code:
        raise ProgramError(f"exit code {code}: {' / '.join(said.strip().splitlines()[-3:])[-400:]}")


def write(file: Path, content: Any) -> None:
    """Write JSON as a whole: whoever reads the file later finds the last that was complete."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(file)


def in_process(name: str, args: argparse.Namespace, place: Place, seconds: float) -> dict[str, Any]:
    """Run a step in a process of its own; return the last result that it wrote, with `"ended"` if that was not well.

    Raises:
        ProgramError: If it wrote none.
    """
    out = args.out / f"{name}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "experiments.throughput.gpu", "--step", name, "--out", str(args.out)]
    command += ["--device", args.device, "--seconds", str(seconds), "--unpacked", str(place.folder)]
    failed = ""
    try:
        for line in lines_of([*command, *(["--tiny"] if args.tiny else [])], seconds + 5.0, {}):
            args.say(f"{name}: {line.rstrip()}")
    except ProgramError as error:
        failed = str(error)
    if not out.exists():
        raise ProgramError(failed or "wrote no result")
    found: dict[str, Any] = json.loads(out.read_text())
    return {**found, "ended": failed} if failed else found


def step(args: argparse.Namespace) -> None:
    """Do one step in this process, and write its result whenever there is more of it."""
    from . import gpu_steps

    args.say = lambda text: print(text, flush=True)
    place = Place(args.unpacked)
    for found in gpu_steps.STEPS[args.step](place, args, args.seconds):
        write(args.out / f"{args.step}.json", found)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps of some parts."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    today = RESULTS / f"gpu-{time.strftime('%Y-%m-%d')}"
    made.add_argument("parts", nargs="*", default=list(PARTS), help="a, b or both; both by default")
    made.add_argument("--out", type=Path, default=os.environ.get("OUT") or today, help="folder for the results")
    made.add_argument("--only", nargs="+", help="steps to run")
    made.add_argument("--device", default="cuda", help="cpu only shows that the steps work")
    made.add_argument("--tiny", action="store_true", help="sizes that say nothing, to see that it works")
    made.add_argument("--step", help=argparse.SUPPRESS)
    made.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    made.add_argument("--unpacked", type=Path, help=argparse.SUPPRESS)
    args = made.parse_args(argv)
    args.out = Path(args.out).resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.step:
        step(args)
        return
    for part in args.parts:
        if part not in PARTS:
            made.error(f"part {part!r} is unknown. Accepted: {', '.join(PARTS)}. Try PART=a.")
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts:
            run(part, args, Path(folder))


def run(part: str, args: argparse.Namespace, folder: Path) -> None:
    """Run the steps of a part, and write page, pictures and table."""
    clock = Clock(PART_S / 60)
    args.say = clock.say
    place = Place(folder)
    clock.say(f"part {part}; packages: {'unpacked from .wheels' if place.bare else 'those that are installed'}")
    results = Results(args.out / f"throughput-{args.device}.json", args.device)
    for name, most in PARTS[part].items():
        if args.only and name not in args.only:
            continue
        seconds = TINY_S if args.tiny else min(most, clock.left() - 5.0)
        if seconds < 5.0:
            clock.say(f"{name}: left out, no time")
            continue
        results.run(name, lambda name=name, seconds=seconds: in_process(name, args, place, seconds), clock.say)
        ended = figures.result(results.study, name)
        if ended and "ended" in ended:
            clock.say(f"{name}: {ended['ended']}; what it had measured is kept")
    try:
        from . import gpu_table, report

        (args.out / "table.md").write_text(gpu_table.table(results.study))
        for file in (results.path, args.out / "table.md", *report.write(results.study, args.out)):
            clock.say(f"written: {file}")
    except Exception as error:  # the figures are there, and the page can be made elsewhere
        clock.say(f"no page: {type(error).__name__}: {error}. Make it with python -m experiments.throughput.report.")


if __name__ == "__main__":
    try:
        main()
    except (ProgramError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
