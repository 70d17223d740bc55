"""The throughput study on a CPU: `make bench`, or

    python -m experiments.throughput.bench                      # all parts, about 35 minutes on two cores
    python -m experiments.throughput.bench --only compare       # one part; the others' results stay
    python -m experiments.throughput.bench --minutes 90         # more points, the dear ones too

Writes JSON, a page of tables and pictures to `experiments/throughput/results/`. Nothing else should run meanwhile.
Every part records when, at which commit and with which versions it was run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl8.tracking.provenance import git_state, hardware, versions

from . import compare, overhead, plan, report, venvs
from .programs import CPU_PROGRAMS, PROGRAMS, ROOT, ProgramError, run, run_program, speed

RESULTS = Path(__file__).parent / "results"
SIZES = (compare.Size(1024, 32, 5.0), compare.Size(8192, 32, 12.0))
TINY_SIZES = (compare.Size(16, 8, 0.1),)
# rl8 alone depends on how far a training is: it leaves idle units out. Two programs are enough to compare that with.
LATER_SIZES = (compare.Size(1024, 32, 5.0, warmup=20),)
TINY_LATER_SIZES = (compare.Size(16, 8, 0.1, warmup=2),)
LATER_PROGRAMS = ("rl8", "upstream", "jax")


class Clock:
    """What is left of the study's time.

    Args:
        minutes: All of it.
    """

    def __init__(self, minutes: float) -> None:
        self.begun = time.perf_counter()
        self.end = self.begun + 60 * minutes

    def left(self) -> float:
        """Return the seconds left, negative once they are used up."""
        return self.end - time.perf_counter()

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        print(f"[{(time.perf_counter() - self.begun) / 60:5.1f} min] {text}", flush=True)


# -------------------------------------------------------------------------------------------------------------- parts


def peaks(clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Measure what the machine can do at best."""
    command = [sys.executable, "-m", "experiments.throughput.peaks", "--device", args.device]
    line = run([*command, "--seconds", str(0.01 if args.tiny else 1.0)], timeout_s=120.0)[-1]
    clock.say(f"peaks: {line['gflops']:.0f} GFLOP/s, triad {line['triad_gb_s']:.1f} GB/s")
    return line


def startup(clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the time from the command to the first iteration."""
    command = [sys.executable, "-m", "experiments.throughput.startup", "--repeats", str(1 if args.tiny else 3)]
    line = run(command, timeout_s=300.0)[-1]
    clock.say(f"start-up: {', '.join(f'{name} {min(times):.1f} s' for name, times in line.items() if times)}")
    return line


def comparison(clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Run the programs side by side."""
    return side_by_side(clock, args, TINY_SIZES if args.tiny else SIZES, args.programs, args.reserve_s)


def later(clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Run some of the programs side by side, further on in training."""
    names = [name for name in args.programs if name in LATER_PROGRAMS]
    return side_by_side(clock, args, TINY_LATER_SIZES if args.tiny else LATER_SIZES, names, args.reserve_s / 2)


def side_by_side(
    clock: Clock, args: argparse.Namespace, sizes: Sequence[compare.Size], names: Sequence[str], reserve_s: float
) -> dict[str, Any]:
    """Compare programs as long as that leaves `reserve_s` seconds for what follows."""
    clock.say(f"programs: {', '.join(names)}; {args.rounds} rounds")
    own = dict.fromkeys(names, ()) if args.tiny else None
    return compare.compare(
        sizes,
        compare.Setting(options=own, common=("--device", args.device)),
        rounds=args.rounds,
        names=names,
        left_s=lambda: clock.left() - reserve_s,
        say=clock.say,
    )


def overheads(clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Measure what logging, view and evaluation cost, with a terminal of its own for the live view."""
    sizes = ["--num-envs", "16", "--horizon", "8", "--rounds", "1"] if args.tiny else []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "overhead.json"
        on_terminal([sys.executable, "-m", "experiments.throughput.overhead", *sizes, "--out", str(out)])
        found: dict[str, Any] = json.loads(out.read_text())
    clock.say(f"logging, live view and evaluation: {100 * overhead.summary(found)['wall_s']:+.1f}% of an iteration")
    return found


def on_terminal(command: list[str]) -> None:
    """Run a command on a pseudo-terminal, and throw away what it draws.

    Raises:
        ProgramError: If it fails; the message ends with what it last drew.
    """
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    drawn = bytearray()

    def drain() -> None:
        try:
            while chunk := os.read(ours, 65536):
                drawn.extend(chunk)
                del drawn[:-2000]
        except OSError:
            pass  # the other side has closed, which Linux reports as an error

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    code = process.wait()
    reader.join(timeout=5)
    os.close(ours)
    if code:
        raise ProgramError(f"exit code {code}: {drawn.decode(errors='replace')[-800:]}")


def grid(clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the points of the plan, each in a process of its own, as far as time and memory allow."""
    points = [plan.Point(num_envs=16, horizon=8)] if args.tiny else plan.cpu_points()
    # Until a point of a kind has been measured, a rate that is likely too low: nothing dear is begun.
    slow = plan.Limits(flops_per_s=5e10, memory_mb=0.8 * available_mb(), point_s=args.point_s)
    lines: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for index, point in enumerate(points):
        limits = calibrated(slow, point, lines)
        reason = plan.objection(point, limits, clock.left())
        if reason is None:
            clock.say(f"point {index + 1} of {len(points)}: {point}")
            try:
                lines.append(run_point(point, limits, args))
            except ProgramError as error:
                reason = str(error)
        if reason is not None:
            skipped.append({"point": str(point), "reason": reason})
    if skipped:
        clock.say(f"{len(skipped)} points left out; the page says why")
    return {"lines": lines, "skipped": skipped}


def run_point(point: plan.Point, limits: plan.Limits, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one point in a fresh process, so that its peak memory is its own."""
    options = [
        *point.options(),
        "--device",
        args.device,
        "--warmup",
        str(plan.warmup(point, limits)),
        "--seconds",
        "4",
        "--count",
    ]
    return run_program("rl8", options, timeout_s=4 * plan.point_s(point, limits) + 60)


def calibrated(limits: plan.Limits, point: plan.Point, lines: list[dict[str, Any]]) -> plan.Limits:
    """Return the limits with the rate of the largest point so far that has the same environment and model, if any has.

    Rates differ by a factor of ten: rl8 computes only a part of most perceptrons, and all of an LSTM.
    """
    alike = [line for line in lines if (line["env"], line["model"]) == (point.env, point.model)]
    if not alike:
        return limits
    largest = max(alike, key=lambda line: line["transitions"] * line["width"])
    measured = plan.Point(**{name: largest[name] for name in plan.Point.__dataclass_fields__})
    return plan.replace(limits, flops_per_s=measured.flops * speed(largest) / largest["transitions"])


def available_mb() -> float:
    """Return the memory that is free to use, in MB; where the system does not tell, 4 GB."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 4096.0


PARTS: Mapping[str, Callable[[Clock, argparse.Namespace], dict[str, Any]]] = {
    "peaks": peaks,
    "startup": startup,
    "compare": comparison,
    "later": later,
    "overhead": overheads,
    "grid": grid,
}


# -------------------------------------------------------------------------------------------------------------- study


def provenance(device: str) -> dict[str, Any]:
    """Return what a part was made with."""
    git = git_state(ROOT)
    return {
        "hardware": hardware(device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": git.get("commit", os.environ.get("COMMIT", "unknown")),
        "dirty": git.get("dirty", "unknown"),
        "versions": versions(),
        "command": " ".join(["python -m", *sys.argv]).replace(f"{ROOT}{os.sep}", ""),
    }


class Results:
    """The study's JSON, written anew after each part.

    Args:
        path: The file; parts that it already has stay until they are run again.
        device: What the study is of.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        # Before anything is written: the results themselves are tracked files and would count as changes.
        self.provenance = provenance(device)
        self.study: dict[str, Any] = {"study": "throughput", "device": device, "parts": {}}
        if path.exists():
            self.study = json.loads(path.read_text())
        self.study["hardware"] = self.provenance["hardware"]

    def run(self, name: str, part: Callable[[], dict[str, Any]], say: Callable[[str], None]) -> None:
        """Run a part and save it; if it fails, what was there stays."""
        begin, date = time.perf_counter(), time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        try:
            found = part()
        except (ProgramError, RuntimeError, OSError) as error:
            say(f"{name} failed: {error}")
            return
        facts = {**self.provenance, "date": date}
        self.study["parts"][name] = {"provenance": facts, "seconds": time.perf_counter() - begin, "result": found}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.study, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--only", nargs="+", choices=PARTS, help="parts to run; all of them by default")
    made.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(CPU_PROGRAMS))
    made.add_argument("--minutes", type=float, default=34.0, help="time for everything")
    made.add_argument(
        "--reserve-s", type=float, default=1020.0, help="time that the comparison leaves for the parts after it"
    )
    made.add_argument("--point-s", type=float, default=40.0, help="time that one point of the grid may take")
    made.add_argument("--rounds", type=int, default=3, help="rounds of the comparison")
    made.add_argument("--device", default="cpu", choices=("cpu",), help="for CUDA see experiments/throughput/gpu.py")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    made.add_argument(
        "--tiny", action="store_true", help="a run of seconds at sizes that say nothing, to see that it works"
    )
    return made


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    args = parser().parse_args(argv)
    names = args.only or list(PARTS)
    if {"compare", "later"} & set(names):
        homes = {PROGRAMS[name].home for name in args.programs if "compare" in names or name in LATER_PROGRAMS}
        for name in sorted(homes & set(venvs.missing())):
            print(
                f"making a virtual environment for {name}; the first time takes minutes, and is not counted", flush=True
            )
            error = venvs.make(name)
            print(f"{name}: {error or 'ready'}", flush=True)
    clock = Clock(args.minutes)
    results = Results(args.out / f"throughput-{args.device}.json", args.device)
    for name in (part for part in PARTS if part in names):
        results.run(name, lambda name=name: PARTS[name](clock, args), clock.say)
    for file in (results.path, *report.write(results.study, args.out)):
        clock.say(f"written: {file}")


if __name__ == "__main__":
    main()
