"""The processes that train one policy, through torch.distributed: sums and means over all, and words between them.

Numbers come out bitwise equal on every process: each is computed once, or by every process from the same numbers in
the same order. Tensors on a CPU go through Gloo, those on CUDA devices through NCCL (which has never run here).
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rl8.kinds import dotted
from rl8.parallel import failure, launched
from rl8.parallel.failure import FirstFailedError, PeerError, Peers, meeting_store

Value = TypeVar("Value")

#: Seconds that processes wait for one another, before the one that does not answer is taken to hang.
PATIENCE_S: Final = 20.0


@dataclass
class Traffic:
    """What was sent so far.

    Attributes:
        calls: Exchanges of tensors.
        bytes: Of the tensors that this process gave to them.
        seconds: That it spent in them, with its waiting for others; on CUDA only what the host waited.
    """

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0


traffic = Traffic()
_peers: Peers | None = None
# Groups of all processes for words, through Gloo: one that waits as long as tensors do, and one that waits longer.
_words: Any = None
_patient: Any = None


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Return whether this process is the one that shows, records and writes."""
    return rank() == 0


# ------------------------------------------------------------------------------------------------------------ begin


def join(device: str, *, patience_s: float = PATIENCE_S) -> str:
    """Meet the other processes, if a launcher started some; return the device that this one computes on.

    Called again it only returns the device.

    Args:
        device: `"cpu"`, `"cuda"` (each process takes the GPU of its number on its machine) or `"cuda:<index>"`.
        patience_s: Seconds that processes wait for one another in training.

    Raises:
        ValueError: If the device does not suit several processes.
    """
    global _peers, _words, _patient
    if not dist.is_initialized() and launched.size() == 1:
        return device
    own = _own_device(device)
    if not dist.is_initialized():
        # GPUs first: NCCL takes the current one.
        if own.startswith("cuda"):
            torch.cuda.set_device(own)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if own.startswith("cuda") else "gloo",
            store=meeting_store(),
            rank=launched.rank(),
            world_size=launched.size(),
            timeout=datetime.timedelta(seconds=patience_s),
        )
        _peers = Peers.met(rank(), size(), patience_s)
    elif _words is None:
        _check_backend(own)
    if _words is None:
        _words, _patient = (
            dist.new_group(timeout=datetime.timedelta(seconds=seconds), backend="gloo")
            for seconds in (patience_s, failure.LONG_S)
        )
    return own


def leave() -> None:
    """Part from the other processes."""
    global _peers, _words, _patient
    if _peers is not None:
        _peers.leave()
    _peers = _words = _patient = None
    if dist.is_initialized():
        dist.destroy_process_group()


def failed(error: BaseException) -> None:
    """Tell the other processes that this one ends, and why; they end too."""
    if _peers is not None and not isinstance(error, PeerError):
        _peers.tell(error)


def known_to_all(error: BaseException) -> bool:
    """Return whether all processes met an error at the same place, so that they can still do something together."""
    return size() == 1 or isinstance(error, FirstFailedError) or "known_to_all" in error.__dict__


def may_speak() -> bool:
    """Return whether this process is the one that says why all of them end."""
    return failure.may_speak() if _peers is None else _peers.may_speak()


def at_end(action: Callable[[str], None] | None) -> None:
    """Let something be done with the reason, in a thread, if another process fails and this one hangs over it."""
    if _peers is not None:
        _peers.at_end = action


def _own_device(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    number, here = failure.place()
    gpus = torch.cuda.device_count()
    if ":" in device:
        raise ValueError(
            f"device.device={device} would put all {here} processes on one GPU. Accepted: cuda, which gives each "
            "process its own. Try device=cuda."
        )
    if here > gpus:
        raise ValueError(
            f"{here} processes on this machine are more than its {gpus} GPUs. Accepted: one process a GPU. Try "
            + (f"device.processes={gpus}, or torchrun --nproc-per-node={gpus}." if gpus else "device=cpu.")
        )
    return f"cuda:{number}"


def _check_backend(device: str) -> None:
    """Check that a process group that somebody else made has what the device needs."""
    backends, needed = str(dist.get_backend_config()), "nccl" if device.startswith("cuda") else "gloo"
    if f"{torch.device(device).type}:{needed}" not in backends:
        raise ValueError(
            f"torch.distributed was set up with {backends}, which has no {needed} for device={device}. Accepted: "
            "init_process_group('cpu:gloo,cuda:nccl') for GPUs, 'gloo' for CPUs. Or leave it to rl8."
        )


def part_random_numbers(*more: int) -> None:
    """Give every process random numbers of its own, which follow from the seed of process 0; this one's stay.

    Args:
        *more: Numbers for others than those that the processes had before.
    """
    if size() > 1 and not first():
        torch.manual_seed(launched.seed_of(torch.initial_seed(), rank(), *more))


def check_same(what: Mapping[str, Any]) -> None:
    """Check that all processes were given the same settings.

    Args:
        what: Settings by name, perhaps nested.

    Raises:
        ValueError: If one has others; on all processes, with the first key that differs.
    """
    if size() == 1:
        return
    ours = {key: re.sub(r" at 0x[0-9a-f]+", "", repr(value)) for key, value in dotted(what)}
    everyone = every(ours, patient=True)
    for number, theirs in enumerate(everyone):
        for key in {**everyone[0], **theirs}:
            one, other = everyone[0].get(key, "nothing"), theirs.get(key, "nothing")
            if one != other:
                raise ValueError(
                    f"{key}={one} in process 0, and {other} in process {number}. Accepted: the same settings in all "
                    "processes. Start all of them with one command line."
                )


# ---------------------------------------------------------------------------------------------------------- tensors


@torch.no_grad()
def mean_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype by their means over all processes, in one exchange."""
    _reduce_(tensors, mean=True)


@torch.no_grad()
def sum_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one dtype by their sums over all processes, in one exchange."""
    _reduce_(tensors, mean=False)


def _reduce_(tensors: Sequence[Tensor], *, mean: bool) -> None:
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _exchange(flat):
        dist.all_reduce(flat)
    if mean:
        flat /= size()
    _put_back(flat, tensors)


@torch.no_grad()
def broadcast_(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by those of process 0, in one exchange for each dtype."""
    if size() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        some = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in some])
        with _exchange(flat):
            dist.broadcast(flat, 0)
        _put_back(flat, some)


@torch.no_grad()
def gathered(tensor: Tensor) -> Tensor:
    """Return the tensors `[...]` of all processes as `[P, ...]`, in the order of their numbers."""
    if size() == 1:
        return tensor.unsqueeze(0)
    found = tensor.new_empty(size(), *tensor.shape)
    with _exchange(tensor):
        dist.all_gather(list(found.unbind(0)), tensor.contiguous())
    return found


@torch.no_grad()
def pooled(count: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, mean and variance of the samples of all processes, from those of each.

    n = sum n_p,  m = sum n_p m_p / n,  v = sum n_p (v_p + (m_p - m)^2) / n
    Source: Chan et al. 1979. With one process, what was given.

    Args:
        count: 0-d, samples of this process or the sum of their weights; may be 0.
        mean: `[...]`.
        var: `[...]`, divided by the count.
    """
    if size() == 1:
        return count, mean, var
    shape = mean.shape
    sent = torch.cat([count.double().reshape(1), mean.double().reshape(-1), var.double().reshape(-1)])
    found = gathered(sent)
    counts, (means, variances) = found[:, :1], found[:, 1:].chunk(2, dim=1)
    total = counts.sum()
    shares = counts / total.clamp(min=torch.finfo(torch.float64).tiny)
    mean_of_all = (shares * means).sum(0)
    var_of_all = (shares * (variances + (means - mean_of_all).square())).sum(0)
    return (
        total.to(count.dtype),
        mean_of_all.reshape(shape).to(mean.dtype),
        var_of_all.reshape(shape).to(var.dtype),
    )


@torch.no_grad()
def fingerprint(module: torch.nn.Module) -> int:
    """Return a number below 2^24 that equal weights and statistics have in common; 0 with one process."""
    if size() == 1:
        return 0
    parts = [tensor.contiguous().view(-1) for tensor in (*module.parameters(), *module.buffers())]
    words = [part.view(torch.int32 if part.element_size() % 4 == 0 else torch.uint8) for part in parts]
    return int(torch.stack([word.sum() for word in words]).sum()) % 2**24  # host sync: compared once an iteration


def _put_back(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


# ------------------------------------------------------------------------------------------------------------ words


def most(numbers: Sequence[int]) -> list[int]:
    """Return the largest of all processes for each of some integers: what one of them wants, all do."""
    if size() == 1:
        return list(numbers)
    sent = torch.tensor(numbers, dtype=torch.int64)
    with _exchange(sent):
        dist.all_reduce(sent, dist.ReduceOp.MAX, group=_words)
    return [int(number) for number in sent]


def every(value: Value, *, patient: bool = False) -> list[Value]:
    """Return what all processes have, in the order of their numbers; it is pickled.

    Args:
        value: What this process has.
        patient: Whether processes wait for the others however long, as they do before training begins.
    """
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    with _meeting():
        dist.all_gather_object(found, value, group=_patient if patient else _words)
    return found


def from_first(make: Callable[[], Value]) -> Value:
    """Return what a function gives on process 0, where alone it is called; the others wait for it, however long.

    Raises:
        Exception: What it raised, on process 0.
        FirstFailedError: On the others, if it raised.
    """
    if size() == 1:
        return make()
    found: list[Any] = [None, None]  # what was made, and why it could not be
    error: Exception | None = None
    if first():
        try:
            found[0] = make()
        except Exception as raised:
            error, found[1] = raised, f"{type(raised).__name__}: {raised}"
    with _meeting():
        dist.broadcast_object_list(found, 0, group=_patient)
    if error is not None:
        error.__dict__["known_to_all"] = True
        raise error
    if found[1] is not None:
        raise FirstFailedError(f"Process 0 failed: {found[1]}", said=True)
    result: Value = found[0]
    return result


def to_first(value: Value) -> list[Value] | None:
    """Return on process 0 what all processes have, in the order of their numbers, and None on the others."""
    if size() == 1:
        return [value]
    found: list[Any] | None = [None] * size() if first() else None
    with _meeting():
        dist.gather_object(value, found, 0, group=_patient)
    return found


@contextmanager
def _exchange(tensor: Tensor) -> Iterator[None]:
    begin = time.perf_counter()
    with _meeting():
        yield
    traffic.calls += 1
    traffic.bytes += tensor.numel() * tensor.element_size()
    traffic.seconds += time.perf_counter() - begin


@contextmanager
def _meeting() -> Iterator[None]:
    """Let an exchange that fails say which process is the reason."""
    if _peers is None:
        yield
        return
    try:
        with _peers.waiting():
            yield
    except RuntimeError as error:
        if isinstance(error, PeerError):
            raise
        raise _peers.lost(error) from None
