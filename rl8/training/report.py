"""A run as its user sees it: its records, its display, and what is drawn at its end."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rl8 import runs
from rl8.checkpoint import Saved
from rl8.conditions import Condition
from rl8.files import RunFiles
from rl8.kinds import as_text
from rl8.parallel import world
from rl8.parallel.failure import PeerError
from rl8.ppo.algorithm import Algorithm
from rl8.settings import TrainerSettings
from rl8.tracking import writers
from rl8.tracking.names import run_name, run_title
from rl8.tracking.records import Records
from rl8.tracking.run import NOTE, SAVED_AT, Status, Tracker
from rl8.tracking.store import close_run
from rl8.tracking.thinning import Recorder
from rl8.tracking.writers import Recorded
from rl8.training import opening
from rl8.training.curve import Curve
from rl8.training.evaluation import Evaluation
from rl8.training.messages import Messages, to_log
from rl8.view.progress import NoView, Unheard, View, make_view


def describe(algorithm: Algorithm, settings: TrainerSettings, seed: int | None) -> dict[str, Any]:
    """Return the configuration that options given in Python amount to."""
    return {
        **({} if seed is None else {"seed": seed}),
        "env": {"_target_": as_text(type(algorithm.env))},
        "model": {"_target_": as_text(type(algorithm.policy.model)), **(algorithm.policy.model_config or {})},
        "distribution": {"_target_": as_text(algorithm.policy.distribution_cls)},
        "algo": asdict(algorithm.hparams),
        "device": asdict(algorithm.execution.settings),
        "trainer": asdict(settings),
    }


class Report:
    """Records and shows runs, one after another. Of several processes the first does; the others do nothing.

    Args:
        algorithm: What is trained.
        settings: Of the run.
        files: Its folder.
        evaluation: Says what returns are sums over, and films.
        curve: Is drawn at the end.
        messages: Are shown.
        config: Is recorded.
        overrides: What was typed, to be recorded.
        origin: The file that the run begins from, if any.

    Attributes:
        records: Of the run at hand.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        settings: TrainerSettings,
        files: RunFiles,
        evaluation: Evaluation,
        curve: Curve,
        messages: Messages,
        *,
        config: Mapping[str, Any],
        overrides: Sequence[str],
        origin: Path | None,
    ) -> None:
        self._algorithm, self._settings, self._files = algorithm, settings, files
        self._evaluation, self._curve, self._messages = evaluation, curve, messages
        self._config, self._overrides, self._origin = config, overrides, origin
        self.records = Records()
        self._view: View = NoView("")
        self._log = Recorder(self.records.log_metrics, settings.seconds_per_log)
        self._run_id: str | None = None

    @property
    def _title(self) -> str:
        return run_title(type(self._algorithm.env).__name__, self._config)

    def record(self, stop: Condition, saved: Saved | None) -> None:
        """Begin the records.

        Args:
            stop: When the run ends.
            saved: The checkpoint that it goes on from; None if there is none.

        Raises:
            ValueError: If they can't be used.
        """
        self.records = self._start(stop, saved) if world.first() else Records()
        self._run_id = world.from_first(lambda: self.records.run_id)
        world.at_end(functools.partial(self.records.finish, "FAILED") if world.first() else None)
        self._log = Recorder(self.records.log_metrics, self._settings.seconds_per_log)

    def _start(self, stop: Condition, saved: Saved | None) -> Records:
        algorithm, settings = self._algorithm, self._settings
        saved = saved if settings.resume is not None else None  # a branch is a run of its own
        name = run_name(type(algorithm.env).__name__, type(algorithm).__name__, self._config, self._overrides)
        run = Recorded(
            folder=self._files.folder,
            name=settings.run_name or name,
            experiment=settings.experiment_name,
            config=self._config,
            env_steps=None if saved is None else algorithm.env_steps,
        )
        tracker = self._start_tracker(run, stop, saved) if settings.track else None
        self._keep_place(tracker)
        return Records(tracker, writers.start(settings, run, self._messages.note))

    def _start_tracker(self, run: Recorded, stop: Condition, saved: Saved | None) -> Tracker:
        settings, tags = self._settings, {"stop": stop.describe(), "folder": str(run.folder.absolute())}
        if self._origin is not None and settings.resume is None:
            tags["branched.from" if settings.branch is not None else "initialized.from"] = str(self._origin)
        tracker = Tracker.start(
            experiment_name=run.experiment,
            run_name=run.name,
            params=run.config,
            tags=tags,
            overrides=self._overrides,
            device=str(self._algorithm.device),
            run_id=saved.extra.get("run_id") if saved is not None else None,
            env_steps=run.env_steps if saved is not None and not saved.skipped else None,
            folder=run.folder,
            uri=None if saved is None else runs.store_beside(run.folder),
        )
        if saved is not None:
            tracker.send_again(saved.extra.get("unsent", []))
        return tracker

    def _keep_place(self, tracker: Tracker | None) -> None:
        """Note in the run's folder where the run is recorded."""
        if tracker is not None:
            with self._messages.optional("Noting the MLflow run in the run's folder", "All else goes on."):
                self._files.record(tracker.record)

    def show(self, stop: Condition) -> None:
        """Show what is about to run, and from now on how it goes."""
        algorithm, messages, tracker = self._algorithm, self._messages, self.records.tracker
        view = make_view(self._settings.view, title=self._title) if world.first() else Unheard(self._title)
        self._view, messages.say = view, view.message
        view.readings.scale = self._evaluation.return_scale
        self.records.tell(view.message)
        info = opening.facts(algorithm, stop, self._evaluation, self._origin)
        view.start(info | ({} if tracker is None else {"recorded in": tracker.place}))
        for note in (*opening.cut_episodes(algorithm), *messages.notes, *opening.rate_ends(algorithm, stop)):
            view.message(note)
        messages.notes.clear()

    def log(self, metrics: Mapping[str, float], *, always: bool) -> None:
        """Record metrics of the present moment; of many in a short time only some, and those of `always`."""
        self._log.add(metrics, self._algorithm.env_steps, always=always)

    def update(self, metrics: Mapping[str, float], progress: float | None) -> None:
        """Show metrics, and how far along the run is, in [0, 1]."""
        self._view.update(metrics, progress)

    def flush(self) -> None:
        """Record what was left out last."""
        self._log.flush()

    def finish(
        self,
        metrics: Mapping[str, float],
        files: Sequence[Path],
        *,
        reason: str,
        status: Status,
        error: Exception | None,
        eval_env_config: dict[str, Any] | None,
    ) -> None:
        """Draw curve and film, and close the run.

        Args:
            metrics: The last ones.
            files: What was saved.
            reason: Why it ended.
            status: What became of it.
            error: What went wrong.
            eval_env_config: Settings for the reset of the environment that is filmed; by default the settings'.
        """
        if not world.first():
            return
        folder, records, messages, found = self._files.folder, self.records, self._messages, list(files)
        if (folder / runs.BEST).exists():
            found.append(folder / runs.BEST)
        with messages.optional("The learning curve"):
            curve = self._curve.draw(folder, self._title, self._evaluation)
            found += [curve] if curve else []
        self._evaluation.finish_films()
        with messages.optional("The film"):
            found += self._evaluation.film(folder, eval_env_config)
        env_steps = self._algorithm.env_steps
        summary = {"ended": reason, "env steps": f"{env_steps:,}", **self._evaluation.summary(metrics)}
        note = {"task": self._title, **summary}
        records.set_tag(NOTE, "\n".join(f"- **{name}**: {text}" for name, text in note.items()))
        for file in found:
            with messages.optional(f"Storing {file.name} with the run"):
                records.log_artifact(file)
        records.set_tag("stop_reason", reason)
        if messages.warnings:
            records.set_tag("warnings", "\n".join(messages.warnings))
        records.set_tag(SAVED_AT, str(env_steps))
        records.finish(status, None if error is None else "".join(traceback.format_exception(error)))
        self._keep_place(records.tracker)
        summary["files"] = f"{folder} ({', '.join(file.name for file in found)})"
        self._view.finish(summary | records.where)

    def fail(self, error: BaseException) -> None:
        """Close the run with an error."""
        self._view.close()
        self._log.flush()
        if isinstance(error, PeerError) and error.lost_first and self._run_id is not None:
            with suppress(Exception):
                close_run(self._run_id, str(error))
        killed = not isinstance(error, Exception)  # a second Ctrl-C, sys.exit
        self.records.finish("KILLED" if killed else "FAILED", "".join(traceback.format_exception(error)))

    def close(self) -> None:
        """Show nothing more."""
        self._view, self._messages.say = NoView(""), to_log
