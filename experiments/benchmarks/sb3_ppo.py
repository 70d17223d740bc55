"""Stable-Baselines3's PPO (sb3-contrib's where there is a memory) with the settings of an rl8 run, translated.

    python -m experiments.benchmarks.sb3_ppo CONFIG.json FOLDER

Writes to FOLDER what `play.py` needs, and the curve: the mean return of the last 100 episodes after each horizon.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MODEL, NORMALIZER, CURVE = "model.zip", "normalizer.pkl", "curve.json"
LINEAR = "linear"  # a number that falls to 0 with the env steps
PERCEPTRON, MEMORY = "rl8.models.MLPModel", "rl8.models.LSTMModel"


def translated(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return keywords of PPO, of its policy and of the normalisation, from an rl8 run's composed configuration.

    Raises:
        ValueError: If the run has something that Stable-Baselines3 has not.
    """
    algo, model = config["algo"], config["model"]
    unknown = [
        name
        for name, usual in {
            "dual_clip_param": None, "vf_huber_delta": None, "critic_lr": None, "desired_kl": None,
            "accumulate_grads": False, "enable_amp": False, "bootstrap": None, "normalize_advantages": True,
        }.items()
        if algo[name] != usual
    ]  # fmt: skip
    moving = {name: value for name, value in algo["schedules"].items() if value is not None}
    if unknown or not moving.items() <= {"clip_param": LINEAR, "lr": LINEAR}.items():
        raise ValueError(f"Stable-Baselines3 has no counterpart of {', '.join(unknown) or moving}.")
    falls = algo["lr_schedule"] == [[0, algo["optimizer"]["lr"]], [config["goal"]["env_steps"], 0]]
    if algo["lr_schedule"] is not None and not falls:
        raise ValueError(f"algo.lr_schedule={algo['lr_schedule']} is neither null nor linear to 0.")
    ppo = {
        "n_steps": algo["horizon"],
        "batch_size": algo["sgd_minibatch_size"] or algo["num_envs"] * algo["horizon"],
        "n_epochs": algo["num_sgd_iters"],
        "gamma": algo["gamma"],
        "gae_lambda": algo["gae_lambda"],
        "learning_rate": (LINEAR if falls or "lr" in moving else None, algo["optimizer"]["lr"]),
        "clip_range": (moving.get("clip_param"), algo["clip_param"]),
        "clip_range_vf": algo["vf_clip_param"],
        "ent_coef": algo["entropy_coeff"],
        "vf_coef": algo["vf_coeff"] / 2,  # rl8 halves the squared error
        "max_grad_norm": algo["max_grad_norm"],
        "target_kl": algo["target_kl_div"],
    }
    policy: dict[str, Any] = {"log_std_init": model["log_std"], "optimizer_kwargs": {"eps": algo["optimizer"]["eps"]}}
    if model["_target_"] == PERCEPTRON:
        policy |= {"net_arch": {"pi": model["hiddens"], "vf": model["hiddens"]}, "activation_fn": model["activation"]}
    elif model["_target_"] == MEMORY and not model["hiddens"] and model["num_layers"] == 1:
        policy |= {"lstm_hidden_size": model["hidden_size"], "shared_lstm": not model["separate_value"]}
        policy |= {"enable_critic_lstm": model["separate_value"], "activation_fn": model["activation"]}
        policy |= {"net_arch": {"pi": model["head_hiddens"], "vf": model["head_hiddens"]}}
    else:
        raise ValueError(f"{model['_target_']} has no counterpart here.")
    normalize = {
        "norm_obs": algo["normalize_obs"],
        "norm_reward": algo["normalize_rewards"],
        "clip_obs": algo["clip_obs"],
        "clip_reward": algo["clip_rewards"] or 10.0,
        "gamma": algo["gamma"],
    }
    return {"ppo": ppo, "policy": policy, "normalize": normalize}


def scheduled(kind: str | None, value: float) -> float | Callable[[float], float]:
    """Return a number as Stable-Baselines3 takes it; its schedules get the share that remains."""
    return (lambda remaining: remaining * value) if kind == LINEAR else value


def maker(env: Mapping[str, Any]) -> Callable[[], Any]:
    """Return a function that makes one environment, wrapped as rl8's `env=gymnasium` wraps it."""

    def make() -> Any:
        import gymnasium
        from stable_baselines3.common.monitor import Monitor

        from rl8.env.adapters.gymnasium import let_register

        let_register(env["id"])
        task = gymnasium.make(env["id"], **(env["kwargs"] or {}))
        wrappers: Sequence[Any] = env["wrappers"]
        for wrapper in wrappers:
            options = dict(wrapper)
            module, _, name = options.pop("_target_").rpartition(".")
            task = getattr(importlib.import_module(module), name)(task, **options)
        return Monitor(task)

    return make


def build(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return PPO and the environments that it trains in, as an rl8 run would have them."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    torch.set_num_threads(config["device"]["num_threads"] or torch.get_num_threads())
    found = translated(config)
    ppo, policy = found["ppo"], found["policy"]
    for name in ("learning_rate", "clip_range"):
        ppo[name] = scheduled(*ppo[name])
    algorithm, kind = PPO, "MlpPolicy"
    if "lstm_hidden_size" in policy:
        from sb3_contrib import RecurrentPPO

        algorithm, kind = RecurrentPPO, "MlpLstmPolicy"
    if "activation_fn" in policy:
        policy["activation_fn"] = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}[policy["activation_fn"]]
    envs: Any = DummyVecEnv([maker(config["env"])] * config["algo"]["num_envs"])
    if found["normalize"]["norm_obs"] or found["normalize"]["norm_reward"]:
        envs = VecNormalize(envs, **found["normalize"])
    return algorithm(kind, envs, policy_kwargs=policy, seed=config["seed"], device="cpu", **ppo), envs


def train(config: Mapping[str, Any], folder: Path) -> None:
    """Train as an rl8 run would be, and save what came of it."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecNormalize

    model, envs = build(config)
    curve: list[tuple[int, float]] = []

    class Curve(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            ended = [episode["r"] for episode in self.model.ep_info_buffer]
            if ended:
                curve.append((self.num_timesteps, sum(ended) / len(ended)))

    model.learn(config["goal"]["env_steps"], callback=Curve())
    model.save(folder / MODEL)
    if isinstance(envs, VecNormalize):
        envs.save(str(folder / NORMALIZER))
    (folder / CURVE).write_text(json.dumps(curve))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    train(json.loads(arguments.config.read_text()), arguments.folder)


if __name__ == "__main__":
    main()
