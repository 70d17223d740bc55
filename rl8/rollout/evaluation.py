"""How good a policy is, in environments that training never touches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict

from rl8.data import EVAL_EPISODES, REWARDS, SPREAD, TERMINATED, TRUNCATED
from rl8.env import Env
from rl8.env.making import make_env
from rl8.policy.policy import Policy
from rl8.rng import forked
from rl8.rollout.collect import collect
from rl8.rollout.containers import Tensors, named
from rl8.rollout.env_metrics import EnvMetrics
from rl8.rollout.metrics import Metrics, reward_metrics
from rl8.rollout.rollout import Rollout

#: `[height, width, 3]`, and what is written on it.
Picture = tuple[NDArray[np.uint8], str]
# A picture of every step would make long films; more than this are thinned out evenly.
MAX_FRAMES: Final = 120
# Most steps of an episode: what an emulator's games are cut off at.
MAX_EPISODE_STEPS: Final = 27_000
# Steps of all environments before the host asks whether an episode goes on.
STEPS_AT_ONCE: Final = 32

EVALUATION: Final = "evaluation"  # its name as a piece of work


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
        episodes: Whether each environment plays one whole episode instead, so that short ones count no more than long
            ones. `horizon` then is only what the environment is told.
        max_episode_steps: Most steps of such an episode; what has not ended by then counts with what it has.
        work: Makes a function replayable, as `Eager.work` of the execution that the policy computes by; whole episodes
            ask the host when they have ended.
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
        episodes: bool = False,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        work: Callable[..., Callable[..., None]] | None = None,
    ) -> None:
        num_envs = min(num_envs, getattr(env_cls, "max_num_envs", None) or num_envs)
        self.policy, self.episodes, self.max_episode_steps = policy, episodes, max_episode_steps
        with _undisturbed(policy):  # a constructor may draw physical constants
            self.env = make_env(env_cls, num_envs, horizon, policy.device)
        num_envs = self.env.num_envs  # shared environments are as many as there are
        steps = -(-STEPS_AT_ONCE // seq_len) * seq_len if episodes else horizon
        self.rollout = Rollout(policy, num_envs, steps, seq_len=seq_len, seqs_per_state_reset=seqs_per_state_reset)
        self._replayed: Any = None
        if work is not None and not episodes:
            self._replayed = work(self._act_from_reset, EVALUATION, self._filled)
        self._config: dict[str, Any] | None = None  # what the environment was last given

    def check(self, config: dict[str, Any] | None) -> None:
        """Reset once, so that settings that the environment refuses are found before they are needed."""
        with _undisturbed(self.policy):
            self.env.reset(config=copy.deepcopy(config))

    def run(
        self,
        *,
        config: dict[str, Any] | None = None,
        deterministic: bool = True,
        on_pause: Callable[[FirstEpisodes], None] | None = None,
    ) -> Metrics:
        """Return metrics of one horizon or one episode from a reset: `returns/mean` and so on, 0-d tensors.

        Args:
            config: Settings for the environment's reset; those of earlier calls stay until others are given.
            deterministic: Whether actions are the distribution's mode rather than a sample.
            on_pause: Called with what was played whenever the host has asked and episodes go on.
        """
        rollout = self.rollout

        def goes_on(played: FirstEpisodes) -> bool:
            going = bool(played.going.any())
            if going and on_pause is not None:
                on_pause(played)
            return going

        if self.episodes:
            with _undisturbed(self.policy):
                return self._first_episodes(config, deterministic, goes_on).metrics()
        if self._replayed is None or not (config is None or _same(config, self._config)):
            self._play(config, deterministic, None)
        else:
            with _undisturbed(self.policy):
                self._replayed(deterministic)
        return reward_metrics(rollout.rewards, rollout.weights) | rollout.env_metrics.means()

    def film(self, *, config: dict[str, Any] | None = None, deterministic: bool = True) -> list[Picture]:
        """Return up to `MAX_FRAMES` pictures of the first environment, a horizon or an episode, and their captions."""
        frames: list[Picture] = []

        def picture(steps: int, total: float) -> Picture:
            return np.asarray(torch.as_tensor(self.env.render(0)).cpu()), caption(self.env, 0, steps, total)

        if self.episodes:
            every, steps = 1, 0

            def follow(played: FirstEpisodes) -> None:
                nonlocal every, steps
                if steps % every == 0 and (steps == 0 or bool(played.going[0])):
                    frames.append(picture(played.steps, float(played.returns[0])))
                steps += 1
                if len(frames) > 2 * MAX_FRAMES:  # how long it will be is not known
                    frames[:], every = frames[::2], 2 * every

            with _undisturbed(self.policy):
                self._first_episodes(config, deterministic, lambda played: bool(played.going[0]), follow)
            return frames[:: -(-len(frames) // MAX_FRAMES)]
        every = -(-self.rollout.horizon // MAX_FRAMES)

        def record(t: int) -> None:
            if t % every == 0:
                rollout, begin = self.rollout, 0
                if rollout.is_last is not None:  # what is drawn after an end is the beginning of another episode
                    begin = max((s + 1 for s in range(t + 1) if rollout.is_last[s, 0]), default=0)  # host sync: a film
                frames.append(picture(t + 1 - begin, float(rollout.rewards[begin : t + 1, 0].sum())))

        self._play(config, deterministic, record)
        return frames

    def _play(self, config: dict[str, Any] | None, deterministic: bool, on_step: Callable[[int], None] | None) -> None:
        if config is not None:
            self._config = copy.deepcopy(config)
            if self._replayed is not None:  # it would read what the environment had before
                self._replayed.invalidate()
        with _undisturbed(self.policy):
            self._act_from_reset(deterministic, config, on_step)

    def _act_from_reset(
        self,
        deterministic: bool,
        config: dict[str, Any] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.rollout.start(self.env.reset(config=copy.deepcopy(config)))
        collect(self.env, self.policy, self.rollout, deterministic=deterministic, learns=False, on_step=on_step)

    def _filled(self) -> Tensors:
        """Return what an evaluation fills, by name."""
        rollout = self.rollout
        return named({"obs": rollout.obs, "rewards": rollout.rewards, "env": rollout.env_metrics.sums})

    def _first_episodes(
        self,
        config: dict[str, Any] | None,
        deterministic: bool,
        goes_on: Callable[[FirstEpisodes], bool],
        on_step: Callable[[FirstEpisodes], None] | None = None,
    ) -> FirstEpisodes:
        """Play on from a reset, `STEPS_AT_ONCE` steps and more between the questions whether to go on."""
        played = FirstEpisodes(self.env, self.max_episode_steps)
        self.rollout.start(self.env.reset(config=copy.deepcopy(config)))
        told = None if on_step is None else lambda _: on_step(played)
        while True:
            collect(
                self.env,
                self.policy,
                self.rollout,
                deterministic=deterministic,
                learns=False,
                on_step=told,
                step=played.step,
            )
            if not goes_on(played):
                return played
            self.rollout.resume()


class FirstEpisodes:
    """Steps environments, and counts of each its first episode alone.

    Args:
        env: What is stepped; reset before.
        max_steps: Most steps of an episode.

    Attributes:
        going: `[N]` bool, whose first episode goes on and is counted.
    """

    def __init__(self, env: Env, max_steps: int) -> None:
        self.env, self.max_steps, self.steps = env, max_steps, 0
        n, device = env.num_envs, env.device
        self.going = torch.ones(n, dtype=torch.bool, device=device)
        self.returns, self.squares, self.lengths = (
            torch.zeros(n, dtype=torch.float64, device=device) for _ in range(3)
        )
        self.lowest, self.highest = (torch.full((n,), edge, device=device) for edge in (torch.inf, -torch.inf))
        self.truncated, self.ended = (torch.zeros_like(self.going) for _ in range(2))
        self.env_metrics = EnvMetrics()

    def step(self, action: Any) -> TensorDict:
        """Take a step in all environments; return its result."""
        out, going = self.env.step(action), self.going
        rewards = torch.where(going, out[REWARDS].reshape(-1), 0.0)
        self.returns += rewards
        self.squares += rewards.double().square()
        self.lengths += going
        self.lowest = torch.where(going, torch.minimum(self.lowest, rewards), self.lowest)
        self.highest = torch.where(going, torch.maximum(self.highest, rewards), self.highest)
        self.env_metrics.add(out, first=False, counted=going)
        ends = [out[key].reshape(-1) if key in out.keys() else None for key in (TERMINATED, TRUNCATED)]  # noqa: SIM118
        terminated, truncated = (torch.zeros_like(going) if flags is None else flags.bool() for flags in ends)
        self.truncated |= going & truncated & ~terminated
        self.ended |= going & (terminated | truncated)
        self.steps += 1
        self.going = going & ~self.ended if self.steps < self.max_steps else torch.zeros_like(going)
        return out

    def metrics(self) -> Metrics:
        """Return returns per episode, rewards per step, lengths, which share was truncated or never ended; 0-d each."""
        found = reward_metrics(self.returns.unsqueeze(0))
        count = self.lengths.sum()
        mean = self.returns.sum() / count
        rewards = [mean, (self.squares.sum() / count - mean.square()).clamp(min=0).sqrt()]
        rewards += [self.lowest.min(), self.highest.max()]
        found |= {f"rewards/{part}": value for part, value in zip(SPREAD, rewards, strict=True)}
        shares = (self.lengths.mean(), self.truncated.double().mean(), (~self.ended).double().mean())
        return found | dict(zip(EVAL_EPISODES, shares, strict=True)) | self.env_metrics.means()


def caption(env: Env, index: int, steps: int, total: float) -> str:
    """Return what is written on a picture: simulated time where it is known, else the step, and the return so far."""
    time = f"{steps * env.number('tau', index):.2f} s" if "tau" in env.parameters else f"step {steps}"
    return f"{time}   return {total:.4g}"


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


def _same(one: Any, other: Any) -> bool:
    """Return whether settings are equal; those that can't say so are not."""
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):  # tensors, arrays
        return False
