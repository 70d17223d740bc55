"""Does a run that is killed again and again end as one that was left alone?

    python experiments/kills.py [--kills 20] [--cases cartpole gru ...]

Each case is trained once without a break, and once more in a process that gets SIGKILL at random moments and is taken
up by `rl8 resume`. At the end the two checkpoints are compared bit for bit, and what MLflow has of both: the same
points, none missing, none twice.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

SMALL = [
    "algo.num_envs=16",
    "algo.horizon=16",
    "algo.sgd_minibatch_size=64",
    "algo.num_sgd_iters=2",
    "trainer.eval_num_envs=8",
    "trainer.steps_per_eval=5",
    "trainer.steps_per_checkpoint=2",
    "trainer.seconds_per_log=0",
    "trainer.view=none",
]
CASES = {
    "cartpole": ["env=cartpole", "network.hiddens=[32]", "algo.horizons_per_env_reset=3"],
    "normalised": [
        "env=pendulum",
        "network.hiddens=[32]",
        "algo.normalize_obs=true",
        "algo.normalize_rewards=true",
    ],
    "gru": [
        "env=cue_recall",
        "algo=recurrent",
        "model=gru",
        "model.hidden_size=32",
        "network.seq_len=4",
        "algo.horizons_per_env_reset=-1",
    ],
    "ends": ["env=mountain_car", "network.hiddens=[32]", "algo.horizons_per_env_reset=-1"],
    "schedules": [
        "env=cartpole",
        "network.hiddens=[32]",
        "algo.lr_schedule=[[0,1e-3],[20_000,1e-4]]",
        "algo.lr_schedule_kind=interp",
        "algo.entropy_coeff_schedule=[[0,0.1],[9_000,0.0]]",
    ],
}
# What no two runs share.
MEASURED = ("profiling/", "memory/")


def main() -> int:
    """Try every case and print a line for each; return 1 if any differs."""
    parser = argparse.ArgumentParser(description="Kill runs at random moments and compare them with unbroken ones.")
    parser.add_argument("--kills", type=int, default=20, help="in all, dealt out to the cases")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--env-steps", type=int, default=25_600, help="for each run")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    same = True
    for number, case in enumerate(args.cases):
        kills = (args.kills + number) // len(args.cases)
        with tempfile.TemporaryDirectory() as folder:
            found = compare(Path(folder), [*CASES[case], *SMALL, f"goal.env_steps={args.env_steps}"], kills, moments)
        print(f"{case}: {kills} kills, {found or 'the same bit for bit, no point missing or twice'}", flush=True)
        same &= not found
    return 0 if same else 1


def compare(folder: Path, words: Sequence[str], kills: int, moments: random.Random) -> str:
    """Return what differs between an unbroken run and a killed one; empty if nothing does.

    Args:
        folder: Where to work.
        words: Overrides of both.
        kills: How often the second is killed.
        moments: Draws when.
    """
    began = time.monotonic()
    finished = start(folder, [*words, "trainer.output_dir=outputs/whole"])
    if finished.wait() != 0:
        return "the unbroken run failed"
    duration = time.monotonic() - began
    command = [*words, "trainer.output_dir=outputs/killed"]
    for _ in range(kills):
        process = start(folder, command)
        try:
            process.wait(timeout=moments.uniform(0.3, 1.1) * duration)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if (folder / "outputs/killed/checkpoint.pt").exists():
            command = ["resume", "outputs/killed"]
        elif (folder / "outputs/killed").exists():  # killed before anything was saved: begin again
            (folder / "outputs/killed").rename(folder / f"outputs/nothing-{time.time_ns()}")
    last = start(folder, command)
    if last.wait() != 0:
        return f"the last attempt failed with {last.returncode}"
    states = [
        torch.load(folder / f"outputs/{name}/checkpoint.pt", weights_only=True)["algorithm"]
        for name in ("whole", "killed")
    ]
    return difference(*states, "state") or different_records(folder)


def start(folder: Path, words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Return a process of the command line that works in a folder."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.Popen(
        [sys.executable, "-m", "rl8", *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )


def difference(one: Any, other: Any, path: str) -> str:
    """Return where two nested containers differ first; empty if they are the same bit for bit."""
    if isinstance(one, torch.Tensor):
        equal = (
            one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all() | (one != one).any())
        )
        return "" if equal and torch.equal(one.nan_to_num(), other.nan_to_num()) else f"{path} differs"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{path} has other keys"
        return next(filter(None, (difference(one[key], other[key], f"{path}.{key}") for key in one)), "")
    if isinstance(one, (list, tuple)):
        pairs = zip(one, other, strict=True)
        return next(filter(None, (difference(*pair, f"{path}[{index}]") for index, pair in enumerate(pairs))), "")
    return "" if one == other else f"{path} is {one} and {other}"


def different_records(folder: Path) -> str:
    """Return what differs between what MLflow has of the two runs; empty if nothing does."""
    from mlflow import MlflowClient

    from rl8 import runs

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    ids = [str(runs.record(folder / "outputs" / name)["run_id"]) for name in ("whole", "killed")]
    whole, killed = (client.get_run(run_id) for run_id in ids)
    if killed.info.status != "FINISHED":
        return f"the run is {killed.info.status} in MLflow"
    for name in whole.data.metrics:
        if name.startswith(MEASURED):
            continue
        points = [sorted((m.step, m.value) for m in client.get_metric_history(run_id, name)) for run_id in ids]
        if points[0] != points[1]:
            return f"MLflow has {len(points[0])} and {len(points[1])} points of {name}, or other values"
    return ""


if __name__ == "__main__":
    sys.exit(main())
