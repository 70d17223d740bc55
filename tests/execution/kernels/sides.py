"""Kernels and plain functions side by side: on the GPU where there is one, else interpreted on the CPU."""

import sys
from pathlib import Path

import pytest
import torch

STUDIES = str(Path(__file__).parents[3] / "experiments")
sys.path.insert(0, STUDIES)  # no package that is installed
try:
    from kernels import interpreted
finally:
    sys.path.remove(STUDIES)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytest.importorskip("triton", reason="Triton is an extra for development, for Linux on x86-64")
if DEVICE == "cpu":
    interpreted.prepare()


def moved(value):
    """Return tensors, nested in tuples and lists, on the device that kernels run on."""
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE)
    if isinstance(value, (tuple, list)):
        items = [moved(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def tensors(results):
    """Return the tensors in results, in their order."""
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for result in results or () for tensor in tensors(result)]


def compare(kernel, plain, *arguments, rtol=1e-4, atol=1e-6, share=None, **keywords):
    """Call both, and check that results are equal to rounding, or that their difference is a small share of them."""
    arguments, keywords = moved(list(arguments)), {name: moved(value) for name, value in keywords.items()}
    found, expected = tensors(kernel(*arguments, **keywords)), tensors(plain(*arguments, **keywords))
    assert len(found) == len(expected)
    for mine, its in zip(found, expected, strict=True):
        assert mine.dtype == its.dtype
        assert mine.shape == its.shape
        if share is None:
            torch.testing.assert_close(mine, its, rtol=rtol, atol=atol, equal_nan=True)
        else:
            assert (mine.double() - its.double()).norm() <= share * its.double().norm()
    return found
