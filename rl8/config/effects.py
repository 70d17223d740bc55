"""What was typed and can't do anything in the run at hand: it is refused, or said where a sweep's other jobs use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from omegaconf import DictConfig, OmegaConf

from rl8.parallel import launched
from rl8.ppo.effects import IDLE
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.settings import ORIGINS

Reason = Callable[[Hyperparameters, Mapping[str, Any]], str]

# What a policy's weights begin as, where they come from no file.
INITIAL: Final = ("model.hidden_gain", "model.policy_gain", "model.value_gain", "model.log_std", "network.log_std")

# Groups that only serve others: a key acts where another value refers to it.
REFERRED: Final = ("network", "goal")
# Why changing a key may change neither weights nor files, and is accepted all the same.
ACCEPTED: Final = {
    "goal.metric": "what sweeps are compared by",
    "trainer.view": "what the terminal shows",
    "device.piece_size": "how gradients are computed, not what they are",
    "device.num_threads": "how fast it is",
}


def _of_algo(reason: Callable[[Hyperparameters], str]) -> Reason:
    return lambda hparams, _: reason(hparams)


def _without_layers(_: Hyperparameters, config: Mapping[str, Any]) -> str:
    """Return which keys leave a model without a hidden layer; empty where there is one."""
    model = config.get("model", {})
    keys = [key for key in ("hiddens", "head_hiddens") if key in model]
    if not keys or any(model[key] for key in keys):
        return ""
    return f"{' and '.join(f'model.{key}' for key in keys)} {'have' if keys[1:] else 'has'} no layers"


# What says how a run is recorded, each with the writers that look at it.
RECORDING: Final = {
    "trainer.experiment_name": ("track", "wandb"),
    "trainer.run_name": ("track", "wandb"),
    "trainer.seconds_per_log": ("track", "wandb", "tensorboard"),
}


def unrecorded(typed: tuple[str, ...], config: Mapping[str, Any]) -> list[str]:
    """Return the typed keys that say how a run is recorded where none of the writers that look at them is on."""
    trainer = config["trainer"]
    return [key for key in typed if key in RECORDING and not any(trainer[name] for name in RECORDING[key])]


def _given_weights(_: Hyperparameters, config: Mapping[str, Any]) -> str:
    found = [name for name in ORIGINS if config["trainer"][name] is not None]
    return f"all weights come from a file (trainer.{found[0]})" if found else ""


# Why a key has no effect with the other options as they are; empty where it has one.
RULES: Final[dict[str, Reason]] = {
    **{f"algo.{name}": _of_algo(reason) for name, reason in IDLE.items()},
    "device.graphs": lambda _, config: "" if config["device"]["device"] != "cpu" else "a CPU has no CUDA graphs",
    "model.layout": lambda _, config: (
        "model.images is null" if config.get("model", {}).get("images", True) is None else ""
    ),
    **dict.fromkeys(("model.activation", "network.activation"), _without_layers),
    **dict.fromkeys(INITIAL, _given_weights),
    "model.hidden_gain": lambda hparams, config: _given_weights(hparams, config) or _without_layers(hparams, config),
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
