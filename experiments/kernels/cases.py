"""The kernels with arguments of the default networks' sizes: what is compiled, and what is counted."""

from itertools import pairwise

import torch

from rl8.execution.kernels.loss import Discrete, Gaussian, Samples, Terms
from rl8.execution.kernels.networks import Layer, cast

HEADS = {
    "one of 2": Discrete((2,)),
    "masked 18": Discrete((18,)),
    "5 + 3 + 7": Discrete((5, 3, 7)),
    "normal 6": Gaussian(6),
    "squashed 6": Gaussian(6, 0.0),
}
TERMS = Terms(0.2, 0.2, 3.0, 0.5, 0.01)
OBS, WIDTH, HORIZON = 8, 256, 32


def samples(head, rows, *, masked=False):
    """Return features, samples and log_std for a head."""
    size = sum(head.sizes) if isinstance(head, Discrete) else head.size
    if isinstance(head, Discrete):
        actions = torch.stack([torch.randint(n, (rows,)) for n in head.sizes], 1)
        log_std = noise = None
        mask = torch.ones(rows, size, dtype=torch.bool) if masked else None
    else:
        actions, log_std, mask = torch.randn(rows, size), torch.zeros(size), None
        noise = torch.randn(rows, size) if head.log_half_range is not None else None
    numbers = [torch.randn(rows) for _ in range(4)]
    return torch.randn(rows, size), Samples(actions, *numbers, mask, noise), log_std


def network(out, dtype):
    """Return a perceptron's layers."""
    sizes = [OBS, WIDTH, WIDTH, out]
    return cast([Layer(torch.randn(b, a) / a**0.5, torch.zeros(b)) for a, b in pairwise(sizes)], dtype)


def update(name, rows, dtype, activation="relu"):
    """Run the update's kernels: first the policy's, then the value's."""
    from rl8.execution.kernels import triton_networks

    head = HEADS[name]
    features, stored, log_std = samples(head, rows, masked="masked" in name)
    policy, value = network(features.shape[1], dtype), network(1, dtype)
    inputs = torch.randn(rows, OBS)
    triton_networks.update(inputs, policy, value, head, stored, TERMS, activation=activation, log_std=log_std)


def act(name, rows, dtype, activation="relu"):
    """Run the kernel that acts."""
    from rl8.execution.kernels import triton_networks

    head = HEADS[name]
    features, stored, log_std = samples(head, rows, masked="masked" in name)
    policy, value = network(features.shape[1], dtype), network(1, dtype)
    inputs, noise = torch.randn(rows, OBS), torch.rand_like(features)
    triton_networks.act(inputs, policy, value, head, noise, activation=activation, log_std=log_std, mask=stored.mask)


def loss(name, rows):
    """Run the loss's kernel."""
    from rl8.execution.kernels import triton_loss

    features, stored, log_std = samples(HEADS[name], rows, masked="masked" in name)
    triton_loss.loss_gradient(HEADS[name], features, stored.values.clone(), stored, TERMS, log_std=log_std)


def advantages(name, rows):
    """Run the advantages' kernel."""
    from rl8.execution.kernels import triton_advantages

    rewards, values = torch.randn(HORIZON, rows), torch.randn(HORIZON + 1, rows)
    if name == "endless":
        triton_advantages.gae_endless(rewards, values, gamma=0.99, gae_lambda=0.95)
    else:
        ends = torch.rand(HORIZON, rows) < 0.1
        triton_advantages.gae(rewards, values[:-1], values[1:], ends, gamma=0.99, gae_lambda=0.95)
