"""Simulators that step thousands of robots as tensors through the interface that mjlab and Isaac Lab share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_range
from rl8.data import FINAL_OBS, METRICS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.env.adapters.groups import chosen_groups, metric_name, observed_groups, plain, spec_of
from rl8.env.adapters.opaque import OpaqueEnv
from rl8.specs import Bounded, Nested, Spec, Unbounded, as_spec


class ManagerEnv(OpaqueEnv):
    """Any object with the interface of mjlab's `ManagerBasedRlEnv` or Isaac Lab's `ManagerBasedRLEnv`, `DirectRLEnv`.

    A process has one simulator, so evaluation takes place in it and training begins new episodes afterwards.

    At a time limit these simulators return the observation after the reset, so that the value before the step is what
    a truncated episode bootstraps from (`algo.bootstrap=last_value`): what rsl_rl does. `ends_by_hand` asks for the
    true last observation where the simulator can leave the reset to its caller. What they log of episodes and curricula
    is recorded as `env/...`.

    Args:
        sim: The simulator, or a wrapper around it.
        horizon: Steps between resets; None if unknown.
        device: Where the policy is; the simulator should be there too, else everything is copied.
        groups: Names of the observation groups that are observed; None takes the one for the policy. A single group
            is the observation itself, several are its entries.
        clip_actions: Limit on the size of every action; None has no limit.
        ends_by_hand: Whether ended episodes are reset from here; see above.

    Raises:
        TypeError: If the action space has no counterpart.
        ValueError: If there is no such group, or a limit is not above 0.
    """

    shared = True

    def __init__(
        self,
        sim: Any,
        /,
        horizon: int | None = None,
        *,
        device: torch.device | str | None = "cpu",
        groups: Sequence[str] | None = None,
        clip_actions: float | None = None,
        ends_by_hand: bool = False,
    ) -> None:
        check_range("env.clip_actions", clip_actions, 0, low_open=True, optional=True, hint="env.clip_actions=100.0")
        self.base = getattr(sim, "unwrapped", sim)
        super().__init__(int(self.base.num_envs), horizon, device=device)
        self.sim, self.clip_actions = sim, clip_actions
        self.has_final_obs = self.ends_by_hand = ends_by_hand
        if ends_by_hand:
            self.base.cfg.auto_reset = False
        first, _ = sim.reset()
        self.groups = chosen_groups(first, groups)
        self.observation_spec = spec_of(self._observed(first))
        self.action_spec = self._spec_of_actions()

    def begin(self, seed: int) -> Nested:
        """Start all environments anew."""
        obs, extras = self.sim.reset(seed=seed)
        self.metric_names |= self._reported(extras, torch.ones(1, dtype=torch.bool)).keys()
        return self._observed(obs)

    def begin_at_random_ages(self) -> None:
        """See `Env.begin_at_random_ages`."""
        ages = torch.randint(int(self.base.max_episode_length), (self.num_envs,), device=self.device)
        self.base.episode_length_buf = ages.to(self.base.episode_length_buf)

    def step(self, action: Nested) -> TensorDict:
        """Take one step; the simulator resets what ended, unless that is done by hand."""
        if self.clip_actions is not None and isinstance(action, Tensor):
            action = action.clamp(-self.clip_actions, self.clip_actions)
        result, rewards, terminated, truncated, extras = self.sim.step(action)
        terminated, truncated = terminated.bool(), truncated.bool()
        if getattr(self.base.cfg, "is_finite_horizon", False):  # the task's time limit is an end like any other
            terminated, truncated = terminated | truncated, torch.zeros_like(truncated)
        out: dict[str, Any] = {}
        if self.ends_by_hand:
            out[FINAL_OBS] = self._observed(result)
            rows = (terminated | truncated).nonzero().flatten()  # host sync: the simulator wants numbers
            if len(rows):
                result, extras = self.sim.reset(env_ids=rows)
        out |= {
            OBS: self._observed(result),
            REWARDS: rewards.to(self.device, torch.float32),
            TERMINATED: terminated.to(self.device),
            TRUNCATED: truncated.to(self.device),
        }
        if metrics := self._reported(extras, terminated | truncated):
            out[METRICS] = metrics
        return TensorDict(out, batch_size=[self.num_envs], device=self.device)

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the simulator's picture; which environment it shows is the simulator's choice.

        Raises:
            NotImplementedError: If it was not made to draw.
        """
        picture = self.sim.render() if self.has_pictures else None
        return super().render(index) if picture is None else np.asarray(picture, dtype=np.uint8)

    @property
    def has_pictures(self) -> bool:
        """Whether the simulator was made to draw."""
        return getattr(self.sim, "render_mode", None) == "rgb_array"

    def close(self) -> None:
        """End the simulator."""
        self.sim.close()

    def _observed(self, groups: Mapping[str, Any]) -> Nested:
        """Return a copy of what is observed: simulators write the next step's to the same place."""
        return observed_groups(groups, self.groups, self.num_envs, lambda group: plain(group, self.device, copy=True))

    def _reported(self, extras: Mapping[str, Any], ended: Tensor) -> dict[str, Tensor]:
        """Return the numbers `[N]` that a simulator logs of what it reset; NaN where no episode `ended`.

        Isaac Lab gives the same numbers again at every step until its next reset.
        """
        found: dict[str, Tensor] = {}
        news = torch.where(ended.any().to(self.device), 1.0, torch.nan)
        for key, value in (extras.get("log") or {}).items():
            name = metric_name(key)
            is_number = isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
            if is_number and name is not None:
                number = torch.as_tensor(value, dtype=torch.float32, device=self.device).reshape(())
                found[name] = (number * news).expand(self.num_envs)
        return found

    def _spec_of_actions(self) -> Spec:
        space = self.base.single_action_space
        if not (hasattr(space, "low") and hasattr(space, "shape")):
            return as_spec(space)
        shape = torch.Size(space.shape)
        if self.clip_actions is None:
            return Unbounded(shape)
        return Bounded(-self.clip_actions, self.clip_actions, shape)
