"""What a launcher such as torchrun told this process through its environment; loads no torch."""

from __future__ import annotations

import hashlib
import os
from typing import Final

_NEEDED: Final = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_worker() -> bool:
    """Return whether a launcher started this process as one of several, or of one that it may start again."""
    return all(name in os.environ for name in _NEEDED)


def has_agent() -> bool:
    """Return whether torchrun's agent keeps a store for the processes, and starts them again."""
    return is_worker() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def rank() -> int:
    """Return this process's number, from 0; 0 where no launcher started it."""
    return int(os.environ["RANK"]) if is_worker() else 0


def size() -> int:
    """Return the number of processes on all machines."""
    return int(os.environ["WORLD_SIZE"]) if is_worker() else 1


def place() -> tuple[int, int] | None:
    """Return this process's number on its machine, from 0, and how many there are; None if nobody told it."""
    if is_worker() and "LOCAL_RANK" in os.environ and "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return None if size() > 1 else (0, 1)


def attempt() -> int:
    """Return how often the launcher has started the processes again, after one of them failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if is_worker() else 0


def seed_of(seed: int, number: int, *more: int) -> int:
    """Return the seed of a process's random numbers: the run's own for process 0, else one that no other process has.

    Args:
        seed: Of the run.
        number: Of the process.
        *more: Further numbers that shall give other random numbers, e.g. of the iteration at which they begin.
    """
    if number == 0 and not more:
        return seed
    text = "/".join(map(str, (seed, number, *more)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
