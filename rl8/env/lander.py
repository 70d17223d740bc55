"""A rocket that must come down softly on its pad: a small task that crashes and has a time limit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl8.checks import check_range
from rl8.env import drawing
from rl8.env.episodic import Advanced, EpisodicEnv
from rl8.env.parameters import Parameter, Value
from rl8.specs import Categorical, Unbounded

CEILING, WALL = 20.0, 20.0  # m; an episode is over beyond


class Lander(EpisodicEnv):
    """A rocket above the ground, of which only position and velocity matter.

    Action `[N]`: 0 drifts, 1 fires the engine upwards, 2 and 3 push to the left and to the right. Observation `[N, 4]`:
    x and height (10 m), their velocities (10 m/s). State `[N, 4]`: the same in m and m/s. Start: x within +-5 m of the
    pad's middle, 8 to 12 m high, velocities within +-1 m/s.

    An episode terminates at the ground, 20 m to the side and 20 m up. Touching the ground within `pad` of the middle
    and slower than `max_touch_speed` in both directions is a landing. Reward: 1 for a landing and -1 for every other
    termination, and at each step by how much the rocket came nearer to the pad and became slower, less 0.01 for firing.
    Metric: `landed`, the share of landings among the episodes that terminated.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        gravity: Acceleration of free fall (m/s^2), >= 0.
        thrust: Acceleration by the engine (m/s^2), > 0; more than `gravity` or no landing succeeds.
        push: Acceleration to the side (m/s^2), > 0.
        pad: Half the pad's width (m), > 0.
        max_touch_speed: Fastest touch that is a landing (m/s), > 0.
        max_episode_steps: Time limit in steps of 0.1 s; None for none.
        device: Where everything lives.

    Raises:
        ValueError: If a constant is out of its range.
    """

    gravity: Tensor
    thrust: Tensor
    push: Tensor
    pad: Tensor
    max_touch_speed: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        gravity: Value = 1.6,
        thrust: Value = 4.0,
        push: Value = 1.0,
        pad: Value = 2.0,
        max_touch_speed: Value = 1.0,
        max_episode_steps: int | None = 200,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, max_episode_steps=max_episode_steps, device=device)
        self.observation_spec = Unbounded(4, device=self.device)
        self.action_spec = Categorical(4, device=self.device)
        self.declare(
            gravity=Parameter(gravity, low=0.0),
            thrust=Parameter(thrust, low=0.0, low_open=True),
            push=Parameter(push, low=0.0, low_open=True),
            pad=Parameter(pad, low=0.0, low_open=True),
            max_touch_speed=Parameter(max_touch_speed, low=0.0, low_open=True),
        )

    def begin(self) -> Tensor:
        """Return states `[N, 4]` of rockets in the air."""
        x, height, x_dot, y_dot = 2 * torch.rand(4, self.num_envs, device=self.device) - 1
        return torch.stack((5 * x, 10 + 2 * height, x_dot, y_dot), -1)

    def advance(self, state: Tensor, action: Tensor) -> Advanced:
        """Fly for 0.1 s, for actions `[N]` of 0, 1, 2 and 3."""
        x, y, x_dot, y_dot = state.unbind(-1)
        x_dot = x_dot + 0.1 * self.push * ((action == 3).float() - (action == 2).float())
        y_dot = y_dot + 0.1 * (self.thrust * (action == 1) - self.gravity)
        x, y = x + 0.1 * x_dot, y + 0.1 * y_dot
        slow = (x_dot.abs() < self.max_touch_speed) & (y_dot.abs() < self.max_touch_speed)
        landed = (y <= 0) & (x.abs() < self.pad) & slow
        terminated = (y <= 0) | (x.abs() > WALL) | (y > CEILING)
        after = torch.stack((x, y, x_dot, y_dot), -1)
        nearer = 0.1 * (state.abs().sum(-1) - after.abs().sum(-1))
        rewards = nearer - 0.01 * (action > 0) + torch.where(landed, 1.0, -1.0) * terminated
        return after, rewards, terminated, {"landed": torch.where(terminated, landed.float(), torch.nan)}

    def observe(self, state: Tensor) -> Tensor:
        """Return observations `[N, 4]`."""
        return state / 10

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the rocket above its pad, `[400, 600, 3]`."""
        check_range("index", index, 0, self.num_envs - 1, integer=True, hint="index=0")
        x, y, _, y_dot = self.current[index].tolist()
        canvas = drawing.Canvas()
        scale, level, pad = 20.0, 350.0, self.number("pad", index)
        canvas.ground(np.full(canvas.width, level, np.float32), drawing.GREY, alpha=0.5)
        canvas.line([(300 - pad * scale, level), (300 + pad * scale, level)], 8, drawing.GREEN)
        spot = (300 + x * scale, level - 18 - max(y, 0.0) * scale)
        canvas.rectangle(spot, (22, 30), drawing.BLUE, corner=8)
        canvas.circle((spot[0], spot[1] - 6), 5, drawing.WHITE)
        for side in (-9, 9):
            canvas.line([(spot[0] + side, spot[1] + 10), (spot[0] + 1.4 * side, spot[1] + 18)], 4, drawing.INK)
        canvas.text(f"{y_dot:.1f}", (50, 40), 20, drawing.INK, weight=2.4)
        return canvas.frame()
