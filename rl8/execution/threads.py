"""Tasks in parallel threads, each with torch's operations to itself alone.

Several threads can share every operation, or each can have operations of its own. Sharing costs a barrier per operation
and leaves caches to chance, and a small network's operations hardly last longer than the barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")

_pools: dict[int, ThreadPoolExecutor] = {}  # by number of threads


@contextmanager
def alone() -> Iterator[None]:
    """Keep this thread's operations from being shared with others in the block."""
    count = torch.get_num_threads()
    if count != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if count != 1:
            torch.set_num_threads(count)


def side_by_side(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return the tasks' results, in order; they run in as many threads as torch is set to use.

    A task must not depend on another, nor on the caller's gradient mode or autocasting, which are each thread's own.

    Raises:
        Exception: What a task raised, the first of them if several did, after all have ended.
    """
    count = torch.get_num_threads()
    if count == 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    with alone():
        if count not in _pools:
            _pools[count] = ThreadPoolExecutor(count - 1, "rl8")
        others = [_pools[count].submit(_alone, task) for task in tasks[1:]]
        try:
            first = tasks[0]()
        finally:
            wait(others)
        return [first, *(other.result() for other in others)]


def _alone(task: Callable[[], Result]) -> Result:
    """Run a task whose operations are not shared, in a thread of the pool."""
    # Not when the pool's thread starts: that may be after the caller has set the number anew, for MKL in all threads.
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    return task()
