"""What was typed and can't do anything in the run at hand: it is refused, or said where a sweep's other jobs use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf

from rl8.parallel import launched
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.scheduled import SCHEDULED

Reason = Callable[[Hyperparameters, Mapping[str, Any]], str]

# Groups that only serve others: a key acts where another value refers to it.
REFERRED: Final = ("network", "goal")
# Why changing a key may change neither weights nor files, and is accepted all the same.
ACCEPTED: Final = {
    "goal.metric": "what sweeps are compared by",
    "trainer.view": "what the terminal shows",
    "device.piece_size": "how gradients are computed, not what they are",
    "device.num_threads": "how fast it is",
}


def _starts_at_zero(schedule: Any) -> bool:
    return isinstance(schedule, list) and bool(schedule) and isinstance(schedule[0], list) and schedule[0][:1] == [0]


def _scheduled(name: str) -> Reason:
    def reason(hparams: Hyperparameters, config: Mapping[str, Any]) -> str:
        schedules = {f"algo.schedules.{name}": hparams.schedules[name]}
        schedules[f"algo.{name}_schedule"] = getattr(hparams, f"{name}_schedule", None)
        found = [key for key, points in schedules.items() if _starts_at_zero(points)]
        return f"{found[0]} says the value from env step 0 on" if found else ""

    return reason


def _unrecorded(*writers: str) -> Reason:
    """Return the reason why a key that says how a run is recorded has no effect: none of the writers is on."""

    def reason(_: Hyperparameters, config: Mapping[str, Any]) -> str:
        trainer = config["trainer"]
        return "" if any(trainer[name] for name in writers) else "nothing records the run: trainer.track is false"

    return reason


# Why a key has no effect with the other options as they are; empty where it has one.
RULES: Final[dict[str, Reason]] = {
    **{f"algo.{name}": _scheduled(name) for name in SCHEDULED if name != "lr"},
    "algo.lr_schedule_kind": lambda h, _: "" if h.lr_schedule else "algo.lr_schedule is null",
    "algo.entropy_coeff_schedule_kind": lambda h, _: (
        "" if h.entropy_coeff_schedule else "algo.entropy_coeff_schedule is null"
    ),
    **{f"algo.{name}": lambda h, _: "" if h.desired_kl else "algo.desired_kl is null" for name in ("min_lr", "max_lr")},
    "algo.clip_obs": lambda h, _: "" if h.normalize_obs else "algo.normalize_obs is false",
    "algo.normalize_advantages_per_minibatch": lambda h, _: (
        "algo.normalize_advantages is false"
        if not h.normalize_advantages
        else ""
        if h.num_minibatches > 1
        else "one minibatch holds the whole batch (algo.sgd_minibatch_size)"
    ),
    "algo.amp_dtype": lambda h, _: "" if h.enable_amp else "algo.enable_amp is false",
    "algo.shuffle_minibatches": lambda h, _: (
        "" if h.num_minibatches > 1 else "one minibatch holds the whole batch (algo.sgd_minibatch_size)"
    ),
    "device.graphs": lambda _, config: "" if config["device"]["device"] != "cpu" else "a CPU has no CUDA graphs",
    **{
        key: lambda _, config: "model.hiddens has no layers" if config.get("model", {}).get("hiddens") == [] else ""
        for key in ("model.activation", "network.activation")
    },
    "trainer.experiment_name": _unrecorded("track", "wandb"),
    "trainer.run_name": _unrecorded("track", "wandb"),
    "trainer.seconds_per_log": _unrecorded("track", "wandb", "tensorboard"),
    "device.patience_s": lambda _, config: (
        "" if config["device"]["processes"] > 1 or launched.is_worker() else "one process waits for no other"
    ),
}


def idle(
    typed: tuple[str, ...], hparams: Hyperparameters, config: Mapping[str, Any], raw: DictConfig
) -> dict[str, str]:
    """Return the typed keys that have no effect, each with the reason.

    Args:
        typed: Dotted keys whose value was changed on the command line.
        hparams: PPO's options.
        config: The composed config, resolved.
        raw: The same, not resolved.
    """
    found = {}
    for key in typed:
        reason = RULES[key](hparams, config) if key in RULES else ""
        serves = key.split(".")[0] in REFERRED and key not in ACCEPTED
        serves = serves and not (key == "goal.env_steps" and _is_bounded(config))
        if serves and not _refers(OmegaConf.to_container(raw, resolve=False), key):
            reason = _unreferred(key, config)
        if reason:
            found[key] = reason
    return found


def features(typed: tuple[str, ...], names: set[str], *, recurrent: bool, truncates: bool) -> dict[str, str]:
    """Return the typed keys that have no effect with the policy and the environment that were built.

    Args:
        typed: Dotted keys whose value was changed on the command line.
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


def refusal(reasons: Mapping[str, str]) -> str:
    """Return the message for keys without effect."""
    key = next(iter(reasons))
    texts = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"What was typed would have no effect. {texts}. Accepted: keys that act in this run. Try it without {key}."


def _refers(node: Any, key: str) -> bool:
    """Return whether any value refers to a key, or to the group that it is in."""
    if isinstance(node, Mapping):
        return any(_refers(value, key) for name, value in node.items() if name != "hydra")
    if isinstance(node, list):
        return any(_refers(value, key) for value in node)
    group = key.split(".")[0]
    return isinstance(node, str) and any(f"${{{name}}}" in node for name in (key, group))


def _is_bounded(config: Mapping[str, Any]) -> bool:
    """Return whether `goal.env_steps` ends a run as an upper bound; see `rl8.launch.bounded`."""
    room, _, name = str((config.get("stop") or {}).get("_target_", "")).rpartition(".")
    return room == "rl8.conditions" and name not in ("EnvSteps", "Never")


def _unreferred(key: str, config: Mapping[str, Any]) -> str:
    if key.startswith("network."):
        model = (config.get("model") or {}).get("_target_", "none")
        return f"nothing refers to it with algo._target_={config['algo']['_target_']} and model._target_={model}"
    return f"nothing refers to it with stop._target_={(config.get('stop') or {}).get('_target_', 'none')}"
