"""What of a policy and a minibatch the kernels know: features by their meaning, networks as lists of layers.

All here is `None` where a policy is not of a kind that is known; the plain path then computes it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8 import distributions, specs
from rl8.data import ACTION_MASK
from rl8.execution.kernels.loss import Discrete, Gaussian, Head, Samples, cells_of
from rl8.execution.kernels.networks import Layer
from rl8.execution.networks import activation_name, bare
from rl8.models import MLPModel
from rl8.policy.policy import Policy
from rl8.rollout.rollout import Minibatch
from rl8.specs import Nested

ACTIVATIONS: Final = ("relu", "tanh")


class Networks(NamedTuple):
    """The default model: two perceptrons of the same inputs, and what is the same in every state.

    Attributes:
        policy: Layers of the policy's network, its head last; weights are the parameters themselves.
        value: Layers of the value's network.
        activation: After each layer but the last.
        log_std: `[*shape]` log standard deviations of a Gaussian head, None of a discrete one.
    """

    policy: list[Layer]
    value: list[Layer]
    activation: str
    log_std: Tensor | None

    @property
    def parameters(self) -> list[Tensor]:
        """All of them, in the order in which `networks.Update` has their derivatives."""
        own = [] if self.log_std is None else [self.log_std]
        return [*(tensor for layer in (*self.policy, *self.value) for tensor in layer), *own]


def head_of(policy: Policy) -> Head | None:
    """Return what a policy's features mean to its loss."""
    kind, spec = policy.distribution_cls, policy.action_spec
    if kind is distributions.Categorical and isinstance(spec, specs.Categorical):
        return Discrete((spec.n,) * spec.shape.numel())
    if kind is distributions.MultiCategorical and isinstance(spec, specs.MultiCategorical):
        return Discrete(tuple(spec.nvec))
    if kind in (distributions.Normal, distributions.SquashedNormal) and spec.dtype == torch.float32:
        squashed = kind is distributions.SquashedNormal
        return Gaussian(spec.shape.numel(), distributions.log_half_range(spec) if squashed else None)
    return None


def networks_of(policy: Policy, head: Head) -> Networks | None:
    """Return a policy's networks, if it has the default ones and nothing was made of them since."""
    model = policy.model
    if type(model) is not MLPModel or len(model.perceptrons) != 2 or model.policy_head.limits is not None:
        return None
    heads = model.policy_head, model.value_head
    found = [[*net.layers, end.linear] for net, end in zip(model.perceptrons, heads, strict=True)]
    names = {activation_name(net) for net in model.perceptrons}
    log_stds = list(model.policy_head.log_stds)
    outputs = sum(head.sizes) if isinstance(head, Discrete) else head.size
    plain = len(names) == 1 and names <= set(ACTIVATIONS) and all(map(bare, found))
    if not plain or len(log_stds) != isinstance(head, Gaussian) or found[0][-1].weight.shape[0] != outputs:
        return None
    policy_net, value_net = ([Layer(layer.weight, layer.bias) for layer in layers] for layers in found)
    networks = Networks(policy_net, value_net, names.pop(), log_stds[0] if log_stds else None)
    # a parameter that stands twice has one derivative: the sum of both
    return networks if len({id(each) for each in networks.parameters}) == len(networks.parameters) else None


def noise_for(head: Head, rows: int, device: torch.device) -> Tensor:
    """Return what a head draws of: exponential numbers `[M, F]`, or standard normal ones `[M, A]`.

    They are those that its distribution would draw.
    """
    if isinstance(head, Gaussian):
        return torch.randn(rows, head.size, device=device)
    clocks = torch.empty(rows, len(head.sizes) * max(head.sizes), device=device).exponential_()
    cells = cells_of(head, device)
    return clocks if cells is None else clocks[:, cells]


def mask_of(policy: Policy, seen: Nested) -> Tensor | None:
    """Return which choices are allowed, `[M, F]` bool, for what the model sees `[L, B, ...]`; None if all are."""
    if not (policy.views.composite and isinstance(seen, TensorDict) and ACTION_MASK in seen.keys()):  # noqa: SIM118
        return None
    mask: Tensor = seen[ACTION_MASK]
    return mask.reshape(mask.shape[:2].numel(), -1)


def samples_of(policy: Policy, head: Head, batch: Minibatch) -> Samples:
    """Return what was stored of a minibatch's samples, M = L * B, and what the loss draws for them."""
    rows, actions = batch.logp.numel(), batch.actions
    assert isinstance(actions, Tensor)
    actions = actions.reshape(rows, -1)
    series = (batch.logp, batch.values, batch.advantages, batch.returns)
    logp, values, advantages, returns = (numbers.reshape(-1).contiguous() for numbers in series)
    squashed = isinstance(head, Gaussian) and head.log_half_range is not None
    return Samples(
        (actions.long() if isinstance(head, Discrete) else actions).contiguous(),
        logp,
        values,
        advantages,
        returns,
        mask=mask_of(policy, batch.seen),
        noise=noise_for(head, rows, batch.logp.device) if squashed else None,
    )


def flat_features(head: Head, features: Any) -> tuple[Tensor, Tensor | None]:
    """Return features `[M, F]`, and `[A]` log standard deviations if they are the same in every state, by name given.

    Args:
        head: What they mean.
        features: `[L, B, ...]` each, as a model gives them.
    """
    if isinstance(head, Discrete):
        logits = features["logits"]
        return logits.reshape(logits.shape[:2].numel(), -1), None
    mean, log_std = features["mean"], features["log_std"]
    mean = mean.reshape(mean.shape[:2].numel(), head.size)
    if log_std.numel() == head.size:
        return mean, log_std.reshape(head.size)
    if log_std.stride()[:2] == (0, 0):  # expanded
        return mean, log_std[0, 0].reshape(head.size)
    return torch.cat([mean, log_std.reshape(mean.shape)], 1), None
