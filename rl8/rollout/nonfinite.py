"""Which number of a horizon went wrong first, once a result has turned out to be infinite or NaN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.env.results import NOT_FINITE, leaves
from rl8.rollout.rollout import Rollout


def first_nonfinite(rollout: Rollout) -> str | None:
    """Return in words which number of a horizon was the first to be infinite or NaN, and what to do; None if none was.

    An observation comes before what the policy made of it, that before the reward, and the final observation of an
    episode before the first of the next.
    """
    found: list[tuple[int, int, str]] = []
    for rank, (name, series, advice) in enumerate(_series(rollout)):
        bad = ~series.isfinite()
        bad = bad.flatten(2).any(-1) if bad.ndim > 2 else bad
        places = bad.nonzero()
        if len(places):
            t, n = places[0].tolist()  # host sync: training has failed
            value = series[t, n].flatten()
            shown = value[~value.isfinite()][0].item()
            text = f"{name} is {shown} at step {t} of {rollout.horizon} in environment {n}"
            found.append((t, rank, f"{text}. {advice}"))
    return min(found)[2] if found else None


def _series(rollout: Rollout) -> Iterator[tuple[str, Tensor, str]]:
    """Yield name, numbers `[T, N, ...]` or `[T + 1, N, ...]`, and advice, in the order in which a step makes them."""
    seen = rollout.obs[rollout.history :]
    for path, leaf in leaves(seen) if isinstance(seen, TensorDict) else [("", seen)]:
        if leaf.is_floating_point():
            yield f"The observation obs{path}", leaf, f"The environment returned it. {NOT_FINITE}"
    diverged = "Its observation is finite, so the policy has diverged. Try a lower learning rate, "
    diverged += "e.g. algo.optimizer.lr=1e-4, or algo.max_grad_norm=0.5."
    yield "The action's log-probability", rollout.logp, diverged
    yield "The policy's value", rollout.values, diverged
    yield "The reward", rollout.rewards, f"The environment returned it. {NOT_FINITE}"
    if rollout.final_values is not None and rollout.is_last is not None:
        final = torch.where(rollout.is_last, rollout.final_values, 0.0)
        yield "The value of a final observation (final_obs)", final, f"The environment returned that. {NOT_FINITE}"
