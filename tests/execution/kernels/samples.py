"""Random samples for the loss and the networks, and what autograd makes of them."""

import math

import torch

from rl8.distributions import Categorical, MultiCategorical, Normal, SquashedNormal
from rl8.execution.kernels.loss import Discrete, Gaussian, Samples, Terms
from rl8.ppo.losses import ppo_loss
from rl8.specs import Bounded, Unbounded
from rl8.specs import Categorical as CategoricalSpec
from rl8.specs import MultiCategorical as MultiCategoricalSpec

HEADS = {
    "one of 2": Discrete((2,)),
    "one of 17": Discrete((17,)),
    "two of 3": Discrete((3, 3)),
    "uneven": Discrete((2, 5, 1, 3)),
    "normal": Gaussian(3),
    "normal of 1": Gaussian(1),
    "squashed": Gaussian(2, float(torch.full((2,), 1.5).log().sum())),
}
TERMS = {
    "plain": Terms(0.2),
    "everything": Terms(0.2, 0.3, 1.5, 0.7, 0.01, 0.25),
    "values clipped": Terms(0.1, vf_clip_param=0.1),
    "dual": Terms(0.3, dual_clip_param=1.2, entropy_coeff=0.1),
}


def draw(head, rows, *, dtype=torch.float32, masked=False, by_state=False, spread=1.0):
    """Return features `[M, F]`, values, samples, and a log_std unless it depends on the state."""
    if isinstance(head, Discrete):
        features = spread * torch.randn(rows, sum(head.sizes), dtype=dtype)
        actions = torch.stack([torch.randint(n, (rows,)) for n in head.sizes], 1)
        mask = torch.rand(features.shape) < 0.6 if masked else None
        if mask is not None:  # what was done was allowed
            starts = torch.tensor([sum(head.sizes[:k]) for k in range(len(head.sizes))])
            mask.scatter_(1, actions + starts, value=True)
        noise = log_std = None
    else:
        features = torch.randn(rows, head.size * (2 if by_state else 1), dtype=dtype)
        actions = features[:, : head.size] + torch.randn(rows, head.size, dtype=dtype)
        log_std = None if by_state else 0.3 * torch.randn(head.size, dtype=dtype)
        mask = None
        noise = torch.randn(rows, head.size, dtype=dtype) if head.log_half_range is not None else None
    old_logp = torch.zeros(rows, dtype=dtype)
    numbers = [torch.randn(rows, dtype=dtype) for _ in range(4)]
    samples = Samples(actions, old_logp, *numbers[:3], mask, noise)
    old_logp = logp_of(head, features, samples, log_std)[0].detach() + 0.3 * spread * torch.randn(rows, dtype=dtype)
    return features, samples.values + 0.3 * numbers[3], samples._replace(logp=old_logp), log_std


def logp_of(head, features, samples, log_std):
    """Return log-probability and entropy `[M]` by the package's distributions."""
    if isinstance(head, Discrete):
        cells, actions = {"logits": features, "action_mask": samples.mask}, samples.actions
        if len(head.sizes) == 1:
            distribution, actions = Categorical(cells, CategoricalSpec(head.sizes[0])), actions.squeeze(1)
        else:
            distribution = MultiCategorical(cells, MultiCategoricalSpec(head.sizes))
        return distribution.logp(actions), distribution.entropy()
    own = {"mean": features[:, : head.size], "log_std": features[:, head.size :] if log_std is None else log_std}
    if head.log_half_range is None:
        distribution = Normal(own, Unbounded(head.size))
    else:
        half = math.exp(head.log_half_range / head.size)
        distribution = SquashedNormal(own, Bounded(-half, half, shape=head.size))
        distribution._draw = lambda: distribution.mean + distribution.std * samples.noise
    return distribution.logp(samples.actions), distribution.entropy()


def by_autograd(head, features, values, samples, terms, log_std, rows=None):
    """Return the gradient by features, values and log_std, and the loss's parts."""
    leaves = [tensor.clone().requires_grad_() for tensor in (features, values, log_std) if tensor is not None]
    logp, entropy = logp_of(head, leaves[0], samples, leaves[2] if log_std is not None else None)
    losses = ppo_loss(
        logp,
        entropy,
        leaves[1],
        old_logp=samples.logp,
        old_values=samples.values,
        advantages=samples.advantages,
        returns=samples.returns,
        clip_param=terms.clip_param,
        vf_clip_param=terms.vf_clip_param,
        dual_clip_param=terms.dual_clip_param,
        vf_coeff=terms.vf_coeff,
        entropy_coeff=terms.entropy_coeff,
    )
    share = len(values) / (rows or len(values))
    found = torch.autograd.grad(losses.total * terms.weight * share, leaves)
    return (*found, torch.stack([part.detach() for part in losses]) * share)
