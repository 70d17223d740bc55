"""Distributions of actions: what a model's features mean, how actions are drawn, and how probable they are.

Everything here runs once per env step and once per minibatch, so nothing is validated inside and nothing waits for
the device: `feature_shapes` is the door, where a spec that does not fit is refused. Log-probabilities are computed in
float32 even from bf16 or fp16 features, because PPO's ratio is the exponential of a small difference between two.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn import functional

from rl8 import specs
from rl8.checks import unknown
from rl8.data import ACTION_MASK
from rl8.nn.heads import LOG_STD_MAX as LOG_STD_MAX
from rl8.nn.heads import LOG_STD_MIN as LOG_STD_MIN

# Finite, so that neither 0 * log(0) in the entropy nor a sum or difference of log-probabilities can become NaN; far
# below any logit, so that the probability is exactly zero.
FORBIDDEN_LOGIT: Final = -1e9

# Floats in a vector register of common CPUs, on which torch takes shorter rows number by number.
VECTOR: Final = 8

T = TypeVar("T")


class Distribution(ABC):
    """Actions of a whole batch, given a model's features.

    Leading dimensions are free: `[N]` while collecting, `[L, B]` in the update; shapes below write them as `...`.
    Actions are kept in the form that `sample` returns; only `to_env` turns them into the environment's units, so
    that the stored action is the sampled one and its log-probability is exact.

    A subclass defines `feature_shapes`, `__init__`, `sample`, `mode`, `logp` and `entropy`, and `to_env` where stored
    actions are not in the environment's units. Sum over the action's own dimensions, use tensor operations only (no
    `.item()`, no branch on a value: both stop CUDA graphs), and draw from torch's default generators. Then give the
    class as `distribution_cls`, or name it in a YAML of your own (`_target_: my_module.Laplace`).

    Example:
        ```python
        class Laplace(Distribution):
            @classmethod
            def feature_shapes(cls, action_spec):
                if not isinstance(action_spec, Unbounded):
                    raise ValueError(f"Laplace does not fit {action_spec}. Use an Unbounded action spec.")
                return {"mean": action_spec.shape, "log_scale": action_spec.shape}

            def __init__(self, features, action_spec):
                super().__init__(features, action_spec)
                self.mean = features["mean"].float()  # [..., A]
                self.log_scale = features["log_scale"].float().clamp(-10, 5)  # [..., A]

            def sample(self):
                with torch.no_grad():
                    u = torch.rand_like(self.mean) - 0.5
                    return self.mean - self.log_scale.exp() * u.sign() * torch.log1p(-2 * u.abs())

            def mode(self):
                return self.mean.detach()

            def logp(self, actions):
                distance = (actions - self.mean).abs() * (-self.log_scale).exp()
                return -(distance + self.log_scale + math.log(2)).sum(-1)

            def entropy(self):
                return (self.log_scale + math.log(2) + 1).sum(-1)
        ```

    Args:
        features: What the model's head put out, leaves `[..., *feature_shape]` under the names of `feature_shapes`.
        action_spec: Spec of one environment's action.
    """

    def __init__(self, features: Mapping[str, Any], action_spec: specs.Spec) -> None:
        self.features = features
        self.action_spec = action_spec

    @classmethod
    @abstractmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return the shape of each feature per sample: what a model's head must put out.

        Returns:
            `torch.Size` by name; for a composite, such a dictionary by component.

        Raises:
            ValueError: If this distribution does not fit `action_spec`.
        """

    @abstractmethod
    def sample(self) -> Tensor | TensorDict:
        """Return random actions `[..., *action_shape]` as the buffer stores them, without gradient."""

    @abstractmethod
    def mode(self) -> Tensor | TensorDict:
        """Return the deterministic actions `[..., *action_shape]`, stored form, without gradient."""

    @abstractmethod
    def logp(self, actions: Any) -> Tensor:
        """Return the log-probability (density) `[...]` of stored actions, summed over an action's elements, in nats."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy `[...]`, exact or an unbiased estimate, summed over an action's elements, in nats."""

    def to_env(self, actions: Any) -> Any:
        """Return stored actions in the environment's units, `[..., *action_shape]`."""
        return actions


class Categorical(Distribution):
    """One of n choices, for each element of a `Categorical` spec.

    Features: `logits` `[..., *shape, n]`; optionally `action_mask`, bool of the same shape (or flat: `[..., n]` for an
    action of shape (1,)), True where the choice is allowed. A forbidden choice has probability zero, is never drawn
    and gets no gradient. A row that allows nothing is a fault of the environment, which is not looked for here: its
    choice is 0.
    """

    def __init__(self, features: Mapping[str, Any], action_spec: specs.Spec) -> None:
        super().__init__(features, action_spec)
        logits, mask = features["logits"], features.get(ACTION_MASK)
        if mask is not None and mask.ndim < logits.ndim:
            mask = mask.unflatten(-1, logits.shape[-1 - len(action_spec.shape) :])
        logits = self._table(logits)
        self.mask = self._allowed(mask)
        if self.mask is not None:
            logits = torch.where(self.mask, logits, FORBIDDEN_LOGIT)
        self.log_probs = _log_softmax(logits)  # [..., *shape, n], shared by sample, logp and entropy
        self._dims = len(action_spec.shape)

    @classmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return `{"logits": [*shape, n]}`."""
        if not isinstance(action_spec, specs.Categorical):
            raise _misfit(cls, action_spec, "a Categorical spec")
        return {"logits": torch.Size([*action_spec.shape, action_spec.n])}

    def sample(self) -> Tensor:
        """Return indices `[..., *shape]`, int64."""
        # Exponential clocks with rates p: index i rings first with probability p_i. torch.multinomial takes matrices
        # alone and checks their values on the host.
        log_probs = self.log_probs.detach()
        clocks = log_probs.new_empty(log_probs.shape).exponential_().log_().sub_(log_probs)
        if self.mask is not None:
            # A clock of exactly zero would ring first whatever its rate.
            clocks = torch.where(self.mask, clocks, math.inf)
        return clocks.argmin(dim=-1)

    def mode(self) -> Tensor:
        """Return the most probable indices `[..., *shape]`, int64."""
        log_probs = self.log_probs.contiguous()
        if self.mask is not None:  # what is allowed may be even less probable than FORBIDDEN_LOGIT
            log_probs = torch.where(self.mask, log_probs, -math.inf)
        return log_probs.argmax(dim=-1)

    def logp(self, actions: Tensor) -> Tensor:
        """Return log-probabilities `[...]` of indices `[..., *shape]`."""
        chosen = self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
        return _sum_last(chosen, self._dims)

    def entropy(self) -> Tensor:
        """Return `-sum p log p`, `[...]`."""
        return _sum_last(self.log_probs.exp() * self.log_probs, self._dims + 1).neg()

    def to_env(self, actions: Tensor) -> Tensor:
        """Return the same indices in the spec's dtype."""
        return actions.to(self.action_spec.dtype)

    def _table(self, logits: Tensor) -> Tensor:
        """Return logits, float32 or wider, with the choices of one element along the last dimension."""
        return _widen(logits)

    def _allowed(self, mask: Tensor | None) -> Tensor | None:
        """Return the mask in the shape of the table, or None if everything is allowed."""
        return mask


class MultiCategorical(Categorical):
    """One choice for each element of a `MultiCategorical` spec, of numbers of choices that may differ.

    Features: `logits` `[..., sum(nvec)]`, the elements' logits one after the other; optionally `action_mask`, bool,
    laid out likewise. A forbidden choice has probability zero.
    """

    action_spec: specs.MultiCategorical

    @classmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return `{"logits": [sum(nvec)]}`."""
        if not isinstance(action_spec, specs.MultiCategorical):
            raise _misfit(cls, action_spec, "a MultiCategorical spec")
        _padding(action_spec)
        return {"logits": torch.Size([sum(action_spec.nvec)])}

    def _table(self, logits: Tensor) -> Tensor:
        return _widen(self._rows(logits))

    def _allowed(self, mask: Tensor | None) -> Tensor | None:
        padding = _padding(self.action_spec)
        if padding is None:
            return mask if mask is None else self._rows(mask)
        return padding[1] if mask is None else self._rows(mask) & padding[1]

    def _rows(self, flat: Tensor) -> Tensor:
        """Return `[..., sum(nvec)]` as `[..., len(nvec), max(nvec)]`."""
        padding = _padding(self.action_spec)
        if padding is not None:
            flat = flat.index_select(-1, padding[0])
        return flat.reshape(*flat.shape[:-1], len(self.action_spec.nvec), -1)


class Binary(Distribution):
    """Independent zeros and ones for a `Binary` spec.

    Features: `logits` `[..., *shape]`, the log-odds of a one; optionally `action_mask`, bool of the same shape, False
    where an element must stay zero.
    """

    def __init__(self, features: Mapping[str, Any], action_spec: specs.Spec) -> None:
        super().__init__(features, action_spec)
        self.logits, mask = _widen(features["logits"]), features.get(ACTION_MASK)
        if mask is not None:
            self.logits = torch.where(mask, self.logits, FORBIDDEN_LOGIT)
        self._dims = len(action_spec.shape)

    @classmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return `{"logits": shape}`."""
        if not isinstance(action_spec, specs.Binary):
            raise _misfit(cls, action_spec, "a Binary spec")
        return {"logits": action_spec.shape}

    def sample(self) -> Tensor:
        """Return zeros and ones `[..., *shape]` in the spec's dtype."""
        # Not torch.bernoulli: on CUDA a NaN, from a training run that diverged, fails an assertion on the device,
        # after which nothing else works in that process.
        return (torch.rand_like(self.logits) < self.logits.sigmoid()).to(self.action_spec.dtype)

    def mode(self) -> Tensor:
        """Return one where it is the more probable value, `[..., *shape]`."""
        return (self.logits > 0).to(self.action_spec.dtype)

    def logp(self, actions: Tensor) -> Tensor:
        """Return log-probabilities `[...]` of zeros and ones `[..., *shape]`."""
        return _sum_last(self._cross_entropy(actions.to(self.logits.dtype)), self._dims).neg()

    def entropy(self) -> Tensor:
        """Return the entropy `[...]`."""
        return _sum_last(self._cross_entropy(self.logits.sigmoid()), self._dims)

    def to_env(self, actions: Tensor) -> Tensor:
        """Return the same zeros and ones in the spec's dtype."""
        return actions.to(self.action_spec.dtype)

    def _cross_entropy(self, target: Tensor) -> Tensor:
        """Return `-target log p - (1 - target) log(1 - p)`, stable for any logit."""
        return functional.binary_cross_entropy_with_logits(self.logits, target, reduction="none")


class Normal(Distribution):
    """Independent normal numbers for an `Unbounded` or `Bounded` spec.

    Features: `mean` and `log_std` `[..., *shape]`, in the environment's units; a `log_std` that does not depend on the
    observation may be just `[*shape]`, which saves work. The standard deviation is `exp(log_std)`, kept between
    `exp(LOG_STD_MIN)` = 4.5e-5 and `exp(LOG_STD_MAX)` = 148. A Bounded spec's limits apply in `to_env` alone: stored
    actions are not clipped, so that their log-probability is that of the sample.
    """

    def __init__(self, features: Mapping[str, Any], action_spec: specs.Spec) -> None:
        super().__init__(features, action_spec)
        self.mean = _widen(features["mean"])
        self.log_std = _limit(_widen(features["log_std"]))
        self.std = self.log_std.exp()
        self._dims = len(action_spec.shape)
        self._size = action_spec.shape.numel()

    @classmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return `{"mean": shape, "log_std": shape}`."""
        if not isinstance(action_spec, (specs.Unbounded, specs.Bounded)) or not _is_floating(action_spec):
            raise _misfit(cls, action_spec, "an Unbounded or Bounded spec with a floating dtype")
        return {"mean": action_spec.shape, "log_std": action_spec.shape}

    def sample(self) -> Tensor:
        """Return `mean + std * noise`, `[..., *shape]`, unclipped."""
        with torch.no_grad():  # not the decorator, which torch.compile cannot follow into an object made inside
            return self._draw()

    def mode(self) -> Tensor:
        """Return the mean `[..., *shape]`, unclipped."""
        return self.mean.detach()

    def logp(self, actions: Tensor) -> Tensor:
        """Return log-densities `[...]` of unclipped actions `[..., *shape]`."""
        z = (actions - self.mean) / self.std
        total = _sum_last(torch.addcmul(self.log_std, z, z, value=0.5), self._dims)
        return -0.5 * math.log(2 * math.pi) * self._size - total

    def entropy(self) -> Tensor:
        """Return `sum(log_std + 0.5 log(2 pi e))`, `[...]`."""
        total = _sum_last(self.log_std, self._dims) + 0.5 * math.log(2 * math.pi * math.e) * self._size
        return total.expand(self.mean.shape[: self.mean.ndim - self._dims])

    def to_env(self, actions: Tensor) -> Tensor:
        """Return actions clipped to the limits of a Bounded spec, in the spec's dtype."""
        spec = self.action_spec
        if isinstance(spec, specs.Bounded):
            actions = actions.clamp(spec.low, spec.high)
        return actions.to(spec.dtype)

    def _draw(self) -> Tensor:
        # Not torch.normal(mean, std): it reads std.min() on the host to refuse a negative one.
        return torch.addcmul(self.mean, self.std, torch.randn_like(self.mean))


class SquashedNormal(Normal):
    """Normal numbers u squashed into an interval: `low + (high - low) * (tanh(u) + 1) / 2`.

    The interval is the Bounded spec's; for an Unbounded spec it is (-1, 1). Features: `mean` and `log_std`
    `[..., *shape]` of u, which has no unit. Stored actions are u: recovering it from a float32 `tanh(u)` is
    hopeless past |u| = 9, where that is 1. `logp(u)` is the log-density of the squashed action in its own units:

        logp(u) = log N(u; mean, std) - sum log((high - low) / 2) - sum log(1 - tanh(u)^2)
        log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))

    Source: Haarnoja et al. 2018, arXiv:1801.01290, appendix C, with the last line in its stable form. The mode is
    u = mean, the squashed median.
    """

    @classmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return `{"mean": shape, "log_std": shape}`."""
        fits = isinstance(action_spec, (specs.Unbounded, specs.Bounded)) and _is_floating(action_spec)
        if not fits or not math.isfinite(log_half_range(action_spec)):
            accepted = "a Bounded spec with a floating dtype, finite limits and low < high, or an Unbounded one"
            raise _misfit(cls, action_spec, accepted)
        return super().feature_shapes(action_spec)

    def logp(self, actions: Tensor) -> Tensor:
        """Return log-densities `[...]` of the squashed actions, given u `[..., *shape]`."""
        return super().logp(actions) - self._log_slope(actions)

    def entropy(self) -> Tensor:
        """Return an unbiased estimate `[...]`: the normal's own entropy plus the mean log-slope of one sample."""
        return super().entropy() + self._log_slope(self._draw())

    def to_env(self, actions: Tensor) -> Tensor:
        """Return u squashed, in the spec's units and dtype."""
        spec = self.action_spec
        if not isinstance(spec, specs.Bounded):
            return actions.tanh().to(spec.dtype)
        # sigmoid(2 u) = (tanh(u) + 1) / 2, and lerp is exact at both ends: rounding never leaves the interval.
        return torch.lerp(spec.low, spec.high, torch.sigmoid(2 * actions).to(spec.dtype))

    def _log_slope(self, u: Tensor) -> Tensor:
        """Return `sum log |d to_env(u) / d u|`, `[...]`."""
        constant = log_half_range(self.action_spec) + 2 * math.log(2) * self._size
        return constant - 2 * _sum_last(u + functional.softplus(-2 * u), self._dims)


class CompositeDistribution(Distribution):
    """A distribution for each component of a `Composite` spec, independent of each other.

    Features: a mapping by component, each with what that component's distribution asks for. An `action_mask` may stand
    there, or beside the components as a mapping from those that have one. Actions are TensorDicts with the spec's
    keys. Components take their default distribution; a subclass may choose:

        class Drive(CompositeDistribution):
            components = {"steering": Normal}
    """

    components: ClassVar[Mapping[str, type[Distribution]]] = {}

    action_spec: specs.Composite

    def __init__(self, features: Mapping[str, Any], action_spec: specs.Spec) -> None:
        super().__init__(features, action_spec)
        mask = features.get(ACTION_MASK)
        self.parts: dict[str, Distribution] = {}
        for key, spec in self.action_spec.items():
            own = features[key]
            if mask is not None and mask.get(key) is not None:
                own = {**own, ACTION_MASK: mask[key]}
            self.parts[key] = self._choose(key, spec)(own, spec)

    @classmethod
    def feature_shapes(cls, action_spec: specs.Spec) -> dict[str, Any]:
        """Return each component's `feature_shapes` by its key."""
        if not isinstance(action_spec, specs.Composite):
            raise _misfit(cls, action_spec, "a Composite spec")
        for key in cls.components:
            if key not in action_spec:
                raise ValueError(f"{cls.__name__}.components: {unknown('component', key, action_spec.keys())}")
        return {key: cls._choose(key, spec).feature_shapes(spec) for key, spec in action_spec.items()}

    def sample(self) -> TensorDict:
        """Return a TensorDict of samples with batch size `[...]`."""
        return self._gather({key: part.sample() for key, part in self.parts.items()})

    def mode(self) -> TensorDict:
        """Return a TensorDict of modes with batch size `[...]`."""
        return self._gather({key: part.mode() for key, part in self.parts.items()})

    def logp(self, actions: Mapping[str, Any]) -> Tensor:
        """Return the components' log-probabilities, summed, `[...]`."""
        first, *others = (part.logp(actions[key]) for key, part in self.parts.items())
        return sum(others, start=first)

    def entropy(self) -> Tensor:
        """Return the components' entropies, summed, `[...]`."""
        first, *others = (part.entropy() for part in self.parts.values())
        return sum(others, start=first)

    def to_env(self, actions: Mapping[str, Any]) -> TensorDict:
        """Return a TensorDict of the components in the environment's units."""
        return self._gather({key: part.to_env(actions[key]) for key, part in self.parts.items()})

    @classmethod
    def _choose(cls, key: str, spec: specs.Spec) -> type[Distribution]:
        return cls.components.get(key) or default_distribution(spec)

    def _gather(self, actions: dict[str, Any]) -> TensorDict:
        key, action = next(iter(actions.items()))
        if isinstance(action, TensorDict):
            batch = action.batch_size
        else:
            batch = action.shape[: action.ndim - len(self.action_spec[key].shape)]
        return TensorDict(actions, batch_size=batch)


def default_distribution(action_spec: specs.Spec) -> type[Distribution]:
    """Return the distribution that suits a spec best.

    Categorical, MultiCategorical, Binary and Composite specs have their own; Unbounded takes `Normal`; Bounded takes
    `SquashedNormal`, whose features need no knowledge of the interval, or `Normal` where a side is infinite.

    Raises:
        ValueError: If there is none.
    """
    found = _default(action_spec)
    if found is None:
        raise ValueError(
            f"distribution=auto knows no distribution for the action spec {action_spec}. Accepted: Categorical, "
            "MultiCategorical, Binary, Composite, and Unbounded or Bounded with a floating dtype. Change the spec "
            f"({_advice(action_spec)}), or give a class of your own: distribution._target_=my_module.MyDistribution."
        )
    return found


def _default(spec: specs.Spec) -> type[Distribution] | None:
    if isinstance(spec, specs.Categorical):
        return Categorical
    if isinstance(spec, specs.MultiCategorical):
        return MultiCategorical
    if isinstance(spec, specs.Binary):
        return Binary
    if isinstance(spec, specs.Composite):
        return CompositeDistribution
    if isinstance(spec, (specs.Unbounded, specs.Bounded)) and _is_floating(spec):
        squash = isinstance(spec, specs.Bounded) and math.isfinite(log_half_range(spec))
        return SquashedNormal if squash else Normal
    return None


def _misfit(cls: type[Distribution], spec: specs.Spec, accepted: str) -> ValueError:
    found = _default(spec)
    todo = f"Type distribution=auto, which takes {found.__name__} here" if found else f"Change it: {_advice(spec)}"
    return ValueError(f"distribution={cls.__name__} does not fit the action spec {spec}. Accepted: {accepted}. {todo}.")


def _advice(spec: specs.Spec) -> str:
    if isinstance(spec, (specs.Unbounded, specs.Bounded)):
        return "whole numbers are choices, e.g. Categorical(n=5)"
    return "e.g. Categorical(n=5) or Bounded(-1.0, 1.0, shape=2)"


def _is_floating(spec: specs.Spec) -> bool:
    return spec.dtype is not None and spec.dtype.is_floating_point


def _widen(features: Tensor) -> Tensor:
    """Return features as float32, or unchanged where they are wider."""
    return features if features.dtype == torch.float64 else features.float()


def _log_softmax(logits: Tensor) -> Tensor:
    """Return the log-softmax over the last dimension, laid out by columns where that is faster.

    Only `argmin` and `argmax` want rows: over columns they take seven times as long.
    """
    if logits.shape[-1] >= VECTOR or logits.device.type != "cpu":
        return functional.log_softmax(logits, dim=-1)
    return functional.log_softmax(logits.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1)


def _sum_last(values: Tensor, dims: int) -> Tensor:
    """Return `values` summed over its last `dims` dimensions; no work where they hold one element."""
    if dims == 0:
        return values
    if dims > 1:
        values = values.flatten(-dims)
    return values.squeeze(-1) if values.shape[-1] == 1 else values.sum(-1)


def _once(spec: specs.Spec, name: str, make: Callable[[], T]) -> T:
    """Return `make()`, kept on the spec: its constants cost a wait for the device once, not at every step."""
    kept = vars(spec)
    if name not in kept:
        # A tensor made in inference mode could never be saved for a backward pass.
        with torch.inference_mode(False):
            kept[name] = make()
    found: T = kept[name]
    return found


def log_half_range(spec: specs.Spec) -> float:
    """Return `sum log((high - low) / 2)`: zero for an Unbounded spec, not finite where it cannot be squashed into."""
    if not isinstance(spec, specs.Bounded):
        return 0.0
    # In float32, where `to_env` computes: limits of +-3e38 have no finite difference there.
    return _once(spec, "_log_half_range", lambda: float(((spec.high.float() - spec.low.float()) / 2).log().sum()))


def _padding(spec: specs.MultiCategorical) -> tuple[Tensor, Tensor] | None:
    """Return how flat logits become rows of equal length, or None where they have it already.

    Returns:
        Column of each cell `[len(nvec) * max(nvec)]`, and whether the cell is a real one `[len(nvec), max(nvec)]`.
    """

    def make() -> tuple[Tensor, Tensor] | None:
        if len(set(spec.nvec)) == 1:
            return None
        counts = torch.tensor(spec.nvec, device=spec.device)
        cells = torch.arange(max(spec.nvec), device=spec.device)
        real = cells < counts[:, None]
        columns = torch.where(real, (counts.cumsum(0) - counts)[:, None] + cells, 0)
        return columns.flatten(), real

    return _once(spec, "_padding", make)


def _limit(log_std: Tensor) -> Tensor:
    """Return `log_std` inside its limits, with the gradient of the identity.

    A plain clamp has no gradient outside, so that a parameter that once overshot would stay there for good.
    """
    limited = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    if log_std.requires_grad and torch.is_grad_enabled():
        # Not log_std + (limited - log_std): that rounds to 0 where log_std is huge.
        limited = limited.detach() + (log_std - log_std.detach())
    return limited
