"""PPO's coefficients while training: a number each, or a tensor on the device where a schedule moves it."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.schedule_options import SCHEDULED, schedule_of
from rl8.ppo.schedules import Schedule

#: Of `SCHEDULED`, those that the loss is made of.
OF_LOSS: Final = tuple(name for name in SCHEDULED if name != "lr")
#: Names in `coefficients/<name>`.
SHORT: Final = {"entropy_coeff": "entropy", "vf_coeff": "vf"}


class Coefficients:
    """The coefficients of the loss over env steps.

    One with a schedule is a 0-d tensor that keeps its place, so that a captured graph reads what it is now. That of
    the entropy always is.

    Args:
        hparams: What the user chose.
        device: Where the tensors are.

    Attributes:
        schedules: Of those that are tensors, by name.
        live: These tensors.
    """

    def __init__(self, hparams: Hyperparameters, device: torch.device) -> None:
        self._device = device
        self.schedules: dict[str, Schedule] = {}
        self.live: dict[str, Tensor] = {}
        self.take(hparams)

    def take(self, hparams: Hyperparameters) -> None:
        """Go on with other options; a tensor that stays one keeps its place."""
        self._hparams = hparams
        found = {name: schedule_of(hparams, name) for name in OF_LOSS}
        self.schedules = {name: one for name, one in found.items() if one.moves or name == "entropy_coeff"}
        self.live = {name: self.live.get(name, torch.zeros((), device=self._device)) for name in self.schedules}

    def read(self, env_steps: int) -> None:
        """Let the tensors have their values after `env_steps` env steps."""
        for name, schedule in self.schedules.items():
            self.live[name].fill_(schedule(env_steps))

    def __getitem__(self, name: str) -> float | Tensor | None:
        """Return a coefficient of the loss as it is now, None where it does not act."""
        if name in self.live:
            return self.live[name]
        value: float | None = getattr(self._hparams, name)
        return value

    def of_loss(self) -> dict[str, Any]:
        """Return all that the loss is made of, by name."""
        return {name: self[name] for name in OF_LOSS}

    def reported(self) -> dict[str, Tensor]:
        """Return those that are reported because they move, by the name that follows `coefficients/`."""
        return {SHORT.get(name, name): tensor for name, tensor in self.live.items()}
