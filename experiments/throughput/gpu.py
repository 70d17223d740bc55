"""Everything that needs a GPU, in under nine minutes and one folder: `make bench-gpu`, or

    python3 -m experiments.throughput.gpu --out results

Works on a bare machine with Python 3.12, torch and what `make wheels` has gathered into `.wheels/`, which is unpacked
into a temporary folder and found from there; nothing is installed. In the order of what is wanted most: the tests that
need CUDA, the peaks, the comparison with the other programs, the points of the study, a profile, CartPole from the
command to solved. Each part has a share of the time; what does not fit is left out and named. Every part's result is
written before the next one begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import compare, plan, report
from .bench import RESULTS, Clock, Results
from .programs import CUDA_PROGRAMS, PROGRAMS, ROOT, Line, ProgramError, check, parse, run, speed

WHEELS = ROOT / ".wheels"
SIZES = (compare.Size(8192, 32, 2.0), compare.Size(65536, 32, 3.0))
TINY_SIZES = (compare.Size(16, 8, 0.1),)
# Minibatches of more rows than this are computed in pieces of that many: their activations would not fit.
WHOLE_ROWS, PIECE_ROWS = 2**22, 2**20
# The first two calls run eagerly, the third is captured and checked, the fourth is the first replay.
WARMUP = 4


class Place:
    """Where programs find what they import.

    Args:
        folder: Where the wheels are unpacked; must stay as long as programs run.
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

    @property
    def pythons(self) -> dict[str, str] | None:
        """Interpreters by program: this one for all whose wheels are here, or None for their virtual environments."""
        return dict.fromkeys(self.peers, sys.executable) if self.bare else None

    def _unpack(self, name: str, wheels: Path) -> Path:
        target = self.folder / name
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--no-deps",
        ]
        flags = ["--no-compile", "--no-cache-dir", "--target", str(target)]
        subprocess.run([*pip, *flags, *map(str, sorted(wheels.glob("*.whl")))], check=True)
        return target


def stream(
    command: Sequence[str], seconds: float, env: Mapping[str, str], cwd: Path = ROOT, *, errors: Path | None = None
) -> tuple[str, int | None]:
    """Run a command for at most `seconds`; return what it printed and its exit code, None if it was stopped.

    Args:
        command: The command.
        seconds: After this time it is stopped.
        env: Environment variables, besides this process's.
        cwd: Its working directory.
        errors: File for standard error; together with the output if there is none.
    """
    with tempfile.TemporaryFile("w+") as output:
        sink = open(errors, "w") if errors else subprocess.STDOUT  # noqa: PTH123, SIM115
        process = subprocess.Popen(list(command), stdout=output, stderr=sink, cwd=cwd, env={**os.environ, **env})
        timer = threading.Timer(max(seconds, 1.0), process.kill)
        timer.start()
        code: int | None = process.wait()
        if not timer.is_alive():
            code = None
        timer.cancel()
        if not isinstance(sink, int):
            sink.close()
        output.seek(0)
        return output.read(), code


# -------------------------------------------------------------------------------------------------------------- parts


def tests(place: Place, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run the tests marked `cuda`; their output goes to `tests.txt`."""
    marked = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in path.read_text())
    if not marked:
        return {"files": 0, "summary": "no test is marked cuda"}
    # Warnings of other versions' imports are no failure here; what rl8 itself warns of still is.
    relaxed = [
        word for kind in ("DeprecationWarning", "FutureWarning", "ImportWarning") for word in ("-W", f"default::{kind}")
    ]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-ra", "-p", "no:cacheprovider", *relaxed, *marked]
    text, code = stream(command, seconds, place.own)
    (args.out / "tests.txt").write_text(text)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "nothing printed")
    return {"files": len(marked), "exit_code": code, "summary": last if code is not None else f"stopped: {last}"}


def peaks(place: Place, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Measure what the device can do at best."""
    command = [sys.executable, "-m", "experiments.throughput.peaks", "--device", args.device]
    return run([*command, "--seconds", str(0.01 if args.tiny else 0.7)], timeout_s=seconds, env=place.own)[-1]


def comparison(place: Place, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run the programs side by side on the device."""
    end = time.perf_counter() + seconds
    # Pieces are for a CPU's caches; short iterations are timed ten at a time.
    options = {name: PROGRAMS[name].options if name != "jax" else () for name in CUDA_PROGRAMS}
    options |= {name: (*options[name], "--block", "10") for name in ("rl8", "rl8-bf16", "jax")}
    setting = compare.Setting(
        options=options,
        common=("--device", args.device, "--warmup", str(WARMUP)),
        pythons=place.pythons,
        envs=place.peers if place.bare else {"rl8": place.own},
        timeout_s=60.0,
    )
    return compare.compare(
        TINY_SIZES if args.tiny else SIZES,
        setting,
        rounds=1 if args.tiny else 3,
        names=CUDA_PROGRAMS,
        left_s=lambda: end - time.perf_counter(),
        say=args.say,
    )


def point_options(point: plan.Point, *, counted: bool) -> dict[str, Any]:
    """Return the options of a point for a line of the file that `rl8_ppo.py --points` reads."""
    rows = point.transitions // point.minibatches
    return {
        **asdict(point),
        "piece_size": PIECE_ROWS if rows > WHOLE_ROWS else 0,
        "block": 10 if point.transitions <= 2**21 else 1,
        "count": counted,
    }


def grid(place: Place, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Measure the points of the study, one process per environment and model: peak memory can be reset on CUDA."""
    lines: list[Line] = []
    skipped: list[dict[str, str]] = []
    kinds = (("cartpole", "mlp"), ("pendulum", "mlp"), ("cartpole", "lstm"), ("dummy", "mlp"))
    shares = (0.5, 0.2, 0.2, 0.1)
    end, saved = time.perf_counter() + seconds, 0.0
    for (env, model), share in zip(kinds, shares, strict=True):
        points = [plan.Point(env, model, 16, 8, 32)] if args.tiny else plan.cuda_points(env, model)
        allowed = min(share * seconds + saved, end - time.perf_counter())
        begin = time.perf_counter()
        found, error = run_points(place, points, args, allowed)
        saved = max(allowed - (time.perf_counter() - begin), 0.0)
        lines += [line for line in found if line["timings"]]
        measured = {key(line): line for line in found}
        for point in points:
            line = measured.get(key(asdict(point)))
            if line is None or not line["timings"]:
                reason = error if line is None else line.get("skipped", "gave no timing")
                skipped.append({"point": str(point), "reason": reason})
        args.say(f"{env} {model}: {len(found)} of {len(points)} points")
    return {"lines": lines, "skipped": skipped}


def key(options: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what identifies a point among lines and points."""
    return tuple(options[name] for name in plan.Point.__dataclass_fields__)


def run_points(
    place: Place, points: Sequence[plan.Point], args: argparse.Namespace, seconds: float
) -> tuple[list[Line], str]:
    """Return the lines of the points that were measured in time, and why the others were not."""
    listed, errors = place.folder / "points.jsonl", place.folder / "errors.txt"
    counted = {
        point
        for point in points
        if point.num_envs in (8192, 65536) and point.horizon == 32 and point.width in (128, 256)
    }
    listed.write_text("".join(json.dumps(point_options(p, counted=p in counted)) + "\n" for p in points))
    options = [
        "--points",
        str(listed),
        "--device",
        args.device,
        "--warmup",
        str(WARMUP),
        "--seconds",
        "0.5",
        "--iterations",
        "3",
    ]
    text, code = stream([sys.executable, str(PROGRAMS["rl8"].script), *options], seconds, place.own, errors=errors)
    found = parse(text)
    for line in found:
        check(line)
    last = " / ".join(errors.read_text().strip().splitlines()[-3:])[-400:]
    return found, "no time was left" if code is None else f"failed: {last}"


def profile(place: Place, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Write torch's profile of an iteration at the default size, in float32 and in bf16, to `profile.txt`."""
    text = ""
    size = ("--num-envs", "16", "--horizon", "8") if args.tiny else ("--num-envs", "65536")
    for name, amp in (("float32", ()), ("bf16", ("--amp",))):
        file = place.folder / "profile.txt"
        options = [
            *size,
            *amp,
            "--device",
            args.device,
            "--warmup",
            str(WARMUP),
            "--seconds",
            "0.2",
            "--profile",
            str(file),
        ]
        line = run([sys.executable, str(PROGRAMS["rl8"].script), *options], timeout_s=seconds / 2, env=place.own)[-1]
        text += (
            f"{name}, {line['num_envs']} x {line['horizon']}: {speed(line):,.0f} transitions/s\n\n{file.read_text()}\n"
        )
    (args.out / "profile.txt").write_text(text)
    return {"file": "profile.txt"}


def solve(place: Place, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Train CartPole from the command line until it is solved; the time includes imports and the store's creation."""
    stop = ["stop=env_steps", "goal.env_steps=1000"] if args.tiny else ["stop=target"]
    command = [
        sys.executable,
        "-m",
        "rl8",
        f"device={args.device}",
        *stop,
        "trainer.view=plain",
        "trainer.render=false",
    ]
    runs = []
    folder = place.folder / "solve"
    folder.mkdir()
    for _ in range(1 if args.tiny else 2):  # the second finds store and caches
        begin = time.perf_counter()
        text, code = stream(command, seconds / 2, place.own, folder)
        runs.append({"seconds": time.perf_counter() - begin, "exit_code": code, "end": text.splitlines()[-8:]})
    return {"command": " ".join(["python", *command[1:]]), "runs": runs}


Part = Callable[[Place, argparse.Namespace, float], dict[str, Any]]
# Name, what it does, and the most seconds that it may take.
PARTS: tuple[tuple[str, Part, float], ...] = (
    ("tests", tests, 110.0),
    ("peaks", peaks, 25.0),
    ("compare", comparison, 150.0),
    ("grid", grid, 150.0),
    ("profile", profile, 40.0),
    ("solve", solve, 50.0),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    today = RESULTS / f"gpu-{time.strftime('%Y-%m-%d')}"
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT") or today, help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=[name for name, _, _ in PARTS], help="parts to run")
    parser.add_argument("--minutes", type=float, default=8.7, help="time for everything")
    parser.add_argument("--device", default="cuda", help="cpu only shows that the parts work")
    parser.add_argument("--tiny", action="store_true", help="sizes that say nothing, to see that it works")
    args = parser.parse_args(argv)
    args.out = Path(args.out).resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    clock = Clock(args.minutes)
    args.say = clock.say
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        clock.say(f"packages: {'unpacked from .wheels' if place.bare else 'those that are installed'}")
        results = Results(args.out / f"throughput-{args.device}.json", args.device)
        for name, part, most in PARTS:
            if args.only and name not in args.only:
                continue
            seconds = min(most, clock.left() - 10.0)
            if seconds < 5.0:
                clock.say(f"{name}: left out, no time")
                continue
            results.run(name, lambda part=part, seconds=seconds: part(place, args, seconds), clock.say)
            clock.say(f"{name}: done")
    for file in (results.path, *report.write(results.study, args.out)):
        clock.say(f"written: {file}")


if __name__ == "__main__":
    try:
        main()
    except (ProgramError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
