"""Models: networks that turn observations into features of an action distribution, and values."""

from rl8.models.attention import TransformerModel
from rl8.models.base import Model, Output
from rl8.models.images import CNNModel, ImageModel, ImpalaModel
from rl8.models.mlp import MLPModel
from rl8.models.recurrent import GRUModel, LSTMModel, RecurrentModel

__all__ = [
    "CNNModel",
    "GRUModel",
    "ImageModel",
    "ImpalaModel",
    "LSTMModel",
    "MLPModel",
    "Model",
    "Output",
    "RecurrentModel",
    "TransformerModel",
]
