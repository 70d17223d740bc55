"""Small tasks of other libraries' kinds whose every number is known."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import torch


class Count(gym.Env):
    """Observes [episode since the seed, step], pays 10 * episode + step, ends after `length` steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length=2, end="terminated"):
        self.length, self.end, self.episode = length, end, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.steps = (self.episode + 1 if seed is None else 0), 0
        return self._obs(), {}

    def step(self, action):
        reward, self.steps = 10.0 * self.episode + self.steps, self.steps + 1
        ended = self.steps == self.length
        return self._obs(), reward, ended and self.end == "terminated", ended and self.end == "truncated", {}

    def _obs(self):
        return np.array([self.episode, self.steps], dtype=np.float64)


class Overwrites(Count):
    """A `Count` that writes every observation to the same place."""

    def __init__(self, **options):
        super().__init__(**options)
        self.place = np.zeros(2)

    def _obs(self):
        self.place[:] = super()._obs()
        return self.place


def count_vec(mode, kind=gym.vector.SyncVectorEnv):
    """Return two environments: one truncated after 2 steps, one terminated after 3."""
    makers = [lambda: Count(2, "truncated"), lambda: Count(3, "terminated")]
    return kind(makers, autoreset_mode=gym.vector.AutoresetMode[mode])


class Echo(gym.Env):
    """Observes a sample of any space, and keeps the actions that it is given."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space, self.given = observation_space, action_space, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.given.append(action)
        return self.observation_space.sample(), 1.0, False, len(self.given) % 3 == 0, {}


class Simulator:
    """Has the signature of `ManagerBasedRlEnv` (mjlab 1.6) and `ManagerBasedRLEnv` (Isaac Lab 2.3).

    It observes its episodes' ages, which it writes to the same place at every step, pays the action, and resets what
    has reached `max_episode_length` or has an action above 2.
    """

    render_mode = None

    def __init__(self, num_envs=3, max_episode_length=4, **cfg):
        self.num_envs, self.max_episode_length, self.device = num_envs, max_episode_length, "cpu"
        self.cfg = SimpleNamespace(is_finite_horizon=False, auto_reset=True, **cfg)
        self.unwrapped, self.closed, self.seeds = self, False, []
        self.single_action_space = gym.spaces.Box(-np.inf, np.inf, (1,))
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)
        self.paid, self.log = torch.zeros(num_envs), {}
        self.obs = {"actor": torch.zeros(num_envs, 2), "critic": {"age": torch.zeros(num_envs, 1)}}

    def reset(self, seed=None, env_ids=None, options=None):
        self.seeds += [] if seed is None else [seed]
        self.episode_length_buf[slice(None) if env_ids is None else env_ids] = 0
        self.log = {"Curriculum/level": 2, "Episode_Reward/action": self.paid.mean()}
        self.paid[slice(None) if env_ids is None else env_ids] = 0
        return self._observe(), {"log": self.log}

    def step(self, action):
        self.action = action.clone()
        self.episode_length_buf += 1
        terminated = action[:, 0] > 2
        truncated = (self.episode_length_buf >= self.max_episode_length) & ~terminated
        self.paid += action[:, 0]
        over = terminated | truncated
        if self.cfg.auto_reset and over.any():
            self.log = {"Curriculum/level": 3.0, "Episode_Reward/action": self.paid[over].mean()}
            self.episode_length_buf[over], self.paid[over] = 0, 0
        return self._observe(), action[:, 0].clone(), terminated, truncated, {"log": self.log}

    def _observe(self):
        self.obs["actor"][:] = self.episode_length_buf.unsqueeze(1)
        self.obs["critic"]["age"][:, 0] = self.episode_length_buf
        return self.obs

    def render(self):
        return np.zeros((4, 5, 3), dtype=np.uint8) if self.render_mode == "rgb_array" else None

    def close(self):
        self.closed = True


class Pool:
    """Has the signature of a pool of EnvPool 1.2 with `env_type="gymnasium"`, of two `Count`s.

    As there, a reset by numbers returns only their observations, and a step on what has ended would be a reset.
    """

    def __init__(self, batch_size=2):
        self.envs = [Count(2, "truncated"), Count(3, "terminated")]
        self.config, self.num_envs, self.closed = {"num_envs": 2, "batch_size": batch_size}, 2, False
        self.single_observation_space, self.single_action_space = Count.observation_space, Count.action_space
        self.ended = [False, False]

    def async_reset(self):
        raise AssertionError("not with a batch of all environments")

    def reset(self, env_id=None):
        rows = range(2) if env_id is None else env_id
        for row in rows:
            self.ended[row] = False
        seed = 0 if env_id is None else None
        return np.stack([self.envs[row].reset(seed=seed)[0] for row in rows]), {"env_id": rows}

    def step(self, action):
        assert not any(self.ended), "EnvPool would reset here, whatever the action"
        results = [env.step(choice) for env, choice in zip(self.envs, action, strict=True)]
        obs, rewards, terminated, truncated, _ = (np.array(part) for part in zip(*results, strict=True))
        self.ended = list(terminated | truncated)
        return obs, rewards, terminated, truncated, {}

    def close(self):
        self.closed = True
