"""How long a policy takes for one observation: `predict`, and the bare network beside it.

    python -m experiments.predict

Prints median and 99th percentile in microseconds, of one thread, for the default networks (256 x 256): the least of
several rounds, in each of which all take their turn, so that a machine that is busy for a while slows all of them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import rl8
from rl8 import Algorithm
from rl8.checkpoint import save_policy
from rl8.env import CartPole, Pendulum

ROUNDS, CALLS = 10, 2_000


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return median and 99th percentile of a call's time in us."""
    for _ in range(200):
        call()
    times = np.empty(CALLS)
    for index in range(CALLS):
        begin = time.perf_counter_ns()
        call()
        times[index] = time.perf_counter_ns() - begin
    return float(np.median(times)) / 1e3, float(np.percentile(times, 99)) / 1e3


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    bare = nn.Sequential(nn.Linear(5, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))
    tensor = torch.randn(1, 5)
    rows: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        rows["the bare network, a tensor"] = lambda: bare(tensor)
        for env in (CartPole, Pendulum):
            algorithm = Algorithm(env, num_envs=8, horizon=8)
            with tempfile.TemporaryDirectory() as folder:
                policy = rl8.load_policy(save_policy(f"{folder}/policy.pt", algorithm))
            obs = np.random.default_rng(0).normal(size=policy.observation_spec.shape).astype(np.float32)
            rows[f"{env.__name__}, one NumPy observation"] = lambda policy=policy, obs=obs: policy.predict(obs)
            rows[f"{env.__name__}, drawn"] = lambda policy=policy, obs=obs: policy.predict(obs, deterministic=False)
        print(f"{'us':<34}{'median':>8}{'p99':>8}")
        rounds = [[timed(call) for call in rows.values()] for _ in range(ROUNDS)]
        for name, found in zip(rows, zip(*rounds, strict=True), strict=True):
            median, p99 = (min(values) for values in zip(*found, strict=True))
            print(f"{name:<34}{median:8.1f}{p99:8.1f}")


if __name__ == "__main__":
    main()
