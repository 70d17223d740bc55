"""Which options an algorithm takes, and whether its parts fit together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from rl8.checks import check_range, unknown
from rl8.data import BOOTSTRAP_FINAL_OBS, BOOTSTRAP_LAST_VALUE
from rl8.env import Env
from rl8.names import ours_in_python
from rl8.nn.images import fitting, images_in
from rl8.policy.policy import Policy
from rl8.ppo.hyperparameters import CPU_NUM_ENVS, Hyperparameters
from rl8.ppo.schedule_options import check_rate, rates, schedule_of
from rl8.ppo.schedules import Schedule, starting_rate
from rl8.rng import forked
from rl8.settings import DeviceSettings, TrainerSettings

DEFAULT_LR = 1e-3


def check_options(algorithm_cls: type, options: Mapping[str, Any], others: Sequence[str] = ()) -> None:
    """Raise TypeError for an option that an algorithm does not take; the message has the nearest one.

    Args:
        algorithm_cls: Its keywords are accepted, and the fields of `Hyperparameters`.
        options: What was given.
        others: More names that are accepted.
    """
    parameters = inspect.signature(algorithm_cls).parameters.values()
    parts = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    names = [*parts, *(field.name for field in fields(Hyperparameters)), *others]
    for name, value in options.items():
        if name not in names:
            owner = "Trainer" if others else algorithm_cls.__name__
            if (elsewhere := _elsewhere(name, value, others)) is not None:
                raise TypeError(f"{name}={value!r} is no option of {owner} itself. Try {elsewhere}.")
            near = ours_in_python(name, value)
            raise TypeError(unknown("option", name, names, guess=near, where=f"help(rl8.{owner}) lists all"))


def _elsewhere(name: str, value: Any, others: Sequence[str]) -> str | None:
    """Return how to give an option that another class has; None if none has it."""
    if name in {field.name for field in fields(DeviceSettings)}:
        return f"device=rl8.DeviceSettings({name}={value!r})"
    if name in {field.name for field in fields(TrainerSettings)} and not others:
        return f"rl8.Trainer(env, {name}={value!r}), which also records and saves the run"
    return None


def fitting_defaults(env_cls: Any, device: str, options: Mapping[str, Any]) -> dict[str, int]:
    """Return defaults lowered to what suits the device and to the class's limits, for options left alone."""
    num_envs = Hyperparameters.num_envs if "cuda" in device else CPU_NUM_ENVS
    sizes = {"num_envs": num_envs, "horizon": Hyperparameters.horizon}
    limits = {name: getattr(env_cls, f"max_{name}", None) for name in sizes}
    return {name: min(size, limits[name] or size) for name, size in sizes.items() if name not in options}


def validated(hparams: Hyperparameters, env: Env) -> Hyperparameters:
    """Validate an environment; return the numbers with a choice of `horizons_per_env_reset` and `bootstrap`.

    Environments are never reset between horizons where episodes end on their own.

    Raises:
        TypeError: See `Env.validate`.
        ValueError: The same, and where environments that step on their own would be reset between their ends, or an
            environment does not give what a bootstrap or random ages take.
    """
    every = hparams.horizons_per_env_reset
    if env.opaque and every is not None and every > 0:
        raise ValueError(
            f"algo.horizons_per_env_reset={every} would cut the episodes of {type(env).__name__}, whose environments "
            "begin anew on their own, each when its episode ends. Accepted: a negative number. Try "
            "algo.horizons_per_env_reset=-1."
        )
    env.validate()
    if every is None:
        every = -1 if env.has_ends or env.opaque else 1
    if hparams.random_initial_ages:
        with forked(env.device):
            env.begin_at_random_ages()  # says why where it can't
    return replace(hparams, horizons_per_env_reset=every, bootstrap=_fitting_bootstrap(env, hparams.bootstrap))


def learning_rate(hparams: Hyperparameters, optimizer_config: Mapping[str, Any]) -> Schedule:
    """Return the learning rate over env steps: the optimizer's, 1e-3 unless given, where no schedule says otherwise."""
    lr = optimizer_config.get("lr", DEFAULT_LR)
    check_range("optimizer_config.lr", lr, 0, low_open=True, hint='optimizer_config={"lr": 1e-3}')
    check_rate(hparams, lr, "optimizer_config.lr")
    points, name = rates(hparams)
    start = starting_rate(lr, points, typed="lr" in optimizer_config, key="optimizer_config.lr", name=name)
    return schedule_of(hparams, "lr", start)


def _fitting_bootstrap(env: Env, wanted: str | None) -> str:
    """Return what truncated episodes bootstrap from: what is wanted, or the best that the environment gives.

    Raises:
        ValueError: If the environment does not give what that takes.
    """
    if wanted == BOOTSTRAP_FINAL_OBS and not env.has_final_obs:
        raise ValueError(
            f"algo.bootstrap={wanted} needs the last observation of an episode, and {type(env).__name__} only has the "
            f"one after the reset. Accepted: {BOOTSTRAP_LAST_VALUE}, none. Try algo.bootstrap={BOOTSTRAP_LAST_VALUE}."
        )
    return wanted or (BOOTSTRAP_FINAL_OBS if env.has_final_obs else BOOTSTRAP_LAST_VALUE)


def check_kind(policy: Policy, hparams: Hyperparameters, *, recurrent: bool) -> None:
    """Raise ValueError where a model can't learn, or its memory and the algorithm's do not fit."""
    name = type(policy.model).__name__
    if not any(weight.requires_grad for weight in policy.parameters()):
        raise ValueError(
            f"{name} has no parameter that learns. Accepted: at least one torch.nn.Parameter with requires_grad=True. "
            "Add one, or remove requires_grad_(False)."
        )
    if recurrent and not policy.recurrent:
        images = images_in(policy.observation_spec)
        advice = f"model=lstm model.images={fitting(images)}" if images else "model=lstm or model=gru"
        raise ValueError(
            f"algo=recurrent (algo._target_: RecurrentAlgorithm) needs a model with memory, but {name} has no "
            f"state_spec. Try {advice}. What trains models without memory is algo=ppo."
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


def check_parts(model_config: Any, optimizer_config: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the keywords of model and optimizer; TypeError unless they are mappings or None."""
    for name, value in (("model_config", model_config), ("optimizer_config", optimizer_config)):
        if value is not None and not isinstance(value, Mapping):
            raise TypeError(f"{name}={value!r} is no mapping. Accepted: keywords by name, or None. Try {name}={{}}.")
    return model_config or {}, optimizer_config or {}
