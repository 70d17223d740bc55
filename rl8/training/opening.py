"""What a run says of itself as it begins."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rl8 import data
from rl8.conditions import Condition, EnvSteps, flat
from rl8.nn.images import fitting, flattened
from rl8.ppo.algorithm import Algorithm
from rl8.ppo.schedule_options import rates
from rl8.reported import shares
from rl8.training.evaluation import Evaluation
from rl8.view.readings import megabytes

# Memory of a rollout that is worth a word, in MB.
MB_TO_STATE: Final = 1.0

# What an episode is worth beyond its time limit.
BOOTSTRAPPED: Final = {
    data.BOOTSTRAP_FINAL_OBS: "the value of the last observation follows",
    data.BOOTSTRAP_LAST_VALUE: "the value before the last step follows",
    data.BOOTSTRAP_NONE: "nothing follows",
}


def facts(algorithm: Algorithm, stop: Condition, evaluation: Evaluation, origin: Path | None) -> dict[str, str]:
    """Return what is about to run, by name.

    Args:
        algorithm: What trains.
        stop: When it ends.
        evaluation: Says what returns are sums over.
        origin: The file that the run begins from, if any.
    """
    hparams, env = algorithm.hparams, algorithm.env
    weights = sum(parameter.numel() for parameter in algorithm.parameters)
    stored = algorithm.rollout.megabytes()
    info = {
        "device": str(algorithm.device),
        "data": f"{hparams.num_envs:,} envs x {hparams.horizon} steps"
        + (f", {megabytes(stored)}" if stored >= MB_TO_STATE else ""),
        **shares(hparams),
        "policy": f"{type(algorithm.policy.model).__name__}, {weights:,} weights",
        "until": stop.describe(),
    }
    if images := flattened(algorithm.policy.model):
        key = "model.images" if "images" in inspect.signature(type(algorithm.policy.model)).parameters else "model"
        sizes = ", ".join(" x ".join(map(str, spec.shape)) for spec in images)
        info["images"] = f"{sizes}, flattened to numbers; {key}={fitting(images)} looks at them as images"
    if env.truncates:
        info["time limits"] = f"{BOOTSTRAPPED[hparams.bootstrap or '']} (algo.bootstrap={hparams.bootstrap})"
    if evaluation.return_scale != 1.0:
        info["returns"] = f"per {evaluation.return_per}, training's in proportion"
    if origin is not None:
        info["begins from"] = f"{origin}, {algorithm.env_steps:,} env steps"
    return info


def cut_episodes(algorithm: Algorithm) -> Iterator[str]:
    """Yield what is to be said where resets cut episodes off that would end by themselves."""
    hparams = algorithm.hparams
    if algorithm.env.has_ends and (hparams.horizons_per_env_reset or 1) > 0:
        every = (hparams.horizons_per_env_reset or 1) * hparams.horizon
        yield (
            f"Episodes end by themselves, but a reset every {every} steps cuts them off. "
            "algo.horizons_per_env_reset=-1 lets them go on."
        )


def rate_ends(algorithm: Algorithm, stop: Condition) -> Iterator[str]:
    """Yield what is to be said where training may go on after the learning rate has fallen to 0."""
    zero, ends = algorithm.lr.zero_from, [each.env_steps for each in flat([stop]) if isinstance(each, EnvSteps)]
    if algorithm.lr.moves and zero is not None and min(ends, default=zero + 1) > zero:
        yield (
            f"The learning rate is 0 from {zero:,} env steps on, where nothing more is learned, and training may go on "
            f"after that. algo.{rates(algorithm.hparams)[1]} says so; where it ends at goal.env_steps, raise that."
        )
