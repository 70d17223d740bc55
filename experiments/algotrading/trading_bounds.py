"""What can be earned from given price changes: the best in hindsight, the best without it, and simple rules.

Everything here works on `changes` `[T, N]`, the log price changes of N environments: `changes[k]` is what a position
held after action k earns. A strategy is `invested` `[T, N]`, bool: whether it is invested after action k. The action
mask allows every such sequence (buy or hold when not invested, sell or hold when invested) and trading is free, so that
the steps can be decided one by one.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from algotrading import AlgoTrading, log_change
from torch import Tensor

GRID = 2000  # points of each integral


def price_changes(env: AlgoTrading, steps: int) -> Tensor:
    """Return the log price changes `[steps, N]` that follow the environments' last reset."""
    k = torch.arange(steps, device=env.device).unsqueeze(1)
    return log_change(env.km, env.kc, env.f, k).expand(steps, env.num_envs)


def returns(changes: Tensor, invested: Tensor) -> Tensor:
    """Return what a strategy earns in each environment, `[N]`."""
    return (changes * invested).sum(0)


def hindsight(changes: Tensor) -> Tensor:
    """Return the best strategy for one who knows all changes: invested exactly while the price rises."""
    return changes > 0


def best_return(changes: Tensor) -> Tensor:
    """Return the best possible return in each environment, `[N]`."""
    return returns(changes, hindsight(changes))


def buy_and_hold(changes: Tensor) -> Tensor:
    """Return the strategy that is always invested."""
    return torch.ones_like(changes, dtype=torch.bool)


def follow(changes: Tensor) -> Tensor:
    """Return the strategy that is invested if the last change was a rise."""
    return torch.cat([torch.zeros_like(changes[:1]), changes[:-1]]) > 0


def extrapolate(changes: Tensor) -> Tensor:
    """Return the strategy that is invested if the line through the last two changes goes on above zero."""
    seen = torch.cat([torch.zeros_like(changes[:2]), changes[:-1]])
    return 2 * seen[1:] - seen[:-1] > 0


def random(changes: Tensor) -> Tensor:
    """Return the strategy that draws one of the two allowed actions with equal chances."""
    # Whatever the position was: one of the two actions leads to being invested, the other does not.
    return torch.rand_like(changes) < 0.5


def causal(changes: Tensor, draws: Mapping[str, Any]) -> Tensor:
    """Return the strategy with the best mean return among those that know only past changes and how they are drawn.

    It is invested where the expected change, given all that was seen, is positive. The first change shows km, because
    sin(f 0) = 0; the second kc sin(f); the third kc sin(2 f), and with it everything. So up to three decisions are made
    under uncertainty, by integrals over what is still unknown, and all later ones in full knowledge.

    Args:
        changes: `[T, N]`, T >= 3.
        draws: Ranges `{"km": {"low": ..., "high": ...}, "kc": ..., "f": ...}` that the environments draw from, with
            kc > 0 and f in (0, pi).

    Raises:
        ValueError: If kc or f may lie outside.
    """
    km, kc, f = (_midpoints(**draws[name], device=changes.device) for name in ("km", "kc", "f"))
    if draws["kc"]["low"] <= 0 or draws["f"]["low"] <= 0 or draws["f"]["high"] >= math.pi:
        raise ValueError(f"draws={draws} can't be told apart after three changes. Accepted: kc > 0 and 0 < f < pi.")
    drift, second = changes[0], torch.expm1(changes[1] - changes[0])  # log(1 + km), kc sin(f)
    cycle = torch.log1p(kc.unsqueeze(1) * torch.sin(f)).mean()
    # Density of f given kc sin(f) = second: kc is uniform, so that d(kc) / d(second) = 1 / sin(f) remains.
    needed = second.unsqueeze(1) / torch.sin(f)  # [N, GRID] the kc that goes with each f
    weights = ((needed >= draws["kc"]["low"]) & (needed <= draws["kc"]["high"])) / torch.sin(f)
    third = torch.log1p(2 * second.unsqueeze(1) * torch.cos(f))  # sin(2 f) = 2 sin(f) cos(f)
    expected = (weights * third).sum(1) / weights.sum(1).clamp(min=1e-9)  # rounding may leave no point of the grid
    first = torch.log1p(km).mean().expand_as(drift) > 0
    return torch.cat([torch.stack([first, drift + cycle > 0, drift + expected > 0]), changes[3:] > 0])


def _midpoints(low: float, high: float, device: torch.device) -> Tensor:
    """Return the middles of equal parts of an interval, `[GRID]`."""
    return low + (high - low) * (torch.arange(GRID, device=device) + 0.5) / GRID
