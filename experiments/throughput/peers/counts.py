"""What an iteration asks of the machine: operations and host reads on a CPU; kernels, launches and waits on CUDA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from rl8.execution.threads import alone

# Operations that only make another view of a tensor: no arithmetic, no memory traffic.
VIEWS = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "select", "slice", "narrow"),
        *("split", "split_with_sizes", "unsqueeze", "squeeze", "detach", "alias", "as_strided", "unbind", "unfold"),
    )
)
# A number that reaches Python: the host must wait for the device. `tolist` shows up as a function call only.
READ_OPERATION = "_local_scalar_dense"
READ_CALLS = frozenset((torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu))


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counter: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counter[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class _Reads(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in READ_CALLS
        return func(*args, **(kwargs or {}))


def operations(work: Callable[[], object]) -> dict[str, int]:
    """Return how many ATen operations `work` dispatches (views apart), and how many numbers the host reads.

    One thread does it all: only what the caller's own thread dispatches is seen.
    """
    with alone(), _Reads() as reads, _Operations() as seen:
        work()
    views = sum(count for name, count in seen.counter.items() if name in VIEWS)
    read = seen.counter[READ_OPERATION]
    return {
        "operations": seen.counter.total() - views - read,
        "views": views,
        "host_reads": read + reads.count,
    }


def cuda_events(work: Callable[[], object]) -> dict[str, float]:
    """Return what torch's profiler saw of `work` on CUDA, less what an empty region shows.

    `kernels` run on the device, whoever started them; `launches` are the host's own kernel and graph launches; `waits`
    are the host's calls that wait for the device; `device_ms` is the sum of all kernels' times.
    """
    empty, full = _profiled(lambda: None), _profiled(work)
    return {name: full[name] - empty[name] for name in full}


def _profiled(work: Callable[[], object]) -> dict[str, float]:
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    found = dict.fromkeys(("kernels", "copies", "launches", "graph_launches", "waits"), 0.0) | {"device_ms": 0.0}
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            found["copies" if event.name.startswith(("Memcpy", "Memset")) else "kernels"] += 1
            found["device_ms"] += event.time_range.elapsed_us() / 1e3
        elif event.name.startswith("cudaGraphLaunch"):
            found["graph_launches"] += 1
        elif event.name.startswith(("cudaLaunchKernel", "cuLaunchKernel")):
            found["launches"] += 1
        elif event.name.endswith("Synchronize"):
            found["waits"] += 1
    return found
