"""CartPole on tensors for the programs that bring no environments of their own. Needs torch only.

The same equations, constants and reward as `rl8.env.CartPole`: a push of 5 N, Euler steps, minus the L1 distance of the
new observation from upright rest. The state is kept as four rows, as there, so that no program pays for strides.
"""

from __future__ import annotations

import torch
from torch import Tensor

FORCE, GRAVITY, CART, POLE, HALF_LENGTH, TAU, START_STD = 5.0, 9.8, 1.0, 0.1, 0.5, 0.02, 0.01
MASS = CART + POLE


class CartPole:
    """Carts with poles, N at once.

    Args:
        num_envs: How many, N.
        device: Where they live.
    """

    def __init__(self, num_envs: int, device: str | torch.device = "cpu") -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self.rest = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], device=self.device).unsqueeze(1)
        self.state = torch.zeros(4, num_envs, device=self.device)

    def reset(self) -> Tensor:
        """Start all near upright rest; return observations `[N, 5]`."""
        self.state = START_STD * torch.randn(4, self.num_envs, device=self.device)
        return self._rows().t()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Push for `TAU` seconds by actions `[N]` of 0, 1, 2; return observations `[N, 5]` and rewards `[N]`."""
        _, x_dot, theta, theta_dot = self.state
        sin, cos = torch.sin(theta), torch.cos(theta)
        drive = ((actions - 1) * FORCE + (POLE * HALF_LENGTH) * theta_dot.square() * sin) / MASS
        theta_acc = (GRAVITY * sin - cos * drive) / (HALF_LENGTH * (4 / 3 - (POLE / MASS) * cos.square()))
        x_acc = drive - (POLE * HALF_LENGTH / MASS) * theta_acc * cos
        self.state = self.state + TAU * torch.stack((x_dot, x_acc, theta_dot, theta_acc))
        rows = self._rows()
        return rows.t(), -(rows - self.rest).abs().sum(0)

    def _rows(self) -> Tensor:
        x, x_dot, theta, theta_dot = self.state
        return torch.stack((x, x_dot, torch.cos(theta), torch.sin(theta), theta_dot))

    # ------------------------------------------------------------------------------- the check of contract.py

    def check_states(self, states: list[list[float]]) -> None:
        """Put the environments into states `[N][4]`."""
        self.state = torch.tensor(states, device=self.device).t().contiguous()

    def check_step(self, actions: list[int]) -> list[float]:
        """Return the rewards of actions `[N]`."""
        return self.step(torch.tensor(actions, device=self.device))[1].tolist()
