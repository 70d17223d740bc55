"""Bitwise comparison of states."""

import copy

import torch
from torch import nn


def assert_same(one, other, path="state"):
    """Compare nested containers of tensors and plain values bit by bit."""
    assert type(one) is type(other), path
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    elif hasattr(one, "to_dict"):
        assert_same(one.to_dict(), other.to_dict(), path)
    else:
        assert one == other, path


def snapshot(algorithm):
    """Return a copy of all that training depends on."""
    rollout = {name: value.clone() for name, value in vars(algorithm.rollout).items() if hasattr(value, "clone")}
    modes = [module.training for module in algorithm.policy.modules()]
    return [copy.deepcopy(algorithm.state_dict()), rollout, modes]


def weights(algorithm):
    """Return a copy of all parameters as one vector."""
    return nn.utils.parameters_to_vector(algorithm.policy.parameters()).detach().clone()
