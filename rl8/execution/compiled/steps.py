"""Calls of `small.c`: optimizer steps, and acting. What is known is decided by `rl8.execution.small`, for both ways."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from rl8.execution.kernels.known import Networks, mask_of, noise_for
from rl8.execution.kernels.loss import Discrete, Head
from rl8.execution.pieces import Rows
from rl8.execution.small import SmallSteps, small_networks
from rl8.nn import Encoder
from rl8.policy.normalization import ObsNormalizer
from rl8.policy.policy import Act, Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Bounded, Nested, Unbounded

ALIGNMENT: Final = 64  # bytes of the longest vectors

COUNTS: Final = ("policy_layers", "value_layers", "tanh", "gaussian", "elements", "parameters")
NUMBERS: Final = (
    *("clip", "vf_clip", "dual_clip", "vf_coeff", "entropy_coeff", "max_norm", "log_half_range"),
    *("lr", "beta1", "beta2", "eps", "obs_limit"),
)
ADDRESSES: Final = (
    *("widths", "choices", "sizes", "parameter", "exp_avg", "exp_avg_sq", "step", "gradient"),
    *("inputs", "actions", "logp", "values", "advantages", "returns", "mask"),
    *("shift", "scale", "scratch"),
)


class Work(ctypes.Structure):
    """The `struct work` of `small.c`."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in COUNTS),
        *((name, ctypes.c_double) for name in NUMBERS),
        *((name, ctypes.c_void_p) for name in ADDRESSES),
    ]


class Called:
    """The networks of a policy as `small.c` takes them, and the memory that they point to.

    Args:
        library: What was built.
        head: What the policy's features mean.
        nets: Both networks, in float32.
        rest: Further fields of `Work`; a tensor, which must be contiguous, or an array stands for its address.
    """

    def __init__(self, library: ctypes.CDLL, head: Head, nets: Networks, **rest: Any) -> None:
        parameters = nets.parameters
        widths = [
            (layers[0].weight.shape[1], *(len(layer.bias) for layer in layers)) for layers in (nets.policy, nets.value)
        ]
        discrete = isinstance(head, Discrete)
        fields = {
            "policy_layers": len(nets.policy),
            "value_layers": len(nets.value),
            "tanh": nets.activation == "tanh",
            "gaussian": not discrete,
            "elements": len(head.sizes) if isinstance(head, Discrete) else head.size,
            "parameters": len(parameters),
            "widths": _integers([*widths[0], *widths[1]]),
            "choices": _integers(head.sizes if isinstance(head, Discrete) else []),
            "sizes": _integers([parameter.numel() for parameter in parameters]),
            "parameter": _addresses(parameters),
            **rest,
        }
        self._kept: list[Any] = [value for value in fields.values() if isinstance(value, (Tensor, ctypes.Array))]
        self.work = Work(**{name: _pointed(value) for name, value in fields.items()})
        self.reference = ctypes.byref(self.work)
        library.room.restype = ctypes.c_int64
        scratch = torch.empty(library.room(self.reference) + ALIGNMENT // 4)
        self._kept.append(scratch)
        self.work.scratch = -(-scratch.data_ptr() // ALIGNMENT) * ALIGNMENT


class CompiledSteps:
    """Takes the optimizer steps of one update in C; see `compiled_steps`.

    Args:
        library: What was built.
        small: Knows the update; nothing of it is copied.
    """

    def __init__(self, library: ctypes.CDLL, small: SmallSteps) -> None:
        self.small, terms = small, small.terms
        parameters, _, averages, squares, _, steps = small.adam
        rows = len(small.inputs)
        logp, values, returns = small.series
        half_range = None if isinstance(small.head, Discrete) else small.head.log_half_range
        self.squashes = half_range is not None
        self.parameters = parameters
        self.called = Called(
            library,
            small.head,
            small.nets,
            clip=terms.clip_param,
            vf_clip=_or_infinite(terms.vf_clip_param),
            dual_clip=_or_infinite(terms.dual_clip_param),
            vf_coeff=terms.vf_coeff,
            entropy_coeff=float(terms.entropy_coeff),
            max_norm=_or_infinite(small.recipe.max_grad_norm),
            log_half_range=math.nan if half_range is None else half_range,
            exp_avg=_addresses(averages),
            exp_avg_sq=_addresses(squares),
            step=_addresses(steps),
            gradient=small.gradient,
            inputs=small.inputs.to(torch.float32).contiguous(),
            actions=small.actions.reshape(rows, -1).contiguous(),
            logp=logp,
            values=values,
            advantages=small.advantages,
            returns=returns,
            mask=None if small.mask is None else small.mask.contiguous(),
        )
        self._step = library.step
        self._step.restype = None
        self._step.argtypes = (*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2)

    def __call__(self, rows: Rows) -> Tensor:
        """Take one optimizer step; see `SmallSteps`."""
        small, work = self.small, self.called.work
        places, first, count = None, 0, 0
        if isinstance(rows, slice):
            first, count = rows.start, rows.stop - rows.start
        else:
            places = rows.flatten().contiguous()
            count = len(places)
        noise = noise_for(small.head, count, small.inputs.device) if self.squashes else None
        work.lr, work.eps = small.group["lr"], small.group["eps"]
        work.beta1, work.beta2 = small.group["betas"]
        found = torch.empty(7)
        self._step(self.called.reference, _address(places), first, count, _address(noise), found.data_ptr())
        torch.autograd.graph.increment_version(self.parameters)
        return found


def compiled_steps(library: ctypes.CDLL, small: SmallSteps) -> CompiledSteps | None:
    """Return what takes an update's steps in C, or None where its tensors do not lie as that needs it."""
    parameters, _, averages, squares, _, steps = small.adam
    return CompiledSteps(library, small) if _lie_right([*parameters, *averages, *squares, *steps]) else None


def compiled_act(library: ctypes.CDLL, policy: Policy, rollout: Rollout) -> Callable[..., Act] | None:
    """Return what acts in C at the steps of one horizon in turn, or None where that is not known, or would not gain.

    It draws the same random numbers, and writes actions and log-probabilities where the rollout has them.
    """
    head, nets = small_networks(policy, rollout.num_envs)
    if head is None or nets is None or not _lie_right(nets.parameters):
        return None
    return CompiledAct(library, policy, rollout, head, nets)


class CompiledAct:
    """Acts in C; see `compiled_act`.

    Args:
        library: What was built.
        policy: Whose actions are chosen.
        rollout: Where they are stored.
        head: What the policy's features mean.
        nets: The policy's networks.
    """

    def __init__(self, library: ctypes.CDLL, policy: Policy, rollout: Rollout, head: Head, nets: Networks) -> None:
        self.policy, self.rollout, self.head = policy, rollout, head
        model: Any = policy.model
        self._features = model.policy_head.features
        self._takes_obs = _takes_obs(policy)
        half_range = None if isinstance(head, Discrete) else head.log_half_range
        self.called = Called(
            library,
            head,
            nets,
            log_half_range=math.nan if half_range is None else half_range,
            **(_scaling(policy) if self._takes_obs else {}),
        )
        rows, spec = rollout.num_envs, policy.action_spec
        size = len(nets.policy[-1].bias)
        self._to_env = policy.distribution_cls(self._features(torch.zeros(1, rows, size)), spec).to_env
        stored = torch.int64 if isinstance(head, Discrete) else torch.float32
        places = rollout.rows.actions
        self._places = places if places is not None and spec.dtype == stored else None
        self._size, self._stored, self._step = size, stored, 0
        self._infer, self._act = library.infer, library.act
        self._infer.restype = self._act.restype = None
        self._infer.argtypes = (*[ctypes.c_void_p] * 2, ctypes.c_int64, ctypes.c_void_p)
        self._act.argtypes = (*[ctypes.c_void_p] * 2, ctypes.c_int64, *[ctypes.c_void_p] * 4)

    def __call__(self, seen: Nested, state: Nested | None = None, *, deterministic: bool = False) -> Act:
        """Choose an action in every environment; see `Policy.act`."""
        if deterministic:
            return self.policy.act(seen, state, deterministic=True, infer=self._inferred)
        step, rows = self._step, self.rollout.num_envs
        self._step += 1
        inputs: Any = seen if self._takes_obs else _inputs(self.policy, seen)
        noise, mask = noise_for(self.head, rows, inputs.device).contiguous(), mask_of(self.policy, seen)
        allowed = None if mask is None else mask.contiguous()
        logp = self.rollout.rows.logp[step]
        if self._places is None:
            actions = torch.empty(rows, *self.policy.action_spec.shape, dtype=self._stored)
        else:
            actions = self._places[step]
        self._act(
            self.called.reference,
            *(inputs.data_ptr(), rows, noise.data_ptr(), _address(allowed)),
            *(actions.data_ptr(), logp.data_ptr()),
        )
        taken: Any = self._to_env(actions)
        # a copy: what an environment keeps or changes is not what is stored
        return Act(actions, taken.clone() if taken is actions else taken, logp, None, None, {})

    def _inferred(self, seen: Nested, state: Nested | None) -> tuple[Mapping[str, Any], None, None]:
        inputs = _inputs(self.policy, seen)
        outputs = torch.empty(1, len(inputs), self._size)
        self._infer(self.called.reference, inputs.data_ptr(), len(inputs), outputs.data_ptr())
        return self._features(outputs), None, None


def _takes_obs(policy: Policy) -> bool:
    """Return whether networks see observations as they are stored, but for their normalisation.

    Not where a user has put something else in the place of the encoder or of the normalisation.
    """
    spec = policy.observation_spec
    numbers = isinstance(spec, (Unbounded, Bounded)) and spec.dtype == torch.float32
    model: Any = policy.model
    parts = [model.encoder, *policy.normalizers]
    return numbers and not policy.views.windows and all(type(part) in (Encoder, ObsNormalizer) for part in parts)


def _scaling(policy: Policy) -> dict[str, Any]:
    """Return what of `Work` says how observations are normalised; see `ObsNormalizer`."""
    if not policy.normalizers:
        return {}
    normalizer: Any = policy.normalizers[0]
    shift, scale = normalizer.numbers(torch.float32)
    return {"shift": shift.flatten().contiguous(), "scale": scale.flatten().contiguous(), "obs_limit": normalizer.clip}


def _inputs(policy: Policy, seen: Nested) -> Tensor:
    """Return what both networks see, `[N, D]`."""
    return policy.inputs(seen)[0].to(torch.float32).contiguous()


def _lie_right(tensors: Sequence[Tensor]) -> bool:
    return all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in tensors)


def _integers(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int64]:
    return _integers([tensor.data_ptr() for tensor in tensors])


def _pointed(value: Any) -> Any:
    """Return a field of `Work`: the address of what is larger than a number."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    return ctypes.addressof(value) if isinstance(value, ctypes.Array) else value


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _or_infinite(number: float | None) -> float:
    return math.inf if number is None else number
