"""Train some iterations with warnings as errors, and see that resets, rollout, advantages and update are replayed.

    python -m experiments.throughput.smoke --device cuda --num-envs 8192

prints one line of JSON; the exit code is 1 if something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings

from rl8.env import CartPole
from rl8.execution.graphs import CapturedWork
from rl8.ppo.algorithm import Algorithm
from rl8.reported import to_host
from rl8.settings import DeviceSettings

ITERATIONS = 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--num-envs", type=int, default=8192)
    args = parser.parse_args()
    warnings.simplefilter("error")
    found: dict[str, object] = {}
    for amp in (False, True):
        algorithm = Algorithm(
            CartPole, device=DeviceSettings(args.device), num_envs=args.num_envs, horizon=8, enable_amp=amp
        )
        for _ in range(ITERATIONS):
            metrics = to_host(algorithm.collect() | algorithm.step())
        works = {
            "reset": algorithm.works.restart,
            "rollout": algorithm.works.collect,
            "advantages": algorithm.works.prepare,
            "update": algorithm.works.learn,
        }
        replayed = [name for name, work in works.items() if isinstance(work, CapturedWork) and work.graph is not None]
        name = "bf16" if amp else "float32"
        found[name] = {"replayed": replayed, "notes": algorithm.execution.notes(), "loss": metrics["losses/total"]}
        if not math.isfinite(metrics["losses/total"]) or (args.device != "cpu" and len(replayed) < len(works)):
            print(json.dumps(found))
            print(f"{name}: replayed are only {replayed}, loss {metrics['losses/total']}", file=sys.stderr)
            return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
