"""Which of PPO's numbers may change with the env steps, and the schedule of each: `algo.schedules`.

This file imports no torch, so that a config is checked before anything heavy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rl8.checks import unknown
from rl8.kinds import as_text
from rl8.ppo.schedules import Schedule

Hyperparameters = Any  # an `rl8.ppo.hyperparameters.Hyperparameters`; its file imports this one

#: Numbers that have a schedule of their own, and the largest value that is none any more.
SCHEDULED: Final[dict[str, float]] = {
    "lr": -1,
    "entropy_coeff": -1,
    "clip_param": -1,
    "vf_clip_param": -1,
    "dual_clip_param": 1,
    "vf_coeff": -1,
}
#: What a config may say in place of points: from the number's own value to 0 at `goal.env_steps`.
LINEAR: Final = "linear"


def check_schedules(given: Any) -> dict[str, Any]:
    """Return points by name for every number that may have some, None for those without.

    Raises:
        TypeError: If `given` is no mapping.
        ValueError: If it names another number.
    """
    if given is None:
        return dict.fromkeys(SCHEDULED)
    if not isinstance(given, Mapping):
        raise TypeError(
            f"algo.schedules={as_text(given)} is no mapping. Accepted: points by the name of the number. "
            "Try 'algo.schedules={clip_param: [[0, 0.2], [100_000, 0.0]]}'."
        )
    for name in given:
        if name not in SCHEDULED:
            raise ValueError(f"algo.schedules.{name}: {unknown('number with a schedule', str(name), SCHEDULED)}")
    return {name: given.get(name) for name in SCHEDULED}


def check_numbers(algo: Mapping[str, Any], optimizer: Any) -> None:
    """Check that no number is given as a schedule, as Stable-Baselines3's zoo has it.

    Args:
        algo: PPO's options by name.
        optimizer: The optimizer's.

    Raises:
        ValueError: If one is; the message names the key that takes it.
    """
    rate = optimizer.get("lr") if isinstance(optimizer, Mapping) else None
    given = {**{f"algo.{name}": algo.get(name) for name in SCHEDULED if name != "lr"}, "algo.optimizer.lr": rate}
    for key, value in given.items():
        if value == LINEAR:
            name = key.rpartition(".")[2]
            raise ValueError(
                f"{key}={LINEAR}: a number that moves has a schedule besides. Accepted: a number, where it begins. Try "
                f"algo.schedules.{name}={LINEAR}."
            )


def check_scheduled(hparams: Hyperparameters) -> None:
    """Check every point but those of the learning rate, which starts with the optimizer's.

    Raises:
        TypeError: If a number or a pair is of another kind.
        ValueError: If a value is out of range, or a number has two schedules.
    """
    for name in ("lr", "entropy_coeff"):
        if hparams.schedules[name] is not None and getattr(hparams, f"{name}_schedule") is not None:
            raise ValueError(
                f"algo.schedules.{name} and algo.{name}_schedule are two schedules of one number. "
                f"Accepted: one of them. Try algo.{name}_schedule=null."
            )
    for name in SCHEDULED:
        if name not in ("lr", "entropy_coeff"):
            schedule_of(hparams, name)


def schedule_of(hparams: Hyperparameters, name: str, value: float | None = None) -> Schedule:
    """Return a number over env steps.

    Args:
        hparams: PPO's options.
        name: One of `SCHEDULED`.
        value: Where no schedule says otherwise; by default the option of that name.
    """
    key, points, kind = f"algo.schedules.{name}", hparams.schedules[name], "interp"
    own = f"{name}_schedule"
    if points is None and getattr(hparams, own, None) is not None:
        key, points, kind = f"algo.{own}", getattr(hparams, own), getattr(hparams, f"{own}_kind")
    if points == LINEAR:
        raise ValueError(
            f"{key}={LINEAR} ends at goal.env_steps, which only a config has. Accepted here: pairs (env steps, value). "
            f"Try schedules={{{name!r}: [[1_000_000, 0.0]]}}."
        )
    value = getattr(hparams, name) if value is None and name != "lr" else value
    if points is None:
        return Schedule(0.0 if value is None else value, None, "step", name=key)
    if value is None and not _starts_at_zero(points):
        raise ValueError(
            f"{key} begins after env step 0, and algo.{name}=null has no value until then. Accepted: a first point at "
            f"env step 0. Try '{key}=[[0, 2.0], [1_000_000, 1.5]]'."
        )
    schedule = Schedule(0.0 if value is None else value, points, kind, name=key)
    if schedule.least <= SCHEDULED[name]:
        raise ValueError(
            f"{key} reaches {schedule.least:g}. Accepted: numbers > {SCHEDULED[name]:g}. "
            f"Try '{key}=[[0, 5.0], [1_000_000, 2.0]]'."
        )
    return schedule


def check_rate(hparams: Hyperparameters, lr: Any, key: str) -> None:
    """Raise ValueError where an adaptive learning rate begins outside its limits."""
    number = isinstance(lr, int | float)
    if number and hparams.desired_kl is not None and not hparams.min_lr <= lr <= hparams.max_lr:
        raise ValueError(
            f"{key}={lr:g} is where algo.desired_kl begins. Accepted: a number from algo.min_lr={hparams.min_lr:g} to "
            f"algo.max_lr={hparams.max_lr:g}. Try {key}={min(max(lr, hparams.min_lr), hparams.max_lr):g}."
        )


def rates(hparams: Hyperparameters) -> tuple[Any, str]:
    """Return the points of the learning rate, None without any, and what they are called, `algo.` left out."""
    if hparams.schedules["lr"] is not None:
        return hparams.schedules["lr"], "schedules.lr"
    return hparams.lr_schedule, "lr_schedule"


def ended(schedules: Any, env_steps: int | None) -> Any:
    """Return schedules in which every `linear` has become the point at which it is 0.

    Args:
        schedules: `algo.schedules` of a config.
        env_steps: `goal.env_steps`.

    Raises:
        ValueError: If there is no such point.
    """
    if not isinstance(schedules, Mapping) or LINEAR not in list(schedules.values()):
        return schedules
    linear = [name for name, points in schedules.items() if points == LINEAR]
    if env_steps is None:
        raise ValueError(
            f"algo.schedules.{linear[0]}={LINEAR} ends at goal.env_steps, which is null. Accepted without it: pairs "
            f"[env steps, value]. Try 'algo.schedules.{linear[0]}=[[1_000_000, 0]]'."
        )
    if "dual_clip_param" in linear:
        raise ValueError(
            "algo.schedules.dual_clip_param=linear reaches 0. Accepted: numbers > 1. "
            "Try 'algo.schedules.dual_clip_param=[[0, 5.0], [1_000_000, 2.0]]'."
        )
    return {name: [[env_steps, 0.0]] if points == LINEAR else points for name, points in schedules.items()}


def _starts_at_zero(points: Any) -> bool:
    first = points[0] if isinstance(points, list | tuple) and points else None
    return isinstance(first, list | tuple) and list(first[:1]) == [0]
