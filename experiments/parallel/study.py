"""Several processes on this machine: how speed scales, what is sent, and whether they learn what one process learns.

    python -m experiments.parallel.study                      # all, into experiments/parallel/results
    python -m experiments.parallel.study --part scaling       # only speed, 3 minutes on two cores that are idle
    python -m experiments.parallel.study --part learning --seeds 5

Processes compute in one thread each, so that one process and two differ in the processes alone.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.parallel import model
from rl8 import Algorithm, Trainer
from rl8.conditions import EnvSteps
from rl8.env import CartPole, Pendulum
from rl8.parallel import world
from rl8.settings import DeviceSettings

RESULTS = Path(__file__).parent / "results"
HORIZON = 32
ENVS = {"cartpole": (CartPole, {"gamma": 0.95}), "pendulum": (Pendulum, {"gamma": 0.9})}
#: Iterations that are not measured.
WARM_UP = 1
#: In all processes together.
LEARNING = {"num_envs": 64, "horizon": 64, "num_sgd_iters": 4, "num_minibatches": 4}


def together(function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
    """Return what a function gives in each of so many processes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        torch.multiprocessing.spawn(_process, (size, port, folder, function, arguments), nprocs=size)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(size)]


def _process(rank: int, size: int, port: int, folder: str, function: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world.join("cpu", patience_s=300.0)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(function(*arguments)))
    world.leave()


def measure(num_envs: int, minibatches: int, iterations: int) -> dict[str, float]:
    """Return speed, bytes and time of communication of training on CartPole with so many environments a process."""
    algorithm = Algorithm(
        CartPole,
        num_envs=num_envs,
        horizon=HORIZON,
        sgd_minibatch_size=num_envs * HORIZON // minibatches,
        device=DeviceSettings(num_threads=1),
    )
    for _ in range(WARM_UP):
        algorithm.collect()
        algorithm.step()
    before, begin = (world.traffic.calls, world.traffic.bytes, world.traffic.seconds), time.perf_counter()
    for _ in range(iterations):
        algorithm.collect()
        algorithm.step()
    seconds = time.perf_counter() - begin
    updates = iterations * minibatches * algorithm.hparams.num_sgd_iters
    return {
        "seconds": seconds,
        "env_steps": float(iterations * num_envs * HORIZON),
        "bytes_per_update": (world.traffic.bytes - before[1]) / updates,
        "exchanges_per_iteration": (world.traffic.calls - before[0]) / iterations,
        "share_exchanging": (world.traffic.seconds - before[2]) / seconds,
    }


def scaling(iterations: int) -> list[dict[str, Any]]:
    """Return measurements: the same work divided (strong), and the same work for each process (weak)."""
    rows = []
    for minibatches in (1, 16):
        for kind, total in (("strong", 2048), ("weak", None)):
            for size in sorted({1, os.cpu_count() or 1}):
                found = together(measure, size, total // size if total else 1024, minibatches, iterations)
                rows.append(
                    {
                        "kind": kind,
                        "processes": size,
                        "envs_each": total // size if total else 1024,
                        "minibatches": minibatches,
                        "env_steps_per_s": sum(each["env_steps"] for each in found)
                        / max(each["seconds"] for each in found),
                        "bytes_per_update": found[0]["bytes_per_update"],
                        "exchanges_per_iteration": found[0]["exchanges_per_iteration"],
                        "share_exchanging": statistics.mean(each["share_exchanging"] for each in found),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def curve(env: str, seed: int, goal: int) -> list[tuple[float, float]]:
    """Return (env steps, mean return in training) of a run, by all processes of this one's world."""
    env_cls, options = ENVS[env]
    num_envs = LEARNING["num_envs"] // world.size()
    folder = world.from_first(tempfile.mkdtemp)
    trainer = Trainer(
        env_cls,
        num_envs=num_envs,
        horizon=LEARNING["horizon"],
        num_sgd_iters=LEARNING["num_sgd_iters"],
        sgd_minibatch_size=num_envs * LEARNING["horizon"] // LEARNING["num_minibatches"],
        seed=seed,
        track=False,
        view="none",
        render=False,
        output_dir=folder,
        device=DeviceSettings(num_threads=1),
        **options,
    )
    trainer.run(stop_conditions=[EnvSteps(goal)])
    return [(metrics["env/steps"], metrics["returns/mean"]) for metrics in trainer.history]


def curves(env: str, seeds: int, goal: int) -> list[list[tuple[float, float]]]:
    """Return the curves of so many seeds."""
    return [curve(env, seed, goal) for seed in range(1, seeds + 1)]


def learning(seeds: int, goal: int) -> dict[str, Any]:
    """Return the curves of one process and of two with half the environments each, on two tasks."""
    found: dict[str, Any] = {}
    for env in ENVS:
        found[env] = {str(size): together(curves, size, env, seeds, goal)[0] for size in (1, 2)}
        for size, runs in found[env].items():
            print(env, size, [round(run[-1][1], 1) for run in runs], flush=True)
    return found


def compare(found: dict[str, Any]) -> str:
    """Return a table of both at a quarter, half and the end: mean and spread over seeds, and Welch's t."""
    lines = [
        "| task | env steps | one process | two processes | difference in standard errors (Welch) |",
        "|---|---:|---:|---:|---:|",
    ]
    for env, runs in found.items():
        for part in (0.25, 0.5, 1.0):
            index = max(int(part * len(runs["1"][0])) - 1, 0)
            one, two = ([run[index][1] for run in runs[size]] for size in ("1", "2"))
            error = (statistics.variance(one) / len(one) + statistics.variance(two) / len(two)) ** 0.5
            shown = [f"{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}" for values in (one, two)]
            t = (statistics.mean(two) - statistics.mean(one)) / max(error, 1e-9)
            lines.append(f"| {env} | {runs['1'][0][index][0]:,.0f} | {shown[0]} | {shown[1]} | {t:+.1f} |")
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the measurements of speed as Markdown."""
    lines = [
        "| scaling | processes | envs each | minibatches | env steps/s | times one process | bytes an update | "
        "exchanges an iteration | time in exchanges |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        alone = next(
            other["env_steps_per_s"]
            for other in rows
            if (other["kind"], other["minibatches"], other["processes"]) == (row["kind"], row["minibatches"], 1)
        )
        lines.append(
            f"| {row['kind']} | {row['processes']} | {row['envs_each']:,} | {row['minibatches']} | "
            f"{row['env_steps_per_s']:,.0f} | {row['env_steps_per_s'] / alone:.2f} | {row['bytes_per_update']:,.0f} | "
            f"{row['exchanges_per_iteration']:.0f} | {100 * row['share_exchanging']:.1f}% |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the results and the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("all", "scaling", "learning"), default="all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--env-steps", type=int, default=160_000)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    if args.part in ("all", "scaling"):
        found["load"] = os.getloadavg()[0]
        found["scaling"] = scaling(args.iterations)
    if args.part in ("all", "learning"):
        found["learning"] = learning(args.seeds, args.env_steps)
    file.write_text(json.dumps(found, indent=1) + "\n")
    parts = [
        "# Several processes",
        f"Measured on {os.cpu_count()} cores, torch {torch.__version__}, Gloo, one thread a process.",
    ]
    if "scaling" in found:
        busy = f"Before it began {found['load']:.1f} other processes wanted a core: 0 is what it wants."
        parts += ["## Speed", busy, table(found["scaling"])]
    if "learning" in found:
        parts += [
            "## Learning",
            "Mean return in training over seeds, +- their standard deviation.",
            compare(found["learning"]),
        ]
    parts += ["## On paper: H200", model.__doc__ or "", model.report()]
    (args.out / "README.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


if __name__ == "__main__":
    main()
