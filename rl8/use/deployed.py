"""A trained policy to act with, outside training: in a Gymnasium loop, a simulator, a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tensordict.base import TensorDictBase
from torch import Tensor

from rl8 import checkpoint
from rl8.calls import missing
from rl8.models import Model
from rl8.policy.policy import Policy
from rl8.runs import find
from rl8.specs import Spec
from rl8.use.doors import hand_out, read, read_mask
from rl8.use.memory import Memory
from rl8.use.straight import Straight, suits


def load_policy(
    run: str | Path, *, model: Model | None = None, device: str | torch.device = "cpu", allow: Sequence[str] = ()
) -> DeployedPolicy:
    """Return the policy of a run, to act with.

    Args:
        run: The run's folder, one of its files, its MLflow id, or `latest`.
        model: A model built as the trained one was; needed only if that was handed over ready-made.
        device: Where the policy shall live.
        allow: Modules that may be imported for the policy's classes, besides rl8's own and what is imported already.

    Raises:
        ValueError: If there is no such policy, or it does not fit the model.
    """
    return DeployedPolicy(checkpoint.load_policy(find(run, "policy").file, model=model, device=device, allow=allow))


class DeployedPolicy:
    """Acts on observations as they come; docs/policies.md shows the commonest uses.

    ```python
    policy = rl8.load_policy("latest")
    obs, _ = env.reset()
    while True:
        obs, reward, terminated, truncated, _ = env.step(policy.predict(obs))
        if terminated or truncated:
            obs, _ = env.reset()
            policy.reset()
    ```

    A policy with a recurrent state or windows of observations remembers between calls, for as many environments as the
    first call has observations. Tell it with `reset` where an episode begins anew; other policies don't mind.

    Args:
        policy: What was trained; it should be in evaluation mode.

    Attributes:
        policy: The same.
        observation_spec: What one observation is; entries that the value alone saw in training are no part of it.
        action_spec: What one action is.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.observation_spec: Spec = policy.spec_in_use
        self.action_spec: Spec = policy.action_spec
        self._remembers = policy.recurrent or bool(policy.views.windows)
        self._memory: Memory | None = None
        self._acted_for: int | None = None  # observations of the last call
        self._straight = Straight(policy) if suits(policy) else None

    @property
    def model(self) -> Model:
        """The trained network, e.g. to train it on: `Trainer(env, model=policy.model)`."""
        return self.policy.model

    def predict(self, obs: Any, deterministic: bool = True) -> Any:
        """Return the action for one observation, or for each of n.

        Args:
            obs: One observation, or n with a leading dimension: NumPy, tensors or lists; for a Composite spec a
                dictionary of these or a TensorDict. Numbers may be of another width than in training.
            deterministic: Whether to take the distribution's most probable action rather than to draw one, from
                torch's default generator.

        Returns:
            Actions in the environment's units and inside its bounds: NumPy for NumPy and lists, tensors on the same
            device for tensors, without a leading dimension for one observation; for Composite actions a dictionary,
            or a TensorDict for a TensorDict.

        Raises:
            TypeError: If `obs` is of another kind.
            ValueError: If its shape or keys are others, or there are as many observations as the policy remembers
                environments.
        """
        with torch.no_grad():
            if self.policy.model.critic_only and isinstance(obs, (Mapping, TensorDictBase)):
                obs = _without(obs, self.policy.model.critic_only)
            batch, form = read(obs, self.observation_spec, self.policy.device)
            self._acted_for = batch.shape[0]
            if self._straight is not None:
                assert isinstance(batch, Tensor)
                actions = self._straight(batch, deterministic)
            elif self._remembers:
                actions = self._recall(batch.shape[0]).act(batch, deterministic=deterministic)
            else:
                actions, _ = self.policy.choose(batch.unsqueeze(0), deterministic=deterministic)
            return hand_out(actions, form)

    __call__ = predict

    def reset(self, mask: Any = None) -> None:
        """Forget what was seen before, because episodes begin anew.

        Args:
            mask: `[n]` bools, True where one does, e.g. `terminated | truncated`; None forgets everything, also how
                many environments there were.

        Raises:
            TypeError: If `mask` holds no bools.
            ValueError: If it is not of one length with the observations.
        """
        if mask is None:
            self._memory = self._acted_for = None
            return
        begins = read_mask(mask, self._acted_for if self._memory is None else self._memory.n, self.policy.device)
        if self._memory is not None:
            self._memory.forget(begins)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say what to call instead of another library's method."""
            return missing(self, name, dict.fromkeys(("act", "forward", "get_action", "step"), "policy.predict(obs)"))

    def _recall(self, n: int) -> Memory:
        """Return the memory of n environments."""
        if self._memory is None:
            self._memory = Memory(self.policy, n)
        if self._memory.n != n:
            raise ValueError(
                f"obs holds {n} observation(s), and the policy remembers {self._memory.n} environment(s). Accepted: "
                f"{self._memory.n}. Call policy.reset() before acting in others."
            )
        return self._memory

    def __repr__(self) -> str:
        name = type(self.policy.model).__name__
        return f"DeployedPolicy({name}, {self.observation_spec} -> {self.action_spec}, {self.policy.device})"


def _without(obs: Any, names: Sequence[str]) -> Any:
    """Return an observation without some entries."""
    if isinstance(obs, TensorDictBase):
        return obs.exclude(*names)
    return {name: value for name, value in obs.items() if name not in names}
