"""The default networks, two perceptrons: what they choose, and one minibatch's gradient, without autograd.

A perceptron is the list of its layers, an activation after each but the last, which is the head: the policy's puts out
features `[M, F]`, the value's one number. Layers compute in the dtype of their weights; everything else is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rl8.distributions import LOG_STD_MAX, LOG_STD_MIN
from rl8.execution.kernels.loss import (
    HALF_LOG_TAU,
    Discrete,
    Gaussian,
    Head,
    Samples,
    Terms,
    by_columns,
    log_probabilities,
    log_slope,
    loss_gradient,
)
from rl8.execution.perceptron.blocks import ACTIVATIONS


class Layer(NamedTuple):
    """A linear layer, or the gradient of one.

    Attributes:
        weight: `[out, in]`.
        bias: `[out]`.
    """

    weight: Tensor
    bias: Tensor


Layers = Sequence[Layer]


class Update(NamedTuple):
    """Derivatives of the mean loss in float32 (or wider), and what is logged.

    Attributes:
        policy: By the policy network's layers.
        value: By the value network's layers.
        log_std: `[A]` by a standard deviation that is the same in every state; None without one.
        parts: `[6]` the fields of `rl8.ppo.losses.PPOLoss`, in their order.
    """

    policy: list[Layer]
    value: list[Layer]
    log_std: Tensor | None
    parts: Tensor


class Acted(NamedTuple):
    """What was done in M states.

    Attributes:
        actions: As stored: indices `[M, E]` int64, or numbers `[M, A]` before squashing.
        logp: `[M]` their log-probability.
        values: `[M]`.
    """

    actions: Tensor
    logp: Tensor
    values: Tensor


def cast(layers: Layers, dtype: torch.dtype) -> list[Layer]:
    """Return layers with weights in `dtype`, to be used for a whole horizon or minibatch; biases stay as they are."""
    return [Layer(weight.detach().to(dtype), bias.detach()) for weight, bias in layers]


def update(
    inputs: Tensor,
    policy: Layers,
    value: Layers,
    head: Head,
    samples: Samples,
    terms: Terms,
    *,
    activation: str = "relu",
    log_std: Tensor | None = None,
    rows: int | None = None,
) -> Update:
    """Return the gradient of PPO's loss by both networks.

    Args:
        inputs: `[M, D]` what both networks see.
        policy: Layers of the policy's network, its head last.
        value: Layers of the value's network, its head last.
        head: What the policy's features mean.
        samples: What was stored of these samples.
        terms: Coefficients.
        activation: `"relu"` or `"tanh"`.
        log_std: `[A]` log standard deviations of a `Gaussian` that are the same in every state.
        rows: Samples that means are taken over, where these are only some of a minibatch; by default M.
    """
    with torch.no_grad():
        for_policy = forward(inputs, policy, activation)
        for_value = forward(inputs, value, activation)
        found = loss_gradient(
            head, for_policy[-1], wide(for_value[-1]).squeeze(1), samples, terms, log_std=log_std, rows=rows
        )
        return Update(
            backward(for_policy, found.features, policy, activation),
            backward(for_value, found.values.unsqueeze(1), value, activation),
            found.log_std,
            found.parts,
        )


def act(
    inputs: Tensor,
    policy: Layers,
    value: Layers,
    head: Head,
    noise: Tensor,
    *,
    activation: str = "relu",
    log_std: Tensor | None = None,
    mask: Tensor | None = None,
) -> Acted:
    """Return what the policy does in M states, and what they are worth.

    Args:
        inputs: `[M, D]` what both networks see.
        policy: Layers of the policy's network, its head last.
        value: Layers of the value's network, its head last.
        head: What the policy's features mean.
        noise: Exponential numbers of rate 1 `[M, F]`, or standard normal ones `[M, A]` for a `Gaussian`.
        activation: `"relu"` or `"tanh"`.
        log_std: `[A]` log standard deviations of a `Gaussian` that are the same in every state.
        mask: `[M, F]` bool, True where a choice is allowed; None if all are.
    """
    with torch.no_grad():
        features = wide(forward(inputs, policy, activation)[-1])
        values = wide(forward(inputs, value, activation)[-1]).squeeze(1)
        if isinstance(head, Discrete):
            return Acted(*_choose(head, features, noise, mask), values)
        return Acted(*_draw(head, features, noise, log_std), values)


def forward(inputs: Tensor, layers: Layers, activation: str) -> list[Tensor]:
    """Return the inputs in the layers' dtype and what each layer makes of them, `[M, out]` each."""
    results = [inputs.to(layers[0].weight.dtype)]
    for index, (weight, bias) in enumerate(layers):
        result = functional.linear(results[-1], weight, bias.to(weight.dtype))
        results.append(ACTIVATIONS[activation].apply_(result) if index < len(layers) - 1 else result)
    return results


def backward(results: Sequence[Tensor], gradient: Tensor, layers: Layers, activation: str) -> list[Layer]:
    """Return the derivatives by the layers.

    Args:
        results: What `forward` returned.
        gradient: `[M, out]` by the last layer's result.
        layers: The layers.
        activation: As in `forward`.
    """
    found = []
    gradient = gradient.to(results[0].dtype)
    for index in range(len(layers) - 1, -1, -1):
        found.append(Layer(product(gradient, results[index]), wide(gradient.sum(0, dtype=_sum_dtype(gradient)))))
        if index > 0:
            gradient = gradient @ layers[index].weight
            ACTIVATIONS[activation].backward_(gradient, results[index])
    return found[::-1]


def product(gradient: Tensor, inputs: Tensor) -> Tensor:
    """Return a weight's gradient `[out, in]` in float32 or wider, for `[M, out]` and `[M, in]`."""
    if gradient.is_cuda and gradient.dtype == torch.bfloat16:
        return torch.mm(gradient.T, inputs, out_dtype=torch.float32)
    return wide(gradient.T @ inputs)


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or unchanged where it is wider."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _choose(head: Discrete, logits: Tensor, clocks: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the choices `[M, E]` whose clocks ring first, and their log-probability `[M]`."""
    log_probs = log_probabilities(head, logits, mask)
    # A clock of exactly zero would ring first whatever its rate: what is forbidden has none.
    rings = by_columns(head, clocks, mask, torch.inf).log() - log_probs
    chosen = rings.argmin(1, keepdim=True)
    return chosen.squeeze(1).T, log_probs.gather(1, chosen).sum((0, 1))


def _draw(head: Gaussian, features: Tensor, noise: Tensor, log_std: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return numbers `[M, A]` before squashing, and their log-density `[M]`."""
    mean = features[:, : head.size]
    limited = (features[:, head.size :] if log_std is None else log_std).clamp(LOG_STD_MIN, LOG_STD_MAX)
    actions = torch.addcmul(mean, limited.exp(), noise)
    z = (actions - mean) / limited.exp()
    logp = -(limited + 0.5 * z * z).sum(-1) - HALF_LOG_TAU * head.size
    return actions, logp if head.log_half_range is None else logp - log_slope(head, actions)
