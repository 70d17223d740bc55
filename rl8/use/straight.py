"""The commonest policy without modules between its operations, for one observation at a time.

A module takes microseconds to call, and a perceptron little more to multiply for one observation: called as modules, a
policy takes three times as long as its arithmetic.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rl8.models import MLPModel
from rl8.nn import MLP, FeatureHead
from rl8.policy.policy import Policy
from rl8.specs import Composite, Nested


class Straight:
    """Computes what `Policy.choose` does, from the policy's own weights and statistics as they are at each call.

    Args:
        policy: One that `suits`.
    """

    def __init__(self, policy: Policy) -> None:
        model = policy.model
        assert isinstance(model, MLPModel)
        layers = [*model.policy_net.layers, model.policy_head.linear]
        self._parameters = [(layer.weight, layer.bias) for layer in layers]
        self._normalize: Any = policy.normalizers[0].forward if policy.normalizers else None
        self._activate: Any = model.policy_net.activation.forward
        self._features = model.policy_head.features
        self._distribution_cls, self._action_spec = policy.distribution_cls, policy.action_spec

    def __call__(self, obs: Tensor, deterministic: bool) -> Nested:
        """Return the environment's actions `[n, ...]` for observations `[n, D]`."""
        rows = obs if self._normalize is None else self._normalize(obs)
        last = len(self._parameters) - 1
        for index, (weight, bias) in enumerate(self._parameters):
            rows = functional.linear(rows, weight, bias)
            if index < last:
                rows = self._activate(rows)
        distribution = self._distribution_cls(self._features(rows), self._action_spec)
        actions: Nested = distribution.to_env(distribution.mode() if deterministic else distribution.sample())
        return actions


def suits(policy: Policy) -> bool:
    """Return whether a policy is of the commonest kind.

    That is an `MLPModel` on a float vector, without windows and mixed precision, no layer of which was replaced or has
    somebody listening.
    """
    model, spec = policy.model, policy.observation_spec
    if type(model) is not MLPModel or model.windows or policy.autocast is not nullcontext:
        return False
    if isinstance(spec, Composite) or spec.dtype != torch.float32 or len(spec.shape) != 1:
        return False
    if type(model.policy_net) is not MLP or type(model.policy_head) is not FeatureHead:
        return False
    layers = [*model.policy_net.layers, model.policy_head.linear]
    bare = all(type(layer) is nn.Linear and layer.bias is not None for layer in layers)
    return bare and not any(map(_is_watched, policy.modules()))


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)
