"""Small work on a processor: networks without modules; gradient, clipping and Adam written out, for all parameters.

Where a minibatch has some hundred rows and layers some dozen units, arithmetic is the least of an update: autograd, the
optimizer's loops over parameters and operations of a few microseconds each take most of it. So loss and gradient are
what `kernels` says of them, the gradient is one vector, and Adam's own operation is called on its own state.

Parameters and that state stay where they are, and nothing is kept here from update to update: what one computes does
not depend on who made what it begins with, an earlier one, a checkpoint or autograd.

What is known is the default case: `MLPModel` as it was built, the package's distributions of choices and of numbers,
Adam. `small_act` and `small_steps` return None for all else.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from rl8.execution.kernels.known import Networks, head_of, mask_of, networks_of, noise_for
from rl8.execution.kernels.loss import Discrete, Gaussian, Head, Samples, Terms
from rl8.execution.kernels.networks import forward, update
from rl8.execution.networks import LISTENERS, listened_everywhere
from rl8.execution.perceptron.perceptron import FEW_FLOATS
from rl8.execution.pieces import Rows
from rl8.policy.policy import Act, Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Nested

# Floats of a network's widest layer that a minibatch may have. With more, blocks of rows suit the caches better.
MOST_FLOATS: Final = 2**17

MOMENTS: Final = ("exp_avg", "exp_avg_sq")  # what Adam keeps of a parameter, beside "step"


class Recipe(NamedTuple):
    """What an optimizer step is; see `Eager.learn_by` and `Eager.begin_update`."""

    optimizer: torch.optim.Optimizer
    terms: Terms
    max_grad_norm: float | None
    minibatch_size: int


def small_act(policy: Policy, num_envs: int) -> Callable[..., Act] | None:
    """Return what acts as a policy does until it is another, or None where this file does not know how.

    Its results are the same, bit for bit: the calls of modules are spared, which take longer than what they compute.
    """
    nets = small_networks(policy, num_envs)[1]
    if nets is None:
        return None
    model: Any = policy.model
    features_of = model.policy_head.features

    def infer(seen: Nested, state: Nested | None) -> tuple[Mapping[str, Any], None, None]:
        outputs = forward(policy.inputs(seen)[0], nets.policy, nets.activation)[-1]
        return features_of(outputs.unsqueeze(0)), None, None

    return partial(policy.act, infer=infer)


def small_networks(policy: Policy, num_envs: int) -> tuple[Head | None, Networks | None]:
    """Return what a policy's features mean, and its networks; None where they are not known, or too large to gain."""
    head, nets = _known(policy)
    too_large = nets is None or num_envs * max(len(layer.bias) for layer in nets.policy) > FEW_FLOATS
    return head, None if too_large else nets


def may_be_small(policy: Policy, num_envs: int, minibatch_size: int | None) -> bool:
    """Return whether a policy may act or learn by small work, as it is now.

    Args:
        policy: The policy.
        num_envs: Environments that it acts in at once.
        minibatch_size: Env steps that it learns from at once; None where they are divided.
    """
    nets = _known(policy)[1]
    learns = nets is not None and minibatch_size is not None and not _too_much(nets, minibatch_size)
    return learns or small_networks(policy, num_envs)[1] is not None


def small_steps(policy: Policy, rollout: Rollout, recipe: Recipe) -> SmallSteps | None:
    """Return what takes the steps of one update, or None where this file does not know how, or it would not gain.

    Args:
        policy: What is learned.
        rollout: What it is learned from.
        recipe: How.
    """
    head, nets = _known(policy)
    if head is None or nets is None or rollout.weights is not None:
        return None
    if _too_much(nets, recipe.minibatch_size) or not _is_plain_adam(recipe.optimizer, nets.parameters):
        return None
    return SmallSteps(policy, rollout, head, nets, recipe)


class SmallSteps:
    """Takes the optimizer steps of one update; see `small_steps`.

    Args:
        policy: What is learned.
        rollout: What it is learned from.
        head: What the policy's features mean.
        nets: The policy's networks.
        recipe: With Adam, whose state is what it would have gathered itself.
    """

    @torch.no_grad()
    def __init__(self, policy: Policy, rollout: Rollout, head: Head, nets: Networks, recipe: Recipe) -> None:
        self.head, self.nets, self.recipe = head, nets, recipe
        self.group, parameters = recipe.optimizer.param_groups[0], nets.parameters
        states = [recipe.optimizer.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:  # as Adam begins
                state.update(step=torch.zeros(()), **{name: torch.zeros_like(parameter) for name in MOMENTS})
        self.steps = torch.stack([state["step"] for state in states])  # one tensor to count with
        for state, step in zip(states, self.steps, strict=True):
            state["step"] = step
        self.gradient = torch.zeros(sum(parameter.numel() for parameter in parameters))
        parts = self.gradient.split([parameter.numel() for parameter in parameters])
        for part, parameter in zip(parts, parameters, strict=True):
            parameter.grad = part.view(parameter.shape)
        moments = [[state[name] for state in states] for name in MOMENTS]
        steps, gradients = list(self.steps), [parameter.grad for parameter in parameters]
        self.adam: Sequence[Any] = (parameters, gradients, *moments, [], steps)
        self.log_std = None if nets.log_std is None else nets.log_std.flatten()
        seen = rollout.block(0, rollout.horizon * rollout.num_envs)
        self.inputs, self.mask = policy.inputs(seen)[0], mask_of(policy, seen)
        actions: Any = rollout.actions.flatten(0, 1)
        self.actions = actions.long() if isinstance(head, Discrete) else actions
        series = (rollout.logp, rollout.values[:-1], rollout.returns)
        self.series = torch.stack([numbers.flatten() for numbers in series])
        self.advantages = rollout.advantages.view(-1)  # in their place: a minibatch's may be normalised before its step
        self.terms = recipe.terms.now()

    @torch.no_grad()
    def __call__(self, rows: Rows) -> Tensor:
        """Take one optimizer step; return the parts of the loss and the gradient's norm before clipping, `[7]`."""
        steps = rows if isinstance(rows, slice) else rows.flatten()
        inputs, actions = self.inputs[steps], self.actions[steps]
        logp, values, returns = self.series[:, steps].unbind()
        mask = None if self.mask is None else self.mask[steps]
        squashes = isinstance(self.head, Gaussian) and self.head.log_half_range is not None
        noise = noise_for(self.head, len(inputs), inputs.device) if squashes else None
        found = update(
            inputs,
            self.nets.policy,
            self.nets.value,
            self.head,
            Samples(actions, logp, values, self.advantages[steps], returns, mask, noise),
            self.terms,
            activation=self.nets.activation,
            log_std=self.log_std,
        )
        by_layers = [part.flatten() for layer in (*found.policy, *found.value) for part in layer]
        torch.cat([*by_layers, *([] if found.log_std is None else [found.log_std])], out=self.gradient)
        norm = torch.linalg.vector_norm(self.gradient)
        if self.recipe.max_grad_norm is not None:
            self.gradient.mul_((self.recipe.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self.steps += 1
        beta1, beta2 = self.group["betas"]
        torch._fused_adam_(
            *self.adam,
            lr=self.group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=self.group["eps"],
            amsgrad=False,
            maximize=False,
        )
        return torch.cat([found.parts, norm.unsqueeze(0)])


def _too_much(nets: Networks, minibatch_size: int) -> bool:
    """Return whether blocks of a minibatch's rows suit the caches better."""
    return max(len(layer.bias) for layer in (*nets.policy, *nets.value)) * minibatch_size > MOST_FLOATS


def _known(policy: Policy) -> tuple[Head | None, Networks | None]:
    """Return what a policy's features mean, and its networks; None where they are not known or were changed."""
    head = head_of(policy) if type(policy) is Policy else None
    return head, None if head is None or not _as_built(policy) else networks_of(policy, head)


def _as_built(policy: Policy) -> bool:
    """Return whether nobody listens to a part of a policy or has put another function in the place of its own."""
    return not listened_everywhere() and not any(
        any(getattr(module, name) for name in LISTENERS) or not _functions(type(module)).isdisjoint(vars(module))  # type: ignore[arg-type]
        for module in policy.modules()
    )


@functools.cache
def _functions(kind: type) -> frozenset[str]:
    """Return the names of a class's functions."""
    return frozenset(name for name in dir(kind) if callable(getattr(kind, name, None)))


def _is_plain_adam(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> bool:
    """Return whether an optimizer is Adam as it comes, of just these parameters, and nobody listens to a gradient."""
    if type(optimizer) is not torch.optim.Adam or len(optimizer.param_groups) != 1:
        return False
    group = optimizer.param_groups[0]
    if {id(its) for its in group["params"]} != {id(parameter) for parameter in parameters}:
        return False
    numbers = (group["lr"], group["eps"], *group["betas"])
    unusual = ("amsgrad", "maximize", "differentiable", "capturable", "weight_decay", "decoupled_weight_decay")
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return (
        bool(group["fused"])
        and not any(group.get(name) for name in unusual)
        and not any(hooks)
        and "step" not in vars(optimizer)  # a scheduler's wrapper
        and all(isinstance(number, (int, float)) for number in numbers)
        and all(p.requires_grad and p.dtype == torch.float32 and not p._backward_hooks for p in parameters)
        and not any(getattr(p, "_post_accumulate_grad_hooks", None) for p in parameters)
    )
