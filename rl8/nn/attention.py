"""Attention over a window of observations, by torch's `scaled_dot_product_attention`."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from rl8.checks import check_range

# cuDNN's kernel fails at batches of 65,536 and more on sm_90; the others take any.
KERNELS: Final = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which a step sees itself and the valid steps before it.

    Source: Vaswani et al. 2017, arXiv:1706.03762.

    Args:
        size: Length D of each step's vector.
        num_heads: Heads, a divisor of `size`.

    Raises:
        ValueError: If `num_heads` does not divide `size`.
    """

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        check_range("model.num_heads", num_heads, 1, integer=True)
        if size % num_heads:
            raise ValueError(
                f"model.num_heads={num_heads} does not divide model.size={size}. Use a divisor, e.g. model.num_heads=1."
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(size, 3 * size)
        self.out = nn.Linear(size, size)

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Return `[M, W, D]`.

        Args:
            inputs: `[M, W, D]`, oldest step first.
            mask: `[M, W]` bool, True where a step is valid. The last step must be.
        """
        m, w, d = inputs.shape
        q, k, v = self.qkv(inputs).view(m, w, 3, self.num_heads, d // self.num_heads).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(KERNELS):
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask(mask))
        out: Tensor = self.out(attended.transpose(1, 2).reshape(m, w, d))
        return out


def attention_mask(mask: Tensor) -> Tensor:
    """Return `[M, 1, W, W]` bool, True where a query (row) may look at a key (column).

    Padding steps look at themselves only: a row without any True would be NaN.

    Args:
        mask: `[M, W]` bool, True where a step is valid.
    """
    w = mask.shape[-1]
    causal = mask.new_ones(w, w).tril()
    own = torch.eye(w, dtype=torch.bool, device=mask.device)
    return ((causal & mask.unsqueeze(-2)) | own).unsqueeze(-3)


class TransformerBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after a layer norm and added to its input.

    Source: Xiong et al. 2020, arXiv:2002.04745 (norm first).

    Args:
        size: Length D of each step's vector.
        num_heads: Attention heads, a divisor of `size`.
        expansion: Width of the perceptron in units of `size`.
    """

    def __init__(self, size: int, num_heads: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.attention = CausalSelfAttention(size, num_heads)
        self.norm2 = nn.LayerNorm(size)
        self.mlp = nn.Sequential(nn.Linear(size, expansion * size), nn.GELU(), nn.Linear(expansion * size, size))

    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Return `[M, W, D]` for inputs `[M, W, D]` and mask `[M, W]`; see `CausalSelfAttention`."""
        inputs = inputs + self.attention(self.norm1(inputs), mask)
        out: Tensor = inputs + self.mlp(self.norm2(inputs))
        return out
