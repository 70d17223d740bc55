"""The pieces of an iteration that an execution may capture and replay, and what each of them reads and writes."""

from __future__ import annotations

from functools import partial
from typing import Any

from rl8.execution.eager import ADVANTAGES, EPISODES, LEARNED, RESET, RESUME, REWARDS, ROLLOUT, STEP, UPDATE, Eager
from rl8.execution.kernels.loss import Terms
from rl8.execution.pieces import Rows
from rl8.execution.reached import reached
from rl8.parallel import world
from rl8.ppo.metrics import UpdateMetrics
from rl8.ppo.processes import average
from rl8.rollout.containers import Tensors, named
from rl8.rollout.episodes import Episodes
from rl8.rollout.metrics import Metrics
from rl8.rollout.rollout import Rollout

Algorithm = Any  # an `rl8.ppo.algorithm.Algorithm`; its file imports this one


class Works:
    """The pieces of an algorithm's iteration, each as its execution does it.

    Args:
        algorithm: All parts of it are there.

    Attributes:
        restart: Begins a horizon with a reset.
        resume: Begins one where the last ended.
        collect: Collects it.
        rewards: Reports its rewards.
        count: Counts the episodes that ended in it.
        prepare: Computes advantages.
        learn: Adds the gradient of a minibatch, and takes the step of the optimizer if `steps_at_once`.
        apply: Takes the step of the optimizer.
        learned: Reports an update.
        steps_at_once: Whether a minibatch's gradient and its optimizer step are one piece: nothing comes between them.
    """

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        execution: Eager = algorithm.execution
        self._execution = execution
        rollout: Rollout = algorithm.rollout
        episodes: Episodes | None = algorithm.episodes
        metrics: UpdateMetrics = algorithm.metrics
        optimizer, scaler = algorithm.optimizer, algorithm.reward_scaler
        counted = {} if episodes is None else {"episodes": episodes}

        def collected() -> Tensors:
            return reached(rollout=rollout, env=algorithm.env, scaler=scaler, **counted)

        def prepared() -> Tensors:
            return reached(rollout=rollout, scaler=scaler, explained=metrics.explained_variance)

        def learned() -> Tensors:
            parts = {"policy": algorithm.policy, "optimizer": optimizer, "scaler": execution.scaler, "metrics": metrics}
            return reached(**parts) | named(algorithm.rate.tensors())

        def rewards(*_names: str) -> Metrics:  # other names are another piece
            found: Metrics = algorithm.reward_metrics()
            return found

        def updated(minibatches: int, lr: float | None, vf_coeff: float, skips_nonfinite: bool) -> Metrics:
            coefficients = {
                "entropy": algorithm.coefficients.live["entropy_coeff"],
                "vf": vf_coeff,
                "lr": optimizer.param_groups[0]["lr"] if lr is None else lr,  # a tensor is read where it is
                **algorithm.coefficients.reported(),
            }
            return metrics.report(minibatches, coefficients, skips_nonfinite)

        self.steps_at_once = world.size() == 1 and not algorithm.hparams.accumulate_grads
        self._tell_loss(algorithm)
        self.restart = execution.work(algorithm.start, RESET, collected)
        self.resume = execution.work(rollout.resume, RESUME, collected)
        self.collect = execution.work(execution.collect, ROLLOUT, collected)
        if episodes is not None:
            self.count = execution.work(partial(episodes.add, rollout), EPISODES, lambda: reached(episodes=episodes))
        self.prepare = execution.work(algorithm.compute_advantages, ADVANTAGES, prepared)
        self.learn = execution.work(algorithm.learn_minibatch, UPDATE, learned, optimizer)
        self.apply = execution.work(algorithm.step_optimizer, STEP, learned, optimizer)
        self.rewards = execution.report(rewards, REWARDS)
        self.learned = execution.report(updated, LEARNED)

    def learn_from(self, rows: Rows) -> None:
        """Learn a minibatch; its gradient alone is added if gradients accumulate over the pass."""
        self.learn(rows)
        if not (self.steps_at_once or self._algorithm.hparams.accumulate_grads):
            with self._execution.apart(rows):
                self.take_step()

    def take_step(self) -> None:
        """Take the step of the optimizer with the gradient of all processes."""
        average(self._algorithm)
        self.apply()

    def take_numbers(self, algorithm: Algorithm) -> None:
        """Let what computes with an algorithm's numbers take those of now, which are others."""
        self._tell_loss(algorithm)
        for work in (self.prepare, self.learn, self.apply):
            work.invalidate()

    @staticmethod
    def _tell_loss(algorithm: Algorithm) -> None:
        if not algorithm.extra_losses and algorithm.hparams.vf_huber_delta is None:
            algorithm.execution.learn_by(Terms(**algorithm.coefficients.of_loss()))
