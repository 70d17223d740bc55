"""rl8 itself: the points of the study, and one side of the comparison.

One process measures the point on its command line; with `--points FILE` it measures every line of that file, a JSON
object of options each, one after the other (on CUDA, where peak memory can be reset).
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contract
import counts
import torch
from contract import CHECK_ENVS

from rl8.env import CartPole, DiscreteDummyEnv, Pendulum
from rl8.ppo.algorithm import Algorithm, RecurrentAlgorithm
from rl8.reported import to_host
from rl8.settings import DeviceSettings

ENVS = {"cartpole": CartPole, "pendulum": Pendulum, "dummy": DiscreteDummyEnv}
MODELS = {"mlp": Algorithm, "lstm": RecurrentAlgorithm}


def parser() -> argparse.ArgumentParser:
    options = contract.parser(__doc__)
    options.add_argument("--env", choices=ENVS, default="cartpole")
    options.add_argument("--model", choices=MODELS, default="mlp")
    options.add_argument("--minibatches", type=int, default=1, help="minibatches per pass")
    options.add_argument(
        "--piece-size", type=int, default=0, help="rows per forward and backward pass; 0: rl8's choice"
    )
    options.add_argument("--compile", action="store_true", help="device.compile=true")
    options.add_argument("--kernels", default="auto", help="device.kernels")
    options.add_argument("--eager", action="store_true", help="device.graphs=false")
    options.add_argument("--count", action="store_true", help="count operations or kernels in one more iteration")
    options.add_argument("--profile", default="", help="write torch's profile of one more iteration to this file")
    options.add_argument("--points", default="", help="file with one JSON object of options per line")
    return options


def build(args: argparse.Namespace) -> Algorithm:
    """Return the algorithm of a point; everything that is not part of the point is rl8's default."""
    torch.manual_seed(args.seed)
    size = {"hidden_size": args.width} if args.model == "lstm" else {"hiddens": (args.width, args.width)}
    settings = DeviceSettings(
        device=args.device,
        graphs=not args.eager,
        kernels=args.kernels,
        compile=args.compile or "auto",
        piece_size=args.piece_size or None,
        num_threads=args.threads or None,
    )
    return MODELS[args.model](
        ENVS[args.env],
        model_config=size,
        device=settings,
        num_envs=args.num_envs,
        horizon=args.horizon,
        num_sgd_iters=args.passes,
        sgd_minibatch_size=args.num_envs * args.horizon // args.minibatches,
        enable_amp=args.amp,
    )


def play_check(device: str) -> float:
    """Return what rl8's own CartPole makes of the check."""
    env = CartPole(CHECK_ENVS, device=device)
    env.reset()

    def states(states: list[list[float]]) -> None:
        env.state = torch.tensor(states, device=device).t().contiguous()

    def step(actions: list[int]) -> list[float]:
        rewards: list[float] = env.step(torch.tensor(actions, device=device))["rewards"].reshape(-1).tolist()
        return rewards

    return contract.play_check(states, step)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return timings, memory and counts of one point."""
    cuda = args.device.startswith("cuda")
    if args.profile:  # before anything is captured: else a graph's kernels may be missing
        write_profile(Path(args.profile), contract.nothing, cuda)
    base = torch.cuda.memory_allocated() / 2**20 if cuda else contract.memory_mb()
    begin = time.perf_counter()
    algorithm = build(args)
    setup = time.perf_counter() - begin
    metrics: dict[str, Any] = {}

    def collect() -> None:
        metrics.update(algorithm.collect())

    def update() -> None:
        metrics.update(algorithm.step())
        to_host(metrics)

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    rows = contract.timed(args, collect, update, torch.cuda.synchronize if cuda else contract.nothing)
    found = {
        "rows": rows,
        "base_mb": base,
        "peak_mb": torch.cuda.max_memory_allocated() / 2**20 if cuda else contract.memory_mb(),
        "setup_s": setup,
        "piece": algorithm.execution.piece_size,
        "notes": algorithm.execution.notes(),
    }
    if args.count:
        found["counts"] = {"collect": count(collect, cuda), "update": count(update, cuda)}
    if args.profile:
        found["busy_s"], found["by_time"] = write_profile(Path(args.profile), lambda: (collect(), update()), cuda)
    return found


def count(work: Callable[[], object], cuda: bool) -> dict[str, float]:
    return counts.cuda_events(work) if cuda else dict(counts.operations(work))


def write_profile(path: Path, work: Callable[[], object], cuda: bool) -> tuple[float, list[Any]]:
    """Write the operations of one iteration, the most expensive first.

    Returns:
        Seconds of all of them, and name, microseconds and calls of the first: of kernels on CUDA.
    """
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        work()
        if cuda:
            torch.cuda.synchronize()
    found = profiler.key_averages()
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    path.write_text(found.table(sort_by=order, row_limit=40, max_name_column_width=70))
    name = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = [(event.key, getattr(event, name), event.count) for event in found]
    times = sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])
    return sum(time for _, time, _ in times) / 1e6, times[:20]


def report(args: argparse.Namespace) -> None:
    """Measure one point and print its line; on CUDA a point that does not fit says so."""
    try:
        found = measure(args)
    except torch.OutOfMemoryError as error:
        contract.emit(
            args, "rl8", [], check=None, base_mb=0.0, peak_mb=0.0, skipped=f"out of memory: {str(error).split('.')[0]}"
        )
    else:
        contract.emit(
            args,
            "rl8",
            found.pop("rows"),
            check=play_check(args.device),
            base_mb=found.pop("base_mb"),
            peak_mb=found.pop("peak_mb"),
            versions=contract.versions("rl8", "torch", "tensordict"),
            num_threads=torch.get_num_threads(),
            **found,
        )
    gc.collect()
    if args.device.startswith("cuda"):
        torch._C._cuda_clearCublasWorkspaces()  # else they count as the next point's
        torch.cuda.empty_cache()


def main() -> None:
    options = parser()
    args = options.parse_args()
    if not args.points:
        report(args)
        return
    for line in Path(args.points).read_text().splitlines():
        point = argparse.Namespace(**{**vars(args), "points": "", **json.loads(line)})
        try:
            report(point)
        except Exception as error:  # the points after it are still worth having
            print(f"{line}: {type(error).__name__}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
