"""What a resumed run takes from the checkpoint and what from the configuration.

What changes from step to step comes from the checkpoint; constants come from the configuration, also where it is
another one now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.env import Env
from rl8.env.draws import drawn_values, restore
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.optim import load_optimizer, set_learning_rate
from rl8.rollout.containers import named, plain, restored
from rl8.specs import Nested

Algorithm = Any  # an `rl8.ppo.algorithm.Algorithm`; its file imports this one
COUNTERS: Final = ("env_steps", "horizon_begin", "iterations", "resets", "horizons")
#: Parts of an algorithm's state that each process has its own of.
OWN: Final = ("execution", "reward_scaler", "rollout", "env", "episodes")


def state_of(algorithm: Algorithm) -> dict[str, Any]:
    """Return all that a later run needs to go on as if it had never stopped, in plain containers."""
    env = save_env(algorithm.env, algorithm.env_cls, algorithm.built, started=algorithm.horizons > 0)
    parts = ("policy", "optimizer", "execution", "reward_scaler", "rollout")
    return {
        "hparams": asdict(algorithm.hparams),
        **{name: getattr(algorithm, name).state_dict() for name in parts},
        "optimizer_cls": dotted(algorithm.optimizer),
        "episodes": None if algorithm.episodes is None else algorithm.episodes.state_dict(),
        "env": env,
        "counters": {name: getattr(algorithm, name) for name in COUNTERS},
    }


def go_on(algorithm: Algorithm, saved: Mapping[str, Any]) -> None:
    """Let an algorithm go on from what `state_of` returned.

    Raises:
        ValueError: If shapes of the run differ; the message names the option.
    """
    check_sizes(algorithm.hparams, saved["hparams"])
    algorithm.policy.load_state_dict(saved["policy"])
    check_optimizer(algorithm.optimizer, saved["optimizer"], saved["optimizer_cls"])
    load_optimizer(algorithm.optimizer, saved["optimizer"])
    algorithm.rate.load(saved["optimizer"]["param_groups"])
    algorithm.reward_scaler.load_state_dict(saved["reward_scaler"])
    algorithm.rollout.load_state_dict(saved["rollout"])
    if algorithm.env.opaque:
        algorithm.known_resets = -1  # new episodes, with random numbers from where the saved run stood
    else:
        load_env(algorithm.env, algorithm.env_cls, saved["env"], algorithm.built)
    if algorithm.episodes is not None and saved.get("episodes") is not None:
        algorithm.episodes.load_state_dict(saved["episodes"])
    for name, value in saved["counters"].items():
        setattr(algorithm, name, value)
    if algorithm.lr.moves:  # of the last update: a run that is over already saves itself again
        set_learning_rate(algorithm.optimizer, algorithm.lr(algorithm.horizon_begin))
    algorithm.execution.load_state_dict(saved["execution"])  # last: random numbers are its part


def env_tensors(env: Env) -> dict[str, Nested]:
    """Return an environment's tensors and TensorDicts by name, its state left out."""
    if env.opaque:
        return {}
    return {name: v for name, v in vars(env).items() if name != "state" and isinstance(v, (Tensor, TensorDict))}


def as_built(env: Env) -> dict[str, Nested]:
    """Return copies of an environment's tensors just after it was built, to tell later which have never changed."""
    return {name: value.clone() for name, value in env_tensors(env).items()}


def save_env(env: Env, env_cls: Callable[..., Env], built: Mapping[str, Nested], *, started: bool) -> dict[str, Any]:
    """Return an environment's state, its other tensors, and what it was built with, in plain containers.

    Args:
        env: The environment.
        env_cls: What made it.
        built: Its tensors as they were then.
        started: Whether it has been reset for training.
    """
    tensors = env_tensors(env)
    return {
        "state": plain(env.state) if started and not env.opaque else None,
        # not its physical constants alone: what a reset draws for a whole episode may lie beside the state
        "tensors": {name: plain(value) for name, value in tensors.items()},
        "draws": drawn_values(env),
        "constant": [name for name, value in tensors.items() if name in built and _same(value, built[name])],
        "given": _given(env, env_cls),
    }


def load_env(env: Env, env_cls: Callable[..., Env], saved: Mapping[str, Any], built: dict[str, Nested]) -> None:
    """Let an environment go on from what `save_env` returned, with the constants that it was built with itself.

    Built with the same options, it takes all tensors. Else it keeps a declared constant whose value is another, and
    a tensor that never changed while the checkpoint's run lasted.

    Args:
        env: The environment; it is reset.
        env_cls: What made it.
        saved: What `save_env` returned.
        built: Its tensors as they were when it was built; constants that are taken over are put there.
    """
    env.reset()
    ours, theirs = _given(env, env_cls), saved["given"]
    for name, value in env_tensors(env).items():
        constant = ours.get(name) != theirs.get(name) if name in env.parameters else name in saved["constant"]
        if name in saved["tensors"] and (ours == theirs or not constant):
            setattr(env, name, restored(saved["tensors"][name], value))
            if name in saved["constant"]:
                built[name] = getattr(env, name).clone()
    restore(env, saved["draws"])
    if ours != theirs:
        env.derive()
    if saved["state"] is not None:
        env.state = restored(saved["state"], env.state)


def check_sizes(hparams: Hyperparameters, saved: Mapping[str, Any]) -> None:
    """Raise ValueError where a checkpoint's tensors have other shapes than a run's; the message names the option."""
    for name in ("num_envs", "horizon", "seq_len"):
        ours, theirs = getattr(hparams, name), saved[name]
        if ours != theirs:
            raise ValueError(f"algo.{name}={ours} differs from the checkpoint's. Try algo.{name}={theirs}.")


def check_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], made_by: str) -> None:
    """Check that an optimizer keeps what a saved state holds.

    Args:
        optimizer: The run's.
        state: What the other's `state_dict` gave.
        made_by: Dotted name of the other's class.

    Raises:
        ValueError: If it is of another class, or keeps other moments.
    """
    name = dotted(optimizer)
    if name != made_by:
        raise ValueError(
            f"algo.optimizer._target_={name} has no use for the state of {made_by}. Try "
            f"algo.optimizer._target_={made_by}, or trainer.init_from=RUN, which starts from the policy alone."
        )
    ours, saved = (
        [len(group["params"]) for group in groups] for groups in (optimizer.param_groups, state["param_groups"])
    )
    if len(ours) != len(saved):
        raise ValueError(
            f"The checkpoint was made {'with' if len(saved) > 1 else 'without'} algo.critic_lr. Resume as it was made, "
            "or try trainer.init_from=RUN, which starts from the policy alone."
        )
    theirs = next(iter(state["state"].values()), None)
    if theirs is None or not optimizer.param_groups:
        return
    kept = _kept(optimizer)
    if kept is not None and kept != set(theirs):
        raise ValueError(
            f"{name} keeps {', '.join(sorted(kept)) or 'nothing'} with its options here, and the checkpoint has "
            f"{', '.join(sorted(theirs))}. Resume with the optimizer's options that it was made with, or try "
            "trainer.init_from=RUN, which starts from the policy alone."
        )


def dotted(optimizer: torch.optim.Optimizer) -> str:
    """Return the dotted name of an optimizer's class."""
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def _kept(optimizer: torch.optim.Optimizer) -> set[str] | None:
    """Return the names of what an optimizer keeps for a parameter, by a step of one like it; None if that fails."""
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.zeros(2, 2)
    options = {name: value for name, value in optimizer.param_groups[0].items() if name in optimizer.defaults}
    options = {name: float(value) if isinstance(value, Tensor) else value for name, value in options.items()}
    try:
        one = type(optimizer)([weight], **{**options, **{name: False for name in ("capturable",) if name in options}})
        one.step()
    except Exception:  # a class of somebody's own: loading and stepping will tell
        return None
    return {str(name) for name in one.state[weight]}


def _given(env: Env, env_cls: Callable[..., Env]) -> dict[str, str]:
    """Return what an environment was built with, as text by name."""
    options = getattr(env_cls, "keywords", {})  # of functools.partial, which is how a config names them
    return {str(name): repr(value) for name, value in options.items()} | {
        name: repr(parameter.value) for name, parameter in env.parameters.items()
    }


def _same(one: Nested, other: Nested) -> bool:
    ours, theirs = named(one), named(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
