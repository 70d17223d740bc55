"""Random numbers that leave those of a run alone."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def forked(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which torch's generators, of the CPU and of `device`, are as before it."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
