"""EnvPool's environments: Atari, MuJoCo and others in C++ threads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from rl8.checks import check_range, closest, unknown
from rl8.env.adapters.arrays import with_rows
from rl8.env.adapters.gymnasium import VectorEnv
from rl8.env.adapters.opaque import check_installed, draw_seed, keywords, made_of
from rl8.kinds import as_text, convert
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
        with warnings.catch_warnings():
            # EnvPool gives the limits of float32 as float64, and Gymnasium says so for each: nobody could mend it
            noise = r".*Box (low|high)'s precision lowered by casting"
            warnings.filterwarnings("ignore", noise, UserWarning, r"gymnasium\.spaces\.box")
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

    made_by = "env.kwargs"

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
        typed = keywords("env.kwargs", kwargs)
        _check_keywords(id, typed)
        options = {**typed, "env_type": "gymnasium", "num_envs": num_envs}
        with made_of(f"env.id={id}" + (f", env.kwargs={as_text(typed)}" if typed else ""), lambda: ""):
            pool = envpool.make(id, seed=draw_seed(), **options)
        super().__init__(pool, horizon, device=device)
        self.named = f"env.id={id}"


def _check_keywords(id: str, given: Mapping[str, Any]) -> None:
    """Check keywords before EnvPool has them, which ends the process over some and overlooks others.

    Args:
        id: The task.
        given: What shall be set.

    Raises:
        TypeError: If a value is of another kind than the task's own.
        ValueError: If the task has no such keyword, it is one that is set here, or a number is out of range.
    """
    import envpool

    for name in ("num_envs", "env_type", "seed"):
        if name in given:
            says = {"num_envs": "algo.num_envs", "seed": "seed"}.get(name, "rl8 itself")
            raise ValueError(
                f"env.kwargs={as_text(given)}: {says} says {name}. Accepted: other keywords. Try env.kwargs=null."
            )
    config = envpool.make_spec(id).config
    usual = {**dict(zip(config._fields, config, strict=True)), "render_mode": None}
    for name, value in given.items():
        if name not in usual:
            raise ValueError(unknown("keyword in env.kwargs", name, list(usual)))
        key, default = f"env.kwargs.{name}", usual[name]
        if type(default) in (bool, int, float, str):
            given_as = convert(key, value, type(default), default)
            if name in ("num_threads", "max_episode_steps"):
                check_range(key, given_as, 0 if name == "num_threads" else 1, integer=True)


def _split(batch: Any, n: int) -> list[Any]:
    """Return the rows of a batch, nested alike."""
    if isinstance(batch, Mapping):
        parts = {key: _split(part, n) for key, part in batch.items()}
        return [{key: part[row] for key, part in parts.items()} for row in range(n)]
    return [batch[row] for row in range(n)]
