"""skrl's PPO; the tensor CartPole behind its wrapper, tensors on one device throughout."""

from __future__ import annotations

import logging
import time

import contract
import gymnasium
import numpy as np
import torch
from cartpole import CartPole
from contract import CHECK_ENVS
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import Wrapper
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from torch import nn


class TensorWrapper(Wrapper):
    """CartPole on tensors as a wrapped environment."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, env: CartPole) -> None:
        super().__init__(env)
        self.never = torch.zeros(env.num_envs, 1, dtype=torch.bool, device=env.device)

    def reset(self):
        return self._env.reset(), {}

    def step(self, actions):
        obs, rewards = self._env.step(actions.view(-1))
        return obs, rewards.unsqueeze(-1), self.never, self.never, {}

    def state(self):
        return None

    def render(self, *args, **kwargs):
        pass

    def close(self):
        pass


def perceptron(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


class Actor(CategoricalMixin, Model):
    def __init__(self, env: TensorWrapper, width: int) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        CategoricalMixin.__init__(self)
        self.net = perceptron(width, 3)

    def compute(self, inputs, role):
        return self.net(inputs["observations"]), {}


class Critic(DeterministicMixin, Model):
    def __init__(self, env: TensorWrapper, width: int) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        DeterministicMixin.__init__(self)
        self.net = perceptron(width, 1)

    def compute(self, inputs, role):
        return self.net(inputs["observations"]), {}


def build(args) -> tuple[TensorWrapper, PPO]:
    env = TensorWrapper(CartPole(args.num_envs, args.device))
    agent = PPO(
        models={"policy": Actor(env, args.width), "value": Critic(env, args.width)},
        memory=RandomMemory(memory_size=args.horizon, num_envs=args.num_envs, device=env.device),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
        cfg={
            "rollouts": args.horizon,
            "learning_epochs": args.passes,
            "mini_batches": 1,
            "discount_factor": contract.GAMMA,
            "gae_lambda": contract.GAE_LAMBDA,
            "learning_rate": contract.LEARNING_RATE,
            "grad_norm_clip": contract.MAX_GRAD_NORM,
            "ratio_clip": contract.CLIP,
            "value_clip": 0.0,
            "value_loss_scale": 1.0,
            "mixed_precision": args.amp,
            "experiment": {"write_interval": 0, "checkpoint_interval": 0},
        },
    )
    agent.init()
    agent.enable_training_mode(True)
    return env, agent


def main() -> None:
    args = contract.parser(__doc__).parse_args()
    logging.disable(logging.INFO)
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    base, begin = contract.memory_mb(), time.perf_counter()
    env, agent = build(args)
    setup = time.perf_counter() - begin

    @torch.no_grad()
    def collect() -> None:
        """Do what its trainer's loop does in one horizon, the update left out."""
        obs, _ = env.reset()
        for t in range(args.horizon):
            agent.pre_interaction(timestep=t, timesteps=args.horizon)
            actions, _ = agent.act(obs, None, timestep=t, timesteps=args.horizon)
            following, rewards, terminated, truncated, infos = env.step(actions)
            agent.record_transition(
                observations=obs,
                states=None,
                actions=actions,
                rewards=rewards,
                next_observations=following,
                next_states=None,
                terminated=terminated,
                truncated=truncated,
                infos=infos,
                timestep=t,
                timesteps=args.horizon,
            )
            obs = following

    def update() -> None:
        agent.enable_models_training_mode(True)
        agent.update(timestep=args.horizon - 1, timesteps=args.horizon)
        agent.enable_models_training_mode(False)

    rows = contract.timed(args, collect, update, torch.cuda.synchronize if cuda else contract.nothing)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else contract.memory_mb()
    probe = CartPole(CHECK_ENVS, args.device)
    contract.emit(
        args,
        "skrl",
        rows,
        check=contract.play_check(probe.check_states, probe.check_step),
        base_mb=0.0 if cuda else base,
        peak_mb=peak,
        setup_s=setup,
        versions=contract.versions("skrl", "torch"),
    )


if __name__ == "__main__":
    main()
