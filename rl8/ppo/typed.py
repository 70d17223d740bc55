"""Options as keywords that an editor completes and checks; defaults and texts stay with the classes that have them.

A test compares names and types with `Hyperparameters`, `TrainerSettings` and `Algorithm`'s own arguments.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar, get_type_hints

import torch

from rl8.distributions import Distribution
from rl8.models import Model
from rl8.ppo.losses import ExtraLoss
from rl8.settings import DeviceSettings

__all__ = ["spelled_out"]  # the reference need not repeat the options, and trips over what a TypedDict inherits

Class = TypeVar("Class")


class HyperparameterOptions(TypedDict, total=False):
    """The fields of `Hyperparameters`."""

    num_envs: int
    horizon: int
    horizons_per_env_reset: int | None
    random_initial_ages: bool
    bootstrap: str | None
    gamma: float
    gae_lambda: float
    num_sgd_iters: int
    sgd_minibatch_size: int | None
    shuffle_minibatches: bool
    clip_param: float
    vf_clip_param: float | None
    dual_clip_param: float | None
    vf_coeff: float
    vf_huber_delta: float | None
    critic_lr: float | None
    entropy_coeff: float
    entropy_coeff_schedule: Any
    entropy_coeff_schedule_kind: str
    lr_schedule: Any
    lr_schedule_kind: str
    schedules: Any
    desired_kl: float | None
    min_lr: float
    max_lr: float
    target_kl_div: float | None
    max_grad_norm: float | None
    normalize_advantages: bool
    normalize_advantages_per_minibatch: bool
    normalize_rewards: bool
    normalize_obs: bool
    clip_rewards: float | None
    clip_obs: float
    accumulate_grads: bool
    enable_amp: bool
    amp_dtype: str
    seq_len: int
    seqs_per_state_reset: int


class AlgorithmOptions(HyperparameterOptions, total=False):
    """Those, and the parts of an `Algorithm`."""

    model: Model | None
    model_cls: type[Model] | None
    model_config: Mapping[str, Any] | None
    distribution_cls: type[Distribution] | None
    optimizer_cls: type[torch.optim.Optimizer]
    optimizer_config: Mapping[str, Any] | None
    extra_losses: Mapping[str, ExtraLoss] | None
    device: str | torch.device | DeviceSettings


class TrainerOptions(AlgorithmOptions, total=False):
    """Those, and the fields of `TrainerSettings`."""

    experiment_name: str
    run_name: str | None
    track: bool
    tensorboard: bool
    wandb: str | None
    seconds_per_log: float
    view: str
    steps_per_eval: int | None
    eval_num_envs: int
    eval_horizon: int | None
    eval_deterministic: bool
    env_config: Any
    eval_env_config: Any
    minutes_per_checkpoint: float | None
    steps_per_checkpoint: int | None
    keep_checkpoints: int
    steps_per_video: int | None
    best_metric: str | None
    resume: str | None
    branch: str | None
    init_from: str | None
    on_nonfinite: str
    render: bool
    output_dir: str | None


def spelled_out(options: type, *sources: type) -> Callable[[type[Class]], type[Class]]:
    """Return a decorator that puts options into a class's signature and docstring, for `help` and for completion.

    Args:
        options: A TypedDict of the keywords that the class takes as `**options`.
        *sources: Classes that have their defaults and, in their docstrings, their texts.
    """
    kinds = get_type_hints(options)
    defaults: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for source in sources:
        defaults |= {name: p.default for name, p in inspect.signature(source).parameters.items()}
        entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", inspect.cleandoc(source.__doc__ or ""), re.MULTILINE)
        texts |= {name: text for name, text in entries if name not in texts}

    def decorate(cls: type[Class]) -> type[Class]:
        init: Any = cls.__init__
        own = [p for p in inspect.signature(init).parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind)
            for name, kind in kinds.items()
        ]
        init.__signature__ = inspect.Signature([*own, *more])
        lines = [f"    {name}: {texts.get(name, '')}" for name in kinds]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Keyword Args:", *lines, ""])
        return cls

    return decorate
