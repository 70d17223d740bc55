"""Every metric that a run reports, as numbers on the host, and what is refused or fails because of one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import torch

from rl8 import data
from rl8.checks import unknown_metric
from rl8.conditions import Condition
from rl8.parallel import world
from rl8.ppo.algorithm import Algorithm
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.metrics import UPDATE_METRICS
from rl8.rollout.metrics import Metrics
from rl8.rollout.nonfinite import first_nonfinite
from rl8.rollout.rollout import Rollout

# Everything that an iteration reports; stop conditions may name no other.
NONFINITE: Final = "monitors/nonfinite_envs"
METRICS = (
    *data.RETURNS,
    *(f"rewards/{part}" for part in data.SPREAD),
    *UPDATE_METRICS,
    "monitors/explained_variance",
    "coefficients/entropy",
    "coefficients/vf",
    "coefficients/lr",
    data.COLLECT_MS,
    data.STEP_MS,
    data.TRANSITIONS_PER_S,
    data.ENV_STEPS,
    data.ENV_RESETS,
    data.ITERATIONS,
    data.MEMORY_MB,
)
EVAL_METRICS = (
    *(f"eval/{name}/{part}" for name in ("returns", "rewards") for part in data.SPREAD),
    data.EVAL_MS,
)


def metric_names(algorithm: Algorithm) -> list[str]:
    """Return every metric that an iteration or an evaluation of an algorithm may have."""
    own = [f"env/{name}" for name in sorted(algorithm.env.metric_names)]
    more = [f"losses/{name}" for name in algorithm.extra_losses] + [NONFINITE] * algorithm.skips_nonfinite
    moving = [f"coefficients/{name}" for name in algorithm.coefficients.reported()]
    more += [name for name in moving if name not in METRICS]
    if world.size() > 1:
        more += [name for number in range(world.size()) for name in process_metrics(number)]
    evaluated = own
    if algorithm.episodes is not None:
        more, evaluated = [*more, *data.EPISODE_METRICS], [*own, *data.EVAL_EPISODES]
    return [*METRICS, *more, *own, *EVAL_METRICS, *(f"eval/{name}" for name in evaluated)]


def process_metrics(number: int) -> tuple[str, str]:
    """Return the names of one process's speed and peak memory."""
    return f"profiling/process_{number}_transitions_per_s", f"memory/process_{number}_peak_mb"


def shares(hparams: Hyperparameters) -> dict[str, str]:
    """Return what the processes have together, as the first lines of a run say it; nothing of one process."""
    size, minibatch = world.size(), hparams.batch_size // hparams.num_minibatches
    if size == 1:
        return {}
    return {
        "processes": f"{size}, each with these envs and minibatches of {minibatch:,} steps: in all "
        f"{size * hparams.num_envs:,} envs, {size * hparams.batch_size:,} env steps an iteration and minibatches of "
        f"{size * minibatch:,}"
    }


def measured(algorithm: Algorithm, collect_ms: float, step_ms: float, memory_mb: float) -> dict[str, float]:
    """Return time, speed and memory of an iteration: of the slowest process, and of all together.

    Args:
        algorithm: What was trained.
        collect_ms: Time that this process took to collect.
        step_ms: Time that it took to learn.
        memory_mb: Its peak memory.

    Raises:
        RuntimeError: If the processes' policies are no longer the same.
    """
    batch, size = algorithm.hparams.batch_size, world.size()
    own = torch.tensor([collect_ms, step_ms, memory_mb, world.fingerprint(algorithm.policy)], dtype=torch.float64)
    collects, steps, memory, prints = world.gathered(own).unbind(1)
    if (prints != prints[0]).any():
        raise RuntimeError(
            "The processes' policies are no longer the same, so training has failed. Accepted: equal versions, "
            "devices and threads in all processes, and models that draw no weights while they train."
        )
    values = {
        data.COLLECT_MS: float(collects.max()),
        data.STEP_MS: float(steps.max()),
        data.TRANSITIONS_PER_S: batch * size / float((collects + steps).max()) * 1e3,
        data.MEMORY_MB: float(memory.sum()),
    }
    for number in range(size) if size > 1 else ():
        speed = batch / float(collects[number] + steps[number]) * 1e3
        values |= dict(zip(process_metrics(number), (speed, float(memory[number])), strict=True))
    return values


def to_host(metrics: Metrics) -> dict[str, float]:
    """Return metrics as numbers, by one transfer from the device."""
    numbers: list[float] = torch.stack([value.to(torch.float32) for value in metrics.values()]).tolist()
    found = dict(zip(metrics, numbers, strict=True))
    # NaN: the environment had nothing to report, or no episode has ended yet
    silent = ("env/", "episodes/", *(data.RETURNS if data.EPISODES_COUNT in metrics else ()))
    return {name: number for name, number in found.items() if not (name.startswith(silent) and math.isnan(number))}


def check_finite(metrics: Mapping[str, float], rollout: Rollout, extra_losses: Collection[str] = ()) -> None:
    """Raise FloatingPointError, with what was first and what to do, if the return or the loss is infinite or NaN.

    Args:
        metrics: Of the iteration.
        rollout: What it was made of.
        extra_losses: Names of the user's own terms of the loss.

    Raises:
        FloatingPointError: If one is.
    """
    watched = ("returns/mean", "rewards/mean", "losses/total")
    bad = [name for name in watched if not math.isfinite(metrics.get(name, 0.0))]
    if bad:
        causes = world.every(first_nonfinite(rollout))
        number, cause = next(((number, text) for number, text in enumerate(causes) if text), (0, None))
        cause = f"In process {number}: {cause}" if cause and len(causes) > 1 else cause
        own = [name for name in extra_losses if not math.isfinite(metrics.get(f"losses/{name}", 0.0))]
        if own and not cause:
            cause = (
                f"losses/{own[0]} is {metrics[f'losses/{own[0]}']}: look at extra_losses[{own[0]!r}], your own term."
            )
        raise FloatingPointError(
            f"{bad[0]} is {metrics[bad[0]]} after {metrics[data.ENV_STEPS]:,.0f} env steps, so training has failed. "
            + (cause or "Try a lower learning rate, e.g. algo.optimizer.lr=1e-4, or algo.max_grad_norm=0.5.")
        )


def check_keys(conditions: Sequence[Condition], known: Sequence[str], *, evaluates: bool) -> None:
    """Raise ValueError if a condition watches a metric that no iteration will ever have."""
    watched = [key for condition in conditions for key in condition.keys()]  # noqa: SIM118 (a condition is no mapping)
    for key in watched:
        if key not in known:
            raise ValueError(f"stop.key={key}: {unknown_metric(key, known)}")
        if key.startswith("eval/") and not evaluates:
            raise ValueError(
                f"The stop condition watches {key}, but with trainer.steps_per_eval=null a policy is evaluated only at "
                "the end. Try trainer.steps_per_eval=10."
            )
