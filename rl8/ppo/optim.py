"""Optimizers, built so that their steps need nothing from the host."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from rl8.checks import unknown
from rl8.kinds import as_text

# One kernel for all parameters.
FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad)


def build_optimizer(
    optimizer_cls: type[torch.optim.Optimizer],
    parameters: list[torch.nn.Parameter],
    config: Mapping[str, Any],
    *,
    graphs: bool = False,
) -> torch.optim.Optimizer:
    """Return an optimizer: fused where torch can, and fit for CUDA graphs where asked.

    Args:
        optimizer_cls: Its class.
        parameters: What it changes.
        config: Its keywords.
        graphs: Whether its steps will be captured in a CUDA graph.

    Raises:
        TypeError: If `optimizer_cls` is none, or does not take a keyword.
        ValueError: If a value is refused.
    """
    given: Any = optimizer_cls
    if not (isinstance(given, type) and issubclass(given, torch.optim.Optimizer)):
        raise TypeError(f"optimizer_cls={optimizer_cls!r} is no torch optimizer. Try optimizer_cls=torch.optim.Adam.")
    signature = inspect.signature(optimizer_cls).parameters
    accepted = [name for name in list(signature)[1:] if signature[name].kind is not inspect.Parameter.VAR_KEYWORD]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.values())
    options = dict(config)
    for name in options:
        if name not in accepted and not takes_any:
            raise TypeError(unknown(f"option of {optimizer_cls.__name__}", name, accepted))
    on_cuda = parameters[0].device.type == "cuda"
    if optimizer_cls in FUSED and not (on_cuda and optimizer_cls is torch.optim.Adagrad):  # it has no kernel there
        options.setdefault("fused", not any(options.get(name) for name in ("foreach", "differentiable")))
    if graphs and "capturable" in accepted:
        options.setdefault("capturable", True)
    try:
        if graphs and (options.get("capturable") or options.get("fused")):
            # A number would be frozen into the graph; a tensor stays live.
            lr = options.get("lr", signature["lr"].default if "lr" in signature else 1e-3)
            options["lr"] = torch.tensor(float(lr), device=parameters[0].device)
        optimizer = optimizer_cls(parameters, **options)
    except Exception as error:  # a missing index, a failed assertion: classes check in ways of their own
        raise _refusal(optimizer_cls, config, error, lambda kept: optimizer_cls(parameters, **kept)) from error
    _try_out(optimizer_cls, parameters, config)
    return optimizer


def _try_out(
    optimizer_cls: type[torch.optim.Optimizer], parameters: list[torch.nn.Parameter], config: Mapping[str, Any]
) -> None:
    """Take one step with parameters of the same shapes and no gradient: what would fail later fails now.

    Args:
        optimizer_cls: The optimizer's class.
        parameters: What it will change; left as they are.
        config: Its keywords, as the user gave them.

    Raises:
        ValueError: If a step can't be taken, or no learning rate can be set.
    """
    copies = [torch.nn.Parameter(torch.zeros_like(parameter)) for parameter in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    name = optimizer_cls.__name__

    def one_step(options: Mapping[str, Any]) -> torch.optim.Optimizer:
        made = optimizer_cls(copies, **options)
        made.step()
        return made

    try:
        optimizer = one_step(config)
    except Exception as error:
        raise _refusal(optimizer_cls, config, error, one_step) from error
    if any("lr" not in group for group in optimizer.param_groups):
        raise ValueError(
            f"algo.optimizer: {name} has no lr among the options of its parameters, so no schedule can set one. "
            "Accepted: a class with lr. Try algo.optimizer._target_=torch.optim.Adam."
        )


def _refusal(
    optimizer_cls: type[torch.optim.Optimizer],
    config: Mapping[str, Any],
    error: Exception,
    attempt: Callable[[Mapping[str, Any]], object],
) -> ValueError:
    """Return the error that names the options without which an attempt succeeds, or all where none alone is to blame.

    Args:
        optimizer_cls: The optimizer's class.
        config: Its keywords, as the user gave them.
        error: What the attempt raised.
        attempt: Called with keywords; raises where they are refused.
    """
    culprits = []
    for name in config:
        with contextlib.suppress(Exception):
            attempt({other: value for other, value in config.items() if other != name})
            culprits.append(name)
    given = ", ".join(f"{name}={as_text(config[name])}" for name in culprits or config) or "no options"
    text = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    mend = "_target_=torch.optim.Adam"
    for name in culprits[:1]:  # the default is what it had without the option
        mend = f"{name}={as_text(inspect.signature(optimizer_cls).parameters[name].default)}"
    return ValueError(
        f"algo.optimizer: {optimizer_cls.__name__} refuses {given}: {text}. Accepted: a class that needs no closure "
        f"and no sparse gradients, and options that it takes. Try algo.optimizer.{mend}."
    )


def clip_gradient(parameters: Sequence[Tensor], max_norm: float | None, *, skip_nonfinite: bool = False) -> Tensor:
    """Scale the gradient down to a norm over all parameters; return the norm before, 0-d.

    Args:
        parameters: Their gradients are changed in place.
        max_norm: The largest norm; None leaves the gradient as it is.
        skip_nonfinite: Whether a gradient with a number that is infinite or NaN becomes 0, and so moves nothing.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if skip_nonfinite:
        for gradient in gradients:
            gradient.masked_fill_(~norm.isfinite(), 0.0)
        norm = norm.nan_to_num(nan=0.0, posinf=0.0)
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what an optimizer has gathered, perhaps on another device; its options stay as it was built with here.

    Args:
        optimizer: Its options keep their values, kind and place, a learning rate that is a tensor above all.
        state: What its `state_dict` gave.
    """
    own = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(deepcopy(dict(state)))  # torch would go on writing into `state`'s own tensors
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group.update(kept)


def host_rate(optimizer: torch.optim.Optimizer) -> float | None:
    """Return the learning rate at present; None where it is a tensor, which the host need not know."""
    rate = optimizer.param_groups[0]["lr"]
    return None if isinstance(rate, Tensor) else rate


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameters, in place where it is a tensor; a group's `lr_scale` is its share."""
    for group in optimizer.param_groups:
        rate = lr * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
