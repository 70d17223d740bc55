"""Stable-Baselines3's PPO; the tensor CartPole behind its `VecEnv`, which speaks NumPy."""

from __future__ import annotations

import time
from typing import Any

import contract
import numpy as np
import torch
from cartpole import CartPole
from contract import CHECK_ENVS
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv


class TensorVecEnv(VecEnv):
    """CartPole on tensors as a `VecEnv`: actions and observations cross as NumPy arrays, as it demands."""

    def __init__(self, num_envs: int) -> None:
        self.inner = CartPole(num_envs)
        super().__init__(num_envs, spaces.Box(-np.inf, np.inf, (5,), np.float32), spaces.Discrete(3))
        # The same list at every step: nothing here ends, and a dictionary per environment must be there.
        self.infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
        self.dones = np.zeros(num_envs, dtype=bool)
        self.actions = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self):
        return self.inner.reset().numpy()

    def step_async(self, actions):
        self.actions = torch.from_numpy(actions)

    def step_wait(self):
        obs, rewards = self.inner.step(self.actions)
        return obs.numpy(), rewards.numpy(), self.dones, self.infos

    def close(self):
        pass

    def get_attr(self, attr_name, indices=None):
        return [None] * self.num_envs

    def set_attr(self, attr_name, value, indices=None):
        pass

    def env_method(self, method_name, *method_args, indices=None, **method_kwargs):
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs


def main() -> None:
    args = contract.parser(__doc__).parse_args()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    base, begin = contract.memory_mb(), time.perf_counter()
    env = TensorVecEnv(args.num_envs)
    widths = [args.width, args.width]
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=contract.LEARNING_RATE,
        n_steps=args.horizon,
        batch_size=args.num_envs * args.horizon,
        n_epochs=args.passes,
        gamma=contract.GAMMA,
        gae_lambda=contract.GAE_LAMBDA,
        clip_range=contract.CLIP,
        vf_coef=1.0,
        max_grad_norm=contract.MAX_GRAD_NORM,
        policy_kwargs={"net_arch": {"pi": widths, "vf": widths}, "activation_fn": torch.nn.ReLU},
        seed=args.seed,
        device=args.device,
    )
    _, callback = model._setup_learn(10**12)
    setup = time.perf_counter() - begin

    def collect() -> None:
        model._last_obs = env.reset()  # a reset before each horizon, as in the other programs
        model.collect_rollouts(env, callback, model.rollout_buffer, args.horizon)

    rows = contract.timed(args, collect, model.train)
    peak = contract.memory_mb()
    probe = CartPole(CHECK_ENVS)
    contract.emit(
        args,
        "sb3",
        rows,
        check=contract.play_check(probe.check_states, probe.check_step),
        base_mb=base,
        peak_mb=peak,
        setup_s=setup,
        versions=contract.versions("stable-baselines3", "torch"),
    )


if __name__ == "__main__":
    main()
