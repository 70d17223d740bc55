"""Numbers that an environment reports of its steps, averaged over a horizon on the device."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.data import METRICS
from rl8.parallel import world


class EnvMetrics:
    """Sums of what steps report in `"metrics"`; NaN counts as nothing reported.

    Attributes:
        sums: By name, `[2]`: the sum of all numbers of the horizon, and how many there were. They stay where they are,
            as a captured CUDA graph wants it.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, out: TensorDict, *, first: bool, counted: Tensor | None = None) -> None:
        """Add a step's numbers; those of the horizon's first step replace what was there.

        Args:
            out: What the step returned.
            first: Whether it is the horizon's first.
            counted: `[N]` bool, which environments count; None if all do.
        """
        if first:
            for total in self.sums.values():
                total.zero_()
        if METRICS not in out.keys():  # noqa: SIM118 (a TensorDict iterates over rows)
            return
        for name, numbers in out[METRICS].items():
            numbers = numbers.to(torch.float32)
            known = ~numbers.isnan()
            if counted is not None:
                known &= counted.reshape(-1, *[1] * (numbers.ndim - 1))
            step = torch.stack((torch.where(known, numbers, 0.0).sum(), known.sum()))
            if name in self.sums:
                self.sums[name] += step
            else:
                self.sums[str(name)] = step

    def tensors(self) -> dict[str, Tensor]:
        """Return what stays where it is from horizon to horizon, by name."""
        return self.sums

    def means(self, *, together: bool = False) -> dict[str, Tensor]:
        """Return `env/<name>`, 0-d; NaN where nothing was reported.

        Args:
            together: Whether the numbers of all processes count, each of which calls this with the same names.
        """
        sums = {name: self.sums[name].clone() for name in sorted(self.sums)}
        if together:
            world.sum_(list(sums.values()))
        return {f"env/{name}": total[0] / total[1] for name, total in sums.items()}
