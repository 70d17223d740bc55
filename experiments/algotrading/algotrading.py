"""One asset whose price follows a drift and a cycle that a policy does not know."""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.env import Env
from rl8.env.parameters import Parameter, Value
from rl8.specs import Binary, Categorical, Composite, Unbounded

HOLD, BUY, SELL = 0, 1, 2
ACTIONS = ("hold", "buy", "sell")

DRAWS: dict[str, Value] = {
    "km": {"low": -0.02, "high": 0.02},
    "kc": {"low": 0.02, "high": 0.1},
    "f": {"low": 0.1, "high": 2.0},
    "y0": {"low": 50.0, "high": 150.0},
}


def log_change(km: Tensor, kc: Tensor, f: Tensor, k: Tensor) -> Tensor:
    """Return `log(y[k + 1] / y[k])`, in the broadcast shape of the arguments.

    y[k + 1] = (1 + km) (1 + kc sin(f k)) y[k]

    Args:
        km: Drift per step, > -1.
        kc: Size of the cycle, in (-1, 1).
        f: Frequency of the cycle, rad per step.
        k: Step, counted from the reset.
    """
    return torch.log1p(km) + torch.log1p(kc * torch.sin(f * k))


class AlgoTrading(Env):
    """Hold, buy or sell one asset.

    The price is `y[k + 1] = (1 + km) (1 + kc sin(f k)) y[k]`, with km, kc, f and y[0] drawn for each environment at
    every reset. One step, k = 0, 1, ...:

    1. The policy observes what is known at price y[k]: the last change `log(y[k] / y[k - 1])` (0 at k = 0, where there
       is none yet), whether it is invested, and the change since it bought, `log(y[k] / y[buy])` (0 if not invested).
    2. It acts. `BUY` is allowed when not invested, `SELL` when invested, `HOLD` always; trading costs nothing. An
       action that the mask forbids does nothing.
    3. The price moves to y[k + 1]. The reward is the change `log(y[k + 1] / y[k])` if it is invested after the action,
       else 0: a purchase earns the change that follows, which the policy has not seen.

    Action `[N]`: 0 hold, 1 buy, 2 sell. Observation: a Composite of `action_mask` `[N, 3]`, `invested` `[N, 1]`,
    `log_change` `[N, 1]` and `log_change_since_buy` `[N, 1]`; km, kc, f, k and y are not in it. Episodes have no end.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        km: Drift per step, > -1; a number, one per environment, or `{low, high}` to draw at every reset.
        kc: Size of the cycle, in (-1, 1); likewise.
        f: Frequency of the cycle, rad per step; likewise.
        y0: Price at the reset, > 0; likewise.
        device: Where everything lives.
    """

    state: TensorDict
    km: Tensor
    kc: Tensor
    f: Tensor
    y0: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        km: Value = DRAWS["km"],
        kc: Value = DRAWS["kc"],
        f: Value = DRAWS["f"],
        y0: Value = DRAWS["y0"],
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Composite(
            {
                "action_mask": Binary(len(ACTIONS), dtype=torch.bool),
                "invested": Binary(1, dtype=torch.float32),
                "log_change": Unbounded(1),
                "log_change_since_buy": Unbounded(1),
            }
        )
        self.action_spec = Categorical(len(ACTIONS))
        self.draws: dict[str, Value] = {"km": km, "kc": kc, "f": f, "y0": y0}
        self.declare(
            km=Parameter(km, low=-1, low_open=True),
            kc=Parameter(kc, low=-1, high=1, low_open=True, high_open=True),
            f=Parameter(f),
            y0=Parameter(y0, low=0, low_open=True),
        )

    def reset(self, *, config: dict[str, Any] | None = None) -> TensorDict:
        """Begin with new assets.

        Args:
            config: What km, kc, f and y0 are drawn from, at this reset and later ones; and `seed`, an integer, for the
                assets of this reset to be the same whenever it is given, whatever was drawn before.
        """
        config = dict(config or {})
        seed = config.pop("seed", None)
        draws = {**self.draws, **config}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.configure(draws)
        self.draws = draws
        zero = torch.zeros(self.num_envs, device=self.device)
        log_price = self.y0.log().expand(self.num_envs).clone()
        self.state = TensorDict(
            {
                "k": torch.zeros_like(zero, dtype=torch.int64),
                "invested": torch.zeros_like(zero, dtype=torch.bool),
                "log_price": log_price,
                "log_price_at_buy": log_price.clone(),
                "log_change": zero,
            },
            [self.num_envs],
        )
        return self._observe()

    def step(self, action: Tensor) -> TensorDict:
        """Trade at y[k] with actions `[N]`, then let the price move to y[k + 1]."""
        k, was_invested = self.state["k"], self.state["invested"]
        invested = (action == BUY) | (was_invested & (action == HOLD))
        log_price = self.state["log_price"]
        change = log_change(self.km, self.kc, self.f, k)
        self.state = TensorDict(
            {
                "k": k + 1,
                "invested": invested,
                "log_price": log_price + change,
                "log_price_at_buy": torch.where(was_invested, self.state["log_price_at_buy"], log_price),
                "log_change": change,
            },
            [self.num_envs],
        )
        return TensorDict({"obs": self._observe(), "rewards": change * invested}, [self.num_envs])

    def _observe(self) -> TensorDict:
        state = self.state
        invested = state["invested"]
        since_buy = (state["log_price"] - state["log_price_at_buy"]) * invested
        return TensorDict(
            {
                "action_mask": torch.stack([torch.ones_like(invested), ~invested, invested], dim=-1),
                "invested": invested.unsqueeze(-1).to(torch.float32),
                "log_change": state["log_change"].unsqueeze(-1),
                "log_change_since_buy": since_buy.unsqueeze(-1),
            },
            [self.num_envs],
        )
