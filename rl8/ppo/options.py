"""Which options an algorithm takes, and whether its parts fit together."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from rl8.checks import unknown
from rl8.names import ours_in_python
from rl8.policy.policy import Policy
from rl8.ppo.hyperparameters import Hyperparameters


def check_options(algorithm_cls: type, options: Iterable[str], others: Sequence[str] = ()) -> None:
    """Raise TypeError for an option that an algorithm does not take; the message has the nearest one.

    Args:
        algorithm_cls: Its keywords are accepted, and the fields of `Hyperparameters`.
        options: What was given.
        others: More names that are accepted.
    """
    parameters = inspect.signature(algorithm_cls).parameters.values()
    parts = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    names = [*parts, *(field.name for field in fields(Hyperparameters)), *others]
    for name in options:
        if name not in names:
            raise TypeError(unknown("option", name, names, guess=ours_in_python(name)))


def within_limits(env_cls: Any, options: Mapping[str, Any]) -> dict[str, int]:
    """Return defaults lowered to the class's limits, for options that the user left alone."""
    limits = {"num_envs": getattr(env_cls, "max_num_envs", None), "horizon": getattr(env_cls, "max_horizon", None)}
    return {
        name: min(getattr(Hyperparameters, name), limit)
        for name, limit in limits.items()
        if limit is not None and name not in options
    }


def check_kind(policy: Policy, hparams: Hyperparameters, *, recurrent: bool) -> None:
    """Raise ValueError where a recurrent algorithm has no recurrent model, or the other way round."""
    name = type(policy.model).__name__
    if recurrent and not policy.recurrent:
        raise ValueError(
            f"algo=recurrent needs a model with memory, but {name} has no state_spec. Try model=lstm or model=gru, "
            "or algo=ppo to train this one."
        )
    if policy.recurrent and not recurrent:
        raise ValueError(
            f"algo=ppo trains feedforward models, but {name} carries a recurrent state. Try algo=recurrent "
            "(RecurrentAlgorithm, RecurrentTrainer), or model=mlp."
        )
    if not policy.recurrent and hparams.seq_len > 1:
        raise ValueError(
            f"algo.seq_len={hparams.seq_len} needs a model with memory, {name} has none. Try algo.seq_len=1."
        )
