"""What a model is to the rest of rl8."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from rl8.kinds import first_arguments
from rl8.nn import MLP
from rl8.specs import Composite, Nested, Spec

# Arguments of a model's constructor that the policy gives: the first two by position, so under any name.
SPECS: Final = ("observation_spec", "action_spec")
FEATURE_SHAPES: Final = "feature_shapes"


class Output(NamedTuple):
    """What a model makes of observations.

    Attributes:
        features: What the distribution asks for, `[L, B, ...]` each; see `Distribution.feature_shapes`.
        values: `[L, B]` value estimates.
        state: Recurrent state after the last step, `[B, ...]`; None for a feedforward model.
    """

    features: Mapping[str, Any]
    values: Tensor
    state: Nested | None = None


class Model(nn.Module):
    """Base of all models: observations in, features and values out.

    A model sees sequences, time first: `obs` `[L, B, ...]` and the recurrent state at their start. While collecting,
    L is 1 and B the number of environments; in the update, L is `algo.seq_len`. State is an argument and a result,
    never an attribute. A feedforward model ignores it and treats L and B alike.

    To write one, subclass, build layers in `__init__(self, observation_spec, action_spec, **config)` and define
    `forward`. The constructor may also take `feature_shapes`, which says what the chosen distribution asks for.

    ```python
    class Tiny(Model):
        def __init__(self, observation_spec, action_spec, *, width=32):
            super().__init__(observation_spec, action_spec)
            self.trunk = nn.Sequential(nn.Linear(observation_spec.shape[0], width), nn.Tanh())
            self.logits, self.value = nn.Linear(width, action_spec.n), nn.Linear(width, 1)

        def forward(self, obs, state=None):
            h = self.trunk(obs)
            return Output({"logits": self.logits(h)}, self.value(h).squeeze(-1))
    ```

    A model whose policy and value share nothing can also define `act` and `value`; the rollout then computes values
    of all steps in one pass.

    On a CPU, several threads may compute pieces of a minibatch at once; a model whose forward pass draws random numbers
    or changes its buffers or attributes is recognised and computed piece after piece.

    Attributes:
        piece_size: Env steps that a thread of a CPU computes in one pass, >= 1. Larger pieces leave the caches, smaller
            ones cost more operations; the update's result is the same.
        windows: Length of the window by observation key, for models that look at the last W observations; what they
            see is described in `rl8.models.views.Views`.
        critic_only: Entries of a Composite observation that features do not depend on: acting needs none of them.
        state_spec: Recurrent state of one environment (its initial value is zeros); None for feedforward models.
    """

    piece_size: int = 2048
    _given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let models note what they are built with, so that a saved policy can build them again."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _noting(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, observation_spec: Spec, action_spec: Spec) -> None:
        super().__init__()
        self.observation_spec = observation_spec
        self.action_spec = action_spec
        self.windows: dict[str, int] = {}
        self.critic_only: tuple[str, ...] = ()
        self.state_spec: Composite | None = None

    def forward(self, obs: Nested, state: Nested | None = None) -> Output:
        """Return features, values and the state after the last step.

        Args:
            obs: `[L, B, ...]`.
            state: `[B, ...]` recurrent state before the first step; None for feedforward models.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(obs, state).")

    def act(self, obs: Nested, state: Nested | None = None) -> tuple[Mapping[str, Any], Nested | None]:
        """Return features and state only. Needs `value` as well."""
        raise NotImplementedError(f"{type(self).__name__} defines value() and so must define act(obs, state).")

    def value(self, obs: Nested) -> Tensor:
        """Return values `[L, B]` only. Feedforward models only."""
        raise NotImplementedError(f"{type(self).__name__} does not compute values on their own.")

    def inputs(self, obs: Nested) -> Tensor:
        """Return what `perceptrons` take, `[L, B, D]`, for observations `[L, B, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} has perceptrons and so must define inputs(obs).")

    @property
    def perceptrons(self) -> list[MLP]:
        """The MLPs that make up the model, if all of them take `inputs(obs)`: a CPU computes such models faster."""
        return []

    def built_with(self) -> dict[str, Any]:
        """Return what the model was built with, by the names of its constructor; what a `Policy` gives is left out."""
        args, kwargs = self._given
        names = list(inspect.signature(type(self)).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return {name: value for name, value in given.items() if name not in by_policy(type(self))}

    @property
    def has_value_pass(self) -> bool:
        """Whether values can be computed apart from the features."""
        return type(self).value is not Model.value and self.state_spec is None


def by_policy(cls: type[Model]) -> set[str]:
    """Return the arguments of a model's constructor that the policy gives, by the names that they have there."""
    return {*SPECS, *first_arguments(cls, len(SPECS)), FEATURE_SHAPES}


def _noting(init: Callable[..., None]) -> Callable[..., None]:
    """Return a constructor that notes its arguments, unless a subclass's has done so."""

    @functools.wraps(init)
    def noting(self: Model, *args: Any, **kwargs: Any) -> None:
        self.__dict__.setdefault("_given", (args, kwargs))
        init(self, *args, **kwargs)

    return noting
