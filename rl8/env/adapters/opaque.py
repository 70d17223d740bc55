"""What all environments that step on their own have in common."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from typing import Any

import torch
from tensordict import TensorDict

from rl8.env.base import Env
from rl8.specs import Nested


class OpaqueEnv(Env):
    """Environments of another library; see `Env.opaque` for what follows from it.

    A subclass defines `begin`, and `step` as every environment. What it returns may be overwritten by its next step.

    Attributes:
        resets: How often all environments began anew.
    """

    opaque = True
    has_ends = True
    truncates = True
    begins_anew = True

    def __init__(
        self, num_envs: int, /, horizon: int | None = None, *, device: torch.device | str | None = "cpu"
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        self.state = TensorDict({}, batch_size=[num_envs], device=self.device)
        self.resets = 0

    @abstractmethod
    def begin(self, seed: int) -> Nested:
        """Start all environments anew with random numbers from a seed; return observations `[N, ...]`."""

    def reset(self, *, config: dict[str, Any] | None = None) -> Nested:
        """Start all environments anew, with a seed that comes from the run's.

        Raises:
            ValueError: If settings are given; these environments take theirs when they are made.
        """
        if config:
            raise ValueError(
                f"env_config={dict(config)} has no effect: {type(self).__name__} takes its settings when it is made. "
                "Try env_config=null, and 'env.kwargs={name: value}' for Gymnasium and EnvPool."
            )
        self.resets += 1
        return self.begin(draw_seed())


def draw_seed() -> int:
    """Return a seed from torch's default generator, and so from the run's seed."""
    return int(torch.randint(2**31 - 1, ()))


def check_installed(package: str, key: str, advice: str | None = None) -> None:
    """Check that a library can be imported, without importing it.

    Args:
        package: Its name in Python.
        key: What the user chose, e.g. `"env=mjlab"`.
        advice: How to install it; by default with rl8's extra of its name.

    Raises:
        ValueError: If it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{key} needs the package {package}, which is not installed. "
            + (advice or f"Type: pip install 'rl8[{package}]'.")
        )
