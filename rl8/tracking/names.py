"""What runs are called: what they are, so that a list of them can be read. Two runs may have the same name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rl8.tracking.secrets import MASK, is_secret
from rl8.tracking.store import FIXED_VARIABLE

# Options by which an environment's class is told which task it is.
TASKS = ("id", "task")
ALGORITHMS = {"Algorithm": "ppo", "RecurrentAlgorithm": "recurrent"}


def task_name(env: str, config: Mapping[str, Any]) -> str:
    """Return what an environment is called: the task that its options name, else its class.

    Args:
        env: Name of its class.
        config: The run's configuration.
    """
    options = config.get("env")
    named = [options.get(key) for key in TASKS] if isinstance(options, Mapping) else []
    return next((text for text in named if isinstance(text, str)), env)


def run_title(env: str, config: Mapping[str, Any]) -> str:
    """Return what a run is called on the screen, e.g. `CartPole, seed 1`.

    Args:
        env: Name of the environment's class.
        config: The run's configuration.
    """
    name = task_name(env, config)
    return f"{name}, seed {config['seed']}" if "seed" in config else name


def run_name(env: str, algorithm: str, config: Mapping[str, Any], overrides: Sequence[str] = ()) -> str:
    """Return the name of a run, e.g. `cartpole-ppo-seed1`; of a sweep's job what varies, e.g. `gamma=0.9, seed=2`.

    Args:
        env: Name of the environment's class.
        algorithm: Name of the algorithm's class.
        config: The run's configuration; `seed` and the environment's task are taken from it.
        overrides: What was typed.
    """
    fixed = os.environ.get(FIXED_VARIABLE)
    words = [word.lstrip("+~").partition("=") for word in overrides] if fixed is not None else []
    varied = {key: value for key, _, value in words if key not in (fixed or "").split("\n")}
    if varied:
        ends = Counter(_end(key) for key in varied)
        shown = {_end(key) if ends[_end(key)] == 1 else key: value for key, value in varied.items()}
        return ", ".join(f"{key}={MASK if is_secret(key, value) else value}" for key, value in shown.items())
    parts = [task_name(env, config), ALGORITHMS.get(algorithm, algorithm)]
    parts += [f"seed{config['seed']}"] if config.get("seed") is not None else []
    return "-".join(parts).replace("/", "-").lower()


def _end(key: str) -> str:
    return key.rpartition(".")[2]
