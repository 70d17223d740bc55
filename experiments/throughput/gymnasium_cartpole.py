"""Gymnasium's CartPole-v1: rl8 and Stable-Baselines3, the same work in turn, each in a process of its own.

    python -m experiments.throughput.venvs sb3     # once, or name another Python with --sb3
    python -m experiments.throughput.gymnasium_cartpole [--rounds 3] [--env-steps 10000] [--sb3 PYTHON]

8 environments one after the other, 32 steps, one minibatch of all 256 env steps, 20 passes, two perceptrons 64x64 tanh
(rl-zoo's settings for this task), one thread. Seconds are those of training alone, set-up and 1024 env steps before it
left out: by the clock, and of the processor, which other programs disturb less. Ratios within a round count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __package__:
    from .programs import ProgramError, run
    from .venvs import python_of

NUM_ENVS, HORIZON, PASSES, WARMUP = 8, 32, 20, 1024
GAMMA, GAE_LAMBDA, LEARNING_RATE, MAX_GRAD_NORM, VF = 0.98, 0.8, 1e-3, 0.5, 0.5


def rl8() -> Callable[[int], object]:
    """Return what trains rl8 for so many env steps."""
    import torch

    from rl8 import Algorithm, DeviceSettings
    from rl8.env.adapters.gymnasium import GymnasiumEnv

    torch.manual_seed(1)
    algorithm = Algorithm(
        GymnasiumEnv,
        num_envs=NUM_ENVS,
        horizon=HORIZON,
        horizons_per_env_reset=-1,
        num_sgd_iters=PASSES,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        max_grad_norm=MAX_GRAD_NORM,
        vf_coeff=VF,
        optimizer_config={"lr": LEARNING_RATE},
        model_config={"hiddens": [64, 64], "activation": "tanh"},
        device=DeviceSettings(num_threads=1),
    )

    def train(env_steps: int) -> None:
        for _ in range(env_steps // (NUM_ENVS * HORIZON)):
            algorithm.collect()
            algorithm.step()

    return train


def sb3() -> Callable[[int], object]:
    """Return what trains Stable-Baselines3 for so many env steps."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", NUM_ENVS, seed=1),
        n_steps=HORIZON,
        batch_size=NUM_ENVS * HORIZON,
        n_epochs=PASSES,
        gamma=GAMMA,
        gae_lambda=GAE_LAMBDA,
        learning_rate=LEARNING_RATE,
        max_grad_norm=MAX_GRAD_NORM,
        vf_coef=VF,
        seed=1,
        device="cpu",
    )
    return lambda env_steps: model.learn(env_steps)


def measure(program: str, env_steps: int) -> None:
    """Print the seconds of one program's training as a line of JSON."""
    train = {"rl8": rl8, "sb3": sb3}[program]()
    train(WARMUP)
    clock, processor = time.perf_counter(), time.process_time()
    train(env_steps)
    print(json.dumps({"clock_s": time.perf_counter() - clock, "processor_s": time.process_time() - processor}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each has its turn")
    parser.add_argument("--env-steps", type=int, default=10_240, help="of each turn")
    parser.add_argument("--sb3", default="", help="Python with stable-baselines3 and gymnasium")
    parser.add_argument("--program", choices=("rl8", "sb3"), help="measure one here, once; for the processes")
    arguments = parser.parse_args()
    if arguments.program:
        measure(arguments.program, arguments.env_steps)
        return
    pythons = {"rl8": sys.executable, "sb3": arguments.sb3 or str(python_of("sb3"))}
    rows = []
    print("| round | rl8, env steps/s | sb3, env steps/s | ratio by the clock | ratio by the processor |")
    print("|---" * 5 + "|")
    for index in range(arguments.rounds):
        found = {}
        for name, python in pythons.items():
            command = [python, str(Path(__file__)), "--program", name, "--env-steps", str(arguments.env_steps)]
            try:
                found[name] = run(command, timeout_s=600, env={"OMP_NUM_THREADS": "1"})[-1]
            except ProgramError as error:
                sys.exit(f"{name}: {error}")
        ratios = [found["sb3"][kind] / found["rl8"][kind] for kind in ("clock_s", "processor_s")]
        rows.append([*(arguments.env_steps / found[name]["clock_s"] for name in pythons), *ratios])
        print(_row(str(index + 1), rows[-1]), flush=True)
    print(_row("**median**", [statistics.median(column) for column in zip(*rows, strict=True)]))


def _row(name: str, numbers: list[float]) -> str:
    return f"| {name} | {numbers[0]:.0f} | {numbers[1]:.0f} | {numbers[2]:.2f} | {numbers[3]:.2f} |"


if __name__ == "__main__":
    main()
