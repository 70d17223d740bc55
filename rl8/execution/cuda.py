"""Execution on a CUDA device: a horizon, the advantages and each optimizer step are captured once and replayed.

What a graph reads and writes must stay where it is: the environment's state, the places of a minibatch, the learning
rate. What can't be captured runs eagerly, and one message says which line is the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.devices import as_device
from rl8.env import Env
from rl8.env.draws import fingerprint
from rl8.execution.eager import ADVANTAGES, EPISODES, RESET, RESUME, REWARDS, ROLLOUT, UPDATE, Eager
from rl8.execution.graphs import CapturedWork, Work
from rl8.execution.kernels.loss import Terms
from rl8.execution.pieces import Loss, Rows, gradient, split
from rl8.execution.weights import cast_once
from rl8.parallel import world
from rl8.policy.policy import Policy
from rl8.rollout.bootstrap import FinalSlots
from rl8.rollout.collect import collect, store_values
from rl8.rollout.containers import Tensors, alike, named
from rl8.rollout.evaluation import EVALUATION
from rl8.rollout.rollout import Rollout
from rl8.settings import DeviceSettings
from rl8.specs import Nested

if TYPE_CHECKING:
    from rl8.execution.kernels.chosen import Kernels

# Env steps per forward and backward pass: a pass of 16 million would take 100 GB with the default networks.
PIECE_SIZE: Final = 2**20

# Work that reads or writes the environment, or what only environments that step on their own leave to the host.
OF_ENV: Final = (RESET, RESUME, ROLLOUT, REWARDS, EVALUATION)
# Work in which processes exchange numbers.
EXCHANGING: Final = (EPISODES, ADVANTAGES, REWARDS)


class CUDA(Eager):
    """Replays graphs; computes minibatches of more than `device.piece_size` env steps in pieces.

    Raises:
        ValueError: If the device does not exist here.
    """

    def __init__(self, settings: DeviceSettings, **precision: Any) -> None:
        as_device("device.device", settings.device)
        super().__init__(settings, **precision)
        self.live_optimizer, self.piece_size = settings.graphs, settings.piece_size or PIECE_SIZE
        # One for all graphs, of our own: each graph would keep its own, and a broken capture would leak it.
        self._pool = torch.cuda.graph_pool_handle() if settings.graphs else None
        self._stream = torch.cuda.Stream(self.device) if settings.graphs else None  # for captures
        self._works: dict[str, Work] = {}
        self._known: tuple[bool, ...] = (False, False)  # which series the rollout had when last looked at
        self._kernels: Kernels | None = None
        self._memory_mb, self._memory_due = 0.0, 0.0  # s
        self._state: Nested | None = None  # where a captured rollout reads and writes the environment's state

    def attach(self, env: Env, policy: Policy, rollout: Rollout, *, minibatches: int) -> None:
        """See `Eager.attach`."""
        super().attach(env, policy, rollout, minibatches=minibatches)
        self._whole = minibatches == 1
        if not env.opaque:  # a captured rollout can't ask which episodes were truncated
            slots = -(-rollout.horizon // (env.steps_between_truncations or 1))
            rollout.finals = FinalSlots(rollout.num_envs, slots, self.device)
        if self.settings.kernels != "off":
            self._kernels = _kernels(policy, rollout, dtype=self.amp_dtype, timed=self.settings.kernels == "auto")

    def work(
        self,
        function: Callable[..., None],
        name: str,
        tensors: Callable[[], Tensors],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Work:
        """See `Eager.work`."""
        # A learning rate that is a number would be frozen into a graph; a loss scaler asks the device for overflows.
        live = optimizer is None or (
            all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups) and not self.scaler.is_enabled()
        )
        captured = self._stream is not None and live and self._recordable(name)
        work = Work(function)
        if captured and self._stream is not None:
            work = CapturedWork(function, name, tensors, self._stream, pool=self._pool, told=name != RESET)
        self._works[name] = work
        return work

    def _recordable(self, name: str) -> bool:
        """Return whether a graph records all that a piece of work does."""
        if name in OF_ENV and self.env.opaque:  # steps are taken elsewhere
            return False
        # Capture does the work once more, at a time of this process's own: an exchange needs all of them.
        if name in EXCHANGING and world.size() > 1:
            return False
        # A number that a reset draws beside the state would be frozen.
        return name not in (RESET, EVALUATION) or not any(isinstance(value, str) for _, value in fingerprint(self.env))

    def reset(self, config: dict[str, Any] | None, *, random_ages: bool = False) -> Nested:
        """See `Eager.reset`."""
        before, kept = self._addresses(), self._own_tensors()
        obs = super().reset(config, random_ages=random_ages)
        for name, tensor in kept.items():  # one that a reset made anew is written to where a graph reads it
            made = getattr(self.env, name, None)
            if made is not tensor and alike(made, tensor):
                setattr(self.env, name, tensor.copy_(made))
        if self._addresses() != before:
            self._works[ROLLOUT].invalidate()
            self._works[RESET].invalidate()
        self._pin_state()
        return obs

    def collect(self, *, deterministic: bool = False) -> None:
        """See `Eager.collect`."""
        acting = None if deterministic or self._kernels is None else self._kernels.acting(self._act)
        with cast_once(self.policy.model, self.amp_dtype):
            collect(
                self.env,
                self.policy,
                self.rollout,
                deterministic=deterministic,
                act=acting or self._act,
                step=self._step,
                values=None if acting is None else self._store_last_values,
            )
        self._pin_state()
        self.forget()

    def _store_last_values(self) -> None:
        store_values(self.policy, self.rollout, done=self.rollout.horizon * self.rollout.num_envs)

    def forget(self) -> None:
        """See `Eager.forget`."""
        known, self._known = self._known, self._series()
        if known != self._known:  # the first end of an episode: there is more to read
            for name in (EPISODES, ADVANTAGES, UPDATE, REWARDS):
                if name in self._works:
                    self._works[name].invalidate()

    def learn_by(self, terms: Terms) -> None:
        """See `Eager.learn_by`."""
        if self._kernels is not None:
            # they take numbers, and only the entropy's as a tensor
            self._kernels.terms = None if terms.moving else terms

    def advantages(
        self, function: Callable[..., Tensor], rewards: Tensor, *, gamma: float, gae_lambda: float
    ) -> Tensor:
        """See `Eager.advantages`."""
        if self._kernels is None:
            return super().advantages(function, rewards, gamma=gamma, gae_lambda=gae_lambda)
        return self._kernels.advantages(function, rewards, gamma=gamma, gae_lambda=gae_lambda)

    def arranged(self, rows: Rows) -> Rows:
        """See `Eager.arranged`: a graph reads one place, the whole batch or indices that change under it."""
        if self._stream is None or self._whole or not isinstance(rows, slice):
            return rows
        return torch.arange(rows.start, rows.stop, device=self.device).unsqueeze(0)

    def zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        """See `Eager.zero_grad`."""
        optimizer.zero_grad(set_to_none=self._stream is None)

    def backward(self, parameters: Sequence[Tensor], loss: Loss, rows: Rows, *, weight: float) -> Tensor:
        """See `Eager.backward`."""
        (pieces,) = split(rows, piece_size=self.piece_size, threads=1)
        plain = partial(gradient, parameters, loss, lambda total: self.scaler.scale(total * weight))
        if self._kernels is None or self.scaler.is_enabled():
            found = plain(pieces)
        else:
            found = self._kernels.gradient(plain, parameters, pieces, weight=weight)
        self._add(parameters, found.tensors)
        return found.losses

    def state_dict(self) -> dict[str, Any]:
        """See `Eager.state_dict`."""
        return {**super().state_dict(), "cuda_rng": torch.cuda.get_rng_state(self.device)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """See `Eager.load_state_dict`."""
        super().load_state_dict(saved)
        if "cuda_rng" in saved:  # not of a run on a CPU
            torch.cuda.set_rng_state(saved["cuda_rng"].cpu(), self.device)  # host sync: as above
        for work in self._works.values():
            work.invalidate()
        self._pin_state()

    def notes(self) -> list[str]:
        """See `Eager.notes`."""
        return [] if self._kernels is None else self._kernels.notes()

    def mark(self) -> Any:
        """See `Eager.mark`."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))  # the current device may be another
        return event

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """See `Eager.elapsed_ms`."""
        return float(begin.elapsed_time(end))

    def memory_mb(self) -> float:
        """See `Eager.memory_mb`; at most a second old, as torch gathers a hundred figures for this one."""
        if time.perf_counter() >= self._memory_due:
            self._memory_mb = torch.cuda.max_memory_allocated(self.device) / 2**20
            self._memory_due = time.perf_counter() + 1.0
        return self._memory_mb

    def _pin_state(self) -> None:
        """Keep the environment's state where a captured graph reads it."""
        if self._stream is None:
            return
        if self._state is None or not alike(self._state, self.env.state):
            self._state = self.env.state.clone()
            self._works[ROLLOUT].invalidate()
            self._works[RESET].invalidate()
        else:
            state: Any = self.env.state
            self._state.copy_(state)
        self.env.state = self._state

    def _series(self) -> tuple[bool, ...]:
        """Return which series a rollout has that it had not from the start."""
        return self.rollout.is_last is not None, self.rollout.weights is not None

    def _own_tensors(self) -> dict[str, Any]:
        """Return the environment's tensors by name, its state left out."""
        return {
            name: value
            for name, value in vars(self.env).items()
            if name != "state" and isinstance(value, (Tensor, TensorDict))
        }

    def _addresses(self) -> list[Any]:
        """Return where the environment's tensors lie, its state left out, and numbers that a graph would keep."""
        tensors = self._own_tensors()
        return [(name, tensor.data_ptr()) for name, tensor in named(tensors).items()] + fingerprint(self.env)


def _kernels(policy: Policy, rollout: Rollout, *, dtype: torch.dtype | None, timed: bool) -> Kernels | None:
    """Return the kernels, None where Triton is missing and they may do without.

    Raises:
        ValueError: If they must act.
    """
    try:
        from rl8.execution.kernels.chosen import Kernels
    except ImportError as error:
        if timed:
            return None
        raise ValueError(
            f"device.kernels=on needs Triton, which comes with torch for CUDA on Linux, but here: {error}. Accepted "
            "without it: auto, off. Try device.kernels=auto."
        ) from error
    return Kernels(policy, rollout, dtype=dtype, timed=timed)
