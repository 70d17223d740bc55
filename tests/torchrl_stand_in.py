"""Stands in for `torchrl.data` where TorchRL is not installed: its spec classes, with what rl8 reads of them.

TorchRL ties the version of tensordict, so it can rarely be installed beside rl8. tests/test_specs.py compares the class
tree with TorchRL's own wherever it is found.
"""

from types import SimpleNamespace

import torch


class TensorSpec:
    __module__ = "torchrl.data.tensor_specs"

    def __init__(self, shape, device, dtype, space=None):
        self.shape = torch.Size([shape] if isinstance(shape, int) else shape)
        self.device, self.dtype, self.space = torch.device(device or "cpu"), dtype, space


class Unbounded(TensorSpec):
    def __new__(cls, *args, dtype=torch.float32, **kwargs):
        return object.__new__(UnboundedContinuous if dtype.is_floating_point else UnboundedDiscrete)

    def __init__(self, shape=1, device=None, dtype=torch.float32):
        super().__init__(shape, device, dtype)


class UnboundedContinuous(Unbounded):
    pass


class UnboundedDiscrete(Unbounded):
    pass


class Bounded(TensorSpec):
    def __init__(self, low, high, shape, device=None, dtype=torch.float32):
        limits = [torch.as_tensor(limit, dtype=dtype).expand(shape) for limit in (low, high)]
        super().__init__(shape, device, dtype, SimpleNamespace(low=limits[0], high=limits[1]))


class Categorical(TensorSpec):
    def __init__(self, n, shape=(), device=None, dtype=torch.int64):
        super().__init__(shape, device, dtype, SimpleNamespace(n=n))

    @property
    def n(self):
        return self.space.n


class MultiCategorical(Categorical):
    def __init__(self, nvec):
        self.nvec = torch.as_tensor(nvec)
        TensorSpec.__init__(self, self.nvec.shape, None, torch.int64)


class Binary(Categorical):
    def __init__(self, n=None, shape=None, dtype=torch.int8):
        super().__init__(2, [n] if shape is None else shape, None, dtype)


class OneHot(TensorSpec):
    def __init__(self, n):
        super().__init__(n, None, torch.bool)


class MultiOneHot(OneHot):
    def __init__(self, nvec):
        super().__init__(sum(nvec))


class NonTensor(TensorSpec):
    def __init__(self, shape):
        super().__init__(shape, None, None)


class Composite(TensorSpec):
    def __init__(self, entries=(), shape=(), device=None, **more):
        super().__init__(shape, device, None)
        self.device = device
        self.entries = {**dict(entries), **more}

    def items(self):
        return self.entries.items()
