"""Observations as people have them, and actions as they want them: NumPy or tensors, one or N, dictionaries too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.base import TensorDictBase
from torch import Tensor

from rl8.checks import closest
from rl8.specs import Composite, Nested, Spec


class Form(NamedTuple):
    """How observations came, which is how actions are given back.

    Attributes:
        single: Whether it was one observation, without a batch dimension.
        kind: `"numpy"`, `"tensor"` or `"tensordict"`.
        device: Where the tensors were.
    """

    single: bool
    kind: str
    device: torch.device


def read(obs: Any, spec: Spec, device: torch.device) -> tuple[Nested, Form]:
    """Return observations `[n, ...]` in the spec's dtype, a copy, and the form in which they came.

    Args:
        obs: One observation or n of them: arrays, tensors, or what NumPy makes an array of; a mapping of such, or a
            TensorDict, for a Composite spec.
        spec: The environment's observation spec.
        device: Where the result shall live.

    Raises:
        TypeError: If it is no observation, or its numbers can't be converted without loss.
        ValueError: If a shape or a key differs from the spec's, or a number is infinite or NaN.
    """
    if not isinstance(spec, Composite):
        tensor, form = _leaf(obs, spec, "obs", device)
        return (tensor.unsqueeze(0) if form.single else tensor), form
    leaves, forms = _entries(obs, spec, "obs", device)
    single = forms[0][1].single
    for name, form in forms:
        if form.single != single:
            (one, many) = (forms[0][0], name) if single else (name, forms[0][0])
            raise ValueError(
                f"{one} is one observation and {many} several. Accepted: all of one, or all of n with the same n."
            )
    kinds = {form.kind for _, form in forms}
    kind = "tensordict" if isinstance(obs, TensorDictBase) else "numpy" if kinds == {"numpy"} else "tensor"
    places = [form.device for _, form in forms if form.kind == "tensor"]
    return _batched(leaves, single, device), Form(single, kind, places[0] if places else device)


def hand_out(actions: Nested, form: Form) -> Any:
    """Return actions `[n, ...]` in the form in which the observations came."""
    if not isinstance(actions, Tensor) and form.kind != "tensordict":
        return {str(key): hand_out(actions[key], form) for key in actions.keys()}  # noqa: SIM118
    if form.kind == "numpy":
        assert isinstance(actions, Tensor)
        array = _as_numpy(actions)
        return array[0] if form.single else array
    moved = actions.to(form.device)
    return moved[0] if form.single else moved


def read_mask(mask: Any, n: int | None, device: torch.device) -> Tensor:
    """Return a mask `[n]` of bools; of any length where n is None.

    Raises:
        TypeError: If it holds something else.
        ValueError: If it is of another length.
    """
    tensor = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    if tensor.dtype != torch.bool:
        raise TypeError(f"mask has dtype {tensor.dtype}. Accepted: bool, True where an episode begins anew.")
    n = max(tensor.numel(), 1) if n is None else n
    if tuple(tensor.shape) not in {(n,), ()} or (tensor.ndim == 0 and n != 1):
        raise ValueError(
            f"mask has shape {tuple(tensor.shape)}, the policy acts for {n} environment(s). Accepted: ({n},)."
        )
    return tensor.to(device).reshape(n)


def _entries(
    obs: Any, spec: Composite, name: str, device: torch.device
) -> tuple[dict[str, Any], list[tuple[str, Form]]]:
    """Return a mapping's leaves, nested like the spec, and the form of each."""
    _check_no_pair(obs, name, f"a dictionary or TensorDict with the keys {', '.join(spec)}")
    if not isinstance(obs, (Mapping, TensorDictBase)):
        raise TypeError(
            f"{name} is a {type(obs).__name__}. Accepted: a dictionary or TensorDict with the keys {', '.join(spec)}."
        )
    found = [str(key) for key in obs.keys()]  # noqa: SIM118 (a TensorDict iterates over rows)
    missing, surplus = [key for key in spec if key not in found], [key for key in found if key not in spec]
    if missing or surplus:
        near = closest(missing[0], surplus) if missing and surplus else None
        faults = [f"lacks {', '.join(missing)}"] if missing else []
        faults += [f"has {', '.join(surplus)}, which the policy does not know"] if surplus else []
        hint = f" Rename {near!r} to {missing[0]!r}?" if near else ""
        raise ValueError(f"{name} {' and '.join(faults)}. Accepted: the keys {', '.join(spec)}.{hint}")
    leaves: dict[str, Any] = {}
    forms: list[tuple[str, Form]] = []
    for key, child in spec.items():
        path = f"{name}[{key!r}]"
        if isinstance(child, Composite):
            leaves[key], below = _entries(obs[key], child, path, device)
            forms += below
        else:
            leaves[key], form = _leaf(obs[key], child, path, device)
            forms.append((path, form))
    return leaves, forms


def _batched(leaves: dict[str, Any], single: bool, device: torch.device) -> TensorDict:
    """Return leaves `[n, ...]` as a TensorDict, which checks that n is the same everywhere."""
    parts = {
        key: _batched(part, single, device) if isinstance(part, dict) else part.unsqueeze(0) if single else part
        for key, part in leaves.items()
    }
    sizes = {key: part.shape[0] for key, part in parts.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{size} of {key!r}" for key, size in sizes.items())
        raise ValueError(f"obs has {shown}. Accepted: as many observations under every key.")
    return TensorDict(parts, batch_size=[next(iter(sizes.values()))], device=device)


def _leaf(obs: Any, spec: Spec, name: str, device: torch.device) -> tuple[Tensor, Form]:
    """Return one leaf as a tensor of its own, and its form."""
    assert spec.dtype is not None
    if isinstance(obs, Tensor):
        form = Form(_is_single(tuple(obs.shape), spec, name), "tensor", obs.device)
        if obs.dtype != spec.dtype and not torch.can_cast(obs.dtype, spec.dtype):
            raise TypeError(_wrong_kind(name, obs.dtype, spec))
        return obs.detach().to(device, spec.dtype, copy=True), form
    if isinstance(obs, (Mapping, TensorDictBase, str, bytes)) or obs is None:
        raise TypeError(f"{name} is a {type(obs).__name__}. Accepted: {_accepted(spec)}.")
    _check_no_pair(obs, name, _accepted(spec))
    try:
        array = np.array(obs)  # a copy: simulators write the next observation where this one is
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} is no array: {str(error).rstrip('.')}. Accepted: {_accepted(spec)}.") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(_wrong_kind(name, array.dtype, spec))
    single = _is_single(array.shape, spec, name)
    tensor = torch.from_numpy(array)
    if tensor.dtype != spec.dtype:
        if not torch.can_cast(tensor.dtype, spec.dtype):
            raise TypeError(_wrong_kind(name, array.dtype, spec))
        tensor = tensor.to(spec.dtype)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are infinite or NaN. Accepted: finite numbers.")
    return tensor.to(device), Form(single, "numpy", device)


def _check_no_pair(obs: Any, name: str, accepted: str) -> None:
    """Raise TypeError for what a Gymnasium environment's reset returns."""
    if isinstance(obs, tuple) and len(obs) == 2 and isinstance(obs[1], Mapping):
        raise TypeError(
            f"{name} is a tuple of an observation and a dictionary, as env.reset() of Gymnasium returns it. Accepted: "
            f"{accepted}. Write obs, info = env.reset(), then policy.predict(obs)."
        )


def _is_single(shape: tuple[int, ...], spec: Spec, name: str) -> bool:
    """Return whether a shape is one observation's rather than that of n."""
    if shape == spec.shape:
        return True
    if len(shape) == len(spec.shape) + 1 and shape[1:] == spec.shape:
        return False
    raise ValueError(
        f"{name} has shape {shape}, the policy was trained with {tuple(spec.shape)}. Accepted: {_accepted(spec)}."
    )


def _wrong_kind(name: str, dtype: torch.dtype | np.dtype[Any], spec: Spec) -> str:
    given, wanted = (str(kind).removeprefix("torch.") for kind in (dtype, spec.dtype))
    return f"{name} has dtype {given}, which is no {wanted}. Accepted: numbers that become {wanted} without loss."


def _accepted(spec: Spec) -> str:
    """Return what a leaf may be, e.g. `an array or tensor of shape (4,), or (n, 4) for n observations`."""
    many = ", ".join(["n", *map(str, spec.shape)]) + ("" if spec.shape else ",")
    return f"an array or tensor of shape {tuple(spec.shape)}, or ({many}) for n observations"


def _as_numpy(actions: Tensor) -> Any:
    wide = actions.float() if actions.dtype == torch.bfloat16 else actions  # NumPy has no bfloat16
    return wide.cpu().numpy()
