"""A training run: iterations until a stop condition, with evaluation, tracking, display and files."""

from __future__ import annotations

import copy
import functools
import logging
import math
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from rl8 import data, runs, seeds
from rl8.callbacks import Callback, Callbacks
from rl8.calls import answered, in_python, missing
from rl8.checkpoint import (
    Saved,
    check_savable,
    lost_processes,
    read_checkpoint,
    restore,
    save_checkpoint,
    start_from,
)
from rl8.checks import MAX_SEED, check_range, is_mistake, unknown_metric
from rl8.conditions import Condition, EnvSteps, Never, Or, as_conditions, flat
from rl8.env import Env
from rl8.files import RunFiles
from rl8.guest import stop_signals
from rl8.kinds import as_text, is_list
from rl8.parallel import launched, world
from rl8.parallel.failure import FirstFailedError, PeerError
from rl8.ppo.algorithm import Algorithm, RecurrentAlgorithm
from rl8.ppo.effects import check_given
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.options import check_options
from rl8.ppo.schedule_options import rates
from rl8.ppo.typed import TrainerOptions, spelled_out
from rl8.reported import NONFINITE, check_finite, check_keys, measured, metric_names, shares, to_host
from rl8.rng import forked
from rl8.rollout.evaluation import MAX_EPISODE_STEPS, Evaluator, Picture
from rl8.rollout.nonfinite import evidence
from rl8.settings import TrainerSettings
from rl8.tracking import writers
from rl8.tracking.names import run_name, task_name
from rl8.tracking.provenance import as_yaml
from rl8.tracking.records import Records
from rl8.tracking.run import NOTE, SAVED_AT, Tracker
from rl8.tracking.secrets import redacted
from rl8.tracking.store import close_run, first_line
from rl8.tracking.thinning import Recorder, thinned_out
from rl8.view import films, movies, plots
from rl8.view.progress import NoView, Unheard, View, make_view
from rl8.view.readings import megabytes

if TYPE_CHECKING:
    from typing_extensions import Unpack

SETTINGS = tuple(field.name for field in fields(TrainerSettings))
# Iterations in `Trainer.history`, about 2 kB each.
MAX_HISTORY: Final = 100_000
# Points of a resumed run's curve that come from before.
MAX_CURVE: Final = 2_000
CURVE = (data.ENV_STEPS, data.ITERATIONS, data.RETURNS_MEAN, plots.RETURNS_STD, data.EVAL_RETURNS_MEAN, data.EVAL_MS)

# What other libraries call a trainer's methods.
_RUN: Final = "trainer.run(stop_conditions=[rl8.conditions.EnvSteps(100_000)])"
THEIRS: Final = {
    **dict.fromkeys(("learn", "train", "fit", "start"), _RUN),
    **dict.fromkeys(("evaluate", "test"), "trainer.eval()"),
    **dict.fromkeys(("predict", "act"), "rl8.DeployedPolicy(trainer.algorithm.policy).predict(obs)"),
    **dict.fromkeys(("load", "restore"), "Trainer(env, resume=run), or rl8.load_policy(run)"),
}

# Memory of a rollout that is worth a word, in MB.
MB_TO_STATE: Final = 1.0

# What an episode is worth beyond its time limit.
BOOTSTRAPPED: Final = {
    data.BOOTSTRAP_FINAL_OBS: "the value of the last observation follows",
    data.BOOTSTRAP_LAST_VALUE: "the value before the last step follows",
    data.BOOTSTRAP_NONE: "nothing follows",
}

_logger = logging.getLogger(__name__)


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
        warnings: What failed besides training in the last `run`, a sentence each.
        stopped_by: `"SIGINT"` or `"SIGTERM"` if the last `run` ended by it, else None.

    Raises:
        TypeError: If an option does not exist or is of the wrong type.
        ValueError: If an option is out of range or parts do not fit.
    """

    algorithm_cls: type[Algorithm] = Algorithm

    @answered("Give the environment first and all else by name, e.g. Trainer(CartPole, num_envs=64, gamma=0.99).")
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
        with in_python(not isinstance(env, Algorithm)):
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
                check_given(given, self.algorithm)
        self.algorithm.skips_nonfinite = self.settings.on_nonfinite == "skip"
        self.callbacks = Callbacks(callbacks, self)
        self.stop_conditions = as_conditions(stop_conditions, "stop_conditions")
        check_keys(self.stop_conditions, self.metric_names, evaluates=True)  # `run` may be told to evaluate
        best = self.settings.best_metric
        if best is not None and best not in self.metric_names:
            raise ValueError(f"trainer.best_metric={best}: {unknown_metric(best, self.metric_names)}")
        self._check_env_config()
        if not (config is None or isinstance(config, Mapping)):
            raise TypeError(f"config={config!r} is no mapping. Accepted: what is to be recorded, by name, or None.")
        if not is_list(overrides):
            raise TypeError(f"overrides={overrides!r} is no list. Accepted: the words that were typed.")
        self.overrides = tuple(overrides)
        self.config = copy.deepcopy(dict(config)) if config is not None else self._describe()
        world.check_same(self.config)
        self.source: str | None = None
        self.history: list[dict[str, float]] = []
        self.warnings: list[str] = []
        self.stopped_by: str | None = None
        self._stop_reason: str | None = None
        self._notes: list[str] = []
        self._view: View = NoView("")
        check_savable(self.algorithm)
        self._evaluator: Evaluator | None = None
        self._origin: str | None = None
        self._resumed, own = self._begin_from(seed)
        self.files = RunFiles(self.settings, self.algorithm, own)
        self._films = films.Films()
        self.files.best = self._resumed.extra.get("best") if self._resumed else None
        self._curve: list[dict[str, float]] = list(self._resumed.extra.get("curve", [])) if self._resumed else []
        self._extra: dict[str, Any] = dict(self._resumed.extra) if self._resumed else {}
        self.callbacks.load_state_dict(self._extra.get("callbacks", []))

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
            self._view.message(
                f"{values[NONFINITE]:.0f} of {environments} environments met a number that is not finite "
                f"before {algorithm.env_steps:,} env steps. Nothing was learned from them, and all are reset now."
            )
        for note in execution.notes():
            self._view.message(note)
        check_finite(values, algorithm.rollout)
        if len(self.history) >= MAX_HISTORY:
            self.history[:] = thinned_out(self.history)
        self.history.append(values)
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
        return world.from_first(lambda: self._eval(env_config, deterministic))

    def _eval(self, env_config: dict[str, Any] | None, deterministic: bool | None) -> dict[str, float]:
        begin = time.perf_counter()
        with self.algorithm.execution.applied():
            metrics = to_host(
                self._evaluation().run(
                    config=env_config if env_config is not None else self.settings.eval_env_config,
                    deterministic=self.settings.eval_deterministic if deterministic is None else deterministic,
                )
            )
        values = {f"eval/{name}": value for name, value in metrics.items()}
        values[data.EVAL_MS] = (time.perf_counter() - begin) * 1e3
        if not math.isfinite(values[data.EVAL_RETURNS_MEAN]):
            self._warn(
                f"The evaluation after {self.algorithm.env_steps:,} env steps has the return "
                f"{values[data.EVAL_RETURNS_MEAN]}: the environment gave such a reward. It is no best checkpoint."
            )
        return values

    def stop(self, reason: str = "stopped by a callback") -> None:
        """Let `run` end after the present iteration, with a reason that is shown and recorded."""
        self._stop_reason = reason

    def _reason(self, stop: Condition) -> str:
        return self._stop_reason if self._stop_reason is not None else stop.reached()

    def save(self, path: str | Path) -> Path:
        """Write a checkpoint that `resume` goes on from. With several processes all call it."""
        return save_checkpoint(path, self.algorithm, self._extra)

    def check(self) -> None:
        """Check what `run` checks before it trains: that the evaluation's environment can be built and reset.

        Raises:
            ValueError: If the environment refuses it, or a stop condition watches what is not evaluated.
        """
        check_keys(self.stop_conditions, self.metric_names, evaluates=self.settings.steps_per_eval is not None)
        self._evaluation()

    def close(self) -> None:
        """Let the environments go: processes and simulators end. The command line does so after a run."""
        evaluated = [] if self._evaluator is None else [self._evaluator.env]
        for env in {id(env): env for env in (self.algorithm.env, *evaluated)}.values():
            env.close()

    # ------------------------------------------------------------------------------------------------------ run

    @answered("Try trainer.run(stop_conditions=[rl8.conditions.EnvSteps({number})]).")
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
        check_keys(conditions, self.metric_names, evaluates=steps_per_eval is not None)
        evaluation = self._evaluation()
        if eval_env_config is not None and not self.algorithm.env.shared:
            evaluation.check(eval_env_config)
        self.warnings = []
        resumed, self._resumed = self._resumed, None
        metrics, met, note = _go_on(stop, resumed)
        self._notes += [note] if note else []
        if resumed is not None and self.algorithm.env.opaque:
            name = type(self.algorithm.env).__name__
            self._notes.append(f"Not an exact resume: the state of {name} can't be saved, so its episodes begin anew.")
        self.files.open(self.source or as_yaml(self.config))
        try:
            records = self._start_records(stop, resumed)
            run_id = world.from_first(lambda: records.run_id)
        except BaseException:
            self.files.abandon()
            self._resumed = resumed
            raise
        world.at_end(functools.partial(records.finish, "FAILED") if world.first() else None)
        log = Recorder(records.log_metrics, self.settings.seconds_per_log)
        try:
            view = self._view = self._start_view(records, stop)
            self._stop_reason = None
            with (
                stop_signals(view.message, passed_on=launched.is_worker()) as signals,
                self.algorithm.execution.applied(),
            ):
                evaluated = False
                self.callbacks.call("on_start", metrics)
                while not self._is_over(met, signals):
                    metrics = self._train_step(env_config)
                    evaluated = steps_per_eval is not None and self.algorithm.iterations % steps_per_eval == 0
                    with self._saved_if_it_fails():
                        self.callbacks.call("on_iteration", metrics)
                        if evaluated:
                            metrics |= self.eval(eval_env_config)
                            self.callbacks.call("on_evaluation", metrics)
                    seen = stop.state_dict()
                    met = stop(metrics)
                    self._note(seen, metrics, records)
                    log.add(metrics, self.algorithm.env_steps, always=evaluated)
                    view.update(metrics, stop.progress(metrics))
                    self._film_on_the_way(records, eval_env_config)
                    self._checkpoint(metrics, records)
                log.flush()
                files = self._save(self._whole(records))
                self.callbacks.call("on_checkpoint", metrics)
                if not evaluated and metrics:
                    with self._optional("The final evaluation"):
                        final = self.eval(eval_env_config)
                        metrics |= final
                        final |= self.callbacks.call("on_evaluation", metrics)
                        if self.history:
                            self.history[-1] |= final
                        log.add(final, self.algorithm.env_steps, always=True)
                        reached = {data.ENV_STEPS: float(self.algorithm.env_steps)}
                        view.update(reached | final, stop.progress(metrics))
                with self._optional("A callback"):
                    if added := self.callbacks.call("on_end", metrics):
                        log.add(added, self.algorithm.env_steps, always=True)
                reason = f"stopped by {self.stopped_by}" if self.stopped_by else self._reason(stop)
                self._finish(metrics, files, records, reason, eval_env_config)
        except BaseException as error:
            world.failed(error)
            self._view.close()
            log.flush()
            if isinstance(error, PeerError) and error.lost_first and run_id is not None:
                with suppress(Exception):
                    close_run(run_id, str(error))
            killed = not isinstance(error, Exception)  # a second Ctrl-C, sys.exit
            records.finish("KILLED" if killed else "FAILED", "".join(traceback.format_exception(error)))
            raise
        finally:
            self._view = NoView("")
        return metrics

    def _is_over(self, met: bool, signals: Sequence[str]) -> bool:
        """Return whether training ends: by process 0's condition, or a signal to any process, or a callback in any."""
        number = signal.Signals[signals[0]].value if signals else 0
        over, number, stopped = world.most([met and world.first(), number, self._stop_reason is not None])
        self.stopped_by = signal.Signals(number).name if number else None
        if stopped and self._stop_reason is None:
            self.stop()
        return bool(over or number or stopped)

    def _train_step(self, env_config: dict[str, Any] | None) -> dict[str, float]:
        """Do one iteration; if that fails, leave evidence, and the policy as it is now if its weights are sound."""
        try:
            return self.step(env_config)
        except BaseException as error:
            if isinstance(error, FloatingPointError):
                with suppress(Exception):
                    if world.first():
                        self.files.save_evidence({"reason": str(error), **evidence(self.algorithm.rollout)})
            if all(bool(weight.isfinite().all()) for weight in self.algorithm.parameters):  # host sync: it is over
                with suppress(Exception):
                    self.files.save_policy()
            raise

    @contextmanager
    def _saved_if_it_fails(self) -> Iterator[None]:
        """Save what was trained if the block raises."""
        try:
            yield
        except BaseException as error:
            with suppress(Exception):
                if world.known_to_all(error):
                    self._save(self._extra)
                else:  # a checkpoint takes all processes, and the others are elsewhere
                    self.files.save_policy()
            raise

    @contextmanager
    def _optional(self, what: str, after: str = "What was trained is saved.") -> Iterator[None]:
        """Let a failure of the block be a warning, which also says what becomes of the run."""
        try:
            yield
        except Exception as error:
            if isinstance(error, PeerError) and not isinstance(error, FirstFailedError):
                raise
            _logger.info("".join(traceback.format_exception(error)))
            self._warn(f"{what} failed: {type(error).__name__}: {first_line(error).rstrip('.')}. {after}")

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        self._view.message(text)

    def _note(self, stop: Mapping[str, Any], metrics: Mapping[str, float], records: Records) -> None:
        """Note what a checkpoint of this moment says besides the algorithm's state.

        Args:
            stop: State of the stop condition before it saw `metrics`: a run that goes on asks it again.
            metrics: Of the last iteration.
            records: Where the run is recorded.
        """
        self._extra = {
            "stop": dict(stop),
            "metrics": dict(metrics),
            "run_id": records.run_id,
            "best": self.files.best,
            "env_config": redacted(repr(self.settings.env_config)),
            "callbacks": self.callbacks.state_dict(),
        }

    def _checkpoint(self, metrics: Mapping[str, float], records: Records) -> None:
        """Write what is due: the best checkpoint, the latest one. A full disk does not end the run: room may come."""
        best, due = self.files.is_best(metrics), self.files.due()
        best, due = (bool(wanted) for wanted in world.most([world.first() and best, world.first() and due]))
        if not (best or due):
            return
        self._extra |= {"best": self.files.best}
        extra = self._whole(records)
        with self._optional("A checkpoint", "Training goes on; the next one is tried at its time."):
            if best:
                self.files.save_best(extra)
            if due:
                self.files.save(extra)
                records.set_tag(SAVED_AT, str(self.algorithm.env_steps))
        with self._saved_if_it_fails():
            self.callbacks.call("on_checkpoint", dict(metrics))

    def _save(self, extra: Mapping[str, Any]) -> list[Path]:
        """Write checkpoint and policy; where there is no room for the one there may be for the other.

        Raises:
            OSError: If one of them can't be written.
        """
        try:
            checkpoint = self.files.save(extra)
        except OSError:
            with suppress(OSError):
                self.files.save_policy()
            raise
        return [checkpoint, self.files.save_policy()]

    def _whole(self, records: Records) -> dict[str, Any]:
        """Return what `_note` noted, with the curve so far and what MLflow has not got yet."""
        return {**self._extra, "curve": self._points(), "unsent": records.unsent()}

    def _points(self) -> list[dict[str, float]]:
        """Return the run's curve so far, thinned out, so that a resumed run draws all of it."""
        points = [{name: m[name] for name in CURVE if name in m} for m in [*self._curve, *self.history]]
        while len(points) > MAX_CURVE:
            points = thinned_out(points)
        return points

    def _finish(
        self,
        metrics: Mapping[str, float],
        files: list[Path],
        records: Records,
        reason: str,
        eval_env_config: dict[str, Any] | None,
    ) -> None:
        """Draw curve and film, and close the run."""
        if not world.first():
            return
        folder = self.output_dir
        if (folder / runs.BEST).exists():
            files.append(folder / runs.BEST)
        with self._optional("The learning curve"):
            curve = self._draw(folder)
            files += [curve] if curve else []
        for problem in self._films.close():
            self._warn(f"A film could not be written: {problem}")
        with self._optional("The film"):
            files += self._film(folder, eval_env_config)
        summary = {"ended": reason, "env steps": f"{self.algorithm.env_steps:,}"}
        if data.EVAL_RETURNS_MEAN in metrics:
            summary["evaluation"] = f"return {metrics[data.EVAL_RETURNS_MEAN]:.4g} per {self._return_per}"
            if share := metrics.get(f"eval/{data.EPISODES_UNFINISHED}"):
                longest = self._evaluation().max_episode_steps
                summary["evaluation"] += f", of which {share:.0%} had not ended after {longest:,} steps"
        note = {"task": self._title(), **summary}
        records.set_tag(NOTE, "\n".join(f"- **{name}**: {text}" for name, text in note.items()))
        for file in files:
            with self._optional(f"Storing {file.name} with the run"):
                records.log_artifact(file)
        records.set_tag("stop_reason", reason)
        if self.warnings:
            records.set_tag("warnings", "\n".join(self.warnings))
        records.set_tag(SAVED_AT, str(self.algorithm.env_steps))
        records.finish("KILLED" if self.stopped_by else "FINISHED")
        self._record(records.tracker)
        summary["files"] = f"{folder} ({', '.join(file.name for file in files)})"
        summary |= records.where
        self._view.finish(summary)

    def _draw(self, folder: Path) -> Path | None:
        ylabel = f"return per {self._return_per}"
        if self.algorithm.episodes is not None:
            ylabel += f" (training: the last {data.WINDOW} episodes)"
        elif self._return_scale != 1.0:
            ylabel += ", training's in proportion"
        return plots.learning_curve(
            [*self._curve, *self.history],
            folder / "learning_curve.png",
            title=self._title(),
            ylabel=ylabel,
            scale=self._return_scale,
        )

    @property
    def _return_steps(self) -> int:
        """Steps that an evaluation sums rewards over."""
        return self.settings.eval_horizon or self.algorithm.hparams.horizon

    @property
    def _return_per(self) -> str:
        """What a return is a sum over: an episode where episodes end, else some steps."""
        return "episode" if self.algorithm.episodes is not None else f"{self._return_steps} steps"

    @property
    def _return_scale(self) -> float:
        """What training's returns, sums over a horizon, are shown times: sums of other lengths can't be compared."""
        return 1.0 if self.algorithm.episodes is not None else self._return_steps / self.algorithm.hparams.horizon

    def _film(self, folder: Path, eval_env_config: dict[str, Any] | None) -> list[Path]:
        """Write a GIF and a strip of pictures of the policy at work, where the environment can draw."""
        if not self.settings.render or not self.algorithm.env.has_pictures:
            return []
        film = self._pictures(eval_env_config)
        pictures = [picture for picture, _ in film]
        return [films.write(film, folder / "policy.gif"), movies.film_strip(pictures, folder / "policy.png")]

    def _pictures(self, eval_env_config: dict[str, Any] | None) -> list[Picture]:
        """Let the policy act as in an evaluation; return pictures of it."""
        config = eval_env_config if eval_env_config is not None else self.settings.eval_env_config
        return self._evaluation().film(config=config, deterministic=self.settings.eval_deterministic)

    def _film_on_the_way(self, records: Records, eval_env_config: dict[str, Any] | None) -> None:
        """Film the policy if it is time, and let the film be written while training goes on."""
        every = self.settings.steps_per_video
        if every is None or self.algorithm.iterations % every or not self.algorithm.env.has_pictures:
            return
        with self._optional("A film", "Training goes on."):
            film = self._pictures(eval_env_config)
            path = self.output_dir / "films" / f"{self.algorithm.env_steps:012d}.gif"
            self._films.add(film, path, records.log_artifact)

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
            text = re.sub(r"\benv_config\b", "trainer.env_config", str(error))
            raise ValueError(f"trainer.env_config={as_text(config)} is refused: {text}") from error

    def _begin_from(self, seed: int | None) -> tuple[Saved | None, Path | None]:
        """Take what the settings say the run begins from; return a checkpoint's content, and the folder it goes on in.

        Args:
            seed: Of a branch's own random numbers; None goes on with the checkpoint's.

        Raises:
            ValueError: If there is no such run, or it does not fit.
        """
        settings = self.settings
        if settings.init_from is not None:
            found = runs.find(settings.init_from, "policy", key="trainer.init_from")
            start_from(found.file, self.algorithm)
            self._origin = str(found.file)
            return None, None
        name = "branch" if settings.branch is not None else "resume"
        run = getattr(settings, name)
        if run is None:
            return None, None
        key = f"trainer.{name}"
        found = runs.find(run, "checkpoint", key=key)
        if name == "resume":
            _check_last(found)
        saved = read_checkpoint(found.file, key=key)
        restore(saved, self.algorithm, key=key)
        if name == "branch" and seed is not None:
            torch.manual_seed(seed)
            world.part_random_numbers()
        self._notes += [f"{reason} Going on from {saved.file.name}." for reason in saved.skipped]
        self._notes += [note] if (note := lost_processes(saved)) else []
        self._configure_anew(saved)
        self._origin = str(found.file)
        return saved, runs.own_folder(settings.resume)

    def _configure_anew(self, saved: Saved) -> None:
        """Let settings of resets that were changed act now, where they are constants that the environment declares."""
        config, env = self.settings.env_config, self.algorithm.env
        text = redacted(repr(config))
        if config and text != saved.extra.get("env_config", text):
            if set(config) <= set(env.parameters):
                env.configure(copy.deepcopy(config))
            elif (self.algorithm.hparams.horizons_per_env_reset or 0) < 0:
                self._notes.append(
                    "trainer.env_config has changed, and acts at the next reset only, which never comes."
                )

    def _check_evaluation(self) -> Evaluator:
        """Return the evaluation, its environment built and reset once: what it refuses is known before training.

        Raises:
            ValueError: If the environment refuses it, in terms of the settings.
        """
        settings, hparams = self.settings, self.algorithm.hparams
        errors: list[TypeError | ValueError] = []
        for num_envs in dict.fromkeys((settings.eval_num_envs, hparams.num_envs)):
            try:
                evaluator = self._make_evaluator(num_envs)
                if not self.algorithm.env.shared:
                    evaluator.check(settings.eval_env_config)
            except (TypeError, ValueError) as error:
                if isinstance(error, TypeError) and not is_mistake(error):
                    raise
                errors.append(error)
                continue
            if errors:
                self._notes.append(
                    f"Evaluation takes place in {num_envs} environments, as many as training, rather than "
                    f"{settings.eval_num_envs}: {first_line(errors[0])}"
                )
            return evaluator
        text = re.sub(r"\bhorizon=", "trainer.eval_horizon=", str(errors[0]))
        text = re.sub(r"\bnum_envs=", "trainer.eval_num_envs=", text)
        text = re.sub(r"\benv_config\b", "trainer.eval_env_config", text)
        given = f" with trainer.eval_env_config={as_text(settings.eval_env_config)}" if settings.eval_env_config else ""
        raise ValueError(f"The evaluation's environment is refused{given}: {text}") from errors[0]

    def _evaluation(self) -> Evaluator:
        if self._evaluator is None:
            self._evaluator = self._check_evaluation()
        return self._evaluator

    def _make_evaluator(self, num_envs: int) -> Evaluator:
        hparams = self.algorithm.hparams
        return Evaluator(
            (lambda *_, **__: self.algorithm.env) if self.algorithm.env.shared else self.algorithm.env_cls,
            self.algorithm.policy,
            num_envs=num_envs,
            horizon=self._return_steps,
            seq_len=hparams.seq_len,
            seqs_per_state_reset=hparams.seqs_per_state_reset,
            episodes=self.algorithm.env.has_ends,
            max_episode_steps=self.settings.eval_horizon or MAX_EPISODE_STEPS,
            work=self.algorithm.execution.work,
        )

    def _start_records(self, stop: Condition, resumed: Saved | None) -> Records:
        if not world.first():  # which shows, records and writes
            return Records()
        tracker = self._start_tracker(stop, resumed)
        self._record(tracker)
        run = writers.Recorded(
            folder=self.output_dir,
            name=self.settings.run_name or self._name(),
            experiment=self.settings.experiment_name,
            config=self.config,
            env_steps=self.algorithm.env_steps if resumed is not None and self.settings.resume is not None else None,
        )
        return Records(tracker, writers.start(self.settings, run, self._notes.append))

    def _start_tracker(self, stop: Condition, resumed: Saved | None) -> Tracker | None:
        if not self.settings.track:
            return None
        settings, tags = self.settings, {"stop": stop.describe(), "folder": str(self.output_dir.absolute())}
        if self._origin is not None and settings.resume is None:
            tags["branched.from" if settings.branch is not None else "initialized.from"] = self._origin
        goes_on = resumed is not None and settings.resume is not None
        tracker = Tracker.start(
            experiment_name=settings.experiment_name,
            run_name=settings.run_name or self._name(),
            params=self.config,
            tags=tags,
            overrides=self.overrides,
            device=str(self.algorithm.device),
            run_id=resumed.extra.get("run_id") if goes_on and resumed else None,
            env_steps=self.algorithm.env_steps if goes_on and resumed and not resumed.skipped else None,
            folder=self.output_dir,
        )
        if goes_on and resumed:
            tracker.send_again(resumed.extra.get("unsent", []))
        return tracker

    def _record(self, tracker: Tracker | None) -> None:
        """Note in the run's folder where the run is recorded."""
        if tracker is None:
            return
        with self._optional("Noting the MLflow run in the run's folder", "All else goes on."):
            self.files.record(tracker.record)

    def _start_view(self, records: Records, stop: Condition) -> View:
        algorithm = self.algorithm
        view = make_view(self.settings.view, title=self._title()) if world.first() else Unheard(self._title())
        view.readings.scale = self._return_scale
        records.tell(view.message)
        hparams = algorithm.hparams
        weights = sum(parameter.numel() for parameter in algorithm.parameters)
        stored = algorithm.rollout.megabytes()
        info = {
            "device": str(algorithm.device),
            "data": f"{hparams.num_envs:,} envs x {hparams.horizon} steps"
            + (f", {megabytes(stored)}" if stored >= MB_TO_STATE else ""),
            **shares(hparams),
            "policy": f"{type(algorithm.policy.model).__name__}, {weights:,} weights",
            "until": stop.describe(),
        }
        if algorithm.env.truncates:
            info["time limits"] = f"{BOOTSTRAPPED[hparams.bootstrap or '']} (algo.bootstrap={hparams.bootstrap})"
        if self._return_scale != 1.0:
            info["returns"] = f"per {self._return_steps} steps, training's in proportion"
        if self._origin is not None:
            info["begins from"] = f"{self._origin}, {algorithm.env_steps:,} env steps"
        view.start(info | ({} if records.tracker is None else {"recorded in": records.tracker.place}))
        if algorithm.env.has_ends and (hparams.horizons_per_env_reset or 1) > 0:
            every = (hparams.horizons_per_env_reset or 1) * hparams.horizon
            view.message(
                f"Episodes end by themselves, but a reset every {every} steps cuts them off. "
                "algo.horizons_per_env_reset=-1 lets them go on."
            )
        for note in (*self._notes, *_rate_ends(algorithm, stop)):
            view.message(note)
        self._notes = []
        return view

    def _title(self) -> str:
        name = task_name(type(self.algorithm.env).__name__, self.config)
        return f"{name}, seed {self.config['seed']}" if "seed" in self.config else name

    def _name(self) -> str:
        env, algorithm = type(self.algorithm.env).__name__, type(self.algorithm).__name__
        return run_name(env, algorithm, self.config, self.overrides)

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


def _go_on(stop: Condition, resumed: Saved | None) -> tuple[dict[str, float], bool, str]:
    """Let a condition go on from a checkpoint, or start anew.

    Returns:
        The last iteration's metrics, empty if there was none; whether the condition is met already; what to say.
    """
    stop.reset()
    if resumed is None:
        return {}, False, ""
    metrics = {str(name): float(value) for name, value in resumed.extra.get("metrics", {}).items()}
    state = resumed.extra.get("stop")
    try:
        if state is not None:
            stop.load_state_dict(state)
    except ValueError:  # resumed with another condition, to train on
        stop.reset()
        note = "The stop condition is another than the checkpoint's, so it counts from here on."
        return metrics, bool(metrics) and bool(copy.deepcopy(stop)(metrics)), note
    return metrics, bool(metrics) and bool(stop(metrics)), ""


def _rate_ends(algorithm: Algorithm, stop: Condition) -> Iterator[str]:
    """Yield what is to be said where training may go on after the learning rate has fallen to 0."""
    zero, ends = algorithm.lr.zero_from, [each.env_steps for each in flat([stop]) if isinstance(each, EnvSteps)]
    if algorithm.lr.moves and zero is not None and min(ends, default=zero + 1) > zero:
        yield (
            f"The learning rate is 0 from {zero:,} env steps on, where nothing more is learned, and training may go on "
            f"after that. algo.{rates(algorithm.hparams)[1]} says so; where it ends at goal.env_steps, raise that."
        )


def _check_last(found: runs.Found) -> None:
    """Refuse to go on from a run's earlier checkpoint: what came after it would be lost.

    Raises:
        ValueError: If it is one.
    """
    earlier = re.fullmatch(r"checkpoint\.\d+\.pt|best\.pt", found.file.name) is not None
    if earlier and (found.folder / runs.CHECKPOINT).is_file():
        raise ValueError(
            f"trainer.resume={found.file} is not its run's last checkpoint, and going on from it would replace what "
            f"came after. Try trainer.resume={found.folder}, or trainer.branch={found.file} for a new run from it."
        )


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
