"""mjlab: robots in MuJoCo Warp, thousands at once on a GPU, few on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rl8.checks import check_choice, unknown
from rl8.env.adapters.manager import ManagerEnv
from rl8.env.adapters.mujoco import load_mujoco
from rl8.env.adapters.opaque import check_installed, draw_seed


class MjlabEnv(ManagerEnv):
    """A task of mjlab (1.6 or newer) by its name.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets; None if unknown.
        device: Where the simulator and the policy are.
        task: Its name, e.g. `Mjlab-Cartpole-Balance`.
        groups: See `ManagerEnv`, as for the others.
        clip_actions: Limit on the size of every action; None has no limit.
        ends_by_hand: Whether the last observation is the true one, at the price of another forward pass of the physics.
        render_mode: `rgb_array` for pictures, None for none.

    Raises:
        ValueError: If mjlab, the task or a group can't be found.
    """

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        device: torch.device | str | None = "cpu",
        task: str = "Mjlab-Cartpole-Balance",
        groups: Sequence[str] | None = None,
        clip_actions: float | None = None,
        ends_by_hand: bool = False,
        render_mode: str | None = None,
    ) -> None:
        check_installed("mjlab", "env=mjlab")
        if render_mode is not None:
            check_choice("env.render_mode", render_mode, ["rgb_array"])
        load_mujoco(drawing=render_mode is not None)
        import mjlab.tasks  # noqa: F401 (registers them)
        from mjlab.envs import ManagerBasedRlEnv
        from mjlab.tasks.registry import list_tasks, load_env_cfg

        if task not in (known := list_tasks()):
            raise ValueError(unknown("task in env.task", task, known))
        cfg = load_env_cfg(task)
        cfg.scene.num_envs = num_envs
        cfg.seed = draw_seed()
        super().__init__(
            ManagerBasedRlEnv(cfg=cfg, device=str(device or "cpu"), render_mode=render_mode),
            horizon,
            device=device,
            groups=groups,
            clip_actions=clip_actions,
            ends_by_hand=ends_by_hand,
        )
