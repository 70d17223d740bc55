"""Environments whose episodes end, without bookkeeping: time limits, final observations, and beginning anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_range
from rl8.data import FINAL_OBS, METRICS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.env.base import Env
from rl8.env.results import check_column, check_metrics, fail, leaves
from rl8.specs import Nested

Advanced = tuple[Nested, Tensor, Tensor] | tuple[Nested, Tensor, Tensor, Mapping[str, Tensor]]


class EpisodicEnv(Env):
    """An environment that crashes, reaches goals or runs out of time; each of the N copies begins anew by itself.

    A subclass sets its specs in its constructor, as any `Env`, and says three things, always of all N copies:

    - `begin()`: states at which new episodes begin,
    - `advance(state, action)`: the states after one step, the rewards, and which episodes that terminates,
    - `observe(state)`: observations of states.

    States are tensors or TensorDicts `[N, ...]` of the subclass's own; hooks take and return them and store nothing, so
    that the state rule is kept. `begin` is called at every step, and its states are taken where an episode has ended:
    which copies those are is never asked on the host, so that a rollout can be replayed as a CUDA graph.

    Attributes:
        max_episode_steps: Steps after which an episode is truncated, or None.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        max_episode_steps: Time limit of an episode in steps, >= 1; None for none.
        device: Where everything lives.

    Raises:
        TypeError: If a count is no integer.
        ValueError: If a count is below 1.
    """

    begins_anew: ClassVar[bool] = True
    has_ends: bool = True

    state: TensorDict

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        max_episode_steps: int | None = None,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        hint = "env.max_episode_steps=200"
        most = torch.iinfo(torch.int32).max
        check_range("env.max_episode_steps", max_episode_steps, 1, most, integer=True, optional=True, hint=hint)
        self.max_episode_steps = self.steps_between_truncations = max_episode_steps
        self.truncates = max_episode_steps is not None

    @abstractmethod
    def begin(self) -> Nested:
        """Return states `[N, ...]` at which new episodes begin, drawn with torch's default generator."""

    @abstractmethod
    def advance(self, state: Any, action: Any) -> Advanced:
        """Take one step in every environment.

        Args:
            state: States `[N, ...]`.
            action: Actions `[N, ...]` of `action_spec`.

        Returns:
            The next states `[N, ...]`, rewards `[N]`, which episodes end here for good `[N]` (bool: a crash, a goal;
            not the time limit), and optionally a dictionary of metrics `[N]`; see `Env.step`.
        """

    @abstractmethod
    def observe(self, state: Any) -> Nested:
        """Return observations `[N, ...]` of states `[N, ...]`."""

    @property
    def current(self) -> Any:
        """States `[N, ...]` as `begin` and `advance` return them, for drawing."""
        return self.state["state"]

    def reset(self, *, config: dict[str, Any] | None = None) -> Nested:
        """Begin new episodes everywhere; return observations `[N, ...]`."""
        self.configure(config)
        state = self.begin()
        self._keep(state, torch.zeros(self.num_envs, dtype=torch.int32, device=self.device))
        return self.observe(state)

    def step(self, action: Any) -> TensorDict:
        """Take one step; where that ends an episode, begin another."""
        state, rewards, terminated, *metrics = self.advance(self.current, action)
        steps, ended = self.state["steps"] + 1, terminated
        result: dict[str, Any] = {REWARDS: rewards, TERMINATED: terminated}
        obs = self.observe(state)
        if self.max_episode_steps is not None:
            result[TRUNCATED] = (steps >= self.max_episode_steps) & ~terminated
            result[FINAL_OBS] = obs
            ended = terminated | result[TRUNCATED]
        fresh = self.begin()
        self._keep(_where(ended, fresh, state), steps.masked_fill(ended, 0))
        result[OBS] = _where(ended, self.observe(fresh), obs)
        if metrics:
            result[METRICS] = dict(metrics[0])
        return TensorDict(result, [self.num_envs])

    def begin_at_random_ages(self) -> None:
        """See `Env.begin_at_random_ages`."""
        if self.max_episode_steps is None:
            raise ValueError(
                f"algo.random_initial_ages=true: episodes of {type(self).__name__} have no time limit. Try "
                "algo.random_initial_ages=false, or a limit, e.g. env.max_episode_steps=200."
            )
        self._keep(self.current, torch.randint_like(self.state["steps"], self.max_episode_steps))

    def check_hooks(self) -> None:
        """Raise ValueError where `begin` or `advance` returns another shape or type than is said there."""
        n = self.num_envs
        begun: Any = self.begin()
        mend = "Return states of all environments, the first dimension counting them."
        entries: dict[str, Any] = dict(leaves(begun))
        for path, leaf in entries.items():
            if not isinstance(leaf, Tensor) or leaf.shape[:1] != torch.Size([n]):
                found = f"of shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                fail(self, f"begin() returns a state{path} that is {found}, expected ({n}, ...)", mend)
        advanced: Any = self.advance(begun, self.action_spec.rand(n))
        if not isinstance(advanced, tuple) or len(advanced) not in (3, 4):
            found = f"a tuple of {len(advanced)}" if isinstance(advanced, tuple) else f"a {type(advanced).__name__}"
            fail(
                self,
                f"advance() returns {found}, expected a tuple of three or four",
                "Return state, rewards, terminated, and a dictionary of metrics if there are any.",
            )
        layouts = [
            {path: (tuple(leaf.shape), leaf.dtype) for path, leaf in leaves(state)} for state in (begun, advanced[0])
        ]
        if layouts[0] != layouts[1]:
            path = next(path for path in [*layouts[0], *layouts[1]] if layouts[0].get(path) != layouts[1].get(path))
            fault = f"advance() turns state{path} from {layouts[0].get(path)} into {layouts[1].get(path)}"
            fail(self, fault, "Return the same entries, shapes and dtypes from begin() and advance().")
        _, rewards, terminated, *metrics = advanced
        check_column(self, rewards, REWARDS, values=False, hook="advance()")
        check_column(self, terminated, TERMINATED, values=False, hook="advance()")
        if metrics:
            check_metrics(self, metrics[0], "advance()")

    def _keep(self, state: Nested, steps: Tensor) -> None:
        self.state = TensorDict({"state": state, "steps": steps}, [self.num_envs])


def _where(ended: Tensor, fresh: Any, old: Any) -> Nested:
    """Return `[N, ...]` the rows of `fresh` where `ended` `[N]`, those of `old` elsewhere."""
    if isinstance(fresh, Tensor):
        return torch.where(ended.reshape(-1, *[1] * (fresh.ndim - 1)), fresh, old)
    entries: dict[str, Any] = {str(key): _where(ended, fresh[key], old[key]) for key in fresh.keys()}  # noqa: SIM118
    return TensorDict(entries, batch_size=[len(ended)], device=fresh.device)
