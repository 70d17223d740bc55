"""What MLflow logging, the live view and evaluation cost: a run with all of them against one with none, alternating.

    python -m experiments.throughput.overhead --out result.json

Both are `Trainer.run` on the same algorithm in one process. A block is a run whose first `LEAD` iterations are not
counted (MLflow's first requests take longer); the times are between the ends of consecutive iterations, so they hold
everything that happens in between, and an evaluation per `STEPS_PER_EVAL` iterations. Metrics are recorded as after a
run's first minutes. Standard output should be a terminal, for the live view to draw on.

On a shared machine the difference of two blocks is mostly noise. So the parts' own time is noted too: what evaluations
take, and the processor time of the threads that send and draw, as if training had waited for every second of it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

STEPS_PER_EVAL = 10
# Until then more and more units settle on one side of zero, and need not be computed: an iteration takes less and less.
WARMUP = 20
LEAD = 5
PARTS = {"all": ("track", "view", "eval"), "track": ("track",), "view": ("view",), "eval": ("eval",), "none": ()}


def stopwatch(iterations: int) -> Any:
    """Return a stop condition that notes the time after every iteration from the `LEAD`th on, for so many more."""
    from rl8 import data
    from rl8.conditions import Condition

    class Stopwatch(Condition):
        def __init__(self) -> None:
            self.done = 0
            self.wall: list[float] = []
            self.cpu: list[float] = []
            self.eval: list[float] = []
            self.background: list[dict[int, float]] = []

        def __call__(self, metrics: Mapping[str, float]) -> bool:
            self.done += 1
            if self.done < LEAD:
                return False
            self.wall.append(time.perf_counter())
            self.cpu.append(time.process_time())
            self.eval.append(metrics.get(data.EVAL_MS, 0.0) / 1e3)
            if len(self.wall) in (1, iterations + 1):
                self.background.append(background_s())
            return len(self.wall) > iterations

        def progress(self, metrics: Mapping[str, float]) -> float:
            return self.done / (iterations + LEAD)

        def describe(self) -> str:
            return f"{iterations + LEAD} iterations"

        def reset(self) -> None:
            self.done = 0
            for noted in (self.wall, self.cpu, self.eval, self.background):
                noted.clear()

    return Stopwatch()


def background_s() -> dict[int, float]:
    """Return the seconds of processor time so far of each thread that does not train, by the thread's identity."""
    # "rl8_..." are those of `rl8.execution.threads`, which do
    return {
        thread.ident: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.name.startswith("rl8_") and thread.ident is not None
    }


def block(algorithm: Any, parts: tuple[str, ...], iterations: int) -> dict[str, float]:
    """Return seconds per iteration of one run: wall time, all threads' processor time, and the parts' own time."""
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
    before, after = watch.background
    return {
        "wall_s": (watch.wall[-1] - watch.wall[0]) / iterations,
        "cpu_s": (watch.cpu[-1] - watch.cpu[0]) / iterations,
        "eval_s": sum(watch.eval[1:]) / iterations,
        "background_s": sum(seconds - before.get(thread, 0.0) for thread, seconds in after.items()) / iterations,
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

    from rl8.env import CartPole
    from rl8.ppo.algorithm import Algorithm
    from rl8.tracking import thinning

    thinning.SHARE = 1e9  # as when a run is old
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
    """Return shares of an iteration's time, medians of the rounds with the least and greatest of them.

    `wall_s` and `cpu_s` are what an iteration takes more with everything on, `own_s` is the parts' own time, of which
    evaluations take `eval_s`.
    """
    rounds = found["rounds"]
    shares = {kind: [pair["on"][kind] / pair["off"][kind] - 1 for pair in rounds] for kind in ("wall_s", "cpu_s")}
    shares["eval_s"] = [pair["on"]["eval_s"] / pair["on"]["wall_s"] for pair in rounds]
    shares["own_s"] = [(pair["on"]["eval_s"] + pair["on"]["background_s"]) / pair["on"]["wall_s"] for pair in rounds]
    out: dict[str, float] = {}
    for kind, values in shares.items():
        out |= {kind: median(values), f"{kind}_min": min(values), f"{kind}_max": max(values)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--horizon", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=3 * STEPS_PER_EVAL, help=f"multiple of {STEPS_PER_EVAL}")
    parser.add_argument("--parts", choices=PARTS, default="all")
    parser.add_argument("--seconds", type=float, default=160.0)
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
