"""Running the study's programs: each in a process of its own, one line of JSON back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from . import venvs
from .peers.contract import expected_check

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
Line = dict[str, Any]


class ProgramError(Exception):
    """A program that ended badly, took too long, or does other work than the rest."""


@dataclass(frozen=True)
class Program:
    """A program of the comparison.

    Attributes:
        name: Its short name.
        title: What it is.
        differs: In what its work differs from rl8's default iteration.
        options: Its own options on a CPU.
        variant_of: The program that it is, with other options.
    """

    name: str
    title: str
    differs: str
    options: tuple[str, ...] = ()
    variant_of: str = ""

    @property
    def home(self) -> str:
        """The name of its script and virtual environment."""
        return self.variant_of or self.name

    @property
    def script(self) -> Path:
        """Its file."""
        return HERE / "peers" / f"{self.home}_ppo.py"


PROGRAMS = {
    program.name: program
    for program in (
        Program("rl8", "rl8, this repository", "-"),
        Program(
            "upstream",
            "rl8 1.0.0 from PyPI",
            "batch-major buffer; values at every step; value loss clamped at 5; five host reads per minibatch; its "
            "shuffle of the one full batch, which changes nothing, is switched off in its favour",
        ),
        Program(
            "sb3",
            "Stable-Baselines3",
            "the env crosses to NumPy and back at every step, and each env's `done` is looked at in Python; rewards "
            "are not scaled; the batch is permuted; advantages are normalised per minibatch, which is the batch here",
        ),
        Program(
            "skrl",
            "skrl",
            "stores terminated and truncated flags, values and log-probabilities per step and tracks statistics of "
            "every env's return; rewards are not scaled; the batch is permuted; no entropy or clip fraction is "
            "computed; its trainer's loop is written out so that collect and update can be timed apart",
        ),
        Program(
            "jax",
            "plain JAX, `lax.scan` over everything",
            "one compiled function per iteration, written for this study: nothing is configurable, logged or checked; "
            "Threefry random numbers; entropy, KL divergence and clip fraction are not computed; compilation is not in "
            "the timings; gradients are accumulated over pieces of rows, as in rl8; collect is timed on its own",
            ("--piece", "2048"),
        ),
        Program("rl8-bf16", "rl8, bf16", "networks compute in bf16, master weights are float32", ("--amp",), "rl8"),
        Program("upstream-fp16", "rl8 1.0.0, fp16", "as above, in fp16 with a loss scaler", ("--amp",), "upstream"),
    )
}
CPU_PROGRAMS = ("rl8", "upstream", "sb3", "skrl", "jax")
# Stable-Baselines3 speaks NumPy and advises against a GPU for such networks.
CUDA_PROGRAMS = ("rl8", "rl8-bf16", "upstream", "upstream-fp16", "skrl", "jax")


def interpreter(name: str, peers: dict[str, str] | None = None) -> str | None:
    """Return the Python that runs a program: this one for rl8, else its virtual environment's; None if there is none.

    Args:
        name: The program's.
        peers: Interpreters to use instead, by home.
    """
    home = PROGRAMS[name].home
    if home == "rl8":
        return sys.executable
    if peers is not None:
        return peers.get(home)
    return str(venvs.python_of(home)) if home not in venvs.missing() else None


def parse(output: str) -> list[Line]:
    """Return the lines of JSON in what a program printed."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def run(command: Sequence[str], *, timeout_s: float, env: dict[str, str] | None = None) -> list[Line]:
    """Run a command and return its lines of JSON.

    Raises:
        ProgramError: If it fails, prints no such line, or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"took longer than {timeout_s:.0f} s") from None
    except OSError as error:
        raise ProgramError(str(error)) from None
    lines = parse(done.stdout)
    if done.returncode:
        raise ProgramError(f"exit code {done.returncode}: {' / '.join(done.stderr.strip().splitlines()[-3:])[-600:]}")
    if not lines:
        raise ProgramError("printed no result")
    return lines


def run_program(
    name: str,
    options: Sequence[str],
    *,
    timeout_s: float = 600.0,
    python: str | None = None,
    env: dict[str, str] | None = None,
) -> Line:
    """Run a program of the comparison and return its line, with the seconds of the whole process in `process_s`.

    Raises:
        ProgramError: If it fails, or its environment is not the same as the others'.
    """
    begin = time.perf_counter()
    line = run([python or sys.executable, str(PROGRAMS[name].script), *options], timeout_s=timeout_s, env=env)[-1]
    line |= {"program": name, "process_s": time.perf_counter() - begin}
    check(line)
    return line


def check(line: Line) -> None:
    """Raise ProgramError unless a program's environment gave the rewards that it must."""
    found, expected = line.get("check"), expected_check()
    if found is not None and abs(found - expected) > 1e-4 * abs(expected):
        raise ProgramError(f"its CartPole is another one: rewards of the check sum to {found}, expected {expected}")


def speed(line: Line) -> float:
    """Return the median transitions per second of a line's timed iterations."""
    return line["transitions"] / median(row["total_s"] for row in line["timings"])


def phases(line: Line) -> tuple[float, float]:
    """Return the median transitions per second of collect alone and of update alone."""
    collect, update = (median(row[key] for row in line["timings"]) for key in ("collect_s", "update_s"))
    return line["transitions"] / collect, line["transitions"] / update
