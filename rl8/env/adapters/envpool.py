"""EnvPool's environments: Atari, MuJoCo and others in C++ threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rl8.checks import closest
from rl8.env.adapters.arrays import with_rows
from rl8.env.adapters.gymnasium import VectorEnv
from rl8.env.adapters.opaque import check_installed, draw_seed
from rl8.specs import Nested


class PoolEnv(VectorEnv):
    """A pool of EnvPool.

    EnvPool would spend the step after an end on the reset, whatever the action. Here those that ended are reset at
    once, by their numbers, so that every step is a step and the last observation is the true one. A pool takes its
    seed only when it is made.

    Args:
        pool: Made with `env_type="gymnasium"` and a batch of all environments.
        horizon: Steps between resets; None if unknown.
        device: Where tensors shall be.

    Raises:
        TypeError: If a space has no counterpart.
        ValueError: If the pool returns a part of its environments at a time.
    """

    def __init__(self, pool: Any, /, horizon: int | None = None, *, device: torch.device | str | None = "cpu") -> None:
        if pool.config["batch_size"] != pool.config["num_envs"]:
            raise ValueError(
                f"batch_size={pool.config['batch_size']} of this pool differs from num_envs="
                f"{pool.config['num_envs']}: a step would return some environments only. Leave batch_size away."
            )
        super().__init__(pool, horizon, device=device, autoreset="disabled")

    def begin(self, seed: int) -> Nested:
        """Start all environments anew; the seed has no effect."""
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observed(self.vec.reset()[0])

    def _begin_anew(self, obs: Any, infos: Mapping[str, Any]) -> tuple[Any, Any]:
        rows = np.flatnonzero(self._ended)
        first, _ = self.vec.reset(rows.astype(np.int32))
        return obs, with_rows(obs, rows, _split(first, len(rows)))


class EnvPoolEnv(PoolEnv):
    """A task of EnvPool by its id.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets; None if unknown.
        device: Where the policy is; the environments run on the host.
        id: Its name, e.g. `Pong-v5`.
        kwargs: Keywords for `envpool.make`, e.g. `{num_threads: 8}`.

    Raises:
        TypeError: If a space has no counterpart.
        ValueError: If EnvPool or the task can't be found.
    """

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        device: torch.device | str | None = "cpu",
        id: str = "CartPole-v1",
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        check_installed("envpool", "env=envpool")
        import envpool

        if id not in (known := envpool.list_all_envs()):
            near = closest(id, known)
            guess = f" Did you mean env.id={near}?" if near else ""
            raise ValueError(f"env.id={id} is no task of EnvPool.{guess} `envpool.list_all_envs()` lists them.")
        options = {**(kwargs or {}), "env_type": "gymnasium", "num_envs": num_envs}
        pool = envpool.make(id, seed=draw_seed(), **options)
        super().__init__(pool, horizon, device=device)


def _split(batch: Any, n: int) -> list[Any]:
    """Return the rows of a batch, nested alike."""
    if isinstance(batch, Mapping):
        parts = {key: _split(part, n) for key, part in batch.items()}
        return [{key: part[row] for key, part in parts.items()} for row in range(n)]
    return [batch[row] for row in range(n)]
