"""What every program of the comparison takes and prints, so that all are timed alike. Standard library only.

A program is given sizes on its command line and prints one line of JSON: what it is, the seconds of each timed
iteration, its peak memory, and what its environment made of a fixed sequence of actions (`check`), which shows that
all programs have the same equations and rewards.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# PPO's numbers, the same in every program.
GAMMA, GAE_LAMBDA, CLIP, LEARNING_RATE, MAX_GRAD_NORM = 0.95, 0.95, 0.2, 1e-3, 5.0
CHECK_ENVS, CHECK_STEPS = 4, 32


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the sizes that all programs take; a program may add its own."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--num-envs", type=int, default=1024, help="environments, N")
    made.add_argument("--horizon", type=int, default=32, help="steps per environment and iteration, T")
    made.add_argument("--passes", type=int, default=4, help="full-batch passes over the data")
    made.add_argument("--width", type=int, default=256, help="width of both hidden layers")
    made.add_argument("--warmup", type=int, default=1, help="iterations that are not timed")
    made.add_argument("--iterations", type=int, default=5, help="timed iterations at most")
    made.add_argument("--min-iterations", type=int, default=1, help="timed iterations at least")
    made.add_argument("--seconds", type=float, default=5.0, help="no further iteration is begun after this time")
    made.add_argument("--block", type=int, default=1, help="iterations per timing of the whole; more for short ones")
    made.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the library's choice")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--amp", action="store_true", help="mixed precision, where the program has it")
    made.add_argument("--seed", type=int, default=1)
    return made


def nothing() -> None:
    """Wait for nothing: on a CPU all work is done when a call returns."""


def timed(
    args: argparse.Namespace,
    collect: Callable[[], object],
    update: Callable[[], object],
    synchronize: Callable[[], object] = nothing,
) -> list[dict[str, float]]:
    """Return the seconds of collect, update and the whole for each timed iteration.

    With `--block` above 1, the whole is the mean over that many further iterations without a wait in between.

    Args:
        args: The sizes.
        collect: Gathers one horizon of experience.
        update: Learns from it.
        synchronize: Waits until the device is done.
    """
    for _ in range(args.warmup):
        collect()
        update()
    synchronize()
    rows: list[dict[str, float]] = []
    end = time.perf_counter() + args.seconds
    while len(rows) < args.iterations and (len(rows) < args.min_iterations or time.perf_counter() < end):
        begin = time.perf_counter()
        collect()
        synchronize()
        middle = time.perf_counter()
        update()
        synchronize()
        whole = time.perf_counter() - begin
        row = {"collect_s": middle - begin, "update_s": begin + whole - middle}
        if args.block > 1:
            begin = time.perf_counter()
            for _ in range(args.block):
                collect()
                update()
            synchronize()
            whole = (time.perf_counter() - begin) / args.block
        rows.append({**row, "total_s": whole})
    return rows


def emit(
    args: argparse.Namespace,
    program: str,
    rows: Sequence[dict[str, float]],
    *,
    check: float | None,
    base_mb: float,
    peak_mb: float,
    **facts: Any,
) -> None:
    """Print a program's line.

    Args:
        args: The sizes.
        program: Its name.
        rows: What `timed` returned.
        check: What `play_check` returned.
        base_mb: Memory after the imports, before anything was built (MB).
        peak_mb: Most memory at any time (MB).
        **facts: Versions and whatever else is worth recording.
    """
    sizes = {name: value for name, value in vars(args).items() if isinstance(value, (int, float, str)) and value != ""}
    line = {
        "program": program,
        **sizes,
        "transitions": args.num_envs * args.horizon,
        "timings": list(rows),
        "base_mb": base_mb,
        "peak_mb": peak_mb,
        "check": check,
        "python": platform.python_version(),
        **facts,
    }
    print(json.dumps(line), flush=True)


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, `source` for one that is used from its folder."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "source"
    return found


def memory_mb() -> float:
    """Return the most memory that this process has had resident so far, in MB.

    Not `ru_maxrss` where /proc tells it: that one starts from what the parent process had at the fork.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# ------------------------------------------------------------------------------------------------------------ check


def check_state(env: int) -> list[float]:
    """Return x (m), x' (m/s), theta (rad), theta' (rad/s) at the start of the check."""
    return [0.1 * (env + 1), -0.05 * env, 0.2 * (env - 1.5), 0.1 * (2 - env)]


def check_action(t: int, env: int) -> int:
    """Return the action of an environment at a step of the check."""
    return (t * t + env) % 3


def play_check(states: Callable[[list[list[float]]], None], step: Callable[[list[int]], Sequence[float]]) -> float:
    """Return the sum of all rewards of the check.

    Args:
        states: Puts the environments into states `[CHECK_ENVS][4]`.
        step: Takes actions `[CHECK_ENVS]` and returns the rewards.
    """
    states([check_state(env) for env in range(CHECK_ENVS)])
    total = 0.0
    for t in range(CHECK_STEPS):
        total += sum(float(reward) for reward in step([check_action(t, env) for env in range(CHECK_ENVS)]))
    return total


class Reference:
    """The check's environments in plain Python and double precision: CartPole with a push of 5 N, Euler steps."""

    def states(self, states: list[list[float]]) -> None:
        """Start anew."""
        self.now = [list(state) for state in states]

    def step(self, actions: list[int]) -> list[float]:
        """Push for 0.02 s; return minus the distance of each new observation from upright rest."""
        return [self._step(state, action) for state, action in zip(self.now, actions, strict=True)]

    @staticmethod
    def _step(state: list[float], action: int) -> float:
        x, x_dot, theta, theta_dot = state
        gravity, cart, pole, half_length, tau = 9.8, 1.0, 0.1, 0.5, 0.02
        sin, cos, mass = math.sin(theta), math.cos(theta), cart + pole
        drive = (5.0 * (action - 1) + pole * half_length * theta_dot**2 * sin) / mass
        theta_acc = (gravity * sin - cos * drive) / (half_length * (4 / 3 - pole * cos**2 / mass))
        x_acc = drive - pole * half_length * theta_acc * cos / mass
        state[:] = [x + tau * x_dot, x_dot + tau * x_acc, theta + tau * theta_dot, theta_dot + tau * theta_acc]
        x, x_dot, theta, theta_dot = state
        return -(abs(x) + abs(x_dot) + abs(math.cos(theta) - 1) + abs(math.sin(theta)) + abs(theta_dot))


def expected_check() -> float:
    """Return what every program's check must come to."""
    reference = Reference()
    return play_check(reference.states, reference.step)
