"""Observations of any spec as one float vector."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from rl8.data import ACTION_MASK
from rl8.specs import Binary, Bounded, Categorical, MultiCategorical, Nested, Spec, Unbounded, leaves


class Encoder(nn.Module):
    """Flattens and joins an observation's components: numbers as they are, choices one-hot.

    The action mask is left out: it constrains the distribution and is no input.

    Args:
        spec: What the model sees of one environment and step.
        without: Paths of components that are left out too.

    Attributes:
        size: Length D of the vector.
    """

    def __init__(self, spec: Spec, *, without: Collection[tuple[str, ...]] = ()) -> None:
        super().__init__()
        self.parts = [(path, leaf) for path, leaf in leaves(spec) if not (ACTION_MASK in path or path in without)]
        if not self.parts:
            raise ValueError(f"{spec} has nothing for a model to look at besides {ACTION_MASK!r}. Add an observation.")
        self.size = sum(encoded_size(leaf) for _, leaf in self.parts)

    def forward(self, obs: Nested) -> Tensor:
        """Return `[L, B, D]` for observations `[L, B, ...]`."""
        vectors = [encode(obs if isinstance(obs, Tensor) else obs[path], leaf) for path, leaf in self.parts]
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)


def encoded_size(spec: Spec) -> int:
    """Return how many numbers `encode` makes of one sample."""
    if isinstance(spec, Categorical) and spec.dtype != torch.bool:
        return spec.n * spec.shape.numel()
    if isinstance(spec, MultiCategorical):
        return sum(spec.nvec)
    return spec.shape.numel()


def encode(sample: Tensor, spec: Spec) -> Tensor:
    """Return samples `[..., *shape]` of a leaf spec as float vectors `[..., D]`."""
    batch = sample.shape[: sample.ndim - len(spec.shape)]
    if isinstance(spec, Categorical) and spec.dtype != torch.bool:
        choices = torch.arange(spec.n, device=sample.device)
        return (sample.unsqueeze(-1) == choices).to(torch.float32).reshape(*batch, -1)
    if isinstance(spec, MultiCategorical):
        hot = [sample[..., i : i + 1] == torch.arange(n, device=sample.device) for i, n in enumerate(spec.nvec)]
        return torch.cat(hot, dim=-1).to(torch.float32)
    assert isinstance(spec, (Unbounded, Bounded, Binary, Categorical))
    flat = sample if len(spec.shape) == 1 else sample.reshape(*batch, -1)
    return flat if flat.dtype == torch.float32 else flat.to(torch.float32)
