"""What MLflow logging, the live view and evaluation cost: a run with all of them against one with none, alternating.

    python -m experiments.throughput.overhead --out result.json

Both are `Trainer.run` on the same algorithm in one process. A block is a run whose first iteration is not counted; the
times are between the ends of consecutive iterations, so they hold everything that happens in between, and each block
holds exactly one evaluation. Standard output should be a terminal, for the live view to draw on.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

STEPS_PER_EVAL = 10
# Until then more and more units settle on one side of zero, and need not be computed: an iteration takes less and less.
WARMUP = 20
PARTS = {"all": ("track", "view", "eval"), "track": ("track",), "view": ("view",), "eval": ("eval",), "none": ()}


def stopwatch(iterations: int) -> Any:
    """Return a stop condition that notes the time after every iteration, and is met after `iterations` + 1 of them."""
    from rl8.conditions import Condition

    class Stopwatch(Condition):
        def __init__(self) -> None:
            self.wall: list[float] = []
            self.cpu: list[float] = []

        def __call__(self, metrics: Mapping[str, float]) -> bool:
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            return len(self.wall) > iterations

        def progress(self, metrics: Mapping[str, float]) -> float:
            return len(self.wall) / (iterations + 1)

        def describe(self) -> str:
            return f"{iterations + 1} iterations"

        def reset(self) -> None:
            self.wall.clear()
            self.cpu.clear()

    return Stopwatch()


def block(algorithm: Any, parts: tuple[str, ...], iterations: int) -> dict[str, float]:
    """Return the seconds per iteration of one run: of wall time, and of processor time in all threads."""
    from rl8.trainer import Trainer

    trainer = Trainer(
        algorithm,
        track="track" in parts,
        view="live" if "view" in parts else "none",
        steps_per_eval=STEPS_PER_EVAL if "eval" in parts else None,
        render=False,
        output_dir="run",
    )
    watch = stopwatch(iterations)
    trainer.run(stop_conditions=[watch])
    return {
        "wall_s": (watch.wall[-1] - watch.wall[0]) / iterations,
        "cpu_s": (watch.cpu[-1] - watch.cpu[0]) / iterations,
    }


def measure(num_envs: int, horizon: int, rounds: int, iterations: int, parts: str, seconds: float) -> dict[str, Any]:
    """Return the blocks of all rounds; the order within a round turns around from one to the next.

    Args:
        num_envs: Environments.
        horizon: Steps.
        rounds: Rounds at most.
        iterations: Counted iterations per block, a multiple of `STEPS_PER_EVAL`.
        parts: What is switched on, a key of `PARTS`.
        seconds: No round is begun after this time.
    """
    import torch

    from rl8.algorithm import Algorithm
    from rl8.env import CartPole

    torch.manual_seed(0)
    algorithm = Algorithm(CartPole, num_envs=num_envs, horizon=horizon)
    block(algorithm, PARTS["none"], WARMUP)
    block(algorithm, PARTS[parts], 1)  # creates the store
    found: list[dict[str, dict[str, float]]] = []
    end = time.perf_counter() + seconds
    while len(found) < rounds and (not found or time.perf_counter() < end):
        order = ("on", "off") if len(found) % 2 == 0 else ("off", "on")
        found.append({side: block(algorithm, PARTS[parts] if side == "on" else (), iterations) for side in order})
    return {"num_envs": num_envs, "horizon": horizon, "iterations": iterations, "parts": parts, "rounds": found}


def summary(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the extra share of time with everything on: median of the rounds, and the least and greatest of them."""
    out: dict[str, float] = {}
    for kind in ("wall_s", "cpu_s"):
        extra = [pair["on"][kind] / pair["off"][kind] - 1 for pair in found["rounds"]]
        out |= {kind: median(extra), f"{kind}_min": min(extra), f"{kind}_max": max(extra)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--horizon", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--iterations", type=int, default=STEPS_PER_EVAL, help=f"multiple of {STEPS_PER_EVAL}")
    parser.add_argument("--parts", choices=PARTS, default="all")
    parser.add_argument("--seconds", type=float, default=260.0)
    parser.add_argument("--out", type=Path, required=True, help="file for the result")
    args = parser.parse_args()
    if args.iterations % STEPS_PER_EVAL:
        parser.error(f"--iterations {args.iterations} is no multiple of {STEPS_PER_EVAL}")
    out = args.out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # for the store and the runs' files
        found = measure(args.num_envs, args.horizon, args.rounds, args.iterations, args.parts, args.seconds)
        os.chdir(out.parent)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
