"""The programs side by side: one after the other, round after round, the same sizes.

What a machine does besides changes over minutes, so speeds are compared within a round: `ratios` divides rl8's speed by
the other program's of the same round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .programs import CPU_PROGRAMS, PROGRAMS, Line, ProgramError, interpreter, run_program, speed

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """What the programs are compared at.

    Attributes:
        num_envs: Environments.
        horizon: Steps.
        seconds: Time for the timed iterations of one program in one round, at least one iteration.
        warmup: Iterations before those.
    """

    num_envs: int
    horizon: int
    seconds: float
    warmup: int = 1

    @property
    def name(self) -> str:
        """Environments x steps."""
        later = f", after {self.warmup} iterations" if self.warmup > 1 else ""
        return f"{self.num_envs} x {self.horizon}{later}"


@dataclass(frozen=True)
class Setting:
    """How the programs are run.

    Attributes:
        options: Options of each program's own, instead of those of `PROGRAMS`.
        common: Options of all programs.
        pythons: Interpreters by program's home, instead of the virtual environments.
        envs: Environment variables by program's home.
        timeout_s: Time after which a program is taken to have failed.
    """

    options: Mapping[str, Sequence[str]] | None = None
    common: Sequence[str] = ()
    pythons: Mapping[str, str] | None = None
    envs: Mapping[str, dict[str, str]] | None = None
    timeout_s: float = 240.0

    def run(self, name: str, size: Size, *, timeout_s: float) -> Line:
        """Run one program at one size and return its line.

        Raises:
            ProgramError: If it has no interpreter, or fails.
        """
        python = interpreter(name, dict(self.pythons) if self.pythons is not None else None)
        if python is None:
            raise ProgramError("no virtual environment: python -m experiments.throughput.venvs")
        own = PROGRAMS[name].options if self.options is None else self.options.get(name, ())
        given = ("--num-envs", size.num_envs, "--horizon", size.horizon, "--seconds", size.seconds)
        given += ("--warmup", size.warmup)
        return run_program(
            name,
            [*map(str, given), *self.common, *own],
            python=python,
            timeout_s=min(self.timeout_s, timeout_s),
            env=(self.envs or {}).get(PROGRAMS[name].home),
        )


def compare(
    sizes: Sequence[Size],
    setting: Setting,
    *,
    rounds: int = 3,
    names: Sequence[str] = CPU_PROGRAMS,
    left_s: Callable[[], float] = lambda: float("inf"),
    say: Say = print,
) -> dict[str, Any]:
    """Run every program at every size, `rounds` times over, and return what they printed.

    A program that fails is left out from there on; why is recorded under `failed`.

    Args:
        sizes: What they are compared at.
        setting: How they are run.
        rounds: Rounds per size.
        names: Which programs, in their order within a round.
        left_s: How long this may still take (s); no round is begun that is not expected to fit.
        say: Called with what is going on.
    """
    failed: dict[str, str] = {}
    cut: dict[str, str] = {}
    lines: list[Line] = []
    for size in sizes:
        last_round = 0.0
        for number in range(rounds):
            if last_round > left_s():
                cut[size.name] = f"{number} of {rounds} rounds: the next needs about {last_round:.0f} s"
                say(f"{size.name}: {cut[size.name]}")
                break
            begin = time.perf_counter()
            for name in (name for name in names if name not in failed):
                try:
                    line = setting.run(name, size, timeout_s=max(left_s(), 30.0))
                except ProgramError as error:
                    failed[name] = f"failed at {size.name}: {error}"
                    say(f"{name} {failed[name]}")
                else:
                    lines.append({**line, "round": number, "size": size.name})
                    say(f"{size.name} round {number + 1}: {name} {speed(line):,.0f}/s, {line['peak_mb']:.0f} MB")
            last_round = time.perf_counter() - begin
    return {"sizes": [size.name for size in sizes], "lines": lines, "failed": failed, "cut": cut}


def of_round(found: Mapping[str, Any], size: str, name: str) -> dict[int, Line]:
    """Return a program's lines at a size by round."""
    return {line["round"]: line for line in found["lines"] if line["size"] == size and line["program"] == name}


def ratios(found: Mapping[str, Any], size: str, name: str, *, base: str = "rl8") -> list[float]:
    """Return the speed of `base` over that of another program, for each round that both finished."""
    ours, theirs = of_round(found, size, base), of_round(found, size, name)
    return [speed(ours[number]) / speed(theirs[number]) for number in sorted(ours.keys() & theirs.keys())]


def summary(found: Mapping[str, Any], size: str, name: str) -> dict[str, float] | None:
    """Return a program's median speed and memory at a size, and rl8's ratio to it: median, least and greatest."""
    lines = list(of_round(found, size, name).values())
    if not lines:
        return None
    out = {
        "transitions_per_s": median(map(speed, lines)),
        "peak_mb": median(line["peak_mb"] for line in lines),
        "base_mb": median(line["base_mb"] for line in lines),
        "rounds": float(len(lines)),
    }
    times = ratios(found, size, name)
    if times:
        out |= {"ratio": median(times), "ratio_min": min(times), "ratio_max": max(times)}
    return out
