"""Kernels in place of an algorithm's plain path: which act is found at the first use of each, by real data.

A kernel acts where its results are those of the plain path, to rounding, and it is faster; `device.kernels` says so.
Random numbers are drawn as the plain path draws them, so that a run is the same with kernels and without, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from rl8.execution.kernels import known, networks, triton_advantages, triton_loss, triton_networks
from rl8.execution.kernels.choice import TOLERANCE, Choice, choose
from rl8.execution.kernels.loss import Terms
from rl8.execution.pieces import Gradient, Piece, add
from rl8.policy.policy import Act, Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Nested

Result = TypeVar("Result")

# TF32 has three digits, and sums of numbers of both signs lose one.
TF32_TOLERANCE: Final = 1e-2


class Kernels:
    """The kernels of one algorithm.

    Args:
        policy: What acts and is learned.
        rollout: What it is learned from.
        dtype: In which networks compute under mixed precision; None for float32.
        timed: Whether a kernel must be faster than the plain path.

    Attributes:
        terms: Of the loss; None where it is another than the one that is known here.
        choices: What was found, by kernel.
    """

    def __init__(self, policy: Policy, rollout: Rollout, *, dtype: torch.dtype | None, timed: bool) -> None:
        self.policy, self.rollout, self.timed = policy, rollout, timed
        self.dtype = dtype or torch.float32
        self.head = known.head_of(policy)
        self.terms: Terms | None = None
        self.choices: dict[str, Choice] = {}
        self._told = 0
        if self.head is not None:
            shapes = policy.distribution_cls.feature_shapes(policy.action_spec)
            zeros = {name: torch.zeros(1, 1, *shape, device=policy.device) for name, shape in shapes.items()}
            self._to_env = policy.distribution_cls(zeros, policy.action_spec).to_env

    def notes(self) -> list[str]:
        """Return what was found since the last call, as one line for the user."""
        new = list(self.choices.items())[self._told :]
        self._told += len(new)
        return [f"Kernels: {'; '.join(f'{name}: {choice.reason}' for name, choice in new)}."] if new else []

    # ------------------------------------------------------------------------------------------------- advantages

    def advantages(self, plain: Callable[..., Tensor], rewards: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
        """Return advantages `[T, N]` of the horizon, with rewards `[T, N]` that may be scaled."""
        rollout, factors = self.rollout, {"gamma": gamma, "gae_lambda": gae_lambda}

        def kernel(rewards: Tensor) -> Tensor:
            if rollout.is_last is None:
                return triton_advantages.gae_endless(rewards, rollout.values, **factors)
            values, following = rollout.values[:-1], rollout.next_values()
            return triton_advantages.gae(rewards, values, following, rollout.is_last, **factors)

        name = "advantages" if rollout.is_last is None else "advantages of ending episodes"
        rewards = rewards.contiguous()
        tolerance = TOLERANCE[torch.float32]
        acts = self._acts(name, kernel, partial(plain, rollout, **factors), {"rewards": rewards}, tolerance)
        return kernel(rewards) if acts else plain(rollout, rewards, **factors)

    # ----------------------------------------------------------------------------------------------------- update

    def gradient(
        self,
        plain: Callable[[Sequence[Piece]], Gradient],
        parameters: Sequence[Tensor],
        pieces: Sequence[Piece],
        *,
        weight: float,
    ) -> Gradient:
        """Return the gradient of some pieces of a minibatch.

        Args:
            plain: Gives it by autograd.
            parameters: What to differentiate by.
            pieces: At least one.
            weight: Of the loss in the gradient.
        """
        if self.terms is not None and self.head is not None and self.rollout.weights is None:
            for name, kernel in (("update", self._of_networks()), ("loss", self._of_loss)):
                if kernel is None:
                    continue
                found = partial(_sum, partial(kernel, parameters, self.terms._replace(weight=weight)))
                if self._acts(name, found, plain, {"pieces": pieces[:1]}, self._tolerance):
                    return found(pieces)
        return plain(pieces)

    def _of_networks(self) -> Callable[..., Gradient] | None:
        nets = self._networks()
        return None if nets is None else partial(self._gradient_of_networks, nets)

    @torch.no_grad()
    def _gradient_of_networks(
        self, nets: known.Networks, parameters: Sequence[Tensor], terms: Terms, piece: Piece
    ) -> Gradient:
        """Return a piece's gradient, with both networks in kernels."""
        assert self.head is not None
        batch = self.rollout.minibatch(piece.rows)
        inputs = self.policy.inputs(batch.seen).flatten(0, 1).contiguous()
        found = triton_networks.update(
            inputs,
            networks.cast(nets.policy, self.dtype),
            networks.cast(nets.value, self.dtype),
            self.head,
            known.samples_of(self.policy, self.head, batch),
            terms,
            activation=nets.activation,
            log_std=None if nets.log_std is None else nets.log_std.flatten(),
            rows=round(len(inputs) / piece.share),
        )
        gradients = [tensor for layer in (*found.policy, *found.value) for tensor in layer]
        if found.log_std is not None and nets.log_std is not None:
            gradients.append(found.log_std.view(nets.log_std.shape))
        by_parameter = {id(one): gradient for one, gradient in zip(nets.parameters, gradients, strict=True)}
        return Gradient([by_parameter.get(id(parameter)) for parameter in parameters], found.parts)

    def _of_loss(self, parameters: Sequence[Tensor], terms: Terms, piece: Piece) -> Gradient:
        """Return a piece's gradient, with the loss in a kernel and the model differentiated by autograd."""
        assert self.head is not None
        batch = self.rollout.minibatch(piece.rows)
        features, values = self.policy.outputs(batch.seen, batch.state, batch.is_last)
        flat, log_std = known.flat_features(self.head, features)
        values = values.flatten()
        found = triton_loss.loss_gradient(
            self.head,
            flat.detach(),
            values.detach(),
            known.samples_of(self.policy, self.head, batch),
            terms,
            log_std=None if log_std is None else log_std.detach().float().contiguous(),
            rows=round(len(values) / piece.share),
        )
        pairs = ((flat, found.features), (values, found.values), (log_std, found.log_std))
        known_pairs = [(output, slope) for output, slope in pairs if output is not None and output.requires_grad]
        outputs = [output for output, _ in known_pairs]
        slopes = [slope.to(output.dtype) for output, slope in known_pairs if slope is not None]
        return Gradient(list(torch.autograd.grad(outputs, parameters, slopes, allow_unused=True)), found.parts)

    # -------------------------------------------------------------------------------------------------------- act

    @torch.no_grad()
    def acting(self, plain: Callable[..., Act]) -> Callable[..., Act] | None:
        """Return what acts for a horizon that is about to be collected, values included; None for the plain path.

        Args:
            plain: What the policy does.
        """
        nets = self._networks()
        if nets is None or [len(layer.bias) for layer in nets.policy[:-1]] != [len(x.bias) for x in nets.value[:-1]]:
            return None
        # cast once per horizon
        policy, value = networks.cast(nets.policy, self.dtype), networks.cast(nets.value, self.dtype)
        kernel = partial(self._act, nets._replace(policy=policy, value=value))

        def plain_with_values(seen: Nested) -> Act:
            return plain(seen, None, deterministic=False)._replace(values=self.policy.values(seen)[0])

        seen = {"seen": self.rollout.seen(0)}
        return kernel if self._acts("act", kernel, plain_with_values, seen, self._tolerance) else None

    def _act(
        self, nets: known.Networks, seen: Nested, state: Nested | None = None, *, deterministic: bool = False
    ) -> Act:
        """Draw actions as `Policy.act` does."""
        assert self.head is not None
        assert not deterministic
        inputs = self.policy.inputs(seen)[0].contiguous()
        acted = triton_networks.act(
            inputs,
            nets.policy,
            nets.value,
            self.head,
            known.noise_for(self.head, len(inputs), inputs.device),
            activation=nets.activation,
            log_std=None if nets.log_std is None else nets.log_std.flatten(),
            mask=known.mask_of(self.policy, seen),
        )
        actions = acted.actions.view(len(inputs), *self.policy.action_spec.shape)
        return Act(actions, self._to_env(actions), acted.logp, acted.values, None, {})

    # ----------------------------------------------------------------------------------------------------- choice

    @property
    def _tolerance(self) -> float:
        return TF32_TOLERANCE if self.dtype == torch.float32 else TOLERANCE[self.dtype]

    def _networks(self) -> known.Networks | None:
        """Return the networks, if they are of a kind and of sizes that the kernels know."""
        nets = None if self.head is None else known.networks_of(self.policy, self.head)
        if nets is None:
            return None
        return nets if all(triton_networks.fits(layers, self.dtype) for layers in (nets.policy, nets.value)) else None

    def _acts(
        self,
        name: str,
        kernel: Callable[..., Any],
        plain: Callable[..., Any],
        inputs: dict[str, Any],
        tolerance: float,
    ) -> bool:
        """Return whether a kernel acts, found out at its first use.

        Raises:
            RuntimeError: If it must, and is wrong.
        """
        if name not in self.choices:
            self.choices[name] = choose(
                kernel, plain, inputs, tolerance=tolerance, device=self.policy.device, timed=self.timed
            )
            if not (self.timed or self.choices[name].kernel):
                raise RuntimeError(
                    f"device.kernels=on, but the kernel for {name} does not do its work: {self.choices[name].reason}. "
                    "Try device.kernels=auto, with which the plain path then acts."
                )
        return self.choices[name].kernel


def _sum(one: Callable[[Piece], Gradient], pieces: Sequence[Piece]) -> Gradient:
    """Return the sum of what `one` gives for each piece."""
    total = one(pieces[0])
    for piece in pieces[1:]:
        more = one(piece)
        total = Gradient(add(total.tensors, more.tensors), total.losses.add_(more.losses))
    return total
