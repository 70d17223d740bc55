"""Runs through Hydra: one, or the many of a sweep.

Hydra makes the run's folder and hands each job its config. What goes wrong in a job is kept here rather than raised
there: Hydra would print it in its own way, and drop the other jobs' results.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rl8 import launch
from rl8.checks import is_mistake
from rl8.config.compose import CONF, checked, explain, prepare, undisturbed
from rl8.config.effects import refusal
from rl8.config.schema import Plan, check
from rl8.guest import terminable, torch_settings
from rl8.launch import Outcome
from rl8.tracking.secrets import redacted
from rl8.tracking.sweeps import finish_sweep, start_sweep
from rl8.whole import whole

RESULT = "result.json"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What became of one job of a sweep; kept as a file in its folder, because jobs may run in other processes.

    Attributes:
        number: Of the job, from 0.
        overrides: What the job was told.
        objective: Value of `goal.metric` at the end; NaN if there is none.
        error: What went wrong; empty if nothing did.
        stopped_by: The signal that ended it early, or None.
    """

    number: int
    overrides: list[str]
    objective: float = math.nan
    error: str = ""
    stopped_by: str | None = None


def rehearse(plans: Sequence[Plan], folder: Path, key: str) -> None:
    """Build what every plan names, and throw it away: what can be refused is refused before anything exists.

    Errors of other code than rl8's stop a single run here too. A sweep goes on without the job that meets them.

    Args:
        plans: What will be trained; those that differ in the seed alone are built once.
        folder: For the files of all of them.
        key: What `folder` is called in messages.

    Raises:
        Exception: What building raised.
    """
    launch.check_folder(key, folder)
    seen: set[str] = set()
    found: list[launch.Rehearsal] = []
    for number, plan in enumerate(plans):
        known = repr({name: value for name, value in plan.config.items() if name != "seed"})
        if known in seen:
            continue
        seen.add(known)
        try:
            with torch_settings():
                found.append(launch.rehearse(plan, folder))
        except Exception as error:
            if len(plans) == 1:
                raise
            if is_mistake(error):
                raise ValueError(f"{error} (job {number} of the sweep's {len(plans)}; none was begun)") from error
    idle = {key: reason for item in found for key, reason in item.idle.items()}
    always = {
        key: reason for key, reason in idle.items() if all(key in item.idle for item in found if key in item.typed)
    }
    if always:
        raise ValueError(refusal(always))
    for note in dict.fromkeys(note for item in found for note in item.notes):
        _say(note)
    for key, reason in idle.items():
        _say(f"{key} has no effect in some of the jobs: {reason}.")


def run(plan: Plan, words: Sequence[str], config_name: str, folder: Path) -> Outcome:
    """Train once.

    Args:
        plan: What `words` were found to mean.
        words: Overrides from the command line.
        config_name: The root file.
        folder: For the run's files.

    Raises:
        Exception: What training raised.
    """
    outcomes: list[Outcome] = []
    failures: list[Exception] = []

    def job(cfg: DictConfig) -> None:
        try:
            outcomes.append(launch.train(plan, Path(HydraConfig.get().runtime.output_dir), words))
        except Exception as error:
            failures.append(error)

    call_hydra(job, [*words, f"hydra.run.dir={quoted(folder)}"], config_name)
    if failures:
        raise failures[0]
    return outcomes[0]


def sweep(
    plans: Sequence[Plan], words: Sequence[str], config_name: str, folder: Path, count: int | None = None
) -> list[Result]:
    """Train once per combination of the swept values, under one parent run in MLflow.

    Args:
        plans: What the jobs were found to mean.
        words: Flags and overrides from the command line.
        count: Number of jobs; None if the sweeper decides as it goes.
        config_name: The root file.
        folder: For the runs' folders, `sweep.csv` and `sweep.png`.

    Returns:
        What became of each job, in order of their numbers.

    Raises:
        ValueError: If the MLflow store can't be used.
    """
    tracked = any(plan.trainer.track for plan in plans)
    for stale in folder.rglob(RESULT):
        stale.unlink()  # of an earlier sweep in a folder that the user chose
    parent = None
    if tracked:
        typed = [word for word in words if not word.startswith("-")]
        parent = start_sweep(plans[0].trainer.experiment_name, typed, device=plans[0].device.device, notify=_say)
    try:
        with terminable():
            call_hydra(sweep_job, [*words, f"hydra.sweep.dir={quoted(folder)}"], config_name)
    finally:
        if tracked:
            summary = finish_sweep(parent, plans[0].goal.metric, jobs=count, folder=folder, notify=_say)
            if summary.runs:
                print(f"\n{summary.table()}\n\nrecorded in  {summary.where}", flush=True)
    return results(folder)


def results(folder: Path) -> list[Result]:
    """Return the results that the jobs left in a sweep's folder, in order of their numbers."""
    found = [Result(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.rglob(RESULT)]
    return sorted(found, key=lambda result: result.number)


def sweep_job(cfg: DictConfig) -> float:
    """Train as one job of a sweep, perhaps in another process; return the objective for sweepers that search.

    Raises:
        Exception: What training raised, if the sweeper is one that has its own way with failures.
        KeyboardInterrupt: If a signal ended the job, so that no other begins.
    """
    settings = HydraConfig.get()
    words = list(settings.overrides.task)
    folder = Path(settings.runtime.output_dir)
    result = Result(int(settings.job.num), words)
    print(f"\njob {result.number}: {redacted(' '.join(words))}", flush=True)
    trainer = plan = None
    try:
        prepare([source.path for source in settings.runtime.config_sources if source.provider == "user"])
        plan = check(*checked(words, str(settings.job.config_name)))
        if plan.trainer.output_dir is not None:  # one folder for all jobs: each has a part of it
            own = str(Path(plan.trainer.output_dir) / str(settings.sweep.subdir))
            plan = replace(plan, trainer=replace(plan.trainer, output_dir=own))
        if not str(settings.launcher._target_).endswith("BasicLauncher") and plan.trainer.view == "auto":
            # live views of parallel jobs would overwrite one another
            plan = replace(plan, trainer=replace(plan.trainer, view="plain"))
        with torch_settings():
            trainer = launch.build(plan, folder, words)
            outcome = launch.run(trainer, plan)
    except Exception as error:
        result = replace(result, error=launch.summary(error))
        _save(result, folder)
        _say(f"job {result.number} failed: {result.error}")
        _logger.error(redacted("".join(traceback.format_exception(error))))
        if trainer is None and plan is not None:
            try:
                launch.record_failure(plan, words, error)
            except Exception as problem:
                _say(f"job {result.number} is not recorded: {launch.summary(problem)}")
        if not str(settings.sweeper._target_).endswith("BasicSweeper"):
            raise
        return math.nan
    _save(replace(result, objective=outcome.objective, stopped_by=outcome.stopped_by), folder)
    if outcome.stopped_by is not None:
        raise KeyboardInterrupt(outcome.stopped_by)
    return outcome.objective


def _say(message: str) -> None:
    print(f"rl8: {redacted(message)}", file=sys.stderr, flush=True)


def call_hydra(job: Callable[[DictConfig], object], words: Sequence[str], config_name: str) -> None:
    """Let Hydra act on `words` as its own command line would, errors raised rather than printed (`HYDRA_FULL_ERROR`).

    Raises:
        ValueError: If Hydra refuses what it is told.
    """
    with undisturbed(), _replaced_argv(words), _variable("HYDRA_FULL_ERROR", "1"):
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error)) from error


def quoted(path: Path) -> str:
    """Return a path as an override's value."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _save(result: Result, folder: Path) -> None:
    """Keep a result. Where that fails the job counts as failed, and the others go on."""
    try:
        with whole(folder / RESULT) as file:
            file.write_text(json.dumps(asdict(result)), encoding="utf-8")
    except OSError as error:
        _say(str(error))


@contextmanager
def _replaced_argv(words: Sequence[str]) -> Iterator[None]:
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable in the block, or unset it for None, and put it back."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
