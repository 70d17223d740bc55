"""Play whole episodes with a trained policy: the same environments and seeds for every program.

    python -m experiments.benchmarks.play JOBS.json EPISODES

Actions are the most probable ones. Each of up to `MAX_ENVS` environments plays equally many episodes, so that short
ones count no more than long ones. The curve of the training is read too, thinned to `POINTS`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .sb3_ppo import CURVE, MEMORY, MODEL, NORMALIZER, maker

SEED = 1_000_000  # far from those of training
MAX_ENVS, POINTS = 20, 200

Predict = Callable[[Any, Any], Any]  # observations [n, ...], and which of them begin an episode


def episodes(vec: Any, predict: Predict, count: int, seed: int = SEED) -> tuple[list[float], list[int]]:
    """Return returns and lengths of `count` episodes, equally many (to one) of each environment.

    Args:
        vec: Vector environments that begin anew in the same step.
        predict: The policy.
        count: How many.
        seed: Of the environments.
    """
    n = vec.num_envs
    due = np.array([(count + index) // n for index in range(n)])
    obs, begins = vec.reset(seed=seed)[0], np.ones(n, dtype=bool)
    total, length = np.zeros(n), np.zeros(n, dtype=int)
    returns: list[float] = []
    lengths: list[int] = []
    while due.any():
        obs, rewards, terminated, truncated, _ = vec.step(predict(obs, begins))
        total, length, begins = total + rewards, length + 1, terminated | truncated
        counted = begins & (due > 0)
        returns += total[counted].tolist()
        lengths += length[counted].tolist()
        due[counted] -= 1
        total[begins], length[begins] = 0.0, 0
    return returns, lengths


def of_rl8(folder: Path) -> Predict:
    """Return what an rl8 run's policy does."""
    from rl8 import load_policy

    policy = load_policy(folder)
    fresh = True

    def predict(obs: Any, begins: Any) -> Any:
        nonlocal fresh
        if not fresh:
            policy.reset(begins)
        fresh = False
        return policy.predict(obs)

    return predict


def of_sb3(folder: Path, config: Mapping[str, Any]) -> Predict:
    """Return what a model of Stable-Baselines3 does, its observations normalised as they were at the end."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    algorithm: Any = PPO
    if config["model"]["_target_"] == MEMORY:
        from sb3_contrib import RecurrentPPO

        algorithm = RecurrentPPO
    model = algorithm.load(folder / MODEL, device="cpu")
    seen: Callable[[Any], Any] = np.asarray
    if (folder / NORMALIZER).exists():
        seen = VecNormalize.load(str(folder / NORMALIZER), DummyVecEnv([maker(config["env"])])).normalize_obs
    state: Any = None

    def predict(obs: Any, begins: Any) -> Any:
        nonlocal state
        actions, state = model.predict(seen(obs), state=state, episode_start=begins, deterministic=True)
        return actions

    return predict


def curve_of_rl8(folder: Path) -> list[tuple[int, float]]:
    """Return env steps and the mean return of the last 100 episodes, as the run recorded them in MLflow."""
    from mlflow import MlflowClient

    record = json.loads((folder / "run.json").read_text())
    client = MlflowClient(f"sqlite:///{(folder.parents[2] / record['store']).resolve()}")
    points = client.get_metric_history(record["run_id"], "returns/mean")
    return sorted({(point.step, point.value) for point in points if np.isfinite(point.value)})


def thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most `POINTS` points, the last one among them."""
    every = -(-len(curve) // POINTS) or 1
    return [(int(step), round(float(value), 3)) for step, value in curve[::-1][::every][::-1]]


def judge(job: Mapping[str, str], count: int) -> None:
    """Write what a run's policy reaches, and its curve."""
    import torch

    from rl8.env.adapters.gymnasium import GymnasiumEnv

    torch.manual_seed(SEED)
    folder, config = Path(job["folder"]), json.loads(Path(job["config"]).read_text())
    if job["program"] == "rl8":
        predict, curve = of_rl8(folder), curve_of_rl8(folder)
    else:
        predict, curve = of_sb3(folder, config), json.loads((folder / CURVE).read_text())
    env = {name: value for name, value in config["env"].items() if name != "_target_"}
    vec = GymnasiumEnv(min(MAX_ENVS, count), **env).vec
    returns, lengths = episodes(vec, predict, count)
    vec.close()
    found = {"returns": [round(value, 4) for value in returns], "lengths": lengths, "curve": thinned(curve)}
    Path(job["out"]).write_text(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path, help="JSON: for each policy its program, config, folder, and out, a file")
    parser.add_argument("episodes", type=int)
    arguments = parser.parse_args()
    for job in json.loads(arguments.jobs.read_text()):
        judge(job, arguments.episodes)


if __name__ == "__main__":
    main()
