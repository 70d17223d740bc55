"""A learning rate of its own for what only the value depends on."""

from __future__ import annotations

import torch
from torch import Tensor

from rl8.policy.policy import Policy


def give_critic_its_rate(optimizer: torch.optim.Optimizer, policy: Policy, lr: float, critic_lr: float | None) -> None:
    """Put the parameters that only values depend on into a group of their own.

    Its `lr_scale` is the share of the learning rate that it has whatever moves that; see `set_learning_rate`. A part
    that actor and critic share learns with the actor's.

    Args:
        optimizer: New, with one group.
        policy: What it changes.
        lr: Its learning rate.
        critic_lr: That of the group; None leaves all in one.

    Raises:
        ValueError: If the model has no such parameters, or `lr` is 0.
    """
    if critic_lr is None:
        return
    own = {id(parameter) for parameter in policy.of_value_alone()}
    if not own:
        raise ValueError(
            f"algo.critic_lr={critic_lr:g}: in {type(policy.model).__name__} nothing belongs to the value alone. "
            "Accepted here: null. Try algo.critic_lr=null."
        )
    if lr == 0:
        raise ValueError(
            f"algo.critic_lr={critic_lr:g} is no share of a learning rate that begins with 0. "
            "Try algo.optimizer.lr=1e-3, or algo.critic_lr=null."
        )
    (group,) = optimizer.param_groups
    rate = group["lr"]
    critic = {
        **group,
        "params": [parameter for parameter in group["params"] if id(parameter) in own],
        "lr": torch.full_like(rate, critic_lr) if isinstance(rate, Tensor) else critic_lr,
        "lr_scale": critic_lr / lr,
    }
    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
    optimizer.param_groups.append(critic)
