"""A pretended CUDA device, on which what CUDA forbids is forbidden.

Its tensors keep their numbers on the CPU, and call themselves `meta`, so that autograd takes them for a device's.
Operations on them compute, but may not mix them with the CPU's. What happens while a graph is captured is written down
and has no effect. A replay does that and nothing else, to the very same memory: Python has no part in it. What waits
for the device, or copies from or to the host, can't be captured, and leaves torch's state as CUDA leaves it.
"""

import time
from contextlib import contextmanager
from functools import cache
from importlib import import_module

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rl8.execution.cuda import CUDA

DEVICE = torch.device("meta")
ATEN = torch.ops.aten
COPIES = (ATEN._to_copy.default, ATEN.copy_.default)
ANSWERS = (ATEN._local_scalar_dense.default, ATEN.equal.default)
INDEXING = (ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._index_put_impl_)


class DeviceTensor(torch.Tensor):
    """A tensor on the device; `numbers` are its elements."""

    @staticmethod
    def __new__(cls, numbers):
        options = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, device=DEVICE, **options)

    def __init__(self, numbers):
        self.numbers = numbers

    def __repr__(self):
        return f"DeviceTensor({self.numbers})"

    def data_ptr(self):
        return self.numbers.data_ptr()

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} without a device")


class Graph:
    """What was captured: operations with their arguments, and where their results go."""

    def __init__(self):
        self.kernels = []
        self.replays = 0

    def replay(self):
        self.replays += 1
        for func, args, kwargs, places in self.kernels:
            for place, value in zip(places, _tensors(func(*args, **kwargs)), strict=True):
                if place is not None:
                    place.copy_(value)


class Stream:
    device = DEVICE

    def __init__(self, device="cuda"):
        assert torch.device(device).type == "cuda"

    def wait_stream(self, other):
        assert other is not self


class Event:
    def __init__(self, *, enable_timing):
        assert enable_timing

    def record(self, stream=None):
        assert stream is not None  # the default is that of the current device
        self.time = time.perf_counter()

    def elapsed_time(self, other):
        return (other.time - self.time) * 1e3


class Literals(TorchFunctionMode):
    """Brings Python's numbers to the device by way of the CPU: torch forgets what `meta` tensors are made of."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == DEVICE.type:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class Accelerator(TorchDispatchMode):
    """The device, there in a `with` block.

    Attributes:
        waits: Operations outside of captures for which the host waited.
        operations: Those that the host launched one by one, outside of captures and replays.
        launched: Names of Triton's kernels, replays left out.
        sync_debug_mode: 2 where they raise.
    """

    def __init__(self):
        super().__init__()
        self.waits = []
        self.launched = []
        self.operations = []
        self.sync_debug_mode = 0
        self.stream = self.default_stream = Stream()
        self.graph = None  # that is being captured
        self.invalid = False  # whether the capture is broken
        self.random = True  # whether random numbers are to be had
        self.overwritten = {}  # memory by address, as it was before the capture

    def install(self, monkeypatch):
        """Let torch.cuda, torch's optimizers and rl8's algorithms find the device, named `cuda`."""
        fakes = {
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": Graph,
            "graph": self.capture,
            "stream": self.on,
            "current_stream": lambda _device=None: self.stream,
            "set_stream": lambda stream: setattr(self, "stream", stream),
            "graph_pool_handle": lambda: "pool",
            "is_available": lambda: True,
            "device_count": lambda: 2,
            "get_rng_state": lambda _device: torch.get_rng_state(),
            "set_rng_state": lambda state, _device: torch.set_rng_state(state),
            "synchronize": lambda _device: None,
            "max_memory_allocated": lambda _device: 3 * 2**20,
            "get_sync_debug_mode": lambda: self.sync_debug_mode,
            "set_sync_debug_mode": lambda mode: setattr(self, "sync_debug_mode", {"error": 2}.get(mode, mode)),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        for module in map(import_module, ("torch.optim.optimizer", "torch.optim.adam")):
            for kind in ("fused_kernels", "capturable"):
                name = f"_get_{kind}_supported_devices"
                monkeypatch.setattr(module, name, lambda *_args: [DEVICE.type, "cpu"], raising=False)
        self._take_kernels(monkeypatch)
        enabled = torch.is_autocast_enabled
        monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: kind != (DEVICE.type,) and enabled(*kind))

        class Pretended(CUDA):
            def __init__(self, settings, **options):
                super().__init__(settings, **options)
                self.device = DEVICE

        monkeypatch.setattr("rl8.execution.kinds.CUDA", Pretended)

    def _take_kernels(self, monkeypatch):
        """Let kernels that Triton interprets be launched on the device, and be captured."""
        try:
            from triton.runtime.interpreter import InterpretedFunction
        except ImportError:
            return
        run = InterpretedFunction.run
        monkeypatch.setattr("rl8.execution.kernels.choice.REPEATS", 1)  # of times that say nothing

        def launch(kernel, *args, **kwargs):
            args, kwargs = _mapped((args, kwargs), lambda tensor: getattr(tensor, "numbers", tensor))
            self.launched.append(kernel.__name__)
            if self.graph is not None:
                for memory in _memory([args, kwargs]):
                    self.overwritten.setdefault(memory.data_ptr(), (memory, memory.clone()))
                self.graph.kernels.append((run, (kernel, *args), kwargs, []))
            run(kernel, *args, **kwargs)

        monkeypatch.setattr(InterpretedFunction, "run", launch)

    def __enter__(self):
        self.literals = Literals()
        self.literals.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.literals.__exit__(*error)

    @contextmanager
    def on(self, stream):
        """Do what `torch.cuda.stream` does."""
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    @contextmanager
    def capture(self, graph, stream, pool=None):
        """Do what `torch.cuda.graph` does, not least where a capture was broken."""
        rng, before = torch.get_rng_state(), self.stream
        self.graph, self.stream, self.overwritten, self.random = graph, stream, {}, False
        try:
            yield
        finally:
            for memory, numbers in self.overwritten.values():
                memory.copy_(numbers)
            torch.set_rng_state(rng)
            self.graph, broken, self.invalid = None, self.invalid, False
            if broken:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
            self.stream, self.random = before, True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        given = _tensors((args, kwargs))
        ours = [tensor for tensor in given if isinstance(tensor, DeviceTensor)]
        theirs = [tensor for tensor in given if not isinstance(tensor, DeviceTensor)]
        assert all(tensor.device.type == "cpu" for tensor in theirs), f"{func} got a tensor without numbers"
        to = kwargs.get("device")
        here = bool(ours) if to is None else to.type == DEVICE.type
        if not here and not ours:
            return func(*args, **kwargs)
        if func in COPIES and (theirs or not here):
            self._wait(func, known=not kwargs.get("non_blocking") and not (len(args) > 2 and args[2]))
        elif any(tensor.ndim > 0 for tensor in theirs) and func.overloadpacket not in INDEXING:
            raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got some of the CPU's too")
        elif func in ANSWERS or _shaped_by_numbers(func, args):
            self._wait(func)
        if not self.random and self.graph is None and torch.Tag.nondeterministic_seeded in func.tags:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        if here and to is not None:
            kwargs["device"] = torch.device("cpu")
        args, kwargs = _mapped((args, kwargs), lambda tensor: getattr(tensor, "numbers", tensor))
        result = self._compute(func, args, kwargs)
        if not here:
            return result
        known = {id(tensor.numbers): tensor for tensor in ours}  # what it wrote to
        return _mapped(result, lambda numbers: known[id(numbers)] if id(numbers) in known else DeviceTensor(numbers))

    def _wait(self, func, *, known=True):
        if self.graph is not None:
            self.invalid = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nSearch for ...")
        if known and self.sync_debug_mode == 2:
            raise RuntimeError("called a synchronizing CUDA operation")
        self.waits.append(str(func))

    def _compute(self, func, args, kwargs):
        """Return the result on the CPU, written down if a graph is being captured."""
        names, writes = _signature(func)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if self.graph is None:
            result = func(*args, **kwargs)
            if writes or not _addresses(result) <= _addresses(given):  # else it is a view
                self.operations.append(str(func))
            return result
        for memory in _memory([given.get(name) for name in writes]):
            if memory.data_ptr() not in self.overwritten:
                self.overwritten[memory.data_ptr()] = memory, memory.clone()
        result = func(*args, **kwargs)
        addresses = _addresses(given)
        places = [
            None if tensor.untyped_storage().data_ptr() in addresses else tensor  # where it lies already
            for tensor in _tensors(result)
        ]
        if writes or any(place is not None for place in places):  # else it is a view
            self.graph.kernels.append((func, args, kwargs, places))
        return result


@cache
def _signature(func):
    """Return the names of an operation's arguments, and which of them it writes to."""
    arguments = func._schema.arguments
    return [argument.name for argument in arguments], [argument.name for argument in arguments if argument.is_write]


def _tensors(tree):
    """Return the tensors in an operation's arguments or results."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        return []
    return [tensor for branch in tree for tensor in _tensors(branch)]


def _mapped(tree, change):
    """Return an operation's arguments or results with every tensor changed."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _mapped(value, change) for key, value in tree.items()}
    return type(tree)([_mapped(branch, change) for branch in tree]) if isinstance(tree, (list, tuple)) else tree


def _addresses(tree):
    """Return where the memory of each tensor begins."""
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors(tree)}


def _memory(tree):
    """Return the whole memory of each tensor, as bytes."""
    return [torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()) for tensor in _tensors(tree)]


def _shaped_by_numbers(func, args):
    """Return whether the shape of the result depends on a tensor's elements."""
    if func.overloadpacket in INDEXING:
        masks = (torch.bool, torch.uint8)
        return any(
            index is not None and (index.dtype in masks or not isinstance(index, DeviceTensor)) for index in args[1]
        )
    return torch.Tag.dynamic_output_shape in func.tags or torch.Tag.data_dependent_output in func.tags
