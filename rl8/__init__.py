"""PPO, end to end on one device, composed from YAML.

Shapes are written with these letters, time first:

* T: horizon, env steps per environment and iteration
* N: environments in parallel
* L: sequence length, env steps that a gradient flows back through
* B: sequences in a minibatch
* A: components of an action

So a rollout's rewards are `[T, N]`, and a model sees observations `[L, B, ...]`. Names are imported when first used:
`import rl8` loads neither torch nor MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl8.distributions import (
        Binary,
        Categorical,
        CompositeDistribution,
        Distribution,
        MultiCategorical,
        Normal,
        SquashedNormal,
    )
    from rl8.env import Env
    from rl8.models import Model
    from rl8.policy.policy import Policy
    from rl8.ppo.algorithm import Algorithm, RecurrentAlgorithm
    from rl8.ppo.hyperparameters import Hyperparameters
    from rl8.settings import DeviceSettings, TrainerSettings
    from rl8.trainer import RecurrentTrainer, Trainer
    from rl8.use.deployed import DeployedPolicy, load_policy

__version__ = "2.0.0"

__all__ = [
    "Algorithm",
    "Binary",
    "Categorical",
    "CompositeDistribution",
    "DeployedPolicy",
    "DeviceSettings",
    "Distribution",
    "Env",
    "Hyperparameters",
    "Model",
    "MultiCategorical",
    "Normal",
    "Policy",
    "RecurrentAlgorithm",
    "RecurrentTrainer",
    "SquashedNormal",
    "Trainer",
    "TrainerSettings",
    "load_policy",
]

_HOMES = {
    "ppo.algorithm": ("Algorithm", "RecurrentAlgorithm"),
    "distributions": (
        "Binary",
        "Categorical",
        "CompositeDistribution",
        "Distribution",
        "MultiCategorical",
        "Normal",
        "SquashedNormal",
    ),
    "env": ("Env",),
    "ppo.hyperparameters": ("Hyperparameters",),
    "models": ("Model",),
    "policy.policy": ("Policy",),
    "settings": ("DeviceSettings", "TrainerSettings"),
    "trainer": ("RecurrentTrainer", "Trainer"),
    "use.deployed": ("DeployedPolicy", "load_policy"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("conditions", "data", "distributions", "env", "models", "nn", "specs")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name in _HOME:
        return getattr(importlib.import_module(f"rl8.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"rl8.{name}")
    raise AttributeError(f"module 'rl8' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__, *_MODULES})
