"""A pendulum that must be swung up with a weak motor and held upright."""

from __future__ import annotations

import math
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
from rl8.specs import Bounded, Unbounded


class Pendulum(Env):
    """A rod on a motor that is too weak to lift it in one go (Gymnasium's `Pendulum-v1`).

    Action `[N, 1]`: torque (N m), clipped to +-`max_torque`. Observation `[N, 3]`: cos(theta), sin(theta),
    theta' (rad/s), where theta = 0 is upright. Reward: minus the cost
    theta^2 + 0.1 theta'^2 + 0.001 torque^2 of the state before the step, with theta in [-pi, pi). Start: theta uniform
    in +-pi, theta' in +-1. State `[2, N]`: the rows theta and theta'.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        gravity: Acceleration of free fall (m/s^2).
        mass: Mass of the rod (kg), > 0.
        length: Length of the rod (m), > 0.
        max_torque: Limit on the torque (N m), > 0. The action spec keeps the constructor's (the largest of them where
            they differ), so a limit set at reset acts inside it.
        max_speed: Limit on theta' (rad/s), > 0.
        tau: Time between two steps (s), > 0.
        device: Where everything lives.

    Raises:
        ValueError: If a constant is out of its range.
    """

    state: Tensor
    gravity: Tensor
    mass: Tensor
    length: Tensor
    max_torque: Tensor
    max_speed: Tensor
    tau: Tensor
    _min_torque: Tensor
    _min_speed: Tensor
    _fall: Tensor
    _lift: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        gravity: Value = 10.0,
        mass: Value = 1.0,
        length: Value = 1.0,
        max_torque: Value = 2.0,
        max_speed: Value = 8.0,
        tau: Value = 0.05,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(3, device=self.device)
        self.declare(
            gravity=Parameter(gravity),
            mass=Parameter(mass, low=0.0, low_open=True),
            length=Parameter(length, low=0.0, low_open=True),
            max_torque=Parameter(max_torque, low=0.0, low_open=True),
            max_speed=Parameter(max_speed, low=0.0, low_open=True),
            tau=Parameter(tau, low=0.0, low_open=True),
        )
        limit = self.max_torque.max().item()
        self.action_spec = Bounded(-limit, limit, shape=1, device=self.device)

    def derive(self) -> None:
        """Recompute the products that every step needs."""
        self.assign("_min_torque", -self.max_torque)
        self.assign("_min_speed", -self.max_speed)
        self.assign("_fall", 1.5 * self.gravity / self.length * self.tau)  # rad/s per step at sin(theta) = 1
        self.assign("_lift", 3.0 / (self.mass * self.length.square()) * self.tau)  # rad/s per step and N m

    def reset(self, *, config: dict[str, Any] | None = None) -> Tensor:
        """Start all pendulums at random angles and speeds; return observations `[N, 3]`."""
        self.configure(config)
        theta, theta_dot = 2 * torch.rand(2, self.num_envs, device=self.device) - 1
        self.state = torch.stack((math.pi * theta, theta_dot))
        return self._observe()

    def step(self, action: Tensor) -> TensorDict:
        """Apply torques `[N, 1]` for `tau` seconds."""
        theta, theta_dot = self.state
        theta = torch.remainder(theta + math.pi, 2 * math.pi) - math.pi  # also keeps float32 exact over long runs
        torque = action.squeeze(-1).clamp(self._min_torque, self.max_torque)
        cost = torch.addcmul(theta.square(), theta_dot, theta_dot, value=0.1)
        cost = torch.addcmul(cost, torque, torque, value=0.001)
        theta_dot = torch.addcmul(torch.addcmul(theta_dot, self._fall, theta.sin()), self._lift, torque)
        theta_dot = theta_dot.clamp(self._min_speed, self.max_speed)
        self.state = torch.stack((torch.addcmul(theta, theta_dot, self.tau), theta_dot))
        return TensorDict({OBS: self._observe(), REWARDS: -cost}, [self.num_envs])

    def _observe(self) -> Tensor:
        theta, theta_dot = self.state
        return torch.stack((theta.cos(), theta.sin(), theta_dot)).t()  # rows first: see CartPole

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the pendulum with an arc for its speed, `[400, 600, 3]`."""
        check_range("index", index, 0, self.num_envs - 1, integer=True, hint="index=0")
        theta, theta_dot = self.state[:, index].tolist()
        canvas = drawing.Canvas()
        pivot, reach = (canvas.width / 2, canvas.height / 2), 140.0
        tip = (pivot[0] + reach * math.sin(theta), pivot[1] - reach * math.cos(theta))
        canvas.circle(pivot, reach + 34, drawing.WHITE, alpha=0.7)
        canvas.circle(pivot, reach + 34, drawing.PALE, outline=2)
        canvas.line([(pivot[0], 20), (pivot[0], 36)], 4, drawing.GREEN)
        # theta' > 0 turns clockwise on screen, from 12 o'clock; full speed is a turn of 150 degrees
        sweep = theta_dot / self.number("max_speed", index) * math.radians(150)
        if abs(sweep) > 0.01:
            canvas.arc(pivot, reach + 34, -math.pi / 2, sweep - math.pi / 2, 8, drawing.BLUE)
        canvas.line([(pivot[0], pivot[1] + 7), (tip[0], tip[1] + 7)], 26, drawing.INK, soft=16, alpha=0.18)
        canvas.line([pivot, tip], 26, drawing.ORANGE)
        canvas.circle(tip, 6, drawing.WHITE, alpha=0.85)
        canvas.circle(pivot, 9, drawing.INK)
        canvas.circle(pivot, 4, drawing.WHITE)
        return canvas.frame()
