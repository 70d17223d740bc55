"""What the processes that train one policy do together, each with data of its own; with one process nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from rl8.parallel import launched, world
from rl8.settings import DeviceSettings

Algorithm = Any  # an `rl8.ppo.algorithm.Algorithm`; its file imports this one


def joined(settings: DeviceSettings) -> DeviceSettings:
    """Meet the other processes, if a launcher started some; return the settings of this one.

    Raises:
        ValueError: If nobody started the processes that are wanted, or the device does not suit them.
    """
    wanted = settings.processes > 1 or settings.max_restarts > 0
    if wanted and not launched.is_worker() and world.size() == 1:
        raise ValueError(
            f"device.processes={settings.processes}, device.max_restarts={settings.max_restarts}: the command line "
            "starts processes, and a script is started in each. Accepted: 1 and 0. Try torchrun "
            f"--nproc-per-node={settings.processes} --max-restarts={settings.max_restarts} script.py."
        )
    device = world.join(settings.device, patience_s=settings.patience_s)
    world.part_random_numbers()
    return replace(settings, device=device)


def begin_equal(algorithm: Algorithm, optimizer: Mapping[str, Any]) -> None:
    """Give all processes the weights of process 0.

    Args:
        algorithm: Its policy is there.
        optimizer: Class and settings of the optimizer.

    Raises:
        ValueError: If the processes were given different settings.
    """
    policy = algorithm.policy
    world.check_same(
        {
            "algo": {**asdict(algorithm.hparams), "optimizer": optimizer},
            "env": {"_target_": type(algorithm.env), **getattr(algorithm.env_cls, "keywords", {})},
            "model": {"_target_": type(policy.model), **(policy.model_config or {})},
        }
    )
    world.broadcast_([*policy.parameters(), *policy.buffers()])


def begin_anew(algorithm: Algorithm) -> None:
    """Go on with the policy alone: new episodes, and random numbers that no other process has or had."""
    algorithm.reset_next()
    world.part_random_numbers(algorithm.env_steps)


def average(algorithm: Algorithm) -> None:
    """Average the gradient over all processes, in one exchange with what the optimizer step reports.

    Not in a graph: processes capture and check theirs at times of their own, and an exchange needs all of them.
    """
    gradients = [parameter.grad for parameter in algorithm.parameters if parameter.grad is not None]
    world.mean_([*gradients, algorithm.metrics.latest])  # before unscaling: an overflow anywhere is one everywhere
