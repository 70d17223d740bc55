"""Random network distillation: a reward for what has not been seen yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rl8.callbacks import Callback, Trainer
from rl8.checks import check_range
from rl8.nn import MLP, Encoder
from rl8.nn.mlp import linear
from rl8.policy.normalization import ObsNormalizer, RunningMoments
from rl8.rng import forked


class RandomNetworkDistillation(Callback):
    """Adds to each reward how badly a network predicts a random one's features of the observation that followed.

    What is often seen is predicted well. The error is divided by its running standard deviation, and each horizon
    trains the predictor. Reported returns are those of the task alone.
    Source: Burda et al. 2018, arXiv:1810.12894, without a value function of its own for these rewards.

    Args:
        weight: Of this reward beside the task's, >= 0.
        hiddens: Widths of the hidden layers of both networks.
        features: Numbers that are predicted.
        lr: Learning rate of the predictor.
        passes: Steps that the predictor takes per horizon, each over all of it.
    """

    metric_names = ("rnd/reward", "rnd/loss")

    def __init__(
        self,
        weight: float = 0.1,
        hiddens: Sequence[int] = (64, 64),
        features: int = 16,
        lr: float = 1e-3,
        passes: int = 1,
    ) -> None:
        check_range("weight", weight, 0, hint="weight=0.1")
        check_range("features", features, 1, integer=True)
        check_range("lr", lr, 0, low_open=True, hint="lr=1e-3")
        check_range("passes", passes, 1, integer=True)
        self.weight, self.hiddens, self.features, self.lr, self.passes = weight, hiddens, features, lr, passes
        self._parts: nn.ModuleDict | None = None
        self._saved: Mapping[str, Any] | None = None
        self._numbers: list[Tensor] = []

    def on_start(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Make the networks, or those of the run that goes on."""
        algorithm = trainer.algorithm
        with forked(algorithm.device):
            encoder = Encoder(algorithm.env.observation_spec)
            target, predictor = (
                nn.Sequential(net := MLP(encoder.size, self.hiddens), linear(net.size, self.features, 1.0))
                for _ in range(2)
            )
        scales = {"obs": ObsNormalizer((encoder.size,)), "errors": RunningMoments()}
        parts = {"encoder": encoder, "target": target.requires_grad_(False), "predictor": predictor, **scales}
        self._parts = nn.ModuleDict(parts).to(algorithm.device)
        self._optimizer = torch.optim.Adam(predictor.parameters(), lr=self.lr)
        if self._saved is not None:
            self._parts.load_state_dict(self._saved["parts"])
            self._optimizer.load_state_dict(dict(self._saved["optimizer"]))
            self._saved = None

    def on_collect(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Add the rewards `[T, N]`, and train the predictor."""
        assert self._parts is not None
        rollout = trainer.algorithm.rollout
        with torch.no_grad():
            seen = self._parts["encoder"](rollout.obs[rollout.history + 1 :])  # [T, N, D] what each action led to
            self._parts["obs"].update(seen.flatten(0, 1))  # type: ignore[operator]
            inputs = self._parts["obs"](seen)
            target = self._parts["target"](inputs)
            errors = self._errors(inputs, target)
            moments: Any = self._parts["errors"]
            moments.update(errors.flatten())
            bonus = errors / moments.var.sqrt().clamp(min=1e-8).to(errors.dtype)
            rollout.rewards.add_(bonus, alpha=self.weight)
        with torch.enable_grad():
            for _ in range(self.passes):
                loss = self._errors(inputs, target).mean()
                self._optimizer.zero_grad()
                loss.backward()
                self._optimizer.step()
        self._numbers = [bonus.mean(), loss.detach()]

    def on_iteration(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Report the mean reward before its weight, and the predictor's loss."""
        numbers = torch.stack(self._numbers).tolist()  # host sync: once an iteration
        metrics |= dict(zip(self.metric_names, numbers, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return the networks and what they are normalised by."""
        if self._parts is None:
            return {}
        return {"parts": dict(self._parts.state_dict()), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with them, once training begins."""
        self._saved = state if state else None

    def _errors(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the predictor's mean squared error `[T, N]`."""
        assert self._parts is not None
        errors: Tensor = (self._parts["predictor"](inputs) - target).square().mean(-1)
        return errors
