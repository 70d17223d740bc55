"""An underpowered car that must swing back and forth to get out of a valley."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
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
from rl8.env.parameters import Parameter, Value, check_order
from rl8.specs import Categorical, Unbounded


class MountainCar(Env):
    """A car in a valley whose engine is too weak to climb out directly.

    The equations are Gymnasium's `MountainCar-v0` (Moore 1990, "Efficient memory-based learning for robot control").
    Nothing ends an episode: a car that has reached the goal may stay there.

    Action `[N]`: 0, 1 or 2 accelerates to the left, not at all or to the right. Observation `[N, 2]`: position,
    velocity (position per step). Reward: minus the distance to the goal, or 1 for a car at or beyond `goal_position`
    that moves to the right at `goal_velocity` or faster. Start: position uniform in `start_low` to `start_high`, at
    rest. State `[2, N]`: the rows position and velocity. The hill's height is sin(3 position).

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        force_mag: Acceleration of actions 0 and 2 (per step^2), >= 0.
        gravity: Acceleration down the steepest slope (per step^2).
        goal_position: Where the goal begins.
        goal_velocity: Slowest velocity that counts at the goal (per step).
        min_position: Wall on the left, where the car stops dead.
        max_position: End of the track on the right.
        max_speed: Limit on the speed (per step), > 0.
        start_low: Lowest position at the start.
        start_high: Highest position at the start.
        device: Where everything lives.

    Raises:
        ValueError: If a constant is out of its range, or the track is empty or does not hold the start.
    """

    state: Tensor
    force_mag: Tensor
    gravity: Tensor
    goal_position: Tensor
    goal_velocity: Tensor
    min_position: Tensor
    max_position: Tensor
    max_speed: Tensor
    start_low: Tensor
    start_high: Tensor
    _min_speed: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        force_mag: Value = 0.001,
        gravity: Value = 0.0025,
        goal_position: Value = 0.5,
        goal_velocity: Value = 0.0,
        min_position: Value = -1.2,
        max_position: Value = 0.6,
        max_speed: Value = 0.07,
        start_low: Value = -0.6,
        start_high: Value = -0.4,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(2, device=self.device)
        self.action_spec = Categorical(3, device=self.device)
        self.declare(
            force_mag=Parameter(force_mag, low=0.0),
            gravity=Parameter(gravity),
            goal_position=Parameter(goal_position),
            goal_velocity=Parameter(goal_velocity),
            min_position=Parameter(min_position),
            max_position=Parameter(max_position),
            max_speed=Parameter(max_speed, low=0.0, low_open=True),
            start_low=Parameter(start_low),
            start_high=Parameter(start_high),
        )

    def check_constants(self, constants: Mapping[str, Tensor], origin: str) -> None:
        """Refuse a track without length, and a start that is empty or off the track."""
        check = functools.partial(check_order, constants, origin=origin, defaults=self.defaults())
        check(["min_position", "max_position"], strict=True)
        check(["min_position", "start_low", "start_high", "max_position"])

    def derive(self) -> None:
        """Recompute the lower limit of the velocity."""
        self.assign("_min_speed", -self.max_speed)

    def reset(self, *, config: dict[str, Any] | None = None) -> Tensor:
        """Start all cars at rest near the bottom of the valley; return observations `[N, 2]`."""
        self.configure(config)
        u = torch.rand(self.num_envs, device=self.device)
        position = self.start_low + (self.start_high - self.start_low) * u
        self.state = torch.stack((position, torch.zeros_like(position)))
        return self.state.t()

    def step(self, action: Tensor) -> TensorDict:
        """Accelerate for one step, for actions `[N]` of 0, 1 and 2."""
        position, velocity = self.state
        velocity = torch.addcmul(velocity, action - 1, self.force_mag)
        velocity = torch.addcmul(velocity, self.gravity, (3 * position).cos(), value=-1)
        velocity = velocity.clamp(self._min_speed, self.max_speed)
        position = (position + velocity).clamp(self.min_position, self.max_position)
        velocity = velocity.masked_fill((position <= self.min_position) & (velocity < 0), 0.0)
        self.state = torch.stack((position, velocity))
        at_goal = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        rewards = (position - self.goal_position).abs().neg().masked_fill(at_goal, 1.0)
        return TensorDict({OBS: self.state.t(), REWARDS: rewards}, [self.num_envs])

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the car in its valley, `[400, 600, 3]`."""
        check_range("index", index, 0, self.num_envs - 1, integer=True, hint="index=0")
        position, velocity = self.state[:, index].tolist()
        left, right = self.number("min_position", index), self.number("max_position", index)
        canvas = drawing.Canvas()
        scale, margin = (canvas.width - 40) / max(right - left, 1e-6), 20.0

        def spot(place: float) -> drawing.Point:
            return margin + (place - left) * scale, 250.0 - 110.0 * math.sin(3 * place)

        places = left + (np.arange(canvas.width, dtype=np.float32) + 0.5 - margin) / scale
        hill = (250.0 - 110.0 * np.sin(3 * places)).astype(np.float32)
        canvas.ground(hill + 6, drawing.INK, alpha=0.10)
        canvas.ground(hill, (122, 168, 120))
        canvas.ground(hill + 9, (98, 142, 100))
        canvas.ground(hill + 60, (84, 124, 90), alpha=0.6)
        goal = self.number("goal_position", index)
        self._draw_goal(canvas, spot(goal), position >= goal)
        slope = math.atan2(-330.0 * math.cos(3 * position), scale)  # rad, clockwise
        self._draw_car(canvas, spot(position), slope)
        reach = canvas.width / 2 + velocity / self.number("max_speed", index) * 120
        canvas.line([(canvas.width / 2 - 120, 376), (canvas.width / 2 + 120, 376)], 6, drawing.WHITE, alpha=0.35)
        canvas.line([(canvas.width / 2, 376), (reach, 376)], 6, drawing.YELLOW)
        return canvas.frame()

    def _draw_goal(self, canvas: drawing.Canvas, foot: drawing.Point, reached: bool) -> None:
        color = drawing.GREEN if reached else drawing.RED
        canvas.line([foot, (foot[0], foot[1] - 62)], 4, drawing.INK)
        canvas.rectangle((foot[0] + 18, foot[1] - 52), (32, 20), color, corner=3)

    def _draw_car(self, canvas: drawing.Canvas, foot: drawing.Point, slope: float) -> None:
        sin, cos = math.sin(slope), math.cos(slope)

        def part(along: float, up: float) -> drawing.Point:
            return foot[0] + along * cos + up * sin, foot[1] + along * sin - up * cos

        canvas.rectangle(part(-2, 29), (26, 16), drawing.INK, corner=6, angle=slope)
        canvas.rectangle(part(0, 17), (54, 17), drawing.BLUE, corner=6, angle=slope)
        canvas.rectangle(part(0, 21), (46, 3), drawing.WHITE, corner=1, angle=slope, alpha=0.3)
        for along in (-16.0, 16.0):
            canvas.circle(part(along, 8), 8, drawing.INK)
            canvas.circle(part(along, 8), 3, drawing.GREY)
