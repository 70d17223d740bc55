"""A task that needs memory: a cue is shown once and asked for later."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import check_range
from rl8.data import OBS, REWARDS, TERMINATED
from rl8.env import drawing
from rl8.env.base import Env
from rl8.specs import Categorical, Unbounded

COLORS = (drawing.BLUE, drawing.ORANGE, drawing.GREEN, drawing.PURPLE, drawing.RED, drawing.YELLOW)


class CueRecall(Env):
    """Say which cue was shown `delay` steps ago.

    An episode has `delay` + 1 steps. Its first observation shows one of `num_cues` cues, drawn uniformly; the following
    ones are all zero; the last one, `delay` steps after the first, only says that the answer is due. Answering with the
    cue gives reward 1; everything else, and all actions before, give 0 and change nothing. The answer terminates the
    episode and the next one, with a new cue, begins at once.

    The observation at the query is the same for every cue. Whatever a memoryless policy answers there is thus
    independent of the cue, and is right with probability 1 / `num_cues` exactly; so is a policy that looks back at
    `delay` observations or fewer (the one at the query included). A policy that remembers can always be right.

    Action `[N]`: the answer, 0 ... `num_cues` - 1. Observation `[N, num_cues + 1]`: the cue one-hot, then 1 where the
    answer is due. State `[2, N]`, int64: the rows cue and step of the episode (0 ... `delay`).

    Args:
        num_envs: Number of environments.
        horizon: Steps between resets, or None.
        num_cues: Number of cues, >= 2.
        delay: Steps from the cue to the query, >= 1.
        device: Where everything lives.

    Raises:
        TypeError: If a count is no integer.
        ValueError: If a count is too small.
    """

    state: Tensor

    def __init__(
        self,
        num_envs: int,
        /,
        horizon: int | None = None,
        *,
        num_cues: int = 4,
        delay: int = 8,
        device: torch.device | str | None = "cpu",
    ) -> None:
        super().__init__(num_envs, horizon, device=device)
        check_range("env.num_cues", num_cues, 2, integer=True, hint="env.num_cues=4")
        check_range("env.delay", delay, 1, integer=True, hint="env.delay=8")
        self.num_cues, self.delay = num_cues, delay
        self.observation_spec = Unbounded(num_cues + 1, device=self.device)
        self.action_spec = Categorical(num_cues, device=self.device)
        self._cues = torch.arange(num_cues, device=self.device).unsqueeze(-1)  # [num_cues, 1]

    def reset(self, *, config: dict[str, Any] | None = None) -> Tensor:
        """Begin new episodes; return observations `[N, num_cues + 1]`."""
        self.configure(config)
        cue = torch.randint(self.num_cues, (self.num_envs,), device=self.device)
        self.state = torch.stack((cue, torch.zeros_like(cue)))
        return self._observe()

    def step(self, action: Tensor) -> TensorDict:
        """Take answers `[N]` where they are due, and go on."""
        cue, time = self.state
        due = time == self.delay
        rewards = (due & (action == cue)).to(torch.float32)
        # drawn at every step and used where an episode begins: shapes and calls never depend on the data
        fresh = torch.randint(self.num_cues, (self.num_envs,), device=self.device)
        self.state = torch.stack((torch.where(due, fresh, cue), (time + 1).masked_fill(due, 0)))
        return TensorDict({OBS: self._observe(), REWARDS: rewards, TERMINATED: due}, [self.num_envs])

    def _observe(self) -> Tensor:
        cue, time = self.state
        shown = (self._cues == cue) & (time == 0)  # [num_cues, N]
        return torch.cat((shown, (time == self.delay).unsqueeze(0))).to(torch.float32).t()

    def render(self, index: int = 0) -> NDArray[np.uint8]:
        """Return the panel that the policy sees, the cues, and the steps of the episode, `[400, 600, 3]`.

        The ring around one of the cues is the right answer, which the policy sees in the first step only.
        """
        check_range("index", index, 0, self.num_envs - 1, integer=True, hint="index=0")
        cue, time = self.state[:, index].tolist()
        canvas = drawing.Canvas()
        middle = canvas.width / 2
        canvas.rectangle((middle, 126), (188, 168), drawing.INK, corner=20, soft=16, alpha=0.18)
        canvas.rectangle((middle, 120), (184, 164), drawing.INK, corner=18)
        if time == 0:
            canvas.circle((middle, 120), 58, COLORS[cue % len(COLORS)])
            canvas.text(str(cue), (middle, 120), 44, drawing.WHITE, weight=5)
        elif time == self.delay:
            canvas.text("?", (middle, 120), 84, drawing.YELLOW, weight=9)
        gap = min(96.0, (canvas.width - 80) / self.num_cues)
        for choice in range(self.num_cues):
            spot = (middle + (choice - (self.num_cues - 1) / 2) * gap, 274.0)
            radius = min(28.0, gap * 0.36)
            canvas.circle(spot, radius, COLORS[choice % len(COLORS)])
            canvas.text(str(choice), spot, radius * 0.8, drawing.WHITE, weight=radius / 10)
            if choice == cue:
                canvas.circle(spot, radius + 7, drawing.INK, outline=3)
        gap = min(40.0, (canvas.width - 80) / (self.delay + 1))
        for moment in range(self.delay + 1):
            spot = (middle + (moment - self.delay / 2) * gap, 354.0)
            color = drawing.YELLOW if moment == self.delay else drawing.BLUE if moment == 0 else drawing.GREY
            canvas.circle(spot, min(9.0, gap * 0.3), color if moment <= time else drawing.PALE)
            if moment == time:
                canvas.circle(spot, min(14.0, gap * 0.45), drawing.INK, outline=2)
        return canvas.frame()
