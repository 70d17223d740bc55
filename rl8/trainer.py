"""A training run: iterations until a stop condition, with evaluation, tracking, display and files."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from rl8 import data
from rl8.checkpoint import load_checkpoint, save_checkpoint, save_policy
from rl8.checks import check_range, is_mistake, unknown
from rl8.conditions import Condition, Never, Or, as_conditions
from rl8.env import Env
from rl8.ppo.algorithm import Algorithm, RecurrentAlgorithm
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.metrics import UPDATE_METRICS
from rl8.ppo.options import check_options
from rl8.ppo.typed import TrainerOptions, spelled_out
from rl8.rng import forked
from rl8.rollout.evaluation import Evaluator
from rl8.rollout.metrics import Metrics
from rl8.rollout.nonfinite import first_nonfinite
from rl8.rollout.rollout import Rollout
from rl8.settings import TrainerSettings
from rl8.tracking.run import Tracker
from rl8.tracking.thinning import Recorder, thinned_out
from rl8.view import movies, plots
from rl8.view.progress import View, make_view

if TYPE_CHECKING:
    from typing_extensions import Unpack

SETTINGS = tuple(field.name for field in fields(TrainerSettings))
SPREAD = ("mean", "std", "min", "max")
# Iterations in `Trainer.history`, about 2 kB each.
MAX_HISTORY: Final = 100_000
# Everything that an iteration reports; stop conditions may name no other.
METRICS = (
    *(f"{name}/{part}" for name in ("returns", "rewards") for part in SPREAD),
    *UPDATE_METRICS,
    "monitors/explained_variance",
    "coefficients/entropy",
    "coefficients/vf",
    "coefficients/lr",
    data.COLLECT_MS,
    data.STEP_MS,
    data.TRANSITIONS_PER_S,
    data.ENV_STEPS,
    data.ENV_RESETS,
    data.ITERATIONS,
    data.MEMORY_MB,
)
EVAL_METRICS = (*(f"eval/{name}/{part}" for name in ("returns", "rewards") for part in SPREAD), data.EVAL_MS)


@spelled_out(TrainerOptions, Algorithm, Hyperparameters, TrainerSettings)
class Trainer:
    """Trains a policy in an environment, and records how it went.

    Args:
        env: Class that makes the environments, or a ready `Algorithm`.
        config: The whole configuration to record; by default what can be told from the options.
        overrides: What was typed to get it, to be recorded.
        stop_conditions: When `run` ends by default: as soon as one is met; none runs until interrupted.
        seed: Of all random numbers, an integer >= 0: the same seed on a CPU repeats a run exactly. None leaves torch's.
        **options: Those of `Algorithm` and `TrainerSettings`.

    Attributes:
        algorithm: PPO and its policy.
        settings: What a run does besides.
        history: Metrics of every iteration so far; once there are `MAX_HISTORY`, every second one is dropped.
        output_dir: Folder of the run's files.
        stopped_by: `"SIGINT"` or `"SIGTERM"` if the last `run` ended by it, else None.

    Raises:
        TypeError: If an option does not exist or is of the wrong type.
        ValueError: If an option is out of range or parts do not fit.
    """

    algorithm_cls: type[Algorithm] = Algorithm

    def __init__(
        self,
        env: Callable[..., Env] | Algorithm,
        /,
        *,
        config: Mapping[str, Any] | None = None,
        overrides: Sequence[str] = (),
        stop_conditions: Sequence[Condition] = (),
        seed: int | None = None,
        **options: Unpack[TrainerOptions],
    ) -> None:
        given: dict[str, Any] = dict(options)
        self.settings = TrainerSettings(**{name: given.pop(name) for name in SETTINGS if name in given})
        check_range("seed", seed, 0, 2**64 - 1, integer=True, optional=True, hint="seed=1")
        if isinstance(env, Algorithm):
            late = [*given, *(["seed"] if seed is not None else [])]
            if late:
                raise TypeError(f"The algorithm is ready-made, so {', '.join(late)} would have no effect. Drop it.")
            self.algorithm = env
        else:
            check_options(Algorithm, given, ["seed", *SETTINGS])
            if seed is not None:
                torch.manual_seed(seed)
            self.algorithm = self.algorithm_cls(env, **given)
        self._seed = seed
        self.stop_conditions = as_conditions(stop_conditions, "stop_conditions")
        if self.stop_conditions:  # `run` may be told to evaluate
            check_keys(Or(self.stop_conditions), metric_names(self.algorithm.env), evaluates=True)
        self._check_env_config()
        self.overrides = tuple(overrides)
        self.config = dict(config) if config is not None else self._describe()
        self.history: list[dict[str, float]] = []
        self.output_dir = Path(self.settings.output_dir or time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))
        self.stopped_by: str | None = None
        self._evaluator: Evaluator | None = None
        self._resumed: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}
        if self.settings.resume is not None:
            self._resumed = load_checkpoint(self.settings.resume, self.algorithm)

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
        middle = execution.mark()
        metrics |= algorithm.step()
        end = execution.mark()
        values = to_host(metrics)
        collect_ms, step_ms = execution.elapsed_ms(begin, middle), execution.elapsed_ms(middle, end)
        values |= {
            data.COLLECT_MS: collect_ms,
            data.STEP_MS: step_ms,
            data.TRANSITIONS_PER_S: algorithm.hparams.batch_size / (collect_ms + step_ms) * 1e3,
            data.ENV_STEPS: float(algorithm.env_steps),
            data.ENV_RESETS: float(algorithm.resets),
            data.ITERATIONS: float(algorithm.iterations),
            data.MEMORY_MB: execution.memory_mb(),
        }
        _check_finite(values, algorithm.rollout)
        if len(self.history) >= MAX_HISTORY:
            self.history[:] = thinned_out(self.history)
        self.history.append(values)
        return values

    def eval(self, env_config: dict[str, Any] | None = None, *, deterministic: bool | None = None) -> dict[str, float]:
        """Evaluate the policy in environments of its own, from a reset.

        Args:
            env_config: Settings for their reset; by default `eval_env_config`.
            deterministic: Whether to take the distribution's mode; by default `eval_deterministic`.

        Returns:
            `eval/returns/mean` and so on.
        """
        begin = time.perf_counter()
        metrics = to_host(
            self._evaluation().run(
                config=env_config if env_config is not None else self.settings.eval_env_config,
                deterministic=self.settings.eval_deterministic if deterministic is None else deterministic,
            )
        )
        values = {f"eval/{name}": value for name, value in metrics.items()}
        values[data.EVAL_MS] = (time.perf_counter() - begin) * 1e3
        return values

    def save(self, path: str | Path) -> Path:
        """Write a checkpoint that `resume` goes on from."""
        return save_checkpoint(path, self.algorithm, self._extra)

    def close(self) -> None:
        """Let the environments go: processes and simulators end. The command line does so after a run."""
        evaluated = [] if self._evaluator is None else [self._evaluator.env]
        for env in {id(env): env for env in (self.algorithm.env, *evaluated)}.values():
            env.close()

    # ------------------------------------------------------------------------------------------------------ run

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
        """
        conditions = (
            self.stop_conditions if stop_conditions is None else as_conditions(stop_conditions, "stop_conditions")
        )
        steps_per_eval = steps_per_eval if steps_per_eval is not None else self.settings.steps_per_eval
        check_range("steps_per_eval", steps_per_eval, 1, integer=True, optional=True, hint="steps_per_eval=10")
        stop = Or(conditions) if conditions else Never()
        check_keys(stop, metric_names(self.algorithm.env), evaluates=steps_per_eval is not None)
        resumed, self._resumed = self._resumed, {}
        same_stop = _go_on(stop, resumed.get("stop"))
        tracker = self._start_tracker(stop, resumed.get("run_id"))
        log = Recorder(tracker.log_metrics if tracker else _ignore, self.settings.seconds_per_log)
        view = self._start_view(tracker, stop)
        if self.settings.resume is not None and not self.history and self.algorithm.env.opaque:
            name = type(self.algorithm.env).__name__
            view.message(f"Not an exact resume: the state of {name} can't be saved, so its episodes begin anew.")
        if not same_stop:
            view.message("The stop condition is another than the checkpoint's, so it counts from here on.")
        metrics: dict[str, float] = {}
        try:
            with _stop_signals() as signals:
                evaluated = False
                while not signals:
                    metrics = self.step(env_config)
                    evaluated = steps_per_eval is not None and self.algorithm.iterations % steps_per_eval == 0
                    if evaluated:
                        metrics |= self.eval(eval_env_config)
                    met = stop(metrics)
                    self._extra = {"stop": stop.state_dict(), "run_id": tracker.run_id if tracker else None}
                    log.add(metrics, self.algorithm.env_steps, always=evaluated)
                    view.update(metrics, stop.progress(metrics))
                    self._checkpoint()
                    if met:
                        break
                self.stopped_by = signals[0] if signals else None
                log.flush()
                if not evaluated and metrics:
                    final = self.eval(eval_env_config)
                    metrics |= final
                    log.add(final, self.algorithm.env_steps, always=True)
                    view.update(final, stop.progress(metrics))
                reason = f"stopped by {self.stopped_by}" if self.stopped_by else stop.reached()
                self._finish(metrics, tracker, view, reason, eval_env_config)
        except BaseException as error:
            view.close()
            log.flush()
            if tracker is not None:
                tracker.finish("FAILED", error="".join(traceback.format_exception(error)))
            raise
        return metrics

    def _checkpoint(self) -> None:
        every = self.settings.steps_per_checkpoint
        if every is not None and self.algorithm.iterations % every == 0:
            self.save(self.output_dir / "checkpoint.pt")

    def _finish(
        self,
        metrics: Mapping[str, float],
        tracker: Tracker | None,
        view: View,
        reason: str,
        eval_env_config: dict[str, Any] | None,
    ) -> None:
        """Save policy, checkpoint, curve and film; close the run."""
        folder = self.output_dir
        files = [
            save_policy(folder / "policy.pt", self.algorithm),
            self.save(folder / "checkpoint.pt"),
        ]
        hparams = self.algorithm.hparams
        curve = plots.learning_curve(
            self.history,
            folder / "learning_curve.png",
            title=self._title(),
            ylabel=f"return per {hparams.horizon} steps"
            + (f" (evaluation: {self.settings.eval_horizon})" if self.settings.eval_horizon else ""),
        )
        files += [curve] if curve else []
        files += self._film(folder, eval_env_config)
        if tracker is not None:
            for file in files:
                tracker.log_artifact(file)
            tracker.set_tag("stop_reason", reason)
            tracker.finish()
        summary = {"ended": reason, "env steps": f"{self.algorithm.env_steps:,}"}
        if data.EVAL_RETURNS_MEAN in metrics:
            horizon = self._evaluation().rollout.horizon
            summary["evaluation"] = f"return {metrics[data.EVAL_RETURNS_MEAN]:.4g} per {horizon} steps"
        summary["files"] = f"{folder} ({', '.join(file.name for file in files)})"
        if tracker is not None:
            summary["recorded in"] = tracker.where
        view.finish(summary)

    def _film(self, folder: Path, eval_env_config: dict[str, Any] | None) -> list[Path]:
        """Write a GIF and a strip of pictures of the policy at work, where the environment can draw."""
        if not self.settings.render or not self.algorithm.env.has_pictures:
            return []
        config = eval_env_config if eval_env_config is not None else self.settings.eval_env_config
        evaluator = self._make_evaluator(num_envs=1)
        frames = evaluator.film(config=config, deterministic=self.settings.eval_deterministic)
        if evaluator.env is not self.algorithm.env:
            evaluator.env.close()
        return [movies.gif(frames, folder / "policy.gif"), movies.film_strip(frames, folder / "policy.png")]

    # --------------------------------------------------------------------------------------------------- set-up

    def _check_env_config(self) -> None:
        """Try the settings of the training environment's resets on a copy of it; random numbers stay as they are.

        Raises:
            ValueError: If it refuses them.
        """
        config, algorithm = self.settings.env_config, self.algorithm
        if config is None:
            return
        try:
            with forked(algorithm.device):
                env = algorithm.env_cls(algorithm.hparams.num_envs, algorithm.hparams.horizon, device=algorithm.device)
                try:
                    env.reset(config=copy.deepcopy(config))
                finally:
                    env.close()
        except (TypeError, ValueError) as error:
            if not is_mistake(error):
                raise
            raise ValueError(f"trainer.env_config={config} is refused: {error}") from error

    def _evaluation(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = self._make_evaluator(self.settings.eval_num_envs)
        return self._evaluator

    def _make_evaluator(self, num_envs: int) -> Evaluator:
        hparams = self.algorithm.hparams
        return Evaluator(
            (lambda *_, **__: self.algorithm.env) if self.algorithm.env.shared else self.algorithm.env_cls,
            self.algorithm.policy,
            num_envs=num_envs,
            horizon=self.settings.eval_horizon or hparams.horizon,
            seq_len=hparams.seq_len,
            seqs_per_state_reset=hparams.seqs_per_state_reset,
        )

    def _start_tracker(self, stop: Condition, run_id: str | None) -> Tracker | None:
        if not self.settings.track:
            return None
        return Tracker.start(
            experiment_name=self.settings.experiment_name,
            run_name=self.settings.run_name,
            params=self.config,
            tags={"stop": stop.describe()},
            overrides=self.overrides,
            device=str(self.algorithm.device),
            run_id=run_id,
            folder=self.output_dir,
        )

    def _start_view(self, tracker: Tracker | None, stop: Condition) -> View:
        algorithm = self.algorithm
        view = make_view(self.settings.view, title=self._title())
        if tracker is not None:
            tracker.notify = view.message
        hparams = algorithm.hparams
        weights = sum(parameter.numel() for parameter in algorithm.parameters)
        info = {
            "device": str(algorithm.device),
            "data": f"{hparams.num_envs:,} envs x {hparams.horizon} steps",
            "policy": f"{type(algorithm.policy.model).__name__}, {weights:,} weights",
            "until": stop.describe(),
        }
        view.start(info | ({"recorded in": tracker.place} if tracker is not None else {}))
        if algorithm.env.has_ends and (hparams.horizons_per_env_reset or 1) > 0:
            every = (hparams.horizons_per_env_reset or 1) * hparams.horizon
            view.message(
                f"Episodes end by themselves, but a reset every {every} steps cuts them off. "
                "algo.horizons_per_env_reset=-1 lets them go on."
            )
        return view

    def _title(self) -> str:
        name = type(self.algorithm.env).__name__
        return f"{name}, seed {self.config['seed']}" if "seed" in self.config else name

    def _describe(self) -> dict[str, Any]:
        """Return the configuration that the options amount to."""
        algorithm = self.algorithm
        return {
            **({} if self._seed is None else {"seed": self._seed}),
            "env": {"_target_": _dotted(type(algorithm.env))},
            "model": {"_target_": _dotted(type(algorithm.policy.model)), **(algorithm.policy.model_config or {})},
            "distribution": {"_target_": _dotted(algorithm.policy.distribution_cls)},
            "algo": asdict(algorithm.hparams),
            "device": asdict(algorithm.execution.settings),
            "trainer": asdict(self.settings),
        }


class RecurrentTrainer(Trainer):
    """A `Trainer` of policies with memory: an LSTM by default."""

    algorithm_cls = RecurrentAlgorithm


def _ignore(metrics: Mapping[str, float], step: int) -> None:
    """Record nothing."""


def metric_names(env: Env) -> list[str]:
    """Return every metric that an iteration or an evaluation may have in an environment that is validated."""
    own = [f"env/{name}" for name in sorted(env.metric_names)]
    return [*METRICS, *own, *EVAL_METRICS, *(f"eval/{name}" for name in own)]


def to_host(metrics: Metrics) -> dict[str, float]:
    """Return metrics as numbers, by one transfer from the device."""
    numbers: list[float] = torch.stack([value.to(torch.float32) for value in metrics.values()]).tolist()
    found = dict(zip(metrics, numbers, strict=True))
    # NaN of an environment's own: it had nothing to report
    return {name: number for name, number in found.items() if not (name.startswith("env/") and math.isnan(number))}


def _check_finite(metrics: Mapping[str, float], rollout: Rollout) -> None:
    bad = [name for name in ("returns/mean", "losses/total") if not math.isfinite(metrics[name])]
    if bad:
        cause = first_nonfinite(rollout)
        raise FloatingPointError(
            f"{bad[0]} is {metrics[bad[0]]} after {metrics[data.ENV_STEPS]:,.0f} env steps, so training has failed. "
            + (cause or "Try a lower learning rate, e.g. algo.optimizer.lr=1e-4, or algo.max_grad_norm=0.5.")
        )


def check_keys(stop: Condition, known: Sequence[str], *, evaluates: bool) -> None:
    """Raise ValueError if a condition watches a metric that no iteration will ever have."""
    for key in stop.keys():  # noqa: SIM118 (a condition is no mapping)
        if key not in known:
            raise ValueError(f"stop.key={key}: {unknown('metric', key, known)}")
        if key.startswith("eval/") and not evaluates:
            raise ValueError(
                f"The stop condition watches {key}, but evaluation only happens at the end. "
                "Try trainer.steps_per_eval=10 (in Python: steps_per_eval=10)."
            )


def _go_on(stop: Condition, state: Mapping[str, Any] | None) -> bool:
    """Let a condition go on from a checkpoint's state, or start anew; return whether it fits the checkpoint."""
    stop.reset()
    if state is None:
        return True
    try:
        stop.load_state_dict(state)
    except ValueError:  # resumed with another condition, to train on
        stop.reset()
        return False
    return True


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Yield a list that SIGINT and SIGTERM append their names to; a second one ends the process as usual.

    Outside the main thread, where handlers can't be set, the list stays empty.
    """
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        received.append(signal.Signals(number).name)
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
