"""From what a user hands in to environments, or to the answer what to hand in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

import rl8.env
from rl8.checks import closest, is_mistake
from rl8.env.base import Env
from rl8.env.validation import CONSTRUCTOR, takes
from rl8.kinds import as_text, plain


def make_env(env_cls: Callable[..., Env], num_envs: int, horizon: int, device: torch.device) -> Env:
    """Return the environments that a class, or a function with the same arguments, makes.

    Raises:
        TypeError: If it is neither, does not take these arguments, or makes something else.
    """
    given: Any = env_cls
    if isinstance(given, Env):
        name = type(given).__name__
        raise TypeError(
            f"{name}({given.num_envs}) was given: environments that exist already. Pass the class, and how many there "
            f"are to be as an option: Trainer({name}, num_envs={given.num_envs})."
        )
    if isinstance(given, str):
        raise TypeError(f"The environment {given!r} was given as a text. {_class_advice(given)}")
    name = getattr(getattr(given, "func", given), "__name__", None) or repr(given)
    if isinstance(given, Mapping):
        raise TypeError(
            f"{name} was given for the environment. Accepted: a subclass of rl8.Env; options are given by name. Try "
            "Trainer(CartPole, gamma=0.99). What YAML files say is composed by the command line: rl8 env=cartpole."
        )
    if not callable(given) or (isinstance(given, type) and not issubclass(given, Env)):
        raise TypeError(
            f"{name} was given for the environment. Accepted: a subclass of rl8.Env, e.g. Trainer(CartPole), or a "
            "vector environment of another library: Trainer(rl8.env.adapters.wrap(vec))."
        )
    if not takes(given, num_envs, horizon, device=device):
        wanted = CONSTRUCTOR if isinstance(given, type) else CONSTRUCTOR.replace("__init__(self, ", f"{name}(")
        raise TypeError(f"{name} can't be called with (num_envs, horizon, device=...). Write {wanted}: ...")
    if isinstance(given, functools.partial):  # what environments do to their settings is no other's concern
        given = functools.partial(given.func, *given.args, **plain(given.keywords))
    varied = _varied(given)
    try:
        env = given(num_envs, horizon, device=device)
    except Exception as error:
        if varied and not is_mistake(error):
            raise TypeError(_one_number(name, varied)) from error
        raise
    if not isinstance(env, Env):
        raise TypeError(f"{given!r} made a {type(env).__name__}, which is no rl8.env.Env. Derive it from Env.")
    kept = [parameter.value for parameter in env.parameters.values()]
    varied = {name: value for name, value in varied.items() if not any(value is one for one in kept)}
    if varied:
        raise TypeError(_one_number(type(env).__name__, varied))
    return env


def _varied(given: Any) -> dict[str, Any]:
    """Return options that are several numbers where the constructor's default is one: declared constants alone vary."""
    if not isinstance(given, functools.partial):
        return {}
    defaults = {name: parameter.default for name, parameter in inspect.signature(given.func).parameters.items()}
    return {
        name: value
        for name, value in given.keywords.items()
        if isinstance(value, (list, tuple, Mapping)) and isinstance(defaults.get(name), (int, float))
    }


def _one_number(name: str, varied: Mapping[str, Any]) -> str:
    key, value = next(iter(varied.items()))
    return (
        f"env.{key}={as_text(value)} is of the wrong kind: {name} does not declare {key}, so that it can't differ "
        f"between environments. Accepted: one number. Or declare it: self.declare({key}=rl8.env.Parameter({key}))."
    )


def _class_advice(text: str) -> str:
    """Return how to pass the class that a text means."""
    found = {name: getattr(rl8.env, name) for name in rl8.env.__all__}
    classes = [name for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, Env)]
    name = closest(text, classes) or "CartPole"
    return f"Pass the class: from rl8.env import {name}; Trainer({name})."
