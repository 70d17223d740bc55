"""How good a policy is, in environments that training never touches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl8.env import Env
from rl8.env.making import make_env
from rl8.policy.policy import Policy
from rl8.rng import forked
from rl8.rollout.collect import collect
from rl8.rollout.metrics import Metrics, reward_metrics
from rl8.rollout.rollout import Rollout

# A picture of every step would make long films; more than this are thinned out evenly.
MAX_FRAMES = 120


class Evaluator:
    """Runs a policy in environments of its own.

    It leaves training alone: the training environment and rollout, the running statistics, the random numbers and the
    networks' mode are as before, also when an evaluation fails.

    Args:
        env_cls: Makes the environments.
        policy: What is evaluated.
        num_envs: Environments.
        horizon: Steps per environment.
        seq_len: As in training.
        seqs_per_state_reset: As in training.
    """

    def __init__(
        self,
        env_cls: Callable[..., Env],
        policy: Policy,
        *,
        num_envs: int,
        horizon: int,
        seq_len: int = 1,
        seqs_per_state_reset: int = -1,
    ) -> None:
        num_envs = min(num_envs, getattr(env_cls, "max_num_envs", None) or num_envs)
        self.policy = policy
        with _undisturbed(policy):  # a constructor may draw physical constants
            self.env = make_env(env_cls, num_envs, horizon, policy.device)
        num_envs = self.env.num_envs  # shared environments are as many as there are
        self.rollout = Rollout(policy, num_envs, horizon, seq_len=seq_len, seqs_per_state_reset=seqs_per_state_reset)

    def check(self, config: dict[str, Any] | None) -> None:
        """Reset once, so that settings that the environment refuses are found before they are needed."""
        with _undisturbed(self.policy):
            self.env.reset(config=copy.deepcopy(config))

    def run(self, *, config: dict[str, Any] | None = None, deterministic: bool = True) -> Metrics:
        """Return metrics of one horizon from a reset: `returns/mean` and so on, 0-d tensors.

        Args:
            config: Settings for the environment's reset; those of earlier calls stay until others are given.
            deterministic: Whether actions are the distribution's mode rather than a sample.
        """
        self._play(config, deterministic, None)
        rollout = self.rollout
        return reward_metrics(rollout.rewards, rollout.weights) | rollout.env_metrics.means()

    def film(self, *, config: dict[str, Any] | None = None, deterministic: bool = True) -> list[NDArray[np.uint8]]:
        """Return pictures `[height, width, 3]` of the first environment over one horizon, at most `MAX_FRAMES`."""
        every = -(-self.rollout.horizon // MAX_FRAMES)
        frames: list[NDArray[np.uint8]] = []

        def record(t: int) -> None:
            if t % every == 0:
                frames.append(np.asarray(torch.as_tensor(self.env.render(0)).cpu()))

        self._play(config, deterministic, record)
        return frames

    def _play(self, config: dict[str, Any] | None, deterministic: bool, on_step: Callable[[int], None] | None) -> None:
        with _undisturbed(self.policy):
            self.rollout.start(self.env.reset(config=copy.deepcopy(config)))
            collect(self.env, self.policy, self.rollout, deterministic=deterministic, learns=False, on_step=on_step)


@contextmanager
def _undisturbed(policy: Policy) -> Iterator[None]:
    """Put the policy in evaluation mode with random numbers of its own, and restore both whatever happens."""
    training = {module: module.training for module in policy.modules()}
    policy.eval()
    try:
        with forked(policy.device):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
