"""Isaac Lab: robots in Isaac Sim, thousands at once on a GPU.

Written against the published interface of Isaac Lab 2.3 and tested with a stand-in of the same signature; it has never
run on Isaac Sim itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from rl8.checks import check_choice, unknown
from rl8.env.adapters.manager import ManagerEnv
from rl8.env.adapters.opaque import check_installed, draw_seed


class IsaacLabEnv(ManagerEnv):
    """A task of Isaac Lab by its name.

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets; None if unknown.
        device: Where the simulator and the policy are.
        task: Its name, e.g. `Isaac-Cartpole-v0`.
        launcher: Keywords for Isaac Lab's `AppLauncher`, e.g. `{enable_cameras: true}`; without a window unless it
            says otherwise.
        groups: See `ManagerEnv`, as for the others.
        clip_actions: Limit on the size of every action; None has no limit.
        render_mode: `rgb_array` for pictures, None for none.

    Raises:
        ValueError: If Isaac Lab, the task or a group can't be found.
    """

    # Isaac Sim, which starts once per process and ends with it: its own close() would end the process unrecorded.
    app: ClassVar[Any] = None

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        device: torch.device | str | None = "cpu",
        task: str = "Isaac-Cartpole-v0",
        launcher: Mapping[str, Any] | None = None,
        groups: Sequence[str] | None = None,
        clip_actions: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode is not None:
            check_choice("env.render_mode", render_mode, ["rgb_array"])
        advice = "Install Isaac Lab 2.3 into this environment by its own guide, isaac-sim.github.io/IsaacLab."
        check_installed("isaaclab", "env=isaaclab", advice)
        place = _place(device)
        if IsaacLabEnv.app is None:
            from isaaclab.app import AppLauncher

            IsaacLabEnv.app = AppLauncher({"headless": True, "device": place, **(launcher or {})}).app
        # Isaac Sim has to run before anything else of Isaac Lab is imported.
        import gymnasium
        import isaaclab_tasks  # noqa: F401 (registers them)
        from isaaclab_tasks.utils import parse_env_cfg

        known = [name for name in map(str, gymnasium.registry) if "env_cfg_entry_point" in gymnasium.spec(name).kwargs]
        if task not in known:
            raise ValueError(unknown("task in env.task", task, known))
        cfg = parse_env_cfg(task, device=place, num_envs=num_envs)
        cfg.seed = draw_seed()
        super().__init__(
            gymnasium.make(task, cfg=cfg, render_mode=render_mode),
            horizon,
            device=device,
            groups=groups,
            clip_actions=clip_actions,
        )


def _place(device: torch.device | str | None) -> str:
    """Return a device as Isaac Sim wants it: with its number."""
    found = torch.device(device or "cpu")
    return f"cuda:{found.index or 0}" if found.type == "cuda" else str(found)
