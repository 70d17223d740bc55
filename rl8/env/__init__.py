"""Environments: the contract, and small tasks that follow it."""

from rl8.env.base import Env, EnvFactory, GenericEnv
from rl8.env.cartpole import CartPole
from rl8.env.dummy import ContinuousDummyEnv, DiscreteDummyEnv, DummyEnv
from rl8.env.episodic import EpisodicEnv
from rl8.env.lander import Lander
from rl8.env.memory import CueRecall
from rl8.env.mountain_car import MountainCar
from rl8.env.parameters import Parameter, Value
from rl8.env.pendulum import Pendulum

__all__ = [
    "CartPole",
    "ContinuousDummyEnv",
    "CueRecall",
    "DiscreteDummyEnv",
    "DummyEnv",
    "Env",
    "EnvFactory",
    "EpisodicEnv",
    "GenericEnv",
    "Lander",
    "MountainCar",
    "Parameter",
    "Pendulum",
    "Value",
]
