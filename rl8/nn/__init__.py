"""Building blocks for models."""

from rl8.nn.attention import CausalSelfAttention, TransformerBlock
from rl8.nn.encoding import Encoder
from rl8.nn.heads import FeatureHead, ValueHead
from rl8.nn.images import Frames, ImpalaNet, NatureNet
from rl8.nn.mlp import ACTIVATIONS, MLP

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "CausalSelfAttention",
    "Encoder",
    "FeatureHead",
    "Frames",
    "ImpalaNet",
    "NatureNet",
    "TransformerBlock",
    "ValueHead",
]
