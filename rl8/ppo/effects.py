"""Options of PPO, its model and its environment that do nothing beside the others; loads no torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from rl8.calls import is_typed
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.schedule_options import SCHEDULED


def _starts_at_zero(schedule: Any) -> bool:
    # pairs were checked
    return isinstance(schedule, (list, tuple)) and bool(schedule) and list(schedule[0])[:1] == [0]


def _scheduled(name: str) -> Callable[[Hyperparameters], str]:
    def reason(hparams: Hyperparameters) -> str:
        schedules = {f"algo.schedules.{name}": hparams.schedules[name]}
        schedules[f"algo.{name}_schedule"] = getattr(hparams, f"{name}_schedule", None)
        found = [key for key, points in schedules.items() if _starts_at_zero(points)]
        return f"{found[0]} says the value from env step 0 on" if found else ""

    return reason


def _stays(name: str) -> Callable[[Hyperparameters], str]:
    def reason(hparams: Hyperparameters) -> str:
        value, points = getattr(hparams, name), hparams.schedules[name] or ()
        still = bool(points) and all(point[1] == value for point in points)  # pairs were checked
        return f"algo.{name} is {value:g}, and stays so" if still else ""

    return reason


def _one_step(hparams: Hyperparameters) -> str:
    steps = hparams.num_sgd_iters * (1 if hparams.accumulate_grads else hparams.num_minibatches)
    return "" if steps > 1 else "an update has one optimizer step (algo.num_sgd_iters), and nothing has moved before"


# Why an option of PPO has no effect with the others as they are; empty where it has one.
IDLE: Final[dict[str, Callable[[Hyperparameters], str]]] = {
    **{name: _scheduled(name) for name in SCHEDULED if name != "lr"},
    "lr_schedule_kind": lambda h: "" if h.lr_schedule else "algo.lr_schedule is null",
    "entropy_coeff_schedule_kind": lambda h: "" if h.entropy_coeff_schedule else "algo.entropy_coeff_schedule is null",
    **{name: lambda h: "" if h.desired_kl else "algo.desired_kl is null" for name in ("min_lr", "max_lr")},
    **{f"schedules.{name}": _stays(name) for name in SCHEDULED if name != "lr"},
    "desired_kl": lambda h: "" if h.desired_kl is None else _one_step(h),
    "target_kl_div": lambda h: "" if h.target_kl_div is None else _one_step(h),
    "clip_obs": lambda h: "" if h.normalize_obs else "algo.normalize_obs is false",
    "normalize_advantages_per_minibatch": lambda h: (
        "algo.normalize_advantages is false"
        if not h.normalize_advantages
        else ""
        if h.num_minibatches > 1
        else "one minibatch holds the whole batch (algo.sgd_minibatch_size)"
    ),
    "amp_dtype": lambda h: "" if h.enable_amp else "algo.enable_amp is false",
    "shuffle_minibatches": lambda h: (
        "" if h.num_minibatches > 1 else "one minibatch holds the whole batch (algo.sgd_minibatch_size)"
    ),
}


def features(typed: Collection[str], names: set[str], *, recurrent: bool, truncates: bool) -> dict[str, str]:
    """Return the typed keys that have no effect with the policy and the environment that were built.

    Args:
        typed: Dotted keys whose value was changed.
        names: Features that the model computes for the action distribution.
        recurrent: Whether the policy carries a state.
        truncates: Whether the environment has a time limit.
    """
    found = {}
    if "log_std" not in names:
        options = ("log_std", "state_dependent_std", "min_std", "max_std")
        keys = ("network.log_std", *(f"model.{name}" for name in options))
        found = {key: "these actions have no standard deviation" for key in keys if key in typed}
    if not recurrent and "algo.seqs_per_state_reset" in typed:
        found["algo.seqs_per_state_reset"] = "the policy carries no state from step to step"
    if not truncates and "algo.bootstrap" in typed:
        found["algo.bootstrap"] = "no time limit ends an episode of this environment"
    return found


def check_given(given: Mapping[str, Any], algorithm: Any) -> None:
    """Refuse what was given in Python and has no effect; a command line refuses it of the keys that were typed.

    Args:
        given: Options of an `Algorithm`, as they were given; what is the default anyway is accepted.
        algorithm: What was built with them.

    Raises:
        ValueError: If one has no effect; the message names the option.
    """
    if is_typed():
        return
    policy, hparams = algorithm.policy, algorithm.hparams
    usual: dict[str, Any] = {**vars(Hyperparameters), **algorithm.defaults}
    keys = {f"algo.{name}": (name, value, usual.get(name)) for name, value in given.items()}
    for name, value in dict(given.get("schedules") or {}).items():
        keys[f"algo.schedules.{name}"] = f"schedules={{{name!r}: {value!r}}}", value, None
    parameters = inspect.signature(type(policy.model)).parameters
    for name, value in (given.get("model_config") or {}).items():
        default = parameters[name].default if name in parameters else None
        keys[f"model.{name}"] = f"model_config={{{name!r}: {value!r}}}", value, default
    shapes = policy.distribution_cls.feature_shapes(policy.action_spec)
    found = {f"algo.{name}": reason(hparams) for name, reason in IDLE.items() if f"algo.{name}" in keys}
    found |= features(keys, set(feature_names(shapes)), recurrent=policy.recurrent, truncates=algorithm.env.truncates)
    found = {key: reason for key, reason in found.items() if reason and keys[key][1] != keys[key][2]}
    if found:
        key = next(iter(found))
        texts = "; ".join(f"{keys[name][0]}: {re.sub('algo[.]', '', reason)}" for name, reason in found.items())
        raise ValueError(
            f"What was given would have no effect. {texts}. Accepted: options that act. Drop {keys[key][0]}."
        )


def feature_names(shapes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of features, those of nested ones too."""
    for name, shape in shapes.items():
        yield from feature_names(shape) if isinstance(shape, Mapping) else (name,)
