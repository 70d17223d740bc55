"""The simplest environments: a position on a line that should be brought to the origin."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_range
from rl8.data import OBS, REWARDS
from rl8.env import drawing
from rl8.env.base import Env
from rl8.env.parameters import Parameter, Value
from rl8.specs import Categorical, Unbounded


class DummyEnv(Env):
    """A position on a line; the reward is minus its distance from the origin, after the move.

    Observation `[N, 1]`: the position (unitless). The action is a subclass's. State `[N, 1]`: the position.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        bounds: Positions start uniform in +-bounds, >= 0.
        device: Where everything lives.
    """

    state: Tensor
    bounds: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        bounds: Value = 100.0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(1, device=self.device)
        self.declare(bounds=Parameter(bounds, low=0.0))

    def reset(self, *, config: dict[str, Any] | None = None) -> Tensor:
        """Draw new positions; return them as observations `[N, 1]`."""
        self.configure(config)
        self.state = ((2 * torch.rand(self.num_envs, device=self.device) - 1) * self.bounds).unsqueeze(-1)
        return self.state

    def _move(self, position: Tensor) -> TensorDict:
        self.state = position  # a new tensor, never written in place, so that it can be the observation too
        return TensorDict({OBS: position, REWARDS: -position.abs()}, [self.num_envs])

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the line around the origin with the position on it, `[400, 600, 3]`."""
        check_range("index", index, 0, self.num_envs - 1, integer=True, hint="index=0")
        position = self.state[index, 0].item()
        reach = max(self.number("bounds", index), 1.0) * 1.15
        canvas = drawing.Canvas()
        middle, level, scale = canvas.width / 2, 220.0, canvas.width / 2 / reach
        tick = 10.0 ** np.floor(np.log10(reach))
        tick = tick if reach / tick >= 2.5 else tick / 4
        canvas.line([(0, level), (canvas.width, level)], 3, drawing.GREY)
        for count in range(-int(reach / tick), int(reach / tick) + 1):
            x = middle + count * tick * scale
            canvas.line([(x, level - 8), (x, level + 8)], 2, drawing.GREY)
            canvas.text(f"{count * tick:g}", (x, level + 34), 13, drawing.GREY, weight=1.6)
        at = middle + float(np.clip(position, -reach, reach)) * scale
        canvas.line([(middle, level), (at, level)], 7, drawing.ORANGE, alpha=0.55)
        canvas.circle((middle, level), 17, drawing.GREEN, outline=4)
        canvas.circle((at, level + 5), 15, drawing.INK, soft=12, alpha=0.25)
        canvas.circle((at, level), 14, drawing.BLUE)
        canvas.circle((at - 4, level - 5), 4, drawing.WHITE, soft=3, alpha=0.6)
        canvas.text(f"{position:.1f}", (middle, 110), 44, drawing.INK, weight=4.5)
        return canvas.frame()


class DiscreteDummyEnv(DummyEnv):
    """A position on a line that moves one unit per step: action 0 to the left, action 1 to the right.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        bounds: Positions start uniform in +-bounds, >= 0.
        device: Where everything lives.
    """

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        bounds: Value = 100.0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, bounds=bounds, device=device)
        self.action_spec = Categorical(2, shape=(1,), device=self.device)

    def step(self, action: Tensor) -> TensorDict:
        """Move by 2 * action - 1, for actions `[N, 1]` of 0 and 1."""
        return self._move(torch.add(self.state, action, alpha=2) - 1)


class ContinuousDummyEnv(DummyEnv):
    """A position on a line that moves by any distance per step.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        bounds: Positions start uniform in +-bounds, >= 0.
        device: Where everything lives.
    """

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        bounds: Value = 100.0,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, bounds=bounds, device=device)
        self.action_spec = Unbounded(1, device=self.device)

    def step(self, action: Tensor) -> TensorDict:
        """Move by `action` `[N, 1]`."""
        return self._move(self.state + action)
