"""Environments of other libraries, each imported only when it is used: Gymnasium, EnvPool, simulators of robots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rl8.env.adapters.envpool import PoolEnv
from rl8.env.adapters.gymnasium import VectorEnv, one_of
from rl8.env.adapters.manager import ManagerEnv
from rl8.env.adapters.opaque import OpaqueEnv
from rl8.env.base import Env


def wrap(env: Any, /, **options: Any) -> Wrapped:
    """Make what `Trainer` and `Algorithm` take in place of an environment class: `Trainer(wrap(my_vec_env))`.

    Args:
        env: An object with the interface of `gymnasium.vector.VectorEnv`, a pool of EnvPool, a simulator with the
            interface of mjlab's or Isaac Lab's environments, or a single Gymnasium environment; or a function that
            takes a number of environments and returns one of these. Evaluation takes place in the object itself, so
            that training begins new episodes afterwards; a function is called once more for it.
        **options: Keywords of the class that speaks to it: `autoreset` of `VectorEnv`, those of `ManagerEnv`.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(env, Env) or (isinstance(env, type) and issubclass(env, Env)):
        raise TypeError(f"{env!r} is an environment of rl8 already. Give its class as it is.")
    if hasattr(env, "step") and not isinstance(env, type):
        _class_for(env)
        return Wrapped(lambda _: env, int(getattr(_base(env), "num_envs", 1)), options)
    if not callable(env):
        raise TypeError(_unknown(env))
    return Wrapped(env, None, options)


class Wrapped:
    """Makes rl8's environments of another library's; see `wrap`.

    Attributes:
        max_num_envs: How many environments the wrapped object has; None for a function.
    """

    opaque = True

    def __init__(self, make: Callable[[int], Any], count: int | None, options: dict[str, Any]) -> None:
        self._make, self.max_num_envs, self._options = make, count, options

    def __call__(
        self, num_envs: int, /, horizon: int | None = None, *, device: torch.device | str | None = "cpu"
    ) -> Env:
        """Return `num_envs` environments.

        Raises:
            TypeError: If the wrapped function returns something unknown, or an option does not exist.
            ValueError: If there are more or fewer environments.
        """
        made = self._make(num_envs)
        cls = _class_for(made)
        env = cls(made if hasattr(_base(made), "num_envs") else one_of(made), horizon, device=device, **self._options)
        if env.num_envs != num_envs:
            what = "function that was wrapped made" if self.max_num_envs is None else "object that was wrapped has"
            raise ValueError(
                f"num_envs={num_envs}, but the {what} {env.num_envs} environments. Try num_envs={env.num_envs}, or "
                "wrap a function that makes as many as it is asked for: wrap(lambda n: gymnasium.make_vec(name, n))."
            )
        env.shared = env.shared or self.max_num_envs is not None
        return env


def _base(env: Any) -> Any:
    """Return a simulator without Gymnasium's wrappers."""
    base = getattr(env, "unwrapped", env)
    return base if hasattr(base, "episode_length_buf") else env


def _class_for(env: Any) -> Callable[..., OpaqueEnv]:
    """Return what speaks to an object, told by its attributes: libraries that are not used stay unimported."""
    if hasattr(_base(env), "episode_length_buf"):
        return ManagerEnv
    if hasattr(env, "async_reset"):
        return PoolEnv
    if hasattr(env, "single_observation_space") or (hasattr(env, "observation_space") and hasattr(env, "reset")):
        return VectorEnv
    raise TypeError(_unknown(env))


def _unknown(env: Any) -> str:
    return (
        f"{env!r} is no environment that can be wrapped. Accepted: what has the interface of "
        "gymnasium.vector.VectorEnv or gymnasium.Env, of EnvPool, of mjlab or of Isaac Lab, or a function that takes "
        "a number of environments and returns one. Try wrap(gymnasium.make_vec('CartPole-v1', 8))."
    )
