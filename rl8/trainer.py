"""A training run: iterations until a stop condition, with evaluation, tracking, display and files."""

from __future__ import annotations

import copy
import functools
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from rl8 import data, seeds
from rl8.callbacks import Callback, CallbackError, Callbacks
from rl8.calls import answered, in_python, missing
from rl8.checkpoint import check_savable
from rl8.checks import MAX_SEED, check_range, unknown_metric
from rl8.conditions import Condition, Never, Or, as_conditions
from rl8.env import Env
from rl8.files import RunFiles
from rl8.guest import stop_signals
from rl8.kinds import is_list
from rl8.parallel import launched, world
from rl8.ppo.algorithm import Algorithm, RecurrentAlgorithm
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.options import check_options
from rl8.ppo.typed import TrainerOptions, spelled_out
from rl8.reported import NONFINITE, check_finite, check_keys, measured, metric_names, to_host
from rl8.settings import TrainerSettings
from rl8.tracking import writers
from rl8.tracking.provenance import as_yaml
from rl8.tracking.run import Status
from rl8.training import origin
from rl8.training.checkpoints import Checkpoints
from rl8.training.curve import Curve
from rl8.training.evaluation import Evaluation
from rl8.training.messages import Messages
from rl8.training.report import Report, describe
from rl8.training.resets import check_env_config

if TYPE_CHECKING:
    from typing_extensions import Unpack

SETTINGS = tuple(field.name for field in fields(TrainerSettings))

# What other libraries call a trainer's methods.
_RUN: Final = "trainer.run(stop_conditions=[rl8.conditions.EnvSteps(100_000)])"
THEIRS: Final = {
    **dict.fromkeys(("learn", "train", "fit", "start"), _RUN),
    **dict.fromkeys(("evaluate", "test"), "trainer.eval()"),
    **dict.fromkeys(("predict", "act"), "rl8.DeployedPolicy(trainer.algorithm.policy).predict(obs)"),
    **dict.fromkeys(("load", "restore"), "Trainer(env, resume=run), or rl8.load_policy(run)"),
}


@spelled_out(TrainerOptions, Algorithm, Hyperparameters, TrainerSettings)
class Trainer:
    """Trains a policy in an environment, and records how it went.

    Args:
        env: Class that makes the environments, or a ready `Algorithm`.
        config: The whole configuration to record; by default what can be told from the options.
        overrides: What was typed to get it, to be recorded.
        stop_conditions: When `run` ends by default: as soon as one is met; none runs until interrupted.
        callbacks: The user's own code in the loop; see `rl8.callbacks.Callback`.
        seed: Of all random numbers, an integer >= 0: the same seed on a CPU repeats a run exactly. None leaves torch's.
            A run that goes on (`resume`) takes no other than its own; `branch` draws from it after the checkpoint.
        **options: Those of `Algorithm` and `TrainerSettings`.

    Attributes:
        algorithm: PPO and its policy.
        settings: What a run does besides.
        history: Metrics of every iteration so far; once there are `MAX_HISTORY`, every second one is dropped.
        source: The composed config as text, to be kept with the run; by default what is recorded, as YAML.
        steps_per_eval: Iterations between evaluations, in the last `run` or the next; None evaluates at the end alone.
        stopped_by: `"SIGINT"` or `"SIGTERM"` if the last `run` ended by it, else None.

    Raises:
        TypeError: If an option does not exist or is of the wrong type.
        ValueError: If an option is out of range or parts do not fit.
    """

    algorithm_cls: type[Algorithm] = Algorithm

    @answered("Give the environment first and all else by name, e.g. Trainer(CartPole, num_envs=64, gamma=0.99).")
    @in_python()
    def __init__(
        self,
        env: Callable[..., Env] | Algorithm,
        /,
        *,
        config: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        stop_conditions: Sequence[Condition] = (),
        callbacks: Sequence[Callback] = (),
        seed: int | None = None,
        **options: Unpack[TrainerOptions],
    ) -> None:
        given: dict[str, Any] = dict(options)
        self.settings = TrainerSettings(**{name: given.pop(name) for name in SETTINGS if name in given})
        writers.check(self.settings)
        check_range("seed", seed, 0, integer=True, optional=True, most=MAX_SEED, hint="seed=1")
        self._seed = seeds.settled(self.settings, seed)
        if isinstance(env, Algorithm):
            late = [*given, *(["seed"] if seed is not None and self.settings.branch is None else [])]
            if late:
                raise TypeError(f"The algorithm is ready-made, so {', '.join(late)} would have no effect. Drop it.")
            self.algorithm = env
        else:
            check_options(Algorithm, given, ["seed", *SETTINGS])
            if seed is not None:
                torch.manual_seed(seed)
            self.algorithm = self.algorithm_cls(env, **given)
        self.algorithm.skips_nonfinite = self.settings.on_nonfinite == "skip"
        self.callbacks = Callbacks(callbacks, self)
        self.stop_conditions = as_conditions(stop_conditions, "stop_conditions")
        check_keys(self.stop_conditions, self.metric_names, evaluates=True)  # `run` may be told to evaluate
        best = self.settings.best_metric
        if best is not None and best not in self.metric_names:
            raise ValueError(f"trainer.best_metric={best}: {unknown_metric(best, self.metric_names)}")
        check_env_config(self.settings.env_config, self.algorithm)
        if not (config is None or isinstance(config, Mapping)):
            raise TypeError(f"config={config!r} is no mapping. Accepted: what is to be recorded, by name, or None.")
        if not is_list(overrides):
            raise TypeError(f"overrides={overrides!r} is no list. Accepted: the words that were typed.")
        self.overrides = tuple(overrides)
        self.config = (
            describe(self.algorithm, self.settings, self._seed) if config is None else copy.deepcopy(dict(config))
        )
        world.check_same(self.config)
        self.source: str | None = None
        self.stopped_by: str | None = None
        self.steps_per_eval = self.settings.steps_per_eval
        self._stop_reason: str | None = None
        self._messages = Messages()
        self._evaluation = Evaluation(self.algorithm, self.settings, self._messages)
        check_savable(self.algorithm)
        begun = origin.begin(self.settings, self.algorithm, seed, self._messages.note)
        self._resumed = begun.saved
        self.files = RunFiles(self.settings, self.algorithm, begun.folder)
        self.files.best = begun.extra.get("best")
        self._curve = Curve(begun.extra.get("curve", []))
        self.history = self._curve.history
        self._checkpoints = Checkpoints(
            self.algorithm, self.settings, self.files, self.callbacks, self._curve, self._messages, begun.extra
        )
        self._report = Report(
            self.algorithm,
            self.settings,
            self.files,
            self._evaluation,
            self._curve,
            self._messages,
            config=self.config,
            overrides=self.overrides,
            origin=begun.file,
        )
        self.callbacks.load_state_dict(begun.extra.get("callbacks", []))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say what to call instead of another library's method."""
            return missing(self, name, THEIRS)

    @property
    def metric_names(self) -> list[str]:
        """Every metric that an iteration or an evaluation may have."""
        return [*metric_names(self.algorithm), *self.callbacks.metric_names]

    @property
    def output_dir(self) -> Path:
        """Folder of the run's files; one that was not asked for is made when this is first looked at."""
        return self.files.folder

    @property
    def warnings(self) -> list[str]:
        """What failed besides training in the last `run`, a sentence each."""
        return self._messages.warnings

    # ---------------------------------------------------------------------------------------------------- parts

    def step(self, env_config: dict[str, Any] | None = None) -> dict[str, float]:
        """Do one iteration: collect a horizon, update the policy.

        Args:
            env_config: Settings for the environment's reset, if this iteration resets it.

        Returns:
            Its metrics, fetched from the device in one transfer.

        Raises:
            FloatingPointError: If the loss is infinite or NaN.
        """
        algorithm, execution = self.algorithm, self.algorithm.execution
        begin = execution.mark()
        metrics = algorithm.collect(env_config=env_config if env_config is not None else self.settings.env_config)
        self.callbacks.call("on_collect", {})
        middle = execution.mark()
        metrics |= algorithm.step()
        end = execution.mark()
        values = to_host(metrics)
        collect_ms, step_ms = execution.elapsed_ms(begin, middle), execution.elapsed_ms(middle, end)
        values |= measured(algorithm, collect_ms, step_ms, execution.memory_mb())
        values |= {
            data.ENV_STEPS: float(algorithm.env_steps),
            data.ENV_RESETS: float(algorithm.resets),
            data.ITERATIONS: float(algorithm.iterations),
        }
        if values.get(NONFINITE):
            algorithm.reset_next()
            environments = algorithm.hparams.num_envs * world.size()
            self._messages.say(
                f"{values[NONFINITE]:.0f} of {environments} environments met a number that is not finite "
                f"before {algorithm.env_steps:,} env steps. Nothing was learned from them, and all are reset now."
            )
        for note in execution.notes():
            self._messages.say(note)
        check_finite(values, algorithm.rollout, algorithm.extra_losses)
        self._curve.add(values)
        return values

    def eval(self, env_config: dict[str, Any] | None = None, *, deterministic: bool | None = None) -> dict[str, float]:
        """Evaluate the policy in environments of its own, from a reset.

        With several processes all call it, and process 0 evaluates.

        Args:
            env_config: Settings for their reset; by default `eval_env_config`.
            deterministic: Whether to take the distribution's mode; by default `eval_deterministic`.

        Returns:
            `eval/returns/mean` and so on.
        """
        return world.from_first(lambda: self._evaluation.run(env_config, deterministic))

    def stop(self, reason: str = "stopped by a callback") -> None:
        """Let `run` end after the present iteration, with a reason that is shown and recorded."""
        self._stop_reason = reason

    def _reason(self, stop: Condition) -> str:
        return self._stop_reason if self._stop_reason is not None else stop.reached()

    def save(self, path: str | Path) -> Path:
        """Write a checkpoint that `resume` goes on from. With several processes all call it."""
        return self._checkpoints.copy(path)

    @in_python()
    def check(self) -> None:
        """Check what `run` checks before it trains: that the evaluation's environment can be built and reset.

        Raises:
            ValueError: If the environment refuses it, or a stop condition watches what is not evaluated.
        """
        check_keys(self.stop_conditions, self.metric_names, evaluates=self.settings.steps_per_eval is not None)
        self.callbacks.check()
        self._evaluation.check()

    def close(self) -> None:
        """Let the environments go: processes and simulators end. The command line does so after a run."""
        self.algorithm.env.close()
        self._evaluation.close()

    def end_reached(self) -> str | None:
        """Return why a run that goes on would train no more; None if it would, or begins."""
        stop = copy.deepcopy(_any_of(self.stop_conditions))
        met = origin.go_on(stop, self._resumed, lambda _: None)[1]
        return stop.reached() if met else None

    # ------------------------------------------------------------------------------------------------------ run

    @answered("Try trainer.run(stop_conditions=[rl8.conditions.EnvSteps({number})]).")
    @in_python()
    def run(
        self,
        *,
        stop_conditions: Sequence[Condition] | None = None,
        env_config: dict[str, Any] | None = None,
        eval_env_config: dict[str, Any] | None = None,
        steps_per_eval: int | None = None,
    ) -> dict[str, float]:
        """Train until a condition is met, SIGINT or SIGTERM arrives; then evaluate, and save what was made.

        Args:
            stop_conditions: Training ends when any is met; by default those of the constructor. None at all trains
                until interrupted.
            env_config: Settings for the training environment's resets; by default the constructor's.
            eval_env_config: Settings for the evaluation environment's reset; by default the constructor's.
            steps_per_eval: Iterations between evaluations; by default the constructor's.

        Returns:
            The last iteration's metrics with the final evaluation's.

        Raises:
            ValueError: If a condition watches a metric that there is not.
            FloatingPointError: If the loss becomes infinite or NaN.
            CallbackError: If a callback fails.
        """
        conditions = (
            self.stop_conditions if stop_conditions is None else as_conditions(stop_conditions, "stop_conditions")
        )
        steps_per_eval = steps_per_eval if steps_per_eval is not None else self.settings.steps_per_eval
        check_range("steps_per_eval", steps_per_eval, 1, integer=True, optional=True, hint="steps_per_eval=10")
        self.steps_per_eval = steps_per_eval
        stop = _any_of(conditions)
        check_keys(conditions, self.metric_names, evaluates=steps_per_eval is not None)
        self.callbacks.check()
        self._evaluation.check(eval_env_config)
        self._messages.warnings = []
        resumed, self._resumed = self._resumed, None
        metrics, met = origin.go_on(stop, resumed, self._messages.note)
        self.files.open(self.source or as_yaml(self.config))
        try:
            self._report.record(stop, resumed)
        except BaseException:
            self.files.abandon()
            self._resumed = resumed
            raise
        try:
            self._report.show(stop)
            self._stop_reason = None
            with (
                stop_signals(self._messages.say, passed_on=launched.is_worker()) as signals,
                self.algorithm.execution.applied(),
            ):
                evaluated = False
                self.callbacks.call("on_start", metrics)
                while not self._is_over(met, signals):
                    with self._checkpoints.evidence_if_it_fails():
                        metrics = self.step(env_config)
                    evaluated = steps_per_eval is not None and self.algorithm.iterations % steps_per_eval == 0
                    with self._checkpoints.saved_if_it_fails():
                        self.callbacks.call("on_iteration", metrics)
                        if evaluated:
                            metrics |= self.eval(eval_env_config)
                            self.callbacks.call("on_evaluation", metrics)
                    met = self._look_at(metrics, stop, evaluated)
                    self._evaluation.film_if_due(self.output_dir, eval_env_config, self._report.records.log_artifact)
                    self._checkpoints.save_if_due(metrics, self._report.records)
                failed = self._end(metrics, stop, evaluated, eval_env_config)
        except BaseException as error:
            world.failed(error)
            self._report.fail(error)
            raise
        finally:
            self._report.close()
        if failed is not None:
            raise failed
        return metrics

    def _look_at(self, metrics: dict[str, float], stop: Condition, evaluated: bool) -> bool:
        """Note, record and show an iteration's metrics; return whether they meet the stop condition."""
        seen = stop.state_dict()
        met = stop(metrics)
        self._checkpoints.note(seen, metrics, self._report.records.run_id)
        self._report.log(metrics, always=evaluated)
        self._report.update(metrics, stop.progress(metrics))
        return met

    def _end(
        self, metrics: dict[str, float], stop: Condition, evaluated: bool, eval_env_config: dict[str, Any] | None
    ) -> CallbackError | None:
        """Save what was trained, then do all that may fail: evaluate, call back, draw and film.

        Returns:
            The error of a callback: what others do at the end is done all the same.
        """
        report, optional = self._report, self._messages.optional
        failures: list[CallbackError] = []
        call = functools.partial(self.callbacks.call, metrics=metrics, failures=failures)
        report.flush()
        files = self._checkpoints.save(report.records)
        call("on_checkpoint")
        if not evaluated and metrics:
            with optional("The final evaluation"):
                final = self.eval(eval_env_config)
                metrics |= final
                final |= call("on_evaluation")
                if self.history:
                    self.history[-1] |= final
                report.log(final, always=True)
                reached = {data.ENV_STEPS: float(self.algorithm.env_steps)}
                report.update(reached | final, stop.progress(metrics))
        if added := call("on_end"):
            report.log(added, always=True)
        failed = failures[0] if failures else None
        reason = f"stopped by {self.stopped_by}" if self.stopped_by is not None else self._reason(stop)
        status: Status = "FAILED" if failed else "KILLED" if self.stopped_by is not None else "FINISHED"
        report.finish(metrics, files, reason=reason, status=status, error=failed, eval_env_config=eval_env_config)
        return failed

    def _is_over(self, met: bool, signals: Sequence[str]) -> bool:
        """Return whether training ends: by process 0's condition, or a signal to any process, or a callback in any."""
        number = signal.Signals[signals[0]].value if signals else 0
        over, number, stopped = world.most([met and world.first(), number, self._stop_reason is not None])
        self.stopped_by = signal.Signals(number).name if number else None
        if stopped and self._stop_reason is None:
            self.stop()
        return bool(over or number or stopped)


def _any_of(conditions: Sequence[Condition]) -> Condition:
    return Or(conditions) if conditions else Never()


class RecurrentTrainer(Trainer):
    """A `Trainer` of policies with memory: an LSTM by default."""

    algorithm_cls = RecurrentAlgorithm
