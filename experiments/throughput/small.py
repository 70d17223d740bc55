"""Small work on a CPU: the same iterations with autograd, without, and in C, turn by turn.

    OMP_NUM_THREADS=1 python -m experiments.throughput.small [--rounds 3] [--seconds 2] [--output FILE]

Own CartPole, 32 steps, two perceptrons 64x64 tanh, minibatches of 256 env steps, 20 passes over the data where one
minibatch is all of it and 4 elsewhere. Ratios within a round count: other programs slow all ways of a round alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rl8 import Algorithm, DeviceSettings
from rl8.env import CartPole
from rl8.execution import cpu

NUM_ENVS = (8, 128, 1024)
HORIZON, MINIBATCH = 32, 256
COLUMNS = (
    *("update with autograd, ms", "without, ms", "in C, ms", "collect, ms", "with C, ms"),
    *("autograd / without", "without / C", "transitions/s without", "in C"),
)


def build(num_envs: int, *, compiled: bool = False) -> Algorithm:
    """Return an algorithm for so many environments; it decides for itself how it computes."""
    torch.manual_seed(1)
    return Algorithm(
        CartPole,
        num_envs=num_envs,
        horizon=HORIZON,
        horizons_per_env_reset=8,
        sgd_minibatch_size=MINIBATCH,
        num_sgd_iters=20 if num_envs * HORIZON == MINIBATCH else 4,
        model_config={"hiddens": [64, 64], "activation": "tanh"},
        device=DeviceSettings(num_threads=1, compile="auto" if compiled else False),
    )


@contextmanager
def by_autograd() -> Iterator[None]:
    """Let updates know no other way in the block."""
    known = cpu.small_steps
    cpu.small_steps = lambda *_: None
    try:
        yield
    finally:
        cpu.small_steps = known


def times(algorithm: Algorithm, seconds: float) -> tuple[float, float]:
    """Return milliseconds of a collection and of an update, means over so many seconds of the processor's time."""
    collecting, updating, iterations = 0.0, 0.0, 0
    while collecting + updating < seconds:
        begin = time.process_time()
        algorithm.collect()
        between = time.process_time()
        algorithm.step()
        collecting, updating = collecting + between - begin, updating + time.process_time() - between
        iterations += 1
    return 1e3 * collecting / iterations, 1e3 * updating / iterations


def one_round(plain: Algorithm, compiled: Algorithm, seconds: float) -> list[float]:
    """Return the `COLUMNS` of one round; ratios are those of whole iterations."""
    with by_autograd():
        slow_collect, slow = times(plain, seconds)
    collect, fast = times(plain, seconds)
    c_collect, c_update = times(compiled, seconds)
    wholes = slow_collect + slow, collect + fast, c_collect + c_update
    transitions = 1e3 * plain.hparams.num_envs * HORIZON
    return [
        *(slow, fast, c_update, collect, c_collect),
        *(wholes[0] / wholes[1], wholes[1] / wholes[2], transitions / wholes[1], transitions / wholes[2]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way has its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--output", type=Path, help="file for the table, besides the terminal")
    arguments = parser.parse_args()
    lines = [f"| environments | round | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for num_envs in NUM_ENVS:
        ways = build(num_envs), build(num_envs, compiled=True)
        one_round(*ways, 0.1)  # lets memory be mapped
        rounds = []
        for index in range(arguments.rounds):
            rounds.append(one_round(*ways, arguments.seconds))
            lines.append(_row(str(num_envs), str(index + 1), rounds[-1]))
            print(lines[-1], flush=True)
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        lines.append(_row(f"**{num_envs}**", "median", medians))
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join([*lines, ""]))


def _row(num_envs: str, name: str, numbers: list[float]) -> str:
    cells = [num_envs, name, *(f"{number:.1f}" for number in numbers[:5]), *(f"{ratio:.2f}" for ratio in numbers[5:7])]
    cells += [f"{number:,.0f}" for number in numbers[7:]]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
