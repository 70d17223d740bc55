"""Execution on a processor: pieces that suit its caches, a thread each, and no work done twice.

* A minibatch is divided among threads, each of which computes pieces of its own (`pieces`, `threads`).
* Perceptrons are computed block by block with their gradient written out (`perceptron`).
* Where that makes them faster, an update takes env steps in an order in which neighbours resemble each other.
* Where minibatches are so small that operations cost more than what they compute, there are fewer of them (`small`),
  or one call in C, unless `device.compile=false` (`compiled`).
* Where it does not, the forward pass of collect is kept for the update's first pass (`forward`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rl8.env import Env
from rl8.execution import networks
from rl8.execution.compiled.building import library
from rl8.execution.compiled.steps import CompiledSteps, compiled_act, compiled_steps
from rl8.execution.eager import Eager
from rl8.execution.forward import ForwardPass, shares_to_keep
from rl8.execution.kernels.loss import Terms
from rl8.execution.pieces import Gradient, Loss, Piece, Rows, gradient, split
from rl8.execution.small import Recipe, SmallSteps, may_be_small, small_act, small_steps
from rl8.execution.threads import alone, side_by_side
from rl8.policy.policy import Act, Policy
from rl8.rollout.collect import collect, store_values
from rl8.rollout.rollout import Rollout
from rl8.settings import DeviceSettings
from rl8.specs import Nested


class CPU(Eager):
    """Computes minibatches in pieces and threads.

    Attributes:
        threads: How many pieces of a minibatch are computed at once.
        piece_size: Env steps per forward and backward pass of a thread.
        sorted: Whether the last update took env steps in an order of its own.
    """

    def __init__(self, settings: DeviceSettings, **precision: Any) -> None:
        super().__init__(settings, **precision)
        # Inductor's code shares its own operations out, and compiles in one thread.
        self.threads = 1 if settings.inductor else self.num_threads
        self.sorted = False
        self._ranks: Tensor | None = None  # place of each env step `[T * N]` in the order of the present update
        self._terms: Terms | None = None
        self._told = False  # whether the user knows what there is to know
        self._small: SmallSteps | CompiledSteps | None = None  # of the present update
        self._forward: ForwardPass | None = None  # of the present horizon, for the first pass of its update

    def attach(self, env: Env, policy: Policy, rollout: Rollout, *, minibatches: int) -> None:
        """See `Eager.attach`."""
        super().attach(env, policy, rollout, minibatches=minibatches)
        networks.equip(policy.model)
        policy.side_by_side = True  # nobody waits for where episodes end
        self.piece_size = self.settings.piece_size or networks.piece_size(policy.model)
        self.threads = self.threads if self.threads > 1 and policy.pure else 1
        plain = self.amp_dtype is None and not self.settings.inductor
        minibatch_size = rollout.horizon * rollout.num_envs // minibatches
        self._sorts = plain and networks.may_sort(policy.model, minibatch_size, self.threads)
        self.forward_shares: list[slice] = []
        if minibatches == 1 and not self.settings.inductor:
            self.forward_shares = shares_to_keep(
                policy, rollout.num_envs, rollout.horizon, piece_size=self.piece_size, threads=self.threads
            )
        whole = self.amp_dtype is None and not (self._sorts or self.forward_shares)
        whole = whole and len(self._shares(slice(0, minibatch_size))) == 1
        self._small_size = minibatch_size if whole else None  # of minibatches whose steps may be small
        compiles = self.settings.compile is not False and may_be_small(policy, rollout.num_envs, self._small_size)
        self._library = library() if compiles else None  # or why there is none

    def collect(self, *, deterministic: bool = False) -> None:
        """See `Eager.collect`."""
        self._forward = self._ranks = None
        keeps = self.forward_shares and not (deterministic or self.sorted or torch.is_inference_mode_enabled())
        small = self._small_act() if self.amp_dtype is None else None
        collect(
            self.env,
            self.policy,
            self.rollout,
            deterministic=deterministic,
            act=self._act_and_keep if keeps else small or self._act,
            step=self._step,
            values=self._store_values,
        )

    def _small_act(self) -> Callable[..., Act] | None:
        built = self._library
        found = compiled_act(built, self.policy, self.rollout) if isinstance(built, ctypes.CDLL) else None
        return found or small_act(self.policy, self.rollout.num_envs)

    def forget(self) -> None:
        """See `Eager.forget`."""
        self._forward = None

    def _act_and_keep(self, seen: Nested, state: Nested | None, *, deterministic: bool) -> Act:
        if self._forward is None:
            self._forward = ForwardPass(self.policy, self.rollout.num_envs, self.forward_shares)
        # a copy: autograd wants nobody to write to what lies beside
        chosen = self.policy.act(seen.clone(), state, deterministic=deterministic, keep_graph=True)
        self._forward.add_features(chosen.features)
        return chosen

    def _store_values(self) -> None:
        done = 0
        if self._forward is not None:
            done = self.rollout.horizon * self.rollout.num_envs
            values = self._forward.add_values(lambda rows: self.rollout.block(rows.start, rows.stop))
            self.rollout.values.view(-1)[:done] = values
        store_values(self.policy, self.rollout, piece_size=self.piece_size, done=done)

    def learn_by(self, terms: Terms) -> None:
        """See `Eager.learn_by`."""
        self._terms = terms

    @torch.no_grad()
    def begin_update(self, optimizer: torch.optim.Optimizer | None = None, max_grad_norm: float | None = None) -> None:
        """See `Eager.begin_update`."""
        self._ranks = None
        if self._sorts:
            order = networks.order(self.policy, self.rollout, self.threads)
            self._ranks = None if order is None else order.argsort()
        self.sorted = self._ranks is not None
        self._small = None
        if not (optimizer is None or self._terms is None or self._small_size is None):
            recipe = Recipe(optimizer, self._terms, max_grad_norm, self._small_size)
            self._small = small = small_steps(self.policy, self.rollout, recipe)
            if small is not None and isinstance(self._library, ctypes.CDLL):
                self._small = compiled_steps(self._library, small) or small

    def whole_step(self, rows: Rows) -> Tensor | None:
        """See `Eager.whole_step`."""
        return None if self._small is None else self._small(rows)

    def arranged(self, rows: Rows) -> Rows:
        """See `Eager.arranged`; the order within a minibatch does not matter to its gradient."""
        if self._ranks is None:
            return rows
        steps = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows[0]
        return steps[self._ranks[steps].argsort()].unsqueeze(0)

    def backward(self, parameters: Sequence[Tensor], loss: Loss, rows: Rows, *, weight: float) -> Tensor:
        """See `Eager.backward`."""
        if self._forward is not None and not self._forward.current:
            self._forward = None
        tasks = [partial(self._gradient, parameters, loss, weight, pieces) for pieces in self._shares(rows)]
        gradients = side_by_side(tasks)
        self._forward = None
        with self.apart(rows):
            for each in gradients:
                self._add(parameters, each.tensors)
            return torch.stack([each.losses for each in gradients]).sum(0)

    def _gradient(self, parameters: Sequence[Tensor], loss: Loss, weight: float, pieces: Sequence[Piece]) -> Gradient:
        def known(rows: Rows) -> Any:
            outputs = self._forward.outputs(rows) if self._forward is not None and isinstance(rows, slice) else None
            return loss(rows, outputs)

        return gradient(parameters, known, lambda total: self.scaler.scale(total * weight), pieces)

    def apart(self, rows: Rows) -> AbstractContextManager[None]:
        """See `Eager.apart`.

        An operation shared by OpenMP's threads would leave one spinning on the core of a thread with the next task.
        """
        return alone() if len(self._shares(rows)) > 1 else nullcontext()

    def _shares(self, rows: Rows) -> list[list[Piece]]:
        """Return which pieces of a minibatch each thread computes."""
        return split(rows, piece_size=self.piece_size, threads=self.threads)

    def notes(self) -> list[str]:
        """See `Eager.notes`."""
        told, self._told = self._told, True
        if told or not isinstance(self._library, str):
            return []
        said = str(self.settings.compile).lower()
        return [f"device.compile={said}: {self._library}; small work is computed without, more slowly."]

    def state_dict(self) -> dict[str, Any]:
        """See `Eager.state_dict`."""
        return {**super().state_dict(), "sorted": self.sorted}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """See `Eager.load_state_dict`."""
        super().load_state_dict(saved)
        self.sorted = saved.get("sorted", False)
        self._forward = None
