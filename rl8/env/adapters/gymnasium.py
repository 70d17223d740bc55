"""Gymnasium's environments: one task by its id, or any vector environment."""

from __future__ import annotations

import copy
import ctypes.util
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict

from rl8.checks import check_choice, closest
from rl8.data import FILLER, FINAL_OBS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.env.adapters.arrays import Array, ToDevice, space_spec, to_host, with_rows
from rl8.env.adapters.mujoco import draw_without_screen
from rl8.env.adapters.opaque import OpaqueEnv, check_installed, keywords, made_of
from rl8.kinds import as_text, kinds_of
from rl8.specs import Nested

MODES = ("same_step", "next_step", "disabled")
VECTORIZATION = {"sync": "sync", "async": "async", "own": "vector_entry_point"}


class VectorEnv(OpaqueEnv):
    """Any object with the interface of `gymnasium.vector.VectorEnv`.

    All three ways of beginning anew are understood: in the same step (`final_obs` is taken from the infos), by a
    reset that is asked for here (`disabled`), and in the next step: that one, in which no action acts, is a `filler`
    and counts nowhere.

    Args:
        vec: The vector environment.
        horizon: Steps between resets; None if unknown.
        device: Where tensors shall be.
        autoreset: `same_step`, `next_step` or `disabled`; None believes `vec.metadata["autoreset_mode"]`.

    Raises:
        TypeError: If a space has no counterpart.
        ValueError: If it does not say how it begins anew, or there is no such way.
    """

    drawn_by = ("kwargs", "render_mode")
    named = "The vector environment"  # in messages

    def __init__(
        self,
        vec: Any,
        /,
        horizon: int | None = None,
        *,
        device: torch.device | str | None = "cpu",
        autoreset: str | None = None,
    ) -> None:
        super().__init__(int(vec.num_envs), horizon, device=device)
        self.vec = vec
        self.observation_spec = space_spec(vec.single_observation_space, observed=True)
        self.action_spec = space_spec(vec.single_action_space)
        self.autoreset = autoreset or _announced(vec)
        check_choice("autoreset", self.autoreset, MODES)
        if self.autoreset == "same_step":
            _keep_last(vec)
        self._to_device = ToDevice(self.device)
        self._ended: Array = np.zeros(self.num_envs, dtype=np.bool_)

    def begin(self, seed: int) -> Nested:
        """Start all environments anew."""
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)
        # what fails at the first reset was wrong from the start
        with made_of(self.named, lambda: "", "reset") if self.resets <= 1 else nullcontext():
            obs, _ = self.vec.reset(seed=seed)
            return self._observed(obs)

    def step(self, action: Nested) -> TensorDict:
        """Take one step; the keys for ends are there only where something ended."""
        obs, rewards, terminated, truncated, infos = self.vec.step(to_host(action, self.vec.single_action_space))
        filler, self._ended = self._ended, np.logical_or(terminated, truncated)
        out: dict[str, Any] = {REWARDS: self._to_device(rewards, torch.float32, REWARDS)}
        if self.autoreset == "next_step" and filler.any():
            out[FILLER] = self._to_device(filler, torch.bool, FILLER)
        if self._ended.any():
            final = obs
            if self.autoreset != "next_step":
                final, obs = self._begin_anew(obs, infos)
            if np.any(terminated):
                out[TERMINATED] = self._to_device(terminated, torch.bool, TERMINATED)
            if np.any(truncated):
                out[TRUNCATED] = self._to_device(truncated, torch.bool, TRUNCATED)
                out[FINAL_OBS] = self._observed(final, FINAL_OBS)
        out[OBS] = self._observed(obs)
        return TensorDict(out, [self.num_envs])

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return a picture of one environment, where the vector environment was made with `render_mode="rgb_array"`.

        Raises:
            NotImplementedError: If it has no pictures.
            ValueError: If the library can't draw them.
        """
        if not self.has_pictures:
            return super().render(index)
        with made_of(self.named, lambda: "", "drawn"):
            # MuJoCo's are turned upside down by strides below zero, which torch does not take
            return np.ascontiguousarray(self.vec.render()[index], dtype=np.uint8)

    @property
    def has_pictures(self) -> bool:
        """Whether the vector environment was made to draw."""
        return getattr(self.vec, "render_mode", None) == "rgb_array"

    def close(self) -> None:
        """End the vector environment and its processes."""
        self.vec.close()

    def _observed(self, obs: Any, key: str = OBS) -> Nested:
        return self._to_device.observation(obs, self.vec.single_observation_space, key)

    def _begin_anew(self, obs: Any, infos: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the last observations before the reset (of those that ended), and those to go on with."""
        rows = np.flatnonzero(self._ended)
        if self.autoreset == "same_step":
            return with_rows(obs, rows, [infos["final_obs"][row] for row in rows]), obs
        final = copy.deepcopy(obs)  # the reset may write to the same place
        return final, self.vec.reset(options={"reset_mask": self._ended.copy()})[0]


class GymnasiumEnv(VectorEnv):
    """A task of Gymnasium, or registered with it, by its id.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets; None if unknown.
        device: Where the policy is; the environments run on the host.
        id: Its name, e.g. `CartPole-v1`; `module:Name-v0` imports the module that registers it, `Space/Name-v0` asks an
            installed package that offers that namespace.
        kwargs: Keywords for the task, e.g. `{gravity: 3.7}`.
        vectorization: `sync` steps one environment after the other, `async` each in a process, `own` takes the task's
            own vectorized class.
        wrappers: Each a dotted name, or a mapping of `_target_` and keywords; classes for one environment, or derived
            from Gymnasium's `VectorWrapper` for all of them.

    Raises:
        TypeError: If a wrapper is no name of a class, or a space has no counterpart.
        ValueError: If Gymnasium, the task or a wrapper can't be found.
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
        vectorization: str = "sync",
        wrappers: Sequence[str | Mapping[str, Any]] = (),
    ) -> None:
        check_installed("gymnasium", "env=gymnasium")
        check_choice("env.vectorization", vectorization, VECTORIZATION)
        if isinstance(wrappers, (str, Mapping)):
            raise TypeError(
                f"env.wrappers={as_text(wrappers)} is no list. Accepted: dotted names, or mappings of _target_ and "
                f"keywords. Try env.wrappers=[{as_text(wrappers)}]."
            )
        given = keywords("env.kwargs", kwargs)
        super().__init__(_make(num_envs, id, given, vectorization, wrappers), horizon, device=device)
        self.named = _asked(id, given)


def one_of(env: Any) -> Any:
    """Return a vector environment of a single environment."""
    import gymnasium

    return gymnasium.vector.SyncVectorEnv(
        [lambda: env], autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP, copy=False
    )


def _keep_last(vec: Any) -> None:
    """Let last observations outlive the reset that follows them in the same step."""
    gymnasium, base = sys.modules.get("gymnasium"), getattr(vec, "unwrapped", vec)
    if gymnasium is not None and isinstance(base, gymnasium.vector.SyncVectorEnv):
        from rl8.env.adapters.wrappers import LastKept

        base.envs = [LastKept(env) for env in base.envs]


def _announced(vec: Any) -> str:
    """Return how a vector environment says that it begins anew."""
    mode = (getattr(vec, "metadata", None) or {}).get("autoreset_mode")
    if mode is None:
        raise ValueError(
            f"{type(vec).__name__} does not say how it begins anew after an end. Set metadata['autoreset_mode'], or "
            "give autoreset='same_step', 'next_step' or 'disabled' to rl8.env.adapters.wrap."
        )
    return str(getattr(mode, "name", mode)).lower()


def _make(
    num_envs: int, id: str, kwargs: dict[str, Any], vectorization: str, wrappers: Sequence[str | Mapping[str, Any]]
) -> Any:
    import gymnasium

    made = [_wrapper(f"env.wrappers.{index}", wrapper) for index, wrapper in enumerate(wrappers)]
    of_all = [build for cls, build in made if isinstance(cls, type) and issubclass(cls, gymnasium.vector.VectorWrapper)]
    of_one = [build for _, build in made if build not in of_all]
    if vectorization == "own" and of_one:
        raise ValueError(
            "env.vectorization=own has no single environments to wrap. Accepted: wrappers derived from "
            "gymnasium.vector.VectorWrapper, e.g. gymnasium.wrappers.vector.ClipReward. Try env.vectorization=sync."
        )
    options: dict[str, Any] = {}
    if vectorization != "own":
        if vectorization == "async":  # in its process; those in this one are wrapped with the rest
            from rl8.env.adapters.wrappers import LastKept

            of_one = [*of_one, LastKept]
        same_step = gymnasium.vector.AutoresetMode.SAME_STEP
        options = {"wrappers": of_one, "vector_kwargs": {"autoreset_mode": same_step, "copy": False}}
    # where EGL is not installed, Gymnasium tries what else may draw
    if kwargs.get("render_mode") == "rgb_array" and ctypes.util.find_library("EGL"):
        draw_without_screen()
    with made_of(_asked(id, kwargs), lambda: _hint(id, kwargs, vectorization)):
        let_register(id)
        vec = gymnasium.make_vec(id, num_envs, vectorization_mode=VECTORIZATION[vectorization], **options, **kwargs)
    modes = (getattr(vec, "metadata", None) or {}).get("render_modes", [])
    if kwargs.get("render_mode") not in (None, *modes):
        vec.close()
        raise ValueError(
            f"env.kwargs={{render_mode: {kwargs['render_mode']}}} is none that {id} has. Accepted: "
            f"{', '.join(map(str, modes)) or 'none'}. Try env.kwargs=null."
        )
    for build in of_all:
        vec = build(vec)
    return vec


def let_register(id: str) -> None:
    """Let the package of a namespace register its tasks, as its entry point offers; Gymnasium 1.4 asks none."""
    import gymnasium

    namespace, slash, _ = id.partition("/")
    if slash and not any(str(name).startswith(f"{namespace}/") for name in gymnasium.registry):
        for offered in importlib.metadata.entry_points(group="gymnasium.envs", name=namespace):
            offered.load()()


def _asked(id: str, kwargs: Mapping[str, Any]) -> str:
    """Return what was typed to name a task."""
    return f"env.id={id}" + (f", env.kwargs={as_text(kwargs)}" if kwargs else "")


def _hint(id: str, kwargs: Mapping[str, Any], vectorization: str) -> str:
    """Return what could be typed in place of a task that can't be made."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    known = [str(name) for name in gymnasium.registry]
    _, colon, name = id.rpartition(":")
    if name not in known:
        names = {each.rpartition("-v")[0] or each: each for each in known}  # the latest version of each
        near = None if "/" in name or colon else names.get(closest(name.rpartition("-v")[0] or name, names) or "")
        if near:
            return f" Did you mean env.id={near}?"
        elsewhere = "env.id=module:Name-v0, e.g. env.id=ale_py:ALE/Pong-v5 after pip install ale-py"
        package = id.partition(":")[0].partition(".")[0]
        if colon and package and importlib.util.find_spec(package) is None:
            return " It is looked for in the folder where the command is typed, and among what is installed."
        return "" if colon else f" A module that registers tasks is named before a colon: {elsewhere}."
    creator: Any = gymnasium.registry[name].entry_point
    try:
        taken = inspect.signature(load_env_creator(creator) if isinstance(creator, str) else creator).parameters
    except Exception:  # it may need what is not installed, which is what is wrong then
        return ""
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    if not open_ended and any(keyword not in taken for keyword in kwargs):
        return f" Accepted in env.kwargs: {', '.join(taken) or 'nothing'}. Try env.kwargs=null."
    return " Try env.vectorization=sync." if vectorization == "own" else ""


def _wrapper(key: str, wrapper: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the class that a wrapper names, and a function that applies it."""
    options = dict(wrapper) if isinstance(wrapper, Mapping) else {"_target_": wrapper}
    name = options.pop("_target_", None)
    module, _, attribute = str(name).rpartition(".")
    if not isinstance(name, str) or not module:
        near = attribute if hasattr(sys.modules["gymnasium"].wrappers, attribute) else "FlattenObservation"
        raise TypeError(
            f"{key}={as_text(wrapper)} is no wrapper. Accepted in the list: a dotted name, or {{_target_: name, "
            f"keyword: value}}. Try env.wrappers=[gymnasium.wrappers.{near}]."
        )
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key}={name} can't be found: {error}. Accepted: a class's dotted name.") from error
    if not callable(cls):
        raise TypeError(f"{key}={name} is no class but {cls!r}. Accepted: a wrapper's class by its dotted name.")

    options = _as_tuples(cls, options)

    def build(env: Any) -> Any:
        with made_of(f"{key}={as_text(wrapper)}", lambda: f" It takes {_keywords(cls)}."):
            return cls(env, **options)

    return cls, build


def _as_tuples(cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords with lists as tuples where a class says that it takes those: YAML has lists alone."""
    try:
        hints = typing.get_type_hints(cls.__init__)
    except Exception:  # names that are not there at run time
        return dict(options)

    def fitting(name: str, value: Any) -> Any:
        kinds = {typing.get_origin(kind) or kind for kind in kinds_of(hints.get(name, Any))}
        return tuple(value) if isinstance(value, list) and tuple in kinds and list not in kinds else value

    return {name: fitting(name, value) for name, value in options.items()}


def _keywords(cls: Any) -> str:
    """Return the keywords of a wrapper's class, those without a default first named as such."""
    try:
        parameters = list(inspect.signature(cls).parameters.values())[1:]
    except ValueError:  # written in C
        return "what its documentation says"
    named = [f"{each.name} (needed)" if each.default is each.empty else each.name for each in parameters]
    return ", ".join(named) or "no keywords"
