"""A pole on a cart, to be held upright at the middle of the track."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_choice, check_range
from rl8.data import OBS, REWARDS
from rl8.env import drawing
from rl8.env.base import Env
from rl8.env.parameters import Parameter, Value
from rl8.specs import Categorical, Unbounded

INTEGRATORS = ("euler", "semi-implicit")
# Half the stretch of track that a picture shows, and how far the cart goes before the picture follows it (m).
VIEW, FOLLOW = 2.4, 1.7


class CartPole(Env):
    """A pole hinged on a cart that runs on a frictionless track.

    The equations are Gymnasium's `CartPole-v1` (Barto, Sutton and Anderson 1983; Florian 2007, "Correct equations for
    the dynamics of the cart-pole system", without friction), with a weaker push and the choice not to push. Nothing
    ends an episode: a pole that has fallen swings on, and may be swung up again.

    Action `[N]`: 0, 1 or 2 pushes with `-force_mag`, nothing or `+force_mag`. Observation `[N, 5]`: x (m), x' (m/s),
    cos(theta), sin(theta), theta' (rad/s), where theta = 0 is upright. Reward: minus the L1 distance of the new
    observation from upright rest (0, 0, 1, 0, 0). Start: Normal(0, `start_std`) for each of the four state variables.
    State `[4, N]`: the rows x, x', theta, theta', so that each is contiguous.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        force_mag: Push of actions 0 and 2 (N), >= 0. Gymnasium's is 10.
        gravity: Acceleration of free fall (m/s^2).
        cart_mass: Mass of the cart (kg), > 0.
        pole_mass: Mass of the pole (kg), > 0.
        length: Half the pole's length (m), > 0.
        tau: Time between two steps (s), > 0.
        start_std: Standard deviation of the four state variables at the start (m, m/s, rad, rad/s), >= 0.
        integrator: `"euler"`, or `"semi-implicit"` (positions move with the new velocities).
        device: Where everything lives.

    Raises:
        ValueError: If a constant is out of its range or the integrator is unknown.
    """

    state: Tensor
    force_mag: Tensor
    gravity: Tensor
    cart_mass: Tensor
    pole_mass: Tensor
    length: Tensor
    tau: Tensor
    start_std: Tensor
    _push: Tensor
    _coupling: Tensor
    _inertia: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        force_mag: Value = 5.0,
        gravity: Value = 9.8,
        cart_mass: Value = 1.0,
        pole_mass: Value = 0.1,
        length: Value = 0.5,
        tau: Value = 0.02,
        start_std: Value = 0.01,
        integrator: str = "euler",
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        check_choice("env.integrator", integrator, INTEGRATORS)
        self.integrator = integrator
        self.observation_spec = Unbounded(5, device=self.device)
        self.action_spec = Categorical(3, device=self.device)
        self._rest = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], device=self.device).unsqueeze(-1)
        self.declare(
            force_mag=Parameter(force_mag, low=0.0),
            gravity=Parameter(gravity),
            cart_mass=Parameter(cart_mass, low=0.0, low_open=True),
            pole_mass=Parameter(pole_mass, low=0.0, low_open=True),
            length=Parameter(length, low=0.0, low_open=True),
            tau=Parameter(tau, low=0.0, low_open=True),
            start_std=Parameter(start_std, low=0.0),
        )

    def derive(self) -> None:
        """Recompute the products that every step needs."""
        total_mass = self.cart_mass + self.pole_mass
        self.assign("_push", self.force_mag / total_mass)  # m/s^2 for one unit of action
        self.assign("_coupling", self.pole_mass * self.length / total_mass)  # m
        self.assign("_inertia", self.length * (4.0 / 3.0))  # m

    def reset(self, *, config: dict[str, Any] | None = None) -> Tensor:
        """Start all carts near upright rest; return observations `[N, 5]`."""
        self.configure(config)
        self.state = torch.randn(4, self.num_envs, device=self.device) * self.start_std
        return self._observe().t()

    def step(self, action: Tensor) -> TensorDict:
        """Push for `tau` seconds, for actions `[N]` of 0, 1 and 2."""
        _, x_dot, theta, theta_dot = self.state
        sin, cos = theta.sin(), theta.cos()
        coupled = self._coupling * cos
        drive = torch.addcmul((action - 1) * self._push, self._coupling * sin, theta_dot.square())
        turn = torch.addcmul(self.gravity * sin, cos, drive, value=-1)
        theta_acc = turn / torch.addcmul(self._inertia, coupled, cos, value=-1)
        x_acc = torch.addcmul(drive, coupled, theta_acc, value=-1)
        if self.integrator == "semi-implicit":
            x_dot = torch.addcmul(x_dot, x_acc, self.tau)
            theta_dot = torch.addcmul(theta_dot, theta_acc, self.tau)
        self.state = torch.addcmul(self.state, torch.stack((x_dot, x_acc, theta_dot, theta_acc)), self.tau)
        rows = self._observe()
        return TensorDict({OBS: rows.t(), REWARDS: -(rows - self._rest).abs().sum(0)}, [self.num_envs])

    def _observe(self) -> Tensor:
        """Return the observations as rows `[5, N]`: contiguous rows are several times faster than columns on a CPU."""
        x, x_dot, theta, theta_dot = self.state
        return torch.stack((x, x_dot, theta.cos(), theta.sin(), theta_dot))

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the cart on its track, `[400, 600, 3]`; beyond +-1.7 m the picture moves along with it."""
        check_range("index", index, 0, self.num_envs - 1, integer=True, hint="index=0")
        x, _, theta, _ = self.state[:, index].tolist()
        canvas = drawing.Canvas()
        scale, level = canvas.width / (2 * VIEW), 292.0
        camera = x - min(max(x, -FOLLOW), FOLLOW)
        self._draw_track(canvas, camera, scale, level)
        cart = (canvas.width / 2 + (x - camera) * scale, level - 36)
        pole_length = 2 * self.number("length", index) * scale
        tip = (cart[0] + pole_length * math.sin(theta), cart[1] - 16 - pole_length * math.cos(theta))
        canvas.rectangle((cart[0], level + 9), (96, 12), drawing.INK, corner=6, soft=14, alpha=0.3)
        for side in (-1, 1):
            canvas.circle((cart[0] + side * 26, level - 10), 11, drawing.INK)
            canvas.circle((cart[0] + side * 26, level - 10), 4, drawing.GREY)
        canvas.rectangle(cart, (92, 40), drawing.BLUE, corner=9)
        canvas.rectangle((cart[0], cart[1] - 12), (76, 6), drawing.WHITE, corner=3, alpha=0.25)
        canvas.line([(cart[0], cart[1] - 16), tip], 13, drawing.ORANGE)
        canvas.circle((cart[0], cart[1] - 16), 9, drawing.INK)
        canvas.circle((cart[0], cart[1] - 16), 4, drawing.WHITE)
        return canvas.frame()

    def _draw_track(self, canvas: drawing.Canvas, camera: float, scale: float, level: float) -> None:
        canvas.line([(0, level + 4), (canvas.width, level + 4)], 5, drawing.GREY)
        for half_metre in range(math.floor((camera - VIEW) * 2), math.ceil((camera + VIEW) * 2) + 1):
            tick = canvas.width / 2 + (half_metre / 2 - camera) * scale
            long = half_metre % 2 == 0
            canvas.line([(tick, level + 14), (tick, level + (30 if long else 22))], 2, drawing.GREY)
            if long:
                canvas.text(str(half_metre // 2), (tick, level + 50), 14, drawing.GREY, weight=1.7)
        origin = canvas.width / 2 - camera * scale
        canvas.circle((origin, level + 4), 6, drawing.GREEN)
