"""Shapes, types and ranges of observations and actions.

A spec describes one environment; batches add leading dimensions. Names and constructor arguments are TorchRL's, so
that an environment written for it needs only its imports changed. `as_spec` converts Gymnasium spaces and TorchRL
specs at the door, without importing either library unless the object comes from it.
"""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

Device = torch.device | str | None
Shape = int | Sequence[int] | torch.Size
Nested = Tensor | TensorDict


def _size(shape: Shape) -> torch.Size:
    return torch.Size((shape,) if isinstance(shape, int) else tuple(shape))


class Spec:
    """Base of all specs.

    Attributes:
        shape: Shape of one sample, without batch dimensions.
        dtype: Type of the samples; None for a `Composite`.
        device: Where samples live.
    """

    shape: torch.Size
    dtype: torch.dtype | None
    device: torch.device

    def __init__(self, shape: Shape, device: Device, dtype: torch.dtype | None) -> None:
        self.shape = _size(shape)
        self.device = torch.device(device or "cpu")
        self.dtype = dtype

    def zeros(self, n: int) -> Nested:
        """Return `n` samples of zeros, `[n, *shape]`."""
        return torch.zeros(n, *self.shape, dtype=self.dtype, device=self.device)

    def rand(self, n: int) -> Nested:
        """Return `n` random valid samples, `[n, *shape]`."""
        raise NotImplementedError(f"{type(self).__name__} must define rand().")

    def check(self, sample: Any, name: str = "sample") -> None:
        """Check a batch `[n, *shape]` of samples.

        Raises:
            ValueError: If type, shape, dtype, device or range differ; the message names the leaf.
        """
        self.check_layout(sample, name)
        if sample.is_floating_point() and not bool(torch.isfinite(sample).all()):
            raise ValueError(f"{name} has values that are infinite or NaN.")
        self._check_range(sample, name)

    def check_layout(self, sample: Any, name: str = "sample") -> None:
        """Check all but the values of a batch `[n, *shape]`: it never waits for the device.

        Raises:
            ValueError: If type, shape, dtype or device differ; the message names the leaf.
        """
        if not isinstance(sample, Tensor):
            raise ValueError(f"{name} is a {type(sample).__name__}, expected a tensor ({self._shape_text()}).")
        if sample.ndim < 1 or sample.shape[1:] != self.shape:
            raise ValueError(f"{name} has shape {tuple(sample.shape)}, expected ({self._shape_text()}) of {self}.")
        if sample.dtype != self.dtype:
            raise ValueError(f"{name} has dtype {sample.dtype}, expected {self.dtype} of {self}.")
        if sample.device.type != self.device.type:
            raise ValueError(f"{name} is on {sample.device}, expected {self.device} of {self}.")

    def _check_range(self, sample: Tensor, name: str) -> None:
        """Raise ValueError if a value is outside the spec's range."""

    def to(self, device: Device) -> Spec:
        """Return this spec on another device."""
        raise NotImplementedError(f"{type(self).__name__} must define to().")

    def _shape_text(self) -> str:
        """Return the shape of a batch, e.g. `n, 4`."""
        return ", ".join(["n", *map(str, self.shape)])

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"


class Unbounded(Spec):
    """Real numbers without limits."""

    def __init__(self, shape: Shape = 1, device: Device = None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(shape, device, dtype)

    def rand(self, n: int) -> Tensor:
        """Return standard normal samples `[n, *shape]` (uniform in 0..9 for an integer dtype)."""
        assert self.dtype is not None
        if self.dtype.is_floating_point:
            return torch.randn(n, *self.shape, dtype=self.dtype, device=self.device)
        return torch.randint(0, 10, (n, *self.shape), device=self.device).to(self.dtype)

    def to(self, device: Device) -> Unbounded:
        """Return this spec on another device."""
        assert self.dtype is not None
        return Unbounded(self.shape, device, self.dtype)


class Bounded(Spec):
    """Numbers in `[low, high]`, elementwise.

    Args:
        low: Lower limit, a number or something of shape `shape`.
        high: Upper limit, likewise.
        shape: Shape of one sample; taken from the limits if left out.
        device: Where samples live.
        dtype: Their type.

    Raises:
        ValueError: If a limit is NaN or `low` is above `high`.
    """

    def __init__(
        self,
        low: float | Sequence[float] | Tensor,
        high: float | Sequence[float] | Tensor,
        shape: Shape | None = None,
        device: Device = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        low_, high_ = (torch.as_tensor(limit, dtype=dtype, device=device or "cpu") for limit in (low, high))
        try:
            joint = torch.broadcast_tensors(low_, high_)[0].shape
            size = _size(shape) if shape is not None else joint or torch.Size([1])
            self.low, self.high = low_.expand(size).clone(), high_.expand(size).clone()
        except RuntimeError as error:
            asked = "" if shape is None else f" and shape={tuple(_size(shape))}"
            raise ValueError(
                f"Bounded limits of shapes {tuple(low_.shape)} and {tuple(high_.shape)}{asked} do not fit together. "
                "Give numbers, or limits of the shape of one sample."
            ) from error
        super().__init__(size, device, dtype)
        if not bool((self.low <= self.high).all()):
            raise ValueError(f"Bounded(low={low!r}, high={high!r}) is empty. Give a low that is <= high everywhere.")

    def rand(self, n: int) -> Tensor:
        """Return uniform samples `[n, *shape]`; an infinite limit counts as 1 away from the other (or from zero)."""
        assert self.dtype is not None
        if not self.dtype.is_floating_point:
            u = torch.rand(n, *self.shape, device=self.device)
            low, high = self.low.to(torch.float64), self.high.to(torch.float64)  # 255 - 0 + 1 is 0 in uint8
            return (low + (u * (high - low + 1)).floor()).to(self.dtype)
        low = torch.where(self.low.isfinite(), self.low, torch.where(self.high.isfinite(), self.high - 1, -1.0))
        high = torch.where(self.high.isfinite(), self.high, torch.where(self.low.isfinite(), self.low + 1, 1.0))
        u = torch.rand(n, *self.shape, device=self.device)
        # Not low + u * (high - low): Gymnasium's limits of +-3.4e38 have no finite difference.
        return ((1 - u) * low + u * high).to(self.dtype).clamp(self.low, self.high)

    def _check_range(self, sample: Tensor, name: str) -> None:
        if not bool(((sample >= self.low) & (sample <= self.high)).all()):
            got = f"{sample.min().item():g} to {sample.max().item():g}"
            raise ValueError(f"{name} has values from {got}, outside {self}.")

    def to(self, device: Device) -> Bounded:
        """Return this spec on another device."""
        assert self.dtype is not None
        return Bounded(self.low, self.high, self.shape, device, self.dtype)

    def __repr__(self) -> str:
        low, high = (limit.flatten()[0].item() if limit.numel() and bool((limit == limit.flatten()[0]).all()) else
                     limit.tolist() for limit in (self.low, self.high))  # fmt: skip
        return f"Bounded(low={low}, high={high}, shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"


class Categorical(Spec):
    """Integers `0 ... n - 1`, each element of `shape` its own choice.

    Raises:
        ValueError: If `n` is below 1.
    """

    def __init__(self, n: int, shape: Shape = (), device: Device = None, dtype: torch.dtype = torch.int64) -> None:
        super().__init__(shape, device, dtype)
        if n < 1:
            raise ValueError(f"Categorical(n={n}) has no choices. Give n >= 1.")
        self.n = int(n)

    def rand(self, n: int) -> Tensor:
        """Return uniform samples `[n, *shape]`."""
        return torch.randint(0, self.n, (n, *self.shape), device=self.device).to(self.dtype)

    def _check_range(self, sample: Tensor, name: str) -> None:
        if self.dtype != torch.bool and not bool(((sample >= 0) & (sample < self.n)).all()):
            raise ValueError(f"{name} has values outside 0 ... {self.n - 1} of {self}.")

    def to(self, device: Device) -> Categorical:
        """Return this spec on another device."""
        assert self.dtype is not None
        return Categorical(self.n, self.shape, device, self.dtype)

    def __repr__(self) -> str:
        return f"Categorical(n={self.n}, shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"


class MultiCategorical(Spec):
    """A vector of integers, element `i` in `0 ... nvec[i] - 1`.

    Raises:
        ValueError: If a number of choices is below 1, or `shape` is not `[len(nvec)]`.
    """

    def __init__(
        self,
        nvec: Sequence[int] | Tensor,
        shape: Shape | None = None,
        device: Device = None,
        dtype: torch.dtype = torch.int64,
    ) -> None:
        self.nvec = tuple(int(n) for n in nvec)
        super().__init__((len(self.nvec),) if shape is None else shape, device, dtype)
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"MultiCategorical(nvec={list(self.nvec)}) needs at least one choice for every element.")
        if self.shape != torch.Size([len(self.nvec)]):
            raise ValueError(
                f"MultiCategorical shape {tuple(self.shape)} is not ({len(self.nvec)},), one per nvec entry."
            )

    def rand(self, n: int) -> Tensor:
        """Return uniform samples `[n, len(nvec)]`."""
        counts = torch.tensor(self.nvec, device=self.device)
        return (torch.rand(n, *self.shape, device=self.device) * counts).floor().to(self.dtype)

    def _check_range(self, sample: Tensor, name: str) -> None:
        if not bool(((sample >= 0) & (sample < torch.tensor(self.nvec, device=sample.device))).all()):
            raise ValueError(f"{name} has values outside 0 ... nvec - 1 of {self}.")

    def to(self, device: Device) -> MultiCategorical:
        """Return this spec on another device."""
        assert self.dtype is not None
        return MultiCategorical(self.nvec, None, device, self.dtype)

    def __repr__(self) -> str:
        return f"MultiCategorical(nvec={list(self.nvec)}, dtype={self.dtype}, device={self.device})"


class Binary(Spec):
    """Zeros and ones.

    Args:
        n: Length of the last dimension; taken from `shape` if left out.
        shape: Shape of one sample; `[n]` if left out.
        device: Where samples live.
        dtype: Their type.
    """

    def __init__(
        self,
        n: int | None = None,
        shape: Shape | None = None,
        device: Device = None,
        dtype: torch.dtype = torch.int8,
    ) -> None:
        if n is None and shape is None:
            raise ValueError("Binary() has no size. Give n or shape, e.g. Binary(4).")
        size = _size(shape) if shape is not None else torch.Size([int(n or 0)])
        if n is not None and (not size or size[-1] != n):
            raise ValueError(f"Binary(n={n}, shape={tuple(size)}): the last size of shape must be n.")
        super().__init__(size, device, dtype)
        self.n = size[-1] if size else 1

    def rand(self, n: int) -> Tensor:
        """Return fair coin flips `[n, *shape]`."""
        return torch.randint(0, 2, (n, *self.shape), device=self.device).to(self.dtype)

    def _check_range(self, sample: Tensor, name: str) -> None:
        if not bool(((sample == 0) | (sample == 1)).all()):
            raise ValueError(f"{name} has values other than 0 and 1 of {self}.")

    def to(self, device: Device) -> Binary:
        """Return this spec on another device."""
        assert self.dtype is not None
        return Binary(shape=self.shape, device=device, dtype=self.dtype)


class Composite(Spec):
    """A dictionary of specs; its samples are TensorDicts with batch size `[n]`."""

    def __init__(self, *args: Mapping[str, Any], device: Device = None, **kwargs: Any) -> None:
        entries: dict[str, Any] = {}
        for arg in args:
            entries.update(arg)
        entries.update(kwargs)
        if not entries:
            raise ValueError("Composite() has no entries. Give at least one, e.g. Composite(position=Unbounded(2)).")
        self._specs = {str(key): as_spec(spec) for key, spec in entries.items()}
        device = device if device is not None else next(iter(self._specs.values())).device
        super().__init__((), device, None)
        for key, spec in self.items():
            self._specs[key] = spec if spec.device == self.device else spec.to(device)

    def keys(self) -> KeysView[str]:
        """Return the entries' names."""
        return self._specs.keys()

    def items(self) -> ItemsView[str, Spec]:
        """Return names and specs."""
        return self._specs.items()

    def __getitem__(self, key: str) -> Spec:
        return self._specs[key]

    def __contains__(self, key: str) -> bool:
        return key in self._specs

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def zeros(self, n: int) -> TensorDict:
        """Return a TensorDict of zeros with batch size `[n]`."""
        return TensorDict({key: spec.zeros(n) for key, spec in self.items()}, batch_size=[n], device=self.device)

    def rand(self, n: int) -> TensorDict:
        """Return a TensorDict of random valid samples with batch size `[n]`."""
        return TensorDict({key: spec.rand(n) for key, spec in self.items()}, batch_size=[n], device=self.device)

    def check(self, sample: Any, name: str = "sample") -> None:
        """Check every entry of a TensorDict; the message names the leaf."""
        self._check_keys(sample, name)
        for key, spec in self.items():
            spec.check(sample[key], f"{name}[{key!r}]")

    def check_layout(self, sample: Any, name: str = "sample") -> None:
        """Check all but the values of every entry of a TensorDict."""
        self._check_keys(sample, name)
        for key, spec in self.items():
            spec.check_layout(sample[key], f"{name}[{key!r}]")

    def _check_keys(self, sample: Any, name: str) -> None:
        if not isinstance(sample, (TensorDict, Mapping)):
            raise ValueError(f"{name} is a {type(sample).__name__}, expected a TensorDict with {', '.join(self)}.")
        missing = [key for key in self if key not in sample.keys()]  # noqa: SIM118 (TensorDict has no __contains__)
        surplus = [str(key) for key in sample.keys() if key not in self]  # noqa: SIM118
        if missing or surplus:
            what = [f"lacks {', '.join(missing)}"] if missing else []
            what += [f"has {', '.join(surplus)}, which the spec does not name"] if surplus else []
            raise ValueError(f"{name} {' and '.join(what)}.")

    def to(self, device: Device) -> Composite:
        """Return this spec on another device."""
        return Composite({key: spec.to(device) for key, spec in self.items()}, device=device)

    def __repr__(self) -> str:
        return f"Composite({', '.join(f'{key}={spec!r}' for key, spec in self.items())})"


def leaves(spec: Spec, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Spec]]:
    """Yield the path and spec of every leaf, depth first."""
    if isinstance(spec, Composite):
        for key, child in spec.items():
            yield from leaves(child, (*prefix, key))
    else:
        yield prefix, spec


def as_spec(spec: Any) -> Spec:
    """Return `spec` as one of ours.

    Args:
        spec: A spec of this module, a mapping of such, a Gymnasium space (`Box`, `Discrete`, `MultiDiscrete`,
            `MultiBinary`, `Dict`) or a TorchRL spec.

    Raises:
        TypeError: If it is none of them, or of a kind that has no counterpart here.
    """
    if isinstance(spec, Spec):
        return spec
    # Of the base classes too: a user may have derived a space of their own.
    modules = {base.__module__.split(".")[0] for base in type(spec).__mro__}
    if "gymnasium" in modules:
        return _from_gymnasium(spec)
    if "torchrl" in modules:
        return _from_torchrl(spec)
    if isinstance(spec, Mapping):
        return Composite(spec)
    raise TypeError(
        f"{spec!r} is no spec. Accepted: Unbounded, Bounded, Categorical, MultiCategorical, Binary or Composite of "
        "rl8.specs, a Gymnasium space or a TorchRL spec. Try rl8.specs.Unbounded(4)."
    )


def _torch_dtype(dtype: Any) -> torch.dtype:
    """Return NumPy's dtype as torch's; float64 becomes float32, as everything else computes in float32."""
    found = torch.from_numpy(sys.modules["numpy"].zeros(1, dtype=dtype)).dtype
    return torch.float32 if found == torch.float64 else found


def _from_gymnasium(space: Any) -> Spec:
    spaces = sys.modules["gymnasium"].spaces
    if isinstance(space, spaces.Dict):
        return Composite(space.spaces)
    if isinstance(space, spaces.Box):
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        dtype = _torch_dtype(space.dtype)
        if bool((low.isinf() & high.isinf()).all()):
            return Unbounded(space.shape, dtype=dtype)
        return Bounded(low.to(dtype), high.to(dtype), space.shape, dtype=dtype)
    if isinstance(space, spaces.Discrete) and int(space.start) == 0:
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not space.start.any():
        return MultiCategorical(space.nvec.tolist())
    if isinstance(space, spaces.MultiBinary):
        return Binary(shape=space.shape)
    raise TypeError(
        f"Gymnasium's {space!r} has no counterpart. Accepted: Box, Discrete and MultiDiscrete (counted from 0, one "
        "dimension), MultiBinary and Dict."
    )


def _from_torchrl(spec: Any) -> Spec:
    kinds = {kind.__name__ for kind in type(spec).__mro__}
    device = spec.device
    if "Composite" in kinds:
        if len(spec.shape) > 0:
            raise TypeError(f"TorchRL's {spec!r} has a batch dimension. Describe one environment: shape=().")
        return Composite(dict(spec.items()), device=device)
    if "OneHot" in kinds:
        raise TypeError("One-hot specs have no counterpart. Use Categorical or MultiCategorical, which hold indices.")
    if "MultiCategorical" in kinds and spec.nvec.ndim == 1:
        return MultiCategorical(spec.nvec, device=device, dtype=spec.dtype)
    # TorchRL derives both MultiCategorical and Binary from Categorical.
    if "Binary" in kinds:
        return Binary(shape=spec.shape, device=device, dtype=spec.dtype)
    if "Categorical" in kinds and "MultiCategorical" not in kinds:
        return Categorical(int(spec.n), spec.shape, device, spec.dtype)
    if "Unbounded" in kinds:
        return Unbounded(spec.shape, device, spec.dtype)
    if "Bounded" in kinds:
        return Bounded(spec.space.low, spec.space.high, spec.shape, device, spec.dtype)
    raise TypeError(
        f"TorchRL's {spec!r} has no counterpart. Accepted: Unbounded, Bounded, Categorical, MultiCategorical (one "
        "dimension), Binary and Composite."
    )
