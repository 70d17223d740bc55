"""JAX and MuJoCo Playground as far as they are called here, in NumPy: their signatures (0.10, 0.2), not their speed."""

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


@dataclasses.dataclass
class Data:
    """Has what a picture is drawn from, of `mjx.Data`."""

    qpos: Any
    qvel: Any
    mocap_pos: Any
    mocap_quat: Any


@dataclasses.dataclass
class State:
    """Has the fields of `mujoco_playground.State`."""

    data: Any
    obs: Any
    reward: Any
    done: Any
    metrics: Any
    info: Any

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


def tree_map(function, first, *others):
    if isinstance(first, Mapping):
        return {key: tree_map(function, first[key], *(other[key] for other in others)) for key in first}
    if dataclasses.is_dataclass(first):
        names = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{n: tree_map(function, *(getattr(tree, n) for tree in (first, *others))) for n in names})
    return function(first, *others)


def vmap(function):
    def mapped(*batches):
        n = len(batches[-1])
        rows = [function(*(tree_map(lambda leaf, i=i: leaf[i], batch) for batch in batches)) for i in range(n)]
        return tree_map(lambda *leaves: np.stack(leaves), *rows)

    return mapped


def devices(kind):
    if kind != "cpu":
        raise RuntimeError(f"Unknown backend {kind}. Available backends are ['cpu']")
    return [SimpleNamespace(platform=kind)]


def split(key, num=2):
    return np.random.default_rng(key).integers(2**31, size=(num, 2))


class Config:
    """Has the methods of `ml_collections.ConfigDict` that are called."""

    def __init__(self):
        self.entries = {"episode_length": 4, "impl": "warp", "scales": {"action": 1.0}}
        self.entries |= {"ctrl_dt": 0.02, "sim_dt": 0.01, "action_repeat": 1}

    def to_dict(self):
        return self.entries

    def update_from_flattened_dict(self, changes):
        for name, value in changes.items():
            *path, last = name.split(".")
            into = self.entries
            for part in path:
                into = into[part]
            if isinstance(value, str) and not isinstance(into[last], str):
                raise TypeError(f"Could not override field '{last}'")
            into[last] = value

    def get(self, name, default):
        return self.entries.get(name, default)

    @property
    def episode_length(self):
        return self.entries["episode_length"]


class Count:
    """Observes [a number drawn at reset, steps], pays the action, ends after an action of 1."""

    action_size = 1
    mj_model = SimpleNamespace(nq=1)
    grouped = False

    def __init__(self, config):
        self.config = config.entries
        if self.config["scales"]["action"] < 0:
            raise NotImplementedError("no negative scale")

    def reset(self, key):
        drawn = np.float32(key[0] / 2**31)
        metrics = {"reward/action": np.float32(0), "steps": np.float32(0)}
        zero = np.zeros(1, np.float32)
        data = Data(np.array([drawn, 0], np.float32), zero, zero, zero)
        return State(data, self._obs(data), np.float32(0), np.float32(0), metrics, {"steps": np.int32(0)})

    def step(self, state, action):
        assert state.done == 0
        data = dataclasses.replace(state.data, qpos=state.data.qpos + np.array([0, 1], np.float32))
        paid = np.float32(action[0] * self.config["scales"]["action"])
        metrics = {"reward/action": paid, "steps": np.float32(1)}
        info = {"steps": state.info["steps"] + np.int32(1)}
        return State(data, self._obs(data), paid, np.float32(action[0] >= 1), metrics, info)

    def _obs(self, data):
        return {"privileged_state": data.qpos, "state": data.qpos[1:]} if self.grouped else data.qpos


class GroupedCount(Count):
    """Observes the steps in `state`, and all of it in `privileged_state`."""

    grouped = True


class NeedsMenagerie(Count):
    """Fails where robots do without a network."""

    def __init__(self, config):
        raise subprocess.CalledProcessError(128, ["git", "clone"])


TASKS = {"Count": Count, "GroupedCount": GroupedCount, "Robot": NeedsMenagerie}


class Renderer:
    """Has the signature of `mujoco.Renderer`; paints the position."""

    fails = False

    def __init__(self, model, height, width):
        if self.fails:
            raise RuntimeError("no OpenGL context")
        self.shape, self.closed = (height, width, 3), False

    def update_scene(self, data):
        self.position = data.qpos[1]

    def render(self):
        return np.full(self.shape, self.position, dtype=np.uint8)

    def close(self):
        self.closed = True


def put_in_place(monkeypatch):
    """Put the stand-ins where their libraries would be imported from."""

    def module(name, **contents):
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    monkeypatch.setenv("MUJOCO_GL", "egl")  # else chosen when it draws
    module(
        "jax",
        numpy=np,
        random=SimpleNamespace(PRNGKey=lambda seed: np.array([0, seed]), split=split),
        tree=SimpleNamespace(map=tree_map),
        dlpack=SimpleNamespace(from_dlpack=np.from_dlpack),
        jit=lambda function, static_argnums=None: function,
        vmap=vmap,
        devices=devices,
        device_put=lambda array, device: array,
        default_device=lambda device: contextlib.nullcontext(),
    )
    registry = SimpleNamespace(
        ALL_ENVS=tuple(TASKS),
        get_default_config=lambda task: Config(),
        load=lambda task, config: TASKS[task](config),
    )
    module("mujoco_playground", registry=registry)
    module(
        "mujoco",
        MjData=lambda model: SimpleNamespace(**{n: np.zeros(2 if n == "qpos" else 1) for n in Data.__annotations__}),
        mj_forward=lambda model, data: None,
        Renderer=Renderer,
    )
