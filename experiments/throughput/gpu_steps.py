"""The steps of the measurement on a GPU; `gpu` runs each in a process of its own.

A step is given where programs find their packages, the options and its seconds, and yields its result whenever there is
more of it. On a CPU, with sizes that say nothing, all of them run: no slip should cost time on a device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from . import compare, plan
from .gpu import ROOT, Place, lines_of
from .programs import CUDA_PROGRAMS, PROGRAMS, Line, ProgramError, check, parse, run, speed

# Minibatches of more rows than this are computed in pieces of that many: their activations would not fit.
WHOLE_ROWS, PIECE_ROWS = 2**22, 2**20
# The first calls run eagerly, then work is captured and checked, and replayed once.
WARMUP = 5
SMALL, LARGE, HUGE = 8192, 65536, 524288
SWEEP = (2**20, 2**21, 2**22, 2**23, 2**24)  # environments, until memory ends
PIECES = (2**14, 2**16, 2**18)  # rows at a time: does it pay to stay in the L2 cache?

Result = dict[str, Any]
Step = Callable[[Place, argparse.Namespace, float], Iterator[Result]]


def versions(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Note what there is."""
    found: Result = {"python": sys.version.split()[0]}
    code = "import torch; print(torch.__version__, torch.version.cuda); import triton; print(triton.__version__)"
    for name, command in (("nvidia-smi", ["nvidia-smi"]), ("torch", [sys.executable, "-c", code])):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds / 2, check=False)
            found[name] = (done.stdout or done.stderr).strip().splitlines()[-40:]
        except (OSError, subprocess.TimeoutExpired) as error:
            found[name] = [str(error)]
        yield found


def smoke(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Train some iterations with warnings as errors, and see that all work is replayed."""
    size = "16" if args.tiny else str(SMALL)
    command = [sys.executable, "-m", "experiments.throughput.smoke", "--device", args.device, "--num-envs", size]
    yield run(command, timeout_s=seconds, env=place.own)[-1]


def profile(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Find kernels by time, in processes whose timings are not used; torch's tables go to `profile.txt`."""
    text, lines = "", []
    sizes = ((16, False),) if args.tiny else ((LARGE, True), (LARGE, False), (SMALL, False))
    end = time.perf_counter() + seconds
    for num_envs, amp in sizes:
        file = place.folder / "profile.txt"
        point = plan.Point(num_envs=num_envs, horizon=8 if args.tiny else 32, amp=amp)
        options = [*point.options(), "--device", args.device, "--warmup", str(WARMUP), "--seconds", "0.1"]
        command = [sys.executable, str(PROGRAMS["rl8"].script), *options, "--profile", str(file)]
        line = run(command, timeout_s=end - time.perf_counter(), env=place.own)[-1]
        lines.append(line)
        text += f"{point}\n\n{file.read_text()}\n"
        (args.out / "profile.txt").write_text(text)
        yield {"lines": lines, "file": "profile.txt"}


def line_of(point: plan.Point, **more: Any) -> Result:
    """Return the options of a point for a line of the file that `rl8_ppo.py --points` reads."""
    rows = point.transitions // point.minibatches
    pieces = PIECE_ROWS if rows > WHOLE_ROWS else 0
    return {**asdict(point), "piece_size": pieces, "block": 10 if point.transitions <= 2**21 else 1, **more}


def points(place: Place, args: argparse.Namespace, seconds: float, listed: list[Result]) -> Iterator[Result]:
    """Measure points one after the other in one process: peak memory can be reset on CUDA."""
    file, errors = place.folder / f"{args.step}.jsonl", args.out / f"{args.step}-errors.txt"
    file.write_text("".join(json.dumps(one) + "\n" for one in listed))
    command = [sys.executable, str(PROGRAMS["rl8"].script), "--points", str(file), "--device", args.device]
    command += ["--warmup", str(WARMUP), "--seconds", "0.05" if args.tiny else "0.5", "--iterations", "3"]
    lines: list[Line] = []
    skipped: list[dict[str, str]] = []
    reason = "not measured, see the errors' file"
    try:
        for line in (one for text in lines_of(command, seconds, place.own, errors=errors) for one in parse(text)):
            check(line)
            name = point_name(line)
            if line["timings"]:
                lines.append(line)
                args.say(f"{name}: {speed(line):,.0f} transitions/s, {line['peak_mb']:,.0f} MB")
            else:
                skipped.append({"point": name, "reason": line.get("skipped", "gave no timing")})
                args.say(f"{name}: {skipped[-1]['reason']}")
            yield {"lines": lines, "skipped": skipped}
    except ProgramError as error:
        reason = str(error)
    told = {*map(point_name, lines), *(one["point"] for one in skipped)}
    missing = [point_name(one) for one in listed if point_name(one) not in told]
    yield {"lines": lines, "skipped": [*skipped, *({"point": name, "reason": reason} for name in missing)]}


def point_name(options: Mapping[str, Any]) -> str:
    """Return what tells points apart."""
    point = plan.Point(**{name: options[name] for name in plan.Point.__dataclass_fields__})
    kernels = options.get("kernels", "auto")
    pieces = options.get("piece_size") or 0
    extras = [f"kernels {kernels}" if kernels != "auto" else "", f"pieces of {pieces}" if pieces else ""]
    return ", ".join(filter(None, [str(point), *extras]))


def speeds(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Measure both precisions, small, large and huge, then more environments until memory ends."""
    if args.tiny:
        both = [plan.Point(num_envs=n, horizon=4, width=8, amp=amp) for n in (4, 8) for amp in (False, True)]
        yield from points(place, args, seconds, [line_of(point) for point in both])
        return
    main = [plan.Point(num_envs=n, amp=amp) for n in (LARGE, SMALL, HUGE) for amp in (True, False)]
    more = [plan.Point(num_envs=n, amp=True) for n in SWEEP]
    yield from points(place, args, seconds, [*map(line_of, main), *map(line_of, more)])


def kernels(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Measure rl8's own kernels off, by choice and on, then minibatches in pieces of several sizes."""
    # on a CPU there are none to force
    kinds = ("off", "auto") if args.device == "cpu" else ("off", "auto", "on")
    sizes = {"horizon": 4, "width": 8} if args.tiny else {}
    num_envs = (4,) if args.tiny else (LARGE, SMALL)
    listed = [
        line_of(plan.Point(num_envs=n, amp=amp, **sizes), kernels=kind)
        for n in num_envs
        for amp in (True, False)
        for kind in kinds
    ]
    if not args.tiny:
        listed += [line_of(plan.Point(num_envs=LARGE, amp=True), piece_size=rows) for rows in PIECES]
    yield from points(place, args, seconds, listed)


def tests(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Run the tests marked `cuda`; their output goes to `tests.txt`."""
    marked = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in path.read_text())
    if args.tiny:
        marked = [path for path in marked if path.endswith("test_kinds.py")]
    # Warnings of other versions' imports are no failure here; what rl8 itself warns of still is.
    kinds = ("DeprecationWarning", "FutureWarning", "ImportWarning")
    relaxed = [word for kind in kinds for word in ("-W", f"default::{kind}")]
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "-ra", "-p", "no:cacheprovider", "-o", "timeout=40"]
    text, summary = "", "nothing printed"
    with (args.out / "tests.txt").open("w") as file:
        try:
            for line in lines_of([*command, *relaxed, *marked], seconds, place.own):
                text += line
                file.write(line)
                file.flush()
                summary = line.strip() or summary
        except ProgramError as error:
            last = f"{text.count(' PASSED')} passed so far" if "stopped" in str(error) else summary
            summary = f"{str(error).split(':')[0]}: {last}"
    yield {"files": len(marked), "summary": summary}


def micro(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Measure the device itself: its peaks, and small pieces of the work in more than one form."""
    each = "0.01" if args.tiny else "0.5"
    common = ["--device", args.device, "--seconds", each]
    yield run([sys.executable, "-m", "experiments.throughput.micro", *common], timeout_s=seconds, env=place.own)[-1]


def peers(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Run the other programs, one after the other, at the small and the large size."""
    end = time.perf_counter() + seconds
    sizes = [compare.Size(16, 8, 0.1)] if args.tiny else [compare.Size(n, 32, 2.0) for n in (SMALL, LARGE)]
    names = ("rl8",) if args.tiny else ("rl8", "rl8-bf16", "jax", *CUDA_PROGRAMS[2:5], "sb3")
    # Pieces are for a CPU's caches; short iterations are timed ten at a time.
    options = {name: PROGRAMS[name].options if name != "jax" else () for name in names}
    options |= {name: (*options[name], "--block", "10") for name in ("rl8", "rl8-bf16", "jax") if name in options}
    setting = compare.Setting(
        options=options,
        common=("--device", args.device, "--warmup", str(WARMUP)),
        pythons=place.pythons,
        envs=place.peers if place.bare else {"rl8": place.own, "jax": place.peers["jax"]},
        timeout_s=60.0,
    )
    found: Result = {"sizes": [], "lines": [], "failed": {}, "cut": {}}
    for size in sizes:
        found["sizes"].append(size.name)
        for name in names:
            left = end - time.perf_counter()
            if name in found["failed"] or left < 5.0:
                found["cut"] |= {size.name: "no time for all programs"} if left < 5.0 else {}
                continue
            one = compare.compare([size], setting, rounds=1, names=[name], left_s=lambda: end - time.perf_counter())
            found["lines"] += one["lines"]
            found["failed"] |= one["failed"]
            yield found


def solve(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Train CartPole from the command line until it is solved; the time includes imports and the store's creation."""
    stop = ["stop=env_steps", "goal.env_steps=2000", "algo.num_envs=16"] if args.tiny else ["stop=target"]
    device = "cpu" if args.device == "cpu" else "cuda"
    command = [sys.executable, "-m", "rl8", f"device={device}", *stop, "trainer.view=plain", "trainer.render=false"]
    runs: list[Result] = []
    folder = place.folder / "solve"
    folder.mkdir()
    for _ in range(1 if args.tiny else 2):  # the second finds store and caches
        begin, last, code = time.perf_counter(), [], 0
        try:
            for line in lines_of(command, seconds / 2, place.own, cwd=folder):
                last = [*last[-7:], line.rstrip()]
        except ProgramError as error:
            code, last = 1, [*last, str(error)]
        runs.append({"seconds": time.perf_counter() - begin, "exit_code": code, "end": last})
        yield {"command": " ".join(["python", *command[1:]]), "runs": runs}


def compiled(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Measure device.compile=true, which takes long to begin."""
    point = plan.Point(num_envs=4, horizon=4, width=8) if args.tiny else plan.Point(num_envs=LARGE, amp=True)
    kinds = (False,) if args.tiny else (True, False)
    listed = [line_of(plan.replace(point, compile=kind), kernels="off") for kind in kinds]
    yield from points(place, args, seconds, listed)


def more(place: Place, args: argparse.Namespace, seconds: float) -> Iterator[Result]:
    """Measure other environments, models, widths and minibatches, as many as time allows."""
    if args.tiny:
        listed = [plan.Point(num_envs=4, horizon=4, width=8, model="lstm")]
    else:
        default = plan.Point(num_envs=LARGE)
        others = (("pendulum", "mlp"), ("cartpole", "lstm"), ("dummy", "mlp"))
        listed = [
            plan.Point(env=env, model=model, num_envs=LARGE, width=plan.LSTM_WIDTH if model == "lstm" else 256)
            for env, model in others
        ]
        listed += [plan.replace(default, width=width) for width in (128, 512, 64, 1024)]
        listed += [plan.replace(default, minibatches=count) for count in (4, 16, 64)]
    yield from points(place, args, seconds, [line_of(point) for point in listed])


STEPS: Mapping[str, Step] = {
    "versions": versions,
    "smoke": smoke,
    "profile": profile,
    "speeds": speeds,
    "kernels": kernels,
    "tests": tests,
    "peaks": micro,
    "compare": peers,
    "solve": solve,
    "compile": compiled,
    "more": more,
}
