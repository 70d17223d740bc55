"""Whether a kernel or the plain function acts: both are called with the same real inputs, compared and timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from rl8.rng import forked

# Of the length of a result: a wrong kernel is far off, and rounding is not.
TOLERANCE: Final = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 5e-2}
REPEATS: Final = 5
# A result this much shorter than the longest is nothing but rounding: what it is does not matter.
NEGLIGIBLE: Final = 1e-6


class Choice(NamedTuple):
    """What acts, and why.

    Attributes:
        kernel: Whether the kernel acts.
        reason: One line for the log.
        kernel_ms: Milliseconds of a call, the least of some; NaN where it did not come to that.
        plain_ms: The same of the plain function.
    """

    kernel: bool
    reason: str
    kernel_ms: float = float("nan")
    plain_ms: float = float("nan")


def choose(
    kernel: Callable[..., Any],
    plain: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    tolerance: float,
    device: torch.device,
    timed: bool = True,
) -> Choice:
    """Compare a kernel with the plain function of the same signature, and choose the faster if they agree.

    Both are called several times, with the same random numbers, and none is taken from the run's: they must change
    nothing that they are given. Waits for the device.

    Args:
        kernel: May raise: a kernel that can't be compiled here does not act.
        plain: The function that it stands for.
        inputs: Arguments by name; the plain function's errors are the caller's.
        tolerance: Largest length of a difference, as a share of the length of the plain result; see `TOLERANCE`. Of
            whole numbers, the largest share that differs: rounding may tip a choice.
        device: Where both compute.
        timed: Whether the kernel must be faster too.
    """
    with forked(device):
        expected = _tensors(plain(**inputs))
    try:
        with forked(device):
            found = _tensors(kernel(**inputs))
        _wait(device)
    except Exception as error:  # whatever a compiler or a driver raises
        return Choice(False, f"the plain path acts, {type(error).__name__}: {_first_line(error)}")
    wrong = _wrong(found, expected, tolerance)
    if wrong:
        return Choice(False, f"the plain path acts, {wrong}")
    if not timed:
        return Choice(True, "the kernel acts")
    with forked(device):
        kernel_ms, plain_ms = _fastest([kernel, plain], inputs, device)
    told = f"{kernel_ms:.3g} ms against {plain_ms:.3g} ms"
    if kernel_ms >= plain_ms:
        return Choice(False, f"the plain path acts, the kernel takes {told}", kernel_ms, plain_ms)
    return Choice(True, f"the kernel acts, {told}", kernel_ms, plain_ms)


def _wrong(found: list[Tensor], expected: list[Tensor], tolerance: float) -> str:
    """Return what is wrong with a kernel's results, or an empty text."""
    if len(found) != len(expected):
        return f"the kernel gave {len(found)} results, not {len(expected)}"
    lengths = [0.0 if _whole(its) else _length(its) for its in expected]
    shortest = NEGLIGIBLE * max((length for length in lengths if math.isfinite(length)), default=0.0)
    for index, (mine, its) in enumerate(zip(found, expected, strict=True)):
        if mine.shape != its.shape:
            return f"result {index} has shape {tuple(mine.shape)}"
        if torch.equal(mine, its):
            continue
        if _whole(its):
            share = float((mine != its).double().mean())
            if share > tolerance:
                return f"{share:.1%} of result {index} differ"
            continue
        difference = _length(mine.double() - its.double()) / max(lengths[index], shortest)
        if not difference <= tolerance:  # NaN is no agreement
            return f"result {index} differs by {difference:.1e} of its length"
    return ""


def _whole(tensor: Tensor) -> bool:
    return not tensor.dtype.is_floating_point


def _length(tensor: Tensor) -> float:
    return float(tensor.detach().double().norm())  # host sync: once, before anything is captured


def _fastest(functions: list[Callable[..., Any]], inputs: Mapping[str, Any], device: torch.device) -> list[float]:
    """Return the least milliseconds of a call of each function; their turns alternate."""
    times = [float("inf")] * len(functions)
    for _ in range(REPEATS):
        for index, function in enumerate(functions):
            _wait(device)
            begin = time.perf_counter()
            function(**inputs)
            _wait(device)
            times[index] = min(times[index], 1e3 * (time.perf_counter() - begin))
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _tensors(results: Any) -> list[Tensor]:
    """Return the tensors in some results, in their order, nested in tuples and lists."""
    if isinstance(results, Tensor):
        return [results]
    if isinstance(results, (tuple, list)):
        return [tensor for result in results for tensor in _tensors(result)]
    return []


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no message"])[0]
