"""Where tensors are computed and how: device, precision, piece size, CUDA graphs.

The algorithm hands its work over as functions of no arguments that read and write tensors which stay where they are.
On a CPU they are simply called; on CUDA they are captured once and replayed, so that the host has nothing to do between
kernels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

from rl8.execution.graphs import CapturedWork, Tensors, Work
from rl8.settings import DeviceSettings

Function = TypeVar("Function", bound=Callable[..., Any])

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Execution:
    """Decides device, precision, piece size and capture for one algorithm.

    Args:
        settings: What the user chose.
        enable_amp: Whether networks compute in `amp_dtype`.
        amp_dtype: `"bf16"` or `"fp16"`.

    Attributes:
        threads: How many pieces of a minibatch are computed at once.

    Raises:
        ValueError: If the device does not exist here.
    """

    def __init__(self, settings: DeviceSettings, *, enable_amp: bool = False, amp_dtype: str = "bf16") -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        if self.device.type == "cuda":
            self._check_cuda()
        self.amp_dtype = AMP_DTYPES[amp_dtype] if enable_amp else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=enable_amp and amp_dtype == "fp16")
        torch.set_float32_matmul_precision(settings.matmul_precision)
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        self.graphs = settings.graphs and self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if self.graphs else None  # for captures
        # Inductor's code shares its own operations out, and compiles in one thread.
        self.threads = torch.get_num_threads() if self.device.type == "cpu" and not settings.compile else 1

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks compute."""
        if self.amp_dtype is None:
            return nullcontext()
        # The cache of cast weights outlives an optimizer step inside one context and is illegal in a captured graph.
        return torch.autocast(self.device.type, dtype=self.amp_dtype, cache_enabled=False)

    def piece_size(self, suited: int) -> int | None:
        """Return env steps per forward and backward pass of a thread; None for whole minibatches.

        Args:
            suited: What suits the model on a CPU.
        """
        if self.settings.piece_size is not None:
            return self.settings.piece_size
        return suited if self.device.type == "cpu" else None

    def compiled(self, function: Function) -> Function:
        """Return `function`, fused by Inductor at its first call if the settings say so."""
        compiled: Any = torch.compile(function, dynamic=False) if self.settings.compile else function
        fused: Function = compiled
        return fused

    def replayed(self, work: Callable[[], None], name: str, tensors: Callable[[], Tensors]) -> Work:
        """Return `work` so that calling it does the same, replayed as a CUDA graph where that is possible.

        Args:
            work: Reads and writes tensors that stay where they are.
            name: What it is, for messages.
            tensors: Gives by name all that `work` reads and writes, to compare a replay with the eager result once.
        """
        return Work(work) if self._stream is None else CapturedWork(work, name, tensors, self._stream)

    def mark(self) -> Any:
        """Return a point in the device's time."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Return milliseconds between two marks; on CUDA the host must have waited for the second."""
        return float(begin.elapsed_time(end) if self.device.type == "cuda" else (end - begin) * 1e3)

    def memory_mb(self) -> float:
        """Return the peak memory of this process so far, in MB: of the device on CUDA, resident on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)

    def _check_cuda(self) -> None:
        if not torch.cuda.is_available():
            raise ValueError(
                f"device.device={self.device} but torch {torch.__version__} sees no CUDA device. Try device=cpu."
            )
        count = torch.cuda.device_count()
        if (self.device.index or 0) >= count:
            raise ValueError(
                f"device.device={self.device} does not exist: torch sees {count} CUDA device(s), counted from 0. "
                "Try device=cuda."
            )
