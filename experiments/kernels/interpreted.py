"""Triton kernels on a CPU: `prepare` before anything imports Triton, then call them with CPU tensors."""

import os
import sys
from contextlib import contextmanager

import numpy as np


class Traffic:
    """What kernels asked for.

    Attributes:
        requested: Bytes of all loads: what the caches must give.
        operations: Multiplications and additions of matrix products, padding included.
    """

    def __init__(self):
        self.requested = self.operations = 0
        self.read, self.written = [], []

    @property
    def memory(self):
        """Bytes that must come from or go to memory: each place once, and what was written is not read from there."""
        read, written = _places(self.read), _places(self.written)
        fresh = ~np.isin(read[:, 0], written[:, 0])
        return int(read[fresh, 1].sum() + written[:, 1].sum())


def _places(found):
    """Return `[places, 2]` address and size of each place."""
    rows = [np.stack([at, np.full_like(at, size)], 1) for at, size in found]
    return np.unique(np.concatenate(rows), axis=0) if rows else np.zeros((0, 2), np.uint64)


def prepare():
    """Let kernels be interpreted in this process.

    Raises:
        RuntimeError: If Triton was imported before: then its own functions would not be.
    """
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError("Triton was imported before it could be told to interpret. Set TRITON_INTERPRET=1 first.")
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import triton.language as tl
    from triton.runtime import interpreter

    plain = interpreter.InterpreterBuilder.create_dot
    if plain.__module__ == __name__:
        return

    def create_dot(self, a, b, *others):
        # The interpreter keeps bf16 as 16-bit whole numbers, which triton 3.7 multiplies as such.
        return plain(self, *(widened(operand) for operand in (a, b)), *others)

    def widened(operand):
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        numbers = interpreter._convert_float(operand.data, tl.bfloat16, tl.float32, None).view(np.float32)
        return interpreter.TensorHandle(numbers, tl.float32)

    cast = interpreter.InterpreterBuilder.cast_impl

    def cast_impl(self, source, target):
        # A GPU rounds to the nearest bf16, the interpreter towards zero.
        if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
            return cast(self, source, target)
        bits = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16().view(torch.int16).numpy()
        return interpreter.TensorHandle(bits.view(np.uint16), tl.bfloat16)

    interpreter.InterpreterBuilder.create_dot, interpreter.InterpreterBuilder.cast_impl = create_dot, cast_impl


@contextmanager
def counted():
    """Count what kernels ask for, in the `Traffic` that this gives."""
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    traffic = Traffic()
    load, store, dot = Builder.create_masked_load, Builder.create_masked_store, Builder.create_dot

    def counted_load(self, pointers, mask, *others):
        found = load(self, pointers, mask, *others)
        at, size = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)], found.data.dtype.itemsize
        traffic.requested += at.size * size
        traffic.read.append((np.unique(at), size))
        return found

    def counted_store(self, pointers, value, mask, *others):
        at = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        traffic.written.append((np.unique(at), value.data.dtype.itemsize))
        return store(self, pointers, value, mask, *others)

    def counted_dot(self, a, b, *others):
        traffic.operations += 2 * a.data.shape[-2] * a.data.shape[-1] * b.data.shape[-1]
        return dot(self, a, b, *others)

    Builder.create_masked_load, Builder.create_masked_store, Builder.create_dot = (
        counted_load,
        counted_store,
        counted_dot,
    )
    try:
        yield traffic
    finally:
        Builder.create_masked_load, Builder.create_masked_store, Builder.create_dot = load, store, dot
