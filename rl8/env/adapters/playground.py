"""MuJoCo Playground: robots in JAX, many at once; its arrays and the policy's tensors share their memory (DLPack)."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from rl8.checks import check_choice, check_range, first_line, unknown
from rl8.data import FINAL_OBS, METRICS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.env.adapters.groups import chosen_groups, metric_name, observed_groups, plain, spec_of
from rl8.env.adapters.mujoco import cannot_draw, load_mujoco
from rl8.env.adapters.opaque import OpaqueEnv, check_installed, keywords, made_of
from rl8.kinds import as_text, dotted
from rl8.specs import Bounded, Nested

IMPLEMENTATIONS = ("jax", "warp")


class PlaygroundEnv(OpaqueEnv):
    """A task of MuJoCo Playground by its name.

    An episode that ended, by the task or after `episode_length` steps (a truncation), begins anew in the same step,
    and its true last observation is given. What a task reports as `state.metrics` is recorded as `env/...`. Seeds are
    the run's. JAX compiles a task once per process and number of environments, which takes most of a minute.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets; None if unknown.
        device: Where the simulator and the policy are.
        task: Its name, e.g. `CartpoleBalance`.
        config: Entries of the task's configuration to change, e.g. `{reward_config: {scales: {alive: 1}}}`.
        impl: `jax` or `warp`; None takes `jax` on a CPU, where it is many times as fast, and what the task is made for
            elsewhere.
        episode_length: Steps of an episode; None takes the task's own.
        full_reset: Whether an episode begins with numbers drawn anew; without, each environment begins as it did at the
            first reset, which is cheaper and what Playground's own training does.
        groups: Names of the observation groups that are observed; None takes the one for the policy, `state`. A single
            group is the observation itself, several are its entries. Tasks with one observation have none.
        render_mode: `rgb_array` for pictures, None for none.

    Raises:
        TypeError: If an entry of the configuration is of another type.
        ValueError: If Playground, the task, an entry or a group can't be found, or JAX can't use the device.
    """

    made_by = "env.config"

    # JAX's: states, ages [N], first states, key of random numbers, and what torch was lent or lent
    _state: Any
    _ages: Any
    _first: Any
    _key: Any
    _lent: Any

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        device: torch.device | str | None = "cpu",
        task: str = "CartpoleBalance",
        config: Mapping[str, Any] | None = None,
        impl: str | None = None,
        episode_length: int | None = None,
        full_reset: bool = True,
        groups: Sequence[str] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if impl is not None:
            check_choice("env.impl", impl, IMPLEMENTATIONS)
        if render_mode is not None:
            check_choice("env.render_mode", render_mode, ["rgb_array"])
        check_range(
            "env.episode_length", episode_length, 1, integer=True, optional=True, hint="env.episode_length=1000"
        )
        check_installed("mujoco_playground", "env=playground", "Type: pip install 'rl8[playground]'.")
        load_mujoco(drawing=render_mode is not None)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX takes most of a GPU for itself
        super().__init__(num_envs, horizon, device=device)
        changed = dict(dotted(keywords("env.config", config)))
        for name, value in {"impl": impl, "episode_length": episode_length}.items():
            if value is not None and changed.setdefault(name, value) != value:
                raise ValueError(
                    f"env.{name}={value}, but env.config={{{name}: {as_text(changed[name])}}}. Accepted: one of them. "
                    f"Try env.{name}=null."
                )
        self.task = _compiled(task, json.dumps(changed), str(self.device))
        self.full_reset = full_reset
        self.groups: list[str] | None = None
        with made_of(_asked(task, changed), lambda: "", "reset"):
            self._draw(0)
        if isinstance(self._state.obs, Mapping):
            self.groups = chosen_groups(self._state.obs, groups)
        elif groups is not None:
            raise ValueError(
                f"env.groups={as_text(groups)}: {task} observes one thing, without groups. Try env.groups=null."
            )
        self.observation_spec = spec_of(self._observed(self._state.obs))
        self.action_spec = Bounded(-1.0, 1.0, (self.task.env.action_size,))
        self._painter = _Painter(self.task.env.mj_model) if render_mode == "rgb_array" else None

    def begin(self, seed: int) -> Nested:
        """Start all environments anew."""
        self._draw(seed)
        return self._observed(self._state.obs)

    def begin_at_random_ages(self) -> None:
        """See `Env.begin_at_random_ages`."""
        ages = torch.randint(self.task.episode_length, (self.num_envs,), device=self.device, dtype=torch.int32)
        self._ages = self.task.take(ages)

    def step(self, action: Nested) -> TensorDict:
        """Take one step; the keys for ends are there only where something ended."""
        assert isinstance(action, Tensor)
        actions = self.task.take(action.detach().to(torch.float32).contiguous())
        state, self._ages, ends = self.task.step(self._state, self._ages, actions)
        over, terminated, truncated = (self._tensor(flags) for flags in ends)
        # What torch may still read stays until the next step, whose actions wait for it: JAX would use its memory anew.
        self._lent = (actions, state, ends)
        out: dict[str, Any] = {REWARDS: self._tensor(state.reward)}
        named = {metric_name(name): value for name, value in state.metrics.items()}
        if metrics := {name: self._tensor(value) for name, value in named.items() if name}:
            out[METRICS] = metrics
        if over.any():  # host sync: to reset all at every step would cost more
            out |= {TERMINATED: terminated, TRUNCATED: truncated, FINAL_OBS: self._observed(state.obs)}
            fresh = self._first
            if self.full_reset:
                self._key, fresh = self.task.reset(self._key, self.num_envs)
            else:
                fresh = state.replace(data=fresh.data, obs=fresh.obs)
            state, self._ages = self.task.begin_where(ends[0], fresh, state, self._ages)
        self._state = state
        out[OBS] = self._observed(state.obs)
        return TensorDict(out, batch_size=[self.num_envs], device=self.device)

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return a picture of one environment.

        Raises:
            NotImplementedError: If it was not made to draw.
        """
        return super().render(index) if self._painter is None else self._painter(self._state.data, index)

    @property
    def has_pictures(self) -> bool:
        """Whether it was made to draw."""
        return self._painter is not None

    def close(self) -> None:
        """Let go of what draws."""
        if self._painter is not None:
            self._painter.renderer.close()
            self._painter = None

    def _draw(self, seed: int) -> None:
        """Begin all episodes with random numbers from a seed."""
        self._key, self._state = self.task.reset(self.task.key(seed), self.num_envs)
        self._first = self._state
        self._ages = self.task.take(torch.zeros(self.num_envs, dtype=torch.int32, device=self.device))

    def _observed(self, obs: Any) -> Nested:
        if self.groups is None:
            return self._tensor(obs)
        return observed_groups(obs, self.groups, self.num_envs, self._tensor)

    def _tensor(self, array: Any) -> Tensor:
        return plain(from_dlpack(array), self.device)


@dataclass(frozen=True)
class _Task:
    """A task and its functions on arrays, compiled by JAX at their first use for each number of environments.

    Attributes:
        env: The task, one environment.
        episode_length: Steps after which an episode is truncated.
        key: Returns a key for JAX's random numbers from a seed.
        take: Returns a tensor as an array that shares its memory.
        reset: Takes a key and N; returns the next key and N first states.
        step: Takes states, ages `[N]` and actions `[N, A]`; returns the next states, their ages, and what ended, what
            terminated, what was truncated `[N]`.
        begin_where: Takes what ended, fresh states, states and ages; returns states and ages with the fresh ones there.
    """

    env: Any
    episode_length: int
    key: Callable[[int], Any]
    take: Callable[[Tensor], Any]
    reset: Callable[[Any, int], tuple[Any, Any]]
    step: Callable[[Any, Any, Any], tuple[Any, Any, Any]]
    begin_where: Callable[[Any, Any, Any, Any], tuple[Any, Any]]


@functools.lru_cache(maxsize=2)  # training and evaluation make the same task several times
def _compiled(task: str, changed: str, device: str) -> _Task:
    """Return a task.

    Args:
        task: Its name.
        changed: Entries of its configuration by dotted name, as JSON.
        device: Where it is, in torch's words.
    """
    import jax
    from jax import numpy as jnp

    place = _place(device)
    with jax.default_device(place):
        env, config = _load(task, json.loads(changed), on_cpu=place.platform == "cpu")
    episode_length, repeat = int(config.episode_length), int(config.get("action_repeat", 1))

    def reset(key: Any, num_envs: int) -> tuple[Any, Any]:
        key, drawn = jax.random.split(key)
        return key, jax.vmap(env.reset)(jax.random.split(drawn, num_envs))

    def step(state: Any, ages: Any, actions: Any) -> tuple[Any, Any, Any]:
        actions, reward, terminated = jnp.clip(actions, -1.0, 1.0), 0.0, False
        for _ in range(repeat):
            state = jax.vmap(env.step)(state.replace(done=jnp.zeros_like(state.done)), actions)
            # what comes after an end within one action counts no more
            reward, terminated = reward + jnp.where(terminated, 0.0, state.reward), terminated | (state.done > 0)
        state, ages = state.replace(reward=reward), ages + repeat
        truncated = (ages >= episode_length) & ~terminated
        return state, ages, (terminated | truncated, terminated, truncated)

    def begin_where(over: Any, fresh: Any, state: Any, ages: Any) -> tuple[Any, Any]:
        def chosen(new: Any, old: Any) -> Any:
            if old.shape[:1] != over.shape:  # Warp's buffers for all environments together
                return old
            return jnp.where(over.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.tree.map(chosen, fresh, state), jnp.where(over, 0, ages)

    return _Task(
        env,
        episode_length,
        lambda seed: jax.device_put(jax.random.PRNGKey(seed), place),
        jax.dlpack.from_dlpack,
        jax.jit(reset, static_argnums=1),
        jax.jit(step),
        jax.jit(begin_where),
    )


def _place(device: str) -> Any:
    """Return a device in JAX's words."""
    import jax

    wanted = torch.device(device)
    try:
        return jax.devices(wanted.type)[wanted.index or 0]
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"device={wanted.type}: JAX can't use it: {str(error).rstrip('.')}. Type: pip install 'jax[cuda12]' for a "
            "GPU, or try device=cpu."
        ) from error


def _load(task: str, changed: dict[str, Any], *, on_cpu: bool) -> tuple[Any, Any]:
    """Return a task and its configuration."""
    from mujoco_playground import registry

    if task not in registry.ALL_ENVS:
        raise ValueError(unknown("task in env.task", task, registry.ALL_ENVS))
    config = registry.get_default_config(task)
    known = dict(dotted(config.to_dict()))
    for name in changed:
        if name not in known:
            raise ValueError(unknown("entry of the task in env.config", name, known))
    asked = _asked(task, changed)
    if on_cpu and "impl" in known:
        changed = {"impl": "jax"} | changed
    for name, value in changed.items():
        try:
            config.update_from_flattened_dict({name: value})
        except TypeError as error:
            raise TypeError(f"env.config={{{name}: {value}}} does not fit {task}: {error}") from error
    _check_entries(dict(dotted(config.to_dict())), changed, known)
    with made_of(asked, lambda: ""):
        try:
            return registry.load(task, config=config), config
        except (subprocess.CalledProcessError, OSError) as error:
            raise ValueError(
                f"env.task={task} needs the models of mujoco_menagerie, which Playground fetches by git at first use, "
                f"and that failed: {str(error).rstrip('.')}. Try again with a network, or a task of the DM Control "
                "Suite, e.g. env.task=CartpoleBalance."
            ) from error


def _check_entries(config: Mapping[str, Any], changed: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Check entries of a task's configuration that Playground takes as they are.

    Args:
        config: All, by dotted name.
        changed: Those that were changed.
        usual: The task's own.

    Raises:
        ValueError: If one is out of range, or nothing that Playground does.
    """
    for name in ("episode_length", "action_repeat"):
        if name in config:
            check_range(f"env.config.{name}", config[name], 1, integer=True, hint=f"env.config.{name}={usual[name]}")
    if "impl" in changed:
        check_choice("env.config.impl", changed["impl"], IMPLEMENTATIONS)
    if {"sim_dt", "ctrl_dt"} <= config.keys():  # with less than one step of the physics nothing would move
        control, physics = config["ctrl_dt"], config["sim_dt"]
        check_range("env.config.sim_dt", physics, 0, low_open=True, hint=f"env.config.sim_dt={usual['sim_dt']}")
        check_range("env.config.ctrl_dt", control, physics, hint=f"env.config.ctrl_dt={physics}")
        steps = round(control / physics)
        if changed.keys() & {"sim_dt", "ctrl_dt"} and abs(steps * physics - control) > 1e-6 * control:
            raise ValueError(
                f"env.config.ctrl_dt={control} is no multiple of sim_dt={physics}, and would act as {steps * physics:g}"
                f". Accepted: whole steps of the physics. Try 'env.config={{ctrl_dt: {steps * physics:g}}}'."
            )


def _asked(task: str, changed: Mapping[str, Any]) -> str:
    """Return what was typed to name a task."""
    return f"env.task={task}" + (f", env.config={as_text(changed)}" if changed else "")


class _Painter:
    """Draws one environment of many.

    Args:
        model: MuJoCo's.

    Raises:
        ValueError: If MuJoCo can't draw on this machine.
    """

    def __init__(self, model: Any) -> None:
        import mujoco

        self.model, self.data = model, mujoco.MjData(model)
        try:
            self.renderer = mujoco.Renderer(model, height=240, width=320)
        except Exception as error:  # what a platform raises depends on its libraries
            raise ValueError(cannot_draw(first_line(error))) from error

    def __call__(self, data: Any, index: int) -> NDArray[np.uint8]:
        """Return a picture `[height, width, 3]`."""
        import mujoco

        for name in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
            getattr(self.data, name)[:] = np.asarray(getattr(data, name)[index]).reshape(getattr(self.data, name).shape)
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data)
        return np.asarray(self.renderer.render(), dtype=np.uint8)
