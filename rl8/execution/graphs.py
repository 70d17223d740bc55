"""Work that is captured once as a CUDA graph and then replayed, so that the host has nothing to do between kernels.

What can't be captured is done eagerly from then on, and one message says which line is the reason.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tensordict
import torch

from rl8.rollout.containers import Tensors

# Frames of a traceback that say nothing about whose operation it was.
NOT_THE_CULPRIT = [str(Path(module.__file__ or "").parent) for module in (torch, tensordict)] + [__file__]


class Work:
    """A piece of work that is simply called."""

    def __init__(self, work: Callable[..., None]) -> None:
        self.work = work

    def __call__(self, *arguments: Any) -> None:
        """Do the work."""
        self.work(*arguments)

    def invalidate(self) -> None:
        """Forget what was captured: a tensor that the work reads has moved."""


class CapturedWork(Work):
    """Work that is captured as a CUDA graph at its third call, checked once against eager, then replayed.

    The first two calls are eager: they allocate what is allocated lazily and let libraries choose their kernels.

    Args:
        work: Reads and writes tensors that stay where they are.
        name: What it is, for messages.
        tensors: Gives by name everything that `work` reads and writes, the same names each time.
        pool: Memory that graphs share, as `torch.cuda.graph_pool_handle` gives it; None for memory of its own.
        stream: Where it is warmed up and captured; not the one that is current when it is called.
        told: Whether a warning says why it can't be captured: not where it costs next to nothing eagerly.

    Attributes:
        graph: What is replayed; None before it is captured, and where it can't be.
        calls: Eager calls since the last `invalidate`, before the one that captures.
        refused: Whether it can't be captured.
    """

    warm_up_calls = 2

    def __init__(
        self,
        work: Callable[..., None],
        name: str,
        tensors: Callable[[], Tensors],
        stream: torch.cuda.Stream,
        pool: Any = None,
        *,
        told: bool = True,
    ) -> None:
        super().__init__(work)
        self.told = told
        self.name, self.tensors, self.stream, self.pool = name, tensors, stream, pool
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0
        self.refused = False
        self._valid = True  # whether nothing has moved while it was captured
        self._arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> None:
        """Do the work, or replay it.

        Args:
            *arguments: Of the work. A tensor's numbers may change from call to call, anything else needs a new graph.
        """
        self._take(arguments)
        if self.graph is not None:
            self.graph.replay()
        elif self.refused:
            self._do()
        elif self.calls < self.warm_up_calls:
            self.calls += 1
            self._work_aside()
        else:
            self._valid = True
            try:
                graph = self._checked_graph()
                self.graph = graph if self._valid else None
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # if it is not the capture's, the work raises it once more
                self.refused = True
                if self.told:
                    warnings.warn(
                        f"The {self.name} can't be captured as a CUDA graph and runs eagerly: {_reason(error)}. Look "
                        "for .item(), float(tensor), boolean masks or Python counters in the environment's step or "
                        "the model's forward; device.graphs=false silences this.",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                self._do()

    def invalidate(self) -> None:
        """Forget the graph; the next calls warm up and capture anew."""
        self.graph, self.calls, self._valid = None, 0, False

    def _take(self, arguments: tuple[Any, ...]) -> None:
        """Write the arguments to where a graph reads them."""
        if len(arguments) == len(self._arguments) and all(map(_fits, self._arguments, arguments)):
            for kept, given in zip(self._arguments, arguments, strict=True):
                if isinstance(kept, torch.Tensor):
                    kept.copy_(given)
        else:
            self._arguments = tuple(given.clone() if isinstance(given, torch.Tensor) else given for given in arguments)
            self.invalidate()

    def _do(self) -> None:
        try:
            self.work(*self._arguments)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"There is not enough memory on {self.stream.device} for the {self.name}: "
                f"{str(error).splitlines()[0]} Try device.piece_size=262144, or a smaller algo.num_envs."
            ) from error

    def _work_aside(self) -> None:
        """Do the work on the stream on which it will be captured: autograd remembers the one that it first met."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                self._do()
        finally:
            current.wait_stream(self.stream)

    def _checked_graph(self) -> torch.cuda.CUDAGraph:
        """Do the work once, and return a graph of it that gives the same result.

        Raises:
            Exception: If the work waits for the device, can't be captured, or a replay differs from the eager result.
                Then nothing has been done.
        """
        before = _cloned(self.tensors())
        rng = torch.cuda.get_rng_state(self.stream.device)

        @torch.no_grad()
        def undo() -> None:
            tensors = self.tensors()
            if tensors.keys() != before.keys():
                raise RuntimeError(f"{', '.join(tensors.keys() ^ before.keys())} is there at some calls only")
            for name, tensor in tensors.items():
                tensor.copy_(before[name])
            torch.cuda.set_rng_state(rng, self.stream.device)

        try:
            with _waiting_forbidden():
                self._work_aside()
            eager = _cloned(self.tensors())
            undo()
            graph = self._captured()
            graph.replay()
            _compare(self.tensors(), eager)
        except Exception:
            undo()
            raise
        return graph

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Return a graph of the work, which is not done.

        Raises:
            Exception: What the work raised while it was captured, or the capture at its end.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.stream.device)
        cause: Exception | None = None
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                try:
                    self._do()
                except Exception as error:
                    cause = error  # the end of a broken capture raises another, which says nothing
                    raise
        except Exception as error:
            # A broken capture leaves random numbers refused until another succeeds, and its stream current.
            with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph(), pool=self.pool, stream=self.stream):
                torch.zeros(1, device=self.stream.device)
            torch.cuda.set_stream(current)
            raise cause or error from None
        return graph


@contextmanager
def _waiting_forbidden() -> Iterator[None]:
    """Let operations raise that wait for the device, of which torch knows most; found so, they break no capture."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that it knows not all
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _fits(kept: Any, given: Any) -> bool:
    """Return whether an argument can take another's place in a graph."""
    if isinstance(kept, torch.Tensor) and isinstance(given, torch.Tensor):
        return kept.shape == given.shape and kept.dtype == given.dtype
    return type(kept) is type(given) and bool(kept == given)


def _cloned(tensors: Tensors) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _compare(replayed: Tensors, eager: Tensors) -> None:
    """Raise RuntimeError if a replay's result differs from the eager one; the message names where.

    Not if a few elements do: another kernel's rounding may tip a sampled action, and with it one environment.
    """
    for name, tensor in replayed.items():
        one, other = tensor.double(), eager[name].double()
        close = torch.isclose(one, other, rtol=1e-2, atol=1e-3, equal_nan=True)
        if close.double().mean() < 0.99:
            difference = (one - other).abs().max().item()
            raise RuntimeError(f"a replay differs from the eager result in {name} by {difference:.3g}")


def _reason(error: Exception) -> str:
    """Return what went wrong, and where in whose code."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(tuple(NOT_THE_CULPRIT))
    ]
    if not frames:
        return text
    return f"{text}, in {Path(frames[-1].filename).name}, line {frames[-1].lineno}: {frames[-1].line}"
