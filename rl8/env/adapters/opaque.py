"""What all environments that step on their own have in common."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict

from rl8.checks import is_mistake, place_of
from rl8.env.base import Env
from rl8.kinds import as_text
from rl8.specs import Nested


class OpaqueEnv(Env):
    """Environments of another library; see `Env.opaque` for what follows from it.

    A subclass defines `begin`, and `step` as every environment. What it returns may be overwritten by its next step.

    Attributes:
        resets: How often all environments began anew.
    """

    opaque = True
    has_ends = True
    truncates = True
    begins_anew = True
    # options that lead to the one that asks for pictures
    drawn_by: tuple[str, ...] = ("render_mode",)
    made_by: str | None = None  # key whose value says how the library makes it

    def __init__(
        self, num_envs: int, /, horizon: int | None = None, *, device: torch.device | str | None = "cpu"
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        self.state = TensorDict({}, batch_size=[num_envs], device=self.device)
        self.resets = 0

    @classmethod
    def made_to_draw(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Env.made_to_draw`."""
        made = dict(options)
        last, inner = cls.drawn_by[-1], made
        for name in cls.drawn_by[:-1]:
            inner[name] = dict(inner.get(name) or {})
            inner = inner[name]
        inner[last] = inner.get(last) or "rgb_array"
        return made

    @abstractmethod
    def begin(self, seed: int) -> Nested:
        """Start all environments anew with random numbers from a seed; return observations `[N, ...]`."""

    def reset(self, *, config: dict[str, Any] | None = None) -> Nested:
        """Start all environments anew, with a seed that comes from the run's.

        Raises:
            ValueError: If settings are given; these environments take theirs when they are made.
        """
        if config:
            other = f", or for training and evaluation '{self.made_by}={as_text(config)}'" if self.made_by else ""
            raise ValueError(
                f"env_config={as_text(config)} has no effect: {type(self).__name__} takes its settings when it is "
                f"made. Try env_config=null{other}."
            )
        self.resets += 1
        return self.begin(draw_seed())


def draw_seed() -> int:
    """Return a seed from torch's default generator, and so from the run's seed."""
    return int(torch.randint(2**31 - 1, ()))


def check_installed(package: str, key: str, advice: str | None = None) -> None:
    """Check that a library can be imported, without importing it.

    Args:
        package: Its name in Python.
        key: What the user chose, e.g. `"env=mjlab"`.
        advice: How to install it; by default with rl8's extra of its name.

    Raises:
        ValueError: If it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{key} needs the package {package}, which is not installed. "
            + (advice or f"Type: pip install 'rl8[{package}]'.")
        )


def keywords(key: str, given: Any) -> dict[str, Any]:
    """Return keywords that were given for a library's own class; none for None.

    Args:
        key: What they are called in messages.
        given: A mapping, or None.

    Raises:
        TypeError: If it is something else.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{key}={as_text(given)} is no mapping. Accepted: {{name: value}}, or null. Try {key}=null.")
    return dict(given or {})


@contextmanager
def made_of(what: str, hint: Callable[[], str], done: str = "made") -> Iterator[None]:
    """Name, whatever a library raises as it makes something in the block, the keys that it is made of.

    Args:
        what: Keys and values.
        hint: Returns sentences that are added.
        done: What is done with it in the block.

    Raises:
        ValueError: In place of what was raised, with its words, and the line of a file of the user's own.
    """
    try:
        yield
    except Exception as error:
        if is_mistake(error) and str(error).startswith("env."):
            raise
        own = isinstance(error, (ImportError, TypeError, ValueError)) or type(error).__module__.startswith("gymnasium")
        said = str(error) if own else f"{type(error).__name__}: {error}"
        said = said.rstrip(".") + place_of(error)
        raise ValueError(f"{what} can't be {done}: {said}{'' if said.endswith('?') else '.'}{hint()}") from error
