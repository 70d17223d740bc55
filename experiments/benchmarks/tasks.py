"""The tasks, and what others published for them."""

from __future__ import annotations

from typing import Final, NamedTuple

CLEANRL = "https://github.com/vwxyzjn/cleanrl/blob/fe8d8a03/docs/benchmark"
GYMNAX = "https://github.com/RobertTLange/gymnax-blines/tree/3f029d6/agents/Breakout-MinAtar"
ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/22e3ff2/benchmark.md"


class Published(NamedTuple):
    """A figure of others.

    Attributes:
        value: Mean return of an episode.
        spread: Standard deviation: CleanRL's over seeds, rl-zoo's over one policy's episodes; None if none is said.
        env_steps: Of the training.
        who: Who published it, and for which version of the task where that is another one.
        where: Its page.
    """

    value: float
    spread: float | None
    env_steps: int
    who: str
    where: str


class Task(NamedTuple):
    """A task, which `conf/experiment/<name>.yaml` says how to train.

    Attributes:
        title: Its name in tables.
        published: Figures of others.
        programs: Which run it.
    """

    title: str
    published: tuple[Published, ...] = ()
    programs: tuple[str, ...] = ("rl8", "sb3")


def _cleanrl(value: float, spread: float, page: str = "ppo.md", env_steps: int = 500_000) -> Published:
    return Published(value, spread, env_steps, "CleanRL, 3 seeds", f"{CLEANRL}/{page}")


def _zoo(value: float, spread: float, env_steps: int, task: str = "") -> Published:
    return Published(value, spread, env_steps, f"rl-zoo{task and f', {task}'}", ZOO)


def _gymnax(value: float, lr: str) -> Published:
    """Return what one policy had after 959,936 of its 10 M env steps, from the curve that is stored with it."""
    return Published(value, None, 959_936, f"gymnax-blines' PPO, one policy, rate {lr}", GYMNAX)


def _mujoco(task: str, cleanrl: tuple[float, float], zoo: tuple[float, float]) -> Task:
    page = "ppo_continuous_action.md"
    found = (_cleanrl(*cleanrl, page, 1_000_000), _zoo(*zoo, 1_000_000, f"{task}-v3, its own settings"))
    return Task(f"{task}-v4", found)


TASKS: Final = {
    "cartpole_v1": Task("CartPole-v1", (_zoo(500.0, 0.0, 100_000), _cleanrl(490.04, 6.12))),
    "acrobot_v1": Task("Acrobot-v1", (_zoo(-73.506, 18.201, 1_000_000), _cleanrl(-86.36, 1.32))),
    "mountaincar_v0": Task("MountainCar-v0", (_zoo(-110.423, 19.473, 1_000_000), _cleanrl(-200.0, 0.0))),
    "pendulum_v1": Task("Pendulum-v1", (_zoo(-172.225, 104.159, 100_000, "gSDE"),)),
    "cartpole_v1_memory": Task("CartPole-v1, no velocities", (_zoo(500.0, 0.0, 100_000, "two LSTMs"),)),
    "pendulum_v1_memory": Task("Pendulum-v1, no velocity", (_zoo(-217.933, 140.094, 100_000, "gSDE, two LSTMs"),)),
    "lunarlander_v3": Task("LunarLander-v3", (_zoo(242.119, 31.823, 1_000_000, "LunarLander-v2"),)),
    "minatar_breakout": Task("MinAtar's Breakout, its picture, CNN", programs=("rl8",)),  # a network that SB3 has not
    "minatar_breakout_mlp": Task(
        "MinAtar's Breakout, no sticky actions", (_gymnax(16.634, "5e-4"), _gymnax(20.299, "1e-3"))
    ),
    "halfcheetah_v4": _mujoco("HalfCheetah", (1442.64, 46.03), (5819.099, 663.530)),
    "hopper_v4": _mujoco("Hopper", (2382.86, 271.74), (2410.435, 10.026)),
    "walker2d_v4": _mujoco("Walker2d", (2287.95, 571.78), (3478.798, 821.708)),
}
