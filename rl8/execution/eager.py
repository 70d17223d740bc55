"""How an algorithm's work is computed: the plain reference, from which the other kinds derive.

An algorithm says what one horizon, one minibatch and one optimizer step are. An execution says how they are computed:
`work` makes functions of it that may be captured and replayed, `collect` and `backward` may divide theirs, `arranged`
may reorder a minibatch. Every kind gives the results of this one, to rounding.
"""

from __future__ import annotations

import copy
import functools
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from rl8.env import Env
from rl8.env.results import check_obs
from rl8.execution.graphs import Work
from rl8.execution.kernels.loss import Terms
from rl8.execution.pieces import Loss, Rows, add, gradient, whole
from rl8.execution.reports import Report
from rl8.policy.policy import Act, Policy
from rl8.rollout.collect import collect
from rl8.rollout.containers import Tensors
from rl8.rollout.metrics import Metrics
from rl8.rollout.rollout import Rollout
from rl8.settings import DeviceSettings
from rl8.specs import Nested

Function = TypeVar("Function", bound=Callable[..., Any])

# The pieces of work that an algorithm has, as messages name them.
RESET, RESUME, ROLLOUT, REWARDS = "reset", "rollout's first row", "rollout", "rewards' metrics"
EPISODES, ADVANTAGES, UPDATE = "episodes", "advantages", "update"
STEP, LEARNED = "optimizer step", "update's metrics"

AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def as_set(method: Function) -> Function:
    """Return an algorithm's method that computes as its execution's settings say."""

    @functools.wraps(method)
    def computing(self: Any, *arguments: Any, **options: Any) -> Any:
        with self.execution.applied():
            return method(self, *arguments, **options)

    return cast(Function, computing)


class Eager:
    """Computes whole minibatches with autograd, one operation after the other.

    Args:
        settings: What the user chose.
        enable_amp: Whether networks compute in `amp_dtype`.
        amp_dtype: `"bf16"` or `"fp16"`.

    Attributes:
        device: Where everything is computed.
        scaler: Scales losses so that gradients in fp16 do not vanish; does nothing for other types.
        piece_size: Env steps per forward and backward pass; None for whole minibatches.
        live_optimizer: Whether an optimizer's numbers must stay live in a captured graph.
    """

    live_optimizer = False
    piece_size: int | None = None

    def __init__(self, settings: DeviceSettings, *, enable_amp: bool = False, amp_dtype: str = "bf16") -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        self.amp_dtype = AMP_DTYPES[amp_dtype] if enable_amp else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=enable_amp and amp_dtype == "fp16")
        self.num_threads = settings.num_threads or torch.get_num_threads()

    def attach(self, env: Env, policy: Policy, rollout: Rollout, *, minibatches: int) -> None:
        """Get ready to compute for these; called once.

        Args:
            env: What `collect` steps.
            policy: What it acts with, and what is learned.
            rollout: What it fills, and what is learned from.
            minibatches: Into how many a batch is divided.
        """
        self.env, self.policy, self.rollout = env, policy, rollout
        self._act: Callable[..., Act] = self.compiled(policy.act)
        self._step: Callable[..., Any] = env.step if env.opaque else self.compiled(env.step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let torch compute as the settings say in the block; other algorithms of the process have theirs."""
        threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        if threads != self.num_threads:
            torch.set_num_threads(self.num_threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on CUDA torch may advise another setting, once
            torch.set_float32_matmul_precision(self.settings.matmul_precision)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            if threads != self.num_threads:
                torch.set_num_threads(threads)

    # -------------------------------------------------------------------------------------------------- functions

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks compute."""
        if self.amp_dtype is None:
            return nullcontext()
        # The cache of cast weights outlives an optimizer step inside one context and is illegal in a captured graph.
        return torch.autocast(self.device.type, dtype=self.amp_dtype, cache_enabled=False)

    def compiled(self, function: Function) -> Function:
        """Return `function`, fused by Inductor at its first call if the settings say so; its random numbers stay."""
        options: Any = {"fallback_random": True, "size_asserts": False}  # sizes are looked at before its code is called
        compiled: Any = torch.compile(function, dynamic=False, options=options) if self.settings.inductor else function
        fused: Function = compiled
        return fused

    def work(
        self,
        function: Callable[..., None],
        name: str,
        tensors: Callable[[], Tensors],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Work:
        """Return a function that does the same, perhaps by replaying what it did before.

        Args:
            function: Reads and writes tensors that stay where they are; its arguments may change.
            name: What it is, for messages.
            tensors: Gives by name all that `function` reads and writes, to compare a replay with the eager result once.
            optimizer: The optimizer that steps in it, if one does.
        """
        return Work(function)

    def report(self, function: Callable[..., Metrics], name: str) -> Report:
        """Return a function of the same numbers by name, perhaps replayed; see `Report`."""
        return Report(function, name, self.work)

    # ---------------------------------------------------------------------------------------------------- collect

    def reset(self, config: dict[str, Any] | None, *, random_ages: bool = False) -> Nested:
        """Reset the environment, to episodes of random ages if so wished; return its observations `[N, ...]`."""
        obs = self.env.reset(config=copy.deepcopy(config))
        check_obs(self.env, obs, "reset() returns observations", values=False)
        if random_ages:
            self.env.begin_at_random_ages()
        return obs

    def collect(self, *, deterministic: bool = False) -> None:
        """Collect one horizon."""
        collect(self.env, self.policy, self.rollout, deterministic=deterministic, act=self._act, step=self._step)

    def forget(self) -> None:
        """Keep nothing of the last collection but the rollout: somebody has changed that."""

    # ----------------------------------------------------------------------------------------------------- update

    def learn_by(self, terms: Terms) -> None:
        """Hear what the loss is, where it is PPO's own; called again where a coefficient is another from now on.

        Args:
            terms: Coefficients of the loss; a tensor among them may change from update to update.
        """

    def advantages(
        self, function: Callable[..., Tensor], rewards: Tensor, *, gamma: float, gae_lambda: float
    ) -> Tensor:
        """Return the horizon's advantages `[T, N]` by a function of the rollout, or by what gives the same.

        Args:
            function: Takes the rollout and what follows here.
            rewards: `[T, N]`, perhaps scaled.
            gamma: Discount factor.
            gae_lambda: Trace decay.
        """
        return function(self.rollout, rewards, gamma=gamma, gae_lambda=gae_lambda)

    def begin_update(self, optimizer: torch.optim.Optimizer | None = None, max_grad_norm: float | None = None) -> None:
        """Look at the horizon that is about to be learned from.

        Args:
            optimizer: What may take a step on the gradient of each minibatch alone, for `whole_step`; None where a step
                needs more than that gradient.
            max_grad_norm: Norm to which that step's gradient is clipped, or None.
        """

    def whole_step(self, rows: Rows) -> Tensor | None:
        """Take an optimizer step on a minibatch, gradient, clipping and all; None if that is left to its parts.

        Returns:
            `[7]` the parts of the loss and the gradient's norm before clipping.
        """
        return None

    def arranged(self, rows: Rows) -> Rows:
        """Return the places of a minibatch's sequences in an order and at an address that suit."""
        return rows

    def zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the gradient."""
        optimizer.zero_grad(set_to_none=True)

    def backward(self, parameters: Sequence[Tensor], loss: Loss, rows: Rows, *, weight: float) -> Tensor:
        """Add a minibatch's gradient to the parameters'; return the loss's parts, 0-d each, as one vector.

        Args:
            parameters: What to differentiate by.
            loss: Gives the loss of the sequences at some places: first what is differentiated, then what is logged.
            rows: Places of the minibatch's sequences; see `Rollout.minibatch`.
            weight: Of the loss in the gradient.
        """
        found = gradient(parameters, loss, lambda total: self.scaler.scale(total * weight), whole(rows))
        self._add(parameters, found.tensors)
        return found.losses

    def apart(self, rows: Rows) -> AbstractContextManager[None]:
        """Return the context for what is done with a minibatch's gradient."""
        return nullcontext()

    @staticmethod
    def _add(parameters: Sequence[Tensor], gradient: Sequence[Tensor | None]) -> None:
        sums = add([parameter.grad for parameter in parameters], gradient)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = total

    # ----------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        """Return what must be known to go on exactly, in plain containers."""
        return {"scaler": self.scaler.state_dict(), "rng": torch.get_rng_state()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`'s result: environment, policy, rollout and optimizer have been restored."""
        self.scaler.load_state_dict(saved["scaler"])
        torch.set_rng_state(saved["rng"].cpu())  # host sync: generators take their state from there

    # ---------------------------------------------------------------------------------------------- what is known

    def notes(self) -> list[str]:
        """Return what the user should know of how it is computed and has not been told; a line each."""
        return []

    def mark(self) -> Any:
        """Return a point in the device's time."""
        return time.perf_counter()

    def elapsed_ms(self, begin: Any, end: Any) -> float:
        """Return milliseconds between two marks; on CUDA the host must have waited for the second."""
        return float((end - begin) * 1e3)

    def memory_mb(self) -> float:
        """Return the peak memory of this process so far, in MB: of the device on CUDA, resident on a CPU."""
        import resource  # not there on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
