"""Numbers for the log, computed in one piece of work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rl8.execution.graphs import Work
from rl8.rollout.containers import Tensors
from rl8.rollout.metrics import Metrics


class Report:
    """A function's numbers, perhaps replayed, and handed out as a copy: a replay would write over them.

    Args:
        function: Returns them by name, 0-d each, the same names for the same arguments.
        name: What they are, for messages.
        work: Makes a function replayable; see `Eager.work`.
    """

    def __init__(self, function: Callable[..., Metrics], name: str, work: Callable[..., Work]) -> None:
        self._function = function
        self._names: tuple[str, ...] = ()
        self._numbers: Tensor | None = None  # [K] at one address
        self._work = work(self._compute, name, self._tensors)

    def __call__(self, *arguments: Any) -> Metrics:
        """Return the function's numbers for some arguments; other ones than before are computed anew, not replayed."""
        self._work(*arguments)
        assert self._numbers is not None
        return dict(zip(self._names, self._numbers.clone().unbind(), strict=True))

    def _compute(self, *arguments: Any) -> None:
        found = self._function(*arguments)
        numbers = torch.stack([number.to(torch.float32) for number in found.values()])
        self._names = tuple(found)
        if self._numbers is None or self._numbers.shape != numbers.shape:
            self._numbers = numbers
        else:
            self._numbers.copy_(numbers)

    def _tensors(self) -> Tensors:
        return {} if self._numbers is None else {"numbers": self._numbers}
