"""What an environment is: many independent copies of a simulation, stepped together as tensors on one device."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_range, unknown
from rl8.env.parameters import Parameter, check_derived
from rl8.env.validation import validate
from rl8.specs import Nested, Spec, as_spec

ObservationSpec = TypeVar("ObservationSpec", bound=Spec)
ActionSpec = TypeVar("ActionSpec", bound=Spec)


class Env(ABC):
    """N independent environments that are simulated together.

    A subclass sets `observation_spec` and `action_spec` in its constructor and defines `reset` and `step`; `render` is
    optional. It may hand in Gymnasium spaces or TorchRL specs. `validate` checks the whole contract.

    The state rule: everything that changes from step to step is in `state`, and nothing else does. Random numbers come
    from torch's default generators (`torch.rand(..., device=self.device)`). A step that never looks at values on the
    host (`.item()`, `if tensor:`, boolean-mask indexing) can be replayed as a CUDA graph.

    Physical constants that users may vary are declared with `declare`; they then are tensor attributes that
    `configure` (called from `reset`) sets to one number or one per environment. What a reset draws for a whole episode
    may lie beside the state: best as a tensor attribute, or as a number, in a list, a dictionary or a module.

    Attributes:
        max_horizon: Class limit on steps between resets, or None.
        max_num_envs: Class limit on the number of environments, or None.
        opaque: Whether the environments step on their own and keep a state that can't be read: another library's, or a
            simulator. What follows: `state` is empty, `validate` takes each step once, no CUDA graph captures a
            rollout, `horizons_per_env_reset` is negative, and a resumed run begins new episodes, so that it is not
            exactly the unbroken one. What a step returns may be overwritten by the next one, as everywhere.
        shared: Whether evaluation takes place in the training environments, because a process can't have others;
            training then begins new episodes.
        num_envs: N, the number of environments.
        horizon: Steps that the user means to take between resets, or None.
        device: Where state, observations and rewards live.
        state: Everything that changes from step to step; a tensor or TensorDict of any shape, set by `reset`.
        parameters: The declared physical constants by name: first values and ranges.
        begins_anew: Whether the class makes sure that a new episode begins where one ended.
        has_ends: Whether episodes end (`"terminated"`, `"truncated"`). `validate` finds it out from a few steps; a
            class that reports ends at some steps only sets it to True.
        truncates: Whether a time limit ends episodes (`"truncated"`); found out and set like `has_ends`.
        has_final_obs: Whether a step that reports `"truncated"` gives `"final_obs"`. A class that only has the
            observation after the reset sets it to False: the value before the step then stands for the final one.
        steps_between_truncations: Steps from one truncation of an environment to its next at least; None if unknown. A
            CUDA graph then keeps fewer final observations.
        metric_names: What a step reports in `"metrics"`, as `validate` found it.
        drawn: Paths of what a reset draws beside the state, as `validate` found them.
        resets: How often opaque environments began anew; training follows where something else reset them.

    Args:
        num_envs: Number of environments, >= 1.
        horizon: Steps between resets, >= 1; None if unknown.
        device: Where everything lives.

    Raises:
        TypeError: If a count is no integer.
        ValueError: If a count is below 1 or above the class limit.
    """

    max_horizon: ClassVar[int | None] = None
    max_num_envs: ClassVar[int | None] = None
    begins_anew: ClassVar[bool] = False
    has_ends: bool = False
    truncates: bool = False
    has_final_obs: bool = True
    metric_names: frozenset[str] = frozenset()
    drawn: frozenset[str] = frozenset()

    steps_between_truncations: int | None = None
    opaque: bool = False
    shared: bool = False
    resets: int = 0

    num_envs: int
    horizon: int | None
    device: torch.device
    state: Nested

    def __init__(
        self, num_envs: int, /, horizon: int | None = None, *, device: torch.device | str | None = "cpu"
    ) -> None:
        limit = type(self)
        check_range("num_envs", num_envs, 1, limit.max_num_envs, integer=True, hint="num_envs=1")
        check_range("horizon", horizon, 1, limit.max_horizon, integer=True, optional=True, hint="horizon=1")
        self.num_envs = num_envs
        self.horizon = horizon
        self.device = torch.device(device or "cpu")
        self.parameters: dict[str, Parameter] = {}
        self._deriving: list[str] | None = None  # what `derive` has assigned, while it runs
        for name in ("observation_spec", "action_spec"):  # set on the class, or before this constructor ran
            if (spec := getattr(self, f"_{name}", None)) is not None:
                setattr(self, name, spec)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take specs that are class attributes through the same door as those set in a constructor."""
        super().__init_subclass__(**kwargs)
        for name in ("observation_spec", "action_spec"):
            spec = cls.__dict__.get(name)
            if spec is not None and not hasattr(spec, "__get__"):
                setattr(cls, f"_{name}", as_spec(spec))
                delattr(cls, name)

    @property
    def observation_spec(self) -> Spec:
        """Spec of one environment's observation, without batch dimension."""
        return self._spec("observation_spec")

    @observation_spec.setter
    def observation_spec(self, spec: Any) -> None:
        self._observation_spec = self._convert("observation_spec", spec)

    @property
    def action_spec(self) -> Spec:
        """Spec of one environment's action, without batch dimension."""
        return self._spec("action_spec")

    @action_spec.setter
    def action_spec(self, spec: Any) -> None:
        self._action_spec = self._convert("action_spec", spec)

    @abstractmethod
    def reset(self, *, config: dict[str, Any] | None = None) -> Nested:
        """Start all environments anew.

        Args:
            config: Settings to change, e.g. physical constants; settings that it does not name keep their values.

        Returns:
            Observations `[N, ...]` of `observation_spec`.
        """

    @abstractmethod
    def step(self, action: Any) -> TensorDict:
        """Advance all environments by one step.

        Args:
            action: Actions `[N, ...]` of `action_spec`.

        Returns:
            A TensorDict with batch size `[N]`: `"obs"` `[N, ...]`, `"rewards"` `[N]` or `[N, 1]`, and optionally
            `"terminated"` `[N]` and `"truncated"` `[N]` (bool; such an environment has already begun anew, and `"obs"`
            is its first observation), `"final_obs"` `[N, ...]` (the observation before the reset; needed with
            `"truncated"`, see `has_final_obs`) and `"metrics"`: a dictionary of numbers `[N]` by name, recorded as
            `env/<name>`, their mean over the horizon (NaN says nothing: an environment without news is left out of the
            mean).
            Where a library spends a step on beginning anew, whatever the action, `"filler"` `[N]` (bool) marks it: it
            is left out of the loss and of all statistics.
        """

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return a picture `[height, width, 3]` of one environment.

        Raises:
            NotImplementedError: If this class draws nothing.
        """
        name = type(self).__name__
        raise NotImplementedError(
            f"{name} has no pictures (asked for environment {index}). Define {name}.render(self, index=0) to return "
            "uint8 RGB [height, width, 3]; rl8.env.drawing.Canvas has lines, circles and rectangles."
        )

    @property
    def has_pictures(self) -> bool:
        """Whether `render` returns something."""
        return type(self).render is not Env.render

    @classmethod
    def made_to_draw(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return keywords of the constructor with which `render` has pictures, if that takes any."""
        return options

    def begin_at_random_ages(self) -> None:
        """After a reset, let each episode be as old as chance has it, so that not all are truncated together.

        Raises:
            ValueError: If ages can't be set here.
        """
        raise ValueError(
            f"algo.random_initial_ages=true: the ages of {type(self).__name__}'s episodes can't be set. Accepted: "
            "env=mjlab, env=isaaclab, env=playground, an EpisodicEnv with max_episode_steps, or an environment that "
            "defines begin_at_random_ages(self). Try algo.random_initial_ages=false."
        )

    def close(self) -> None:  # noqa: B027 (most environments hold nothing but tensors)
        """Let go of processes, windows and simulators; called at the end of a run, after which nothing else is."""

    def validate(self) -> None:
        """Check this environment against the contract and leave it reset; random number generators are restored.

        Raises:
            ValueError: If something breaks the contract; the message names class, attribute and mend.
        """
        validate(self, Env)

    def check_hooks(self) -> None:  # noqa: B027 (for classes that define hooks of their own)
        """Raise ValueError where a subclass's hooks return something else than they should; `validate` calls it."""

    def declare(self, **parameters: Parameter) -> None:
        """Make physical constants: each a tensor attribute of its name, 0-d or `[N]`.

        Call it once, with all of them, because `derive` runs at its end.

        Raises:
            TypeError: If a value is no number, sequence of numbers, tensor or mapping.
            ValueError: If a value is out of its range.
        """
        self.parameters.update(parameters)
        self._set({name: parameter.value for name, parameter in parameters.items()}, "env")

    def configure(self, config: Mapping[str, Any] | None) -> None:
        """Set the physical constants that `config` names: a number, one per environment, or `{low, high}` to draw.

        Raises:
            TypeError: If a value is no number, sequence of numbers, tensor or mapping.
            ValueError: If a name is unknown or a value is out of its range.
        """
        if not config:
            return
        for name in config:
            if name not in self.parameters:
                fault = unknown(f"setting of {type(self).__name__}.reset()", str(name), self.parameters)
                advice = "Give one of these, or define what it does in reset()."
                raise ValueError(f"{fault} {advice if self.parameters else 'What reset() takes besides, it defines.'}")
        self._set(config, "env_config")

    def check_constants(self, constants: Mapping[str, Tensor], origin: str) -> None:  # noqa: B027 (as below)
        """Raise ValueError where physical constants contradict each other; called before any is changed.

        Args:
            constants: All of them by name, as they would be: 0-d or `[N]`. `parameters.check_order` compares them.
            origin: What the user's keys begin with: `"env"`, or `"env_config"` at a reset.
        """

    def derive(self) -> None:  # noqa: B027 (a hook that most environments leave empty)
        """Recompute what depends on the physical constants; called after each change. Store it with `assign`."""

    def assign(self, name: str, value: Tensor) -> None:
        """Set a tensor attribute, in place where the shape stays: a captured CUDA graph then reads the new values."""
        if self._deriving is not None:
            self._deriving.append(name)
        old = getattr(self, name, None)
        if isinstance(old, Tensor) and old.shape == value.shape and old.dtype == value.dtype:
            old.copy_(value)
        else:
            setattr(self, name, value)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the constructor's defaults by name."""
        parameters = inspect.signature(cls).parameters.values()
        return {parameter.name: parameter.default for parameter in parameters}

    def number(self, name: str, index: int) -> float:
        """Return a physical constant of one environment, for drawing."""
        tensor = getattr(self, name)
        return float(tensor[index] if tensor.ndim else tensor)  # host sync: drawing is off the hot path

    def _set(self, values: Mapping[str, Any], origin: str) -> None:
        tensors = {  # all of them before any is stored: a mistake in one leaves the environment as it was
            name: self.parameters[name].tensor(f"{origin}.{name}", value, self.num_envs, self.device)
            for name, value in values.items()
        }
        present = {name: getattr(self, name) for name in self.parameters if name not in tensors}
        self.check_constants(present | tensors, origin)
        for name, tensor in tensors.items():
            self.assign(name, tensor)
        names: list[str] = []
        self._deriving = names
        self.derive()
        self._deriving = None
        if self.device.type != "meta":  # where tensors have no values
            derived = {name: getattr(self, name) for name in names}
            check_derived(derived, tensors, origin=origin, defaults=self.defaults())

    def _spec(self, name: str) -> Spec:
        spec = self.__dict__.get(f"_{name}")
        if not isinstance(spec, Spec):
            cls = type(self).__name__
            raise AttributeError(
                f"{cls} has no {name}. Set it in {cls}.__init__, after super().__init__(...), "
                f"e.g. self.{name} = rl8.specs.Unbounded(4)."
            )
        return spec

    def _convert(self, name: str, spec: Any) -> Spec:
        try:
            converted = as_spec(spec)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.{name}: {error}") from error
        device = self.__dict__.get("device", converted.device)
        return converted if converted.device == device else converted.to(device)


class GenericEnv(Env, Generic[ObservationSpec, ActionSpec]):
    """`Env` with the kinds of its specs written in the class's type, e.g. `GenericEnv[Unbounded, Categorical]`."""


class EnvFactory(Protocol):
    """Anything that makes an environment: a class, or a function with the same arguments."""

    def __call__(
        self, num_envs: int, /, horizon: int | None = None, *, device: torch.device | str | None = "cpu"
    ) -> Env:
        """Return `num_envs` environments."""
        ...
