"""Numbers that are given other values while training, by a callback or a loop of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rl8.checks import check_range, unknown
from rl8.ppo.hyperparameters import CHANGEABLE
from rl8.ppo.optim import set_learning_rate
from rl8.ppo.schedules import Schedule

Algorithm = Any  # an `rl8.ppo.algorithm.Algorithm`; its file imports this one


def change(algorithm: Algorithm, *, lr: float | None = None, **coefficients: Any) -> None:
    """Give numbers that act on their own other values from now on, in place of their schedules.

    On CUDA graphs are captured anew for a changed number, but for `lr` and `entropy_coeff`, which are live.

    Args:
        algorithm: Whose numbers.
        lr: Learning rate, > 0.
        **coefficients: Those of `CHANGEABLE`, as in `Hyperparameters`.

    Raises:
        TypeError: If there is no such number, or a value is none.
        ValueError: If a value is out of range.
    """
    for name in coefficients:
        if name not in CHANGEABLE:
            raise TypeError(unknown("number that can be changed", name, ["lr", *CHANGEABLE]))
    if lr is not None:
        check_range("lr", lr, 0, low_open=True, hint="lr=1e-3")
        algorithm.lr = Schedule(lr, None, "step", name="algo.lr_schedule")
        set_learning_rate(algorithm.optimizer, lr)
    named = set(coefficients)
    if "entropy_coeff" in coefficients:
        coefficients["entropy_coeff_schedule"] = None
    schedules = {name: None if name in named else points for name, points in algorithm.hparams.schedules.items()}
    algorithm.hparams = replace(algorithm.hparams, schedules=schedules, **coefficients)
    algorithm.coefficients.take(algorithm.hparams)
    algorithm.reward_scaler.gamma = algorithm.hparams.gamma
    if named - {"entropy_coeff"}:
        algorithm.works.take_numbers(algorithm)
