"""Where tensors are computed and how: device, precision, piece size, CUDA graphs.

The algorithm hands its work over as functions of no arguments that read and write tensors which stay where they are.
On a CPU they are simply called; on CUDA they are captured once and replayed, so that the host has nothing to do between
kernels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

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

    def replayed(self, work: Callable[[], None], name: str, tensors: Callable[[], list[torch.Tensor]]) -> Work:
        """Return `work` so that calling it does the same, replayed as a CUDA graph where that is possible.

        Args:
            work: Reads and writes tensors that stay where they are.
            name: What it is, for messages.
            tensors: Gives everything that `work` reads and writes, to compare a replay with the eager result once.
        """
        return CapturedWork(work, name, tensors, self.device) if self.graphs else Work(work)

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


class Work:
    """A piece of work that is simply called."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work

    def __call__(self) -> None:
        """Do the work."""
        self.work()

    def invalidate(self) -> None:
        """Forget what was captured: a tensor that the work reads has moved."""


class CapturedWork(Work):
    """Work that is captured as a CUDA graph at its third call, checked once against eager, then replayed.

    The first two calls are eager: they allocate what is allocated lazily and let libraries choose their kernels.

    Args:
        work: Reads and writes tensors that stay where they are.
        name: What it is, for messages.
        tensors: Gives everything that `work` reads and writes.
        device: The CUDA device.
    """

    warm_up_calls = 2

    def __init__(
        self, work: Callable[[], None], name: str, tensors: Callable[[], list[torch.Tensor]], device: torch.device
    ) -> None:
        super().__init__(work)
        self.name, self.tensors, self.device = name, tensors, device
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0
        self.refused = False

    def __call__(self) -> None:
        """Do the work, or replay it."""
        if self.graph is not None:
            self.graph.replay()
            return
        self.calls += 1
        if self.refused or self.calls <= self.warm_up_calls:
            self._work_aside()
            return
        try:
            self._capture_and_check()
        except (RuntimeError, AssertionError) as error:
            self.graph, self.refused = None, True
            reason = str(error).strip().splitlines()[0]
            warnings.warn(
                f"The {self.name} can't be captured as a CUDA graph and runs eagerly: {reason} "
                "Look for .item(), float(tensor), boolean masks or Python counters in the environment's step or the "
                "model's forward; device.graphs=false silences this.",
                RuntimeWarning,
                stacklevel=2,
            )
            self._work_aside()

    def invalidate(self) -> None:
        """Forget the graph; the next calls warm up and capture anew."""
        self.graph, self.calls = None, 0

    def _work_aside(self) -> None:
        """Do the work on a stream of its own, as it will be captured: autograd remembers the stream it first met."""
        stream, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self.work()
        current.wait_stream(stream)

    def _capture_and_check(self) -> None:
        """Do the work once, and keep a graph of it that gives the same result.

        Raises:
            RuntimeError: If an operation can't be captured, or a replay differs from the eager result.
        """
        tensors = self.tensors()
        before = [tensor.clone() for tensor in tensors]
        rng = torch.cuda.get_rng_state(self.device)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.work()
        finally:
            torch.cuda.set_rng_state(rng, self.device)
            _restore(self.tensors(), before)
        graph.replay()
        replayed = [tensor.clone() for tensor in self.tensors()]
        _restore(self.tensors(), before)
        torch.cuda.set_rng_state(rng, self.device)
        self._work_aside()
        for one, other in zip(replayed, self.tensors(), strict=True):
            difference = one.double() - other.double()
            close = torch.isclose(one.double(), other.double(), rtol=1e-2, atol=1e-3, equal_nan=True)
            # Not all: another kernel's rounding may tip a sampled action, and with it one environment.
            if close.double().mean() < 0.99:
                _restore(self.tensors(), before)  # the caller does the work once more
                torch.cuda.set_rng_state(rng, self.device)
                raise RuntimeError(f"a replay differs from the eager result by {difference.abs().max()}.")
        _restore(self.tensors(), replayed)
        self.graph = graph


def _restore(tensors: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)
