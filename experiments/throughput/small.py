"""Small work on a CPU: the same iterations with autograd and without, turn by turn.

    python -m experiments.throughput.small [--rounds 3] [--seconds 2] [--output FILE]

Own CartPole, 32 steps, two perceptrons 64x64 tanh, minibatches of 256 env steps, 20 passes over the data where one
minibatch is all of it and 4 elsewhere. Ratios within a round count: other programs slow both ways of a round alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from rl8 import Algorithm, DeviceSettings
from rl8.env import CartPole

NUM_ENVS = (8, 128, 1024)
HORIZON, MINIBATCH = 32, 256
WAYS = ("autograd", "torch", "numba")


def build(num_envs: int, way: str) -> Algorithm | None:
    """Return an algorithm that computes in one way; None where Numba is not installed."""
    torch.manual_seed(1)
    algorithm = Algorithm(
        CartPole,
        num_envs=num_envs,
        horizon=HORIZON,
        horizons_per_env_reset=8,
        sgd_minibatch_size=MINIBATCH,
        num_sgd_iters=20 if num_envs * HORIZON == MINIBATCH else 4,
        model_config={"hiddens": [64, 64], "activation": "tanh"},
        device=DeviceSettings(num_threads=1),
    )
    small = algorithm.execution._small
    if way == "numba" and small._compiled is None:
        return None
    if way == "autograd":
        algorithm.execution._small = None
    elif way == "torch":
        small._compiled = None
    return algorithm


def speed(algorithm: Algorithm, seconds: float) -> float:
    """Return env steps per second of whole iterations."""
    begin, before = time.perf_counter(), algorithm.env_steps
    while time.perf_counter() - begin < seconds:
        algorithm.collect()
        algorithm.step()
    return (algorithm.env_steps - before) / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way has its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--output", type=Path, help="file for the table, besides the terminal")
    arguments = parser.parse_args()
    heads = " | ".join([f"{way}, k/s" for way in WAYS] + [f"{way} / autograd" for way in WAYS[1:]])
    lines = [f"| environments | round | {heads} |", "|---" * (2 + 2 * len(WAYS) - 1) + "|"]
    for num_envs in NUM_ENVS:
        algorithms = {way: found for way in WAYS if (found := build(num_envs, way)) is not None}
        for algorithm in algorithms.values():  # compiles, and lets memory be mapped
            for _ in range(2):
                algorithm.collect()
                algorithm.step()
        rounds: list[dict[str, float]] = []
        for index in range(arguments.rounds):
            found = {way: speed(algorithm, arguments.seconds) for way, algorithm in algorithms.items()}
            rounds.append(found)
            lines.append(_row(f"{num_envs} | {index + 1}", found))
            print(lines[-1], flush=True)
        speeds = {way: statistics.median(each[way] for each in rounds) for way in algorithms}
        ratios = {way: statistics.median(each[way] / each["autograd"] for each in rounds) for way in algorithms}
        lines.append(_row(f"**{num_envs}** | median", speeds, ratios))
    table = "\n".join(lines)
    print(table)
    if arguments.output is not None:
        arguments.output.write_text(table + "\n", encoding="utf-8")


def _row(head: str, found: dict[str, float], ratios: dict[str, float] | None = None) -> str:
    ratios = ratios or {way: speed / found["autograd"] for way, speed in found.items()}
    speeds = [f"{found[way] / 1e3:.1f}" if way in found else "" for way in WAYS]
    texts = [f"{ratios[way]:.2f}" if way in ratios else "" for way in WAYS[1:]]
    return f"| {head} | {' | '.join(speeds)} | {' | '.join(texts)} |"


if __name__ == "__main__":
    main()
