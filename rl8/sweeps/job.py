"""One job of a sweep, perhaps in a process of its own: done once, gone on with if it was interrupted."""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rl8 import launch, runs
from rl8.checks import is_mistake, own_traceback
from rl8.config.catalog import prepare
from rl8.config.compose import checked
from rl8.config.overrides import typed
from rl8.config.schema import Plan, check
from rl8.guest import torch_settings, variable
from rl8.jobs import quoted, say
from rl8.parallel import launcher
from rl8.settings import ORIGINS
from rl8.sweeps import folder as kept
from rl8.sweeps.folder import Result
from rl8.tracking.secrets import redacted
from rl8.tracking.store import JOB_VARIABLE

#: Which of the processes that work side by side this one is.
SLOT: Final = "RL8_SWEEP_SLOT"

#: In a job's folder from its beginning: what a run has left there, or where the job keeps its files, is its own.
BEGUN: Final = ".begun"
SEARCH: Final = "hydra_plugins.rl8_plugins.Search"
BASIC: Final = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

_LINES: Final = 6  # of a traceback that are shown
_logger = logging.getLogger(__name__)


class ProcessesFailedError(RuntimeError):
    """The processes of a job failed."""


def run(cfg: DictConfig) -> float:
    """Train as one job of a sweep; return the objective for sweepers that search.

    A job that has a result is not done again, and one with a checkpoint but no result goes on from it.

    Raises:
        Exception: What training raised, if the sweeper is one that has its own way with failures.
        KeyboardInterrupt: If a signal ended the job, so that no other begins.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    with kept.alone(folder, f"job {settings.job.num}"):  # one that a cluster runs outlives the sweep that began it
        return _do(settings, folder)


def _do(settings: Any, folder: Path) -> float:
    """Do a job, unless it has a result; see `run`."""
    words, name = list(settings.overrides.task), f"job {settings.job.num}"
    before = kept.result(folder)
    if before is not None:
        ended = f"failed before ({before.error}), --retry tries it again" if before.error else "finished already"
        print(f"{name}: {ended}: {redacted(' '.join(words))}", flush=True)
        return before.objective
    print(f"\n{name}: {redacted(' '.join(words))}", flush=True)
    begin = time.monotonic()
    with variable(JOB_VARIABLE, str(settings.job.num)):
        result, error = _train(settings, words, folder)
    kept.save_result(folder, result)
    if error is not None:
        say(f"{name} failed: {_reason(error)}")
        if settings.sweeper._target_ not in (BASIC, SEARCH):
            raise error
    elif _is_parallel(settings) and result.stopped_by is None:
        print(f"{name} finished: {result.objective:.4g} after {time.monotonic() - begin:.0f} s", flush=True)
    if result.stopped_by is not None:
        raise KeyboardInterrupt(result.stopped_by)
    return result.objective


def _train(settings: Any, words: Sequence[str], folder: Path) -> tuple[Result, Exception | None]:
    """Build and train what a job was told; return what became of it, and what it raised."""
    result = Result(int(settings.job.num), list(words))
    trainer = plan = pruned = None
    try:
        prepare([source.path for source in settings.runtime.config_sources if source.provider == "user"])
        plan = _placed(check(*checked(words, str(settings.job.config_name)), typed(words)), settings, folder)
        if launcher.is_wanted(plan.device):
            outcome = _in_processes(plan, settings, folder)
            return replace(result, objective=outcome.objective, stopped_by=outcome.stopped_by), None
        with torch_settings():
            trainer = launch.build(plan, folder, words)
            if settings.sweeper._target_ == SEARCH:
                from rl8.sweeps import search

                evaluates = plan.trainer.steps_per_eval is not None
                pruned = search.condition(settings, plan.goal.metric, evaluates=evaluates)
                trainer.stop_conditions = (*trainer.stop_conditions, *([] if pruned is None else [pruned]))
            outcome = launch.run(trainer, plan)
    except Exception as error:
        _logger.error(redacted("".join(traceback.format_exception(error))))
        if trainer is None and plan is not None and not _is_recorded(error, plan, folder):
            try:
                launch.record_failure(plan, words, error)
            except Exception as problem:
                say(f"job {result.number} is not recorded: {launch.summary(problem)}")
        return replace(result, error=_summary(error)), error
    ended_early = pruned is not None and pruned.is_met
    return replace(result, objective=outcome.objective, stopped_by=outcome.stopped_by, pruned=ended_early), None


def _in_processes(plan: Plan, settings: Any, folder: Path) -> launch.Outcome:
    """Train as one job in processes that are started for it.

    Raises:
        ProcessesFailedError: If they failed; what they said is its message.
    """
    sources = [str(source.path) for source in settings.runtime.config_sources if source.provider == "user"]
    words = ["--config-name", str(settings.job.config_name)]
    words += [word for source in sources for word in ("--config-dir", source)]
    words += [*settings.overrides.task, f"hydra.run.dir={quoted(folder)}", f"trainer.view={plan.trainer.view}"]
    for name in ("output_dir", *ORIGINS):
        value = getattr(plan.trainer, name)
        words.append(f"trainer.{name}={'null' if value is None else quoted(Path(value))}")
    file = folder / "outcome.json"
    code = launcher.launch(words, plan.device, outcome=file, typed=list(settings.overrides.task))
    left = launcher.left(file)
    if "objective" not in left:
        raise ProcessesFailedError(left.get("error", f"Its processes ended with exit code {code}."))
    return launch.Outcome(**left)


def _is_recorded(error: Exception, plan: Plan, folder: Path) -> bool:
    return isinstance(error, ProcessesFailedError) and (_own(plan, folder) / runs.RECORD).is_file()


def _own(plan: Plan, folder: Path) -> Path:
    """Return where a job keeps its files."""
    return Path(plan.trainer.output_dir) if plan.trainer.output_dir is not None else folder


def _placed(plan: Plan, settings: Any, folder: Path) -> Plan:
    """Return a job's plan with its own folder, display and GPU, and the checkpoint that it goes on from."""
    trainer, device = plan.trainer, plan.device
    if trainer.output_dir is not None:  # one folder for all jobs: each has a part of it
        trainer = replace(trainer, output_dir=str(Path(trainer.output_dir) / str(settings.sweep.subdir)))
    if _is_parallel(settings):
        if trainer.view == "auto":  # what is shown of several runs at once would be mixed up
            trainer = replace(trainer, view="none")
        if device.device == "cuda" and device.processes == 1:
            device = replace(device, device=_own_gpu(_slot(settings.job.num)))
    plan = replace(plan, trainer=trainer, device=device)
    own = _own(plan, folder)
    if not (folder / BEGUN).exists():
        (folder / BEGUN).touch()
    elif (own / runs.CHECKPOINT).is_file() and (own / runs.CONFIG).is_file():
        trainer = replace(trainer, resume=str(own / runs.CHECKPOINT), branch=None, init_from=None)
    else:  # it ended before its first checkpoint
        for name in (runs.CONFIG, runs.RECORD, runs.POLICY, runs.BEST):
            (own / name).unlink(missing_ok=True)
    return replace(plan, trainer=trainer, device=device)


def _slot(number: int) -> int:
    """Return which of the processes that work side by side this one is; where that is not known, a job's number."""
    name = re.search(r"-(\d+)$", multiprocessing.current_process().name)  # as joblib's are called, from 1
    return int(os.environ.get(SLOT, int(name[1]) - 1 if name else number))


def _own_gpu(slot: int) -> str:
    """Return the GPU of a process that works beside others: they are dealt out in turn.

    Slurm and Ray let each job see its own alone.
    """
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{slot % count}" if count > 1 else "cuda"


def _is_parallel(settings: Any) -> bool:
    return not str(settings.launcher._target_).endswith("BasicLauncher")


def _summary(error: Exception) -> str:
    return str(error) if isinstance(error, ProcessesFailedError) else launch.summary(error)


def _reason(error: Exception) -> str:
    """Return a mistake's message, and of other errors the last lines of the traceback too."""
    if is_mistake(error) or isinstance(error, ProcessesFailedError):  # which have shown theirs
        return _summary(error)
    lines = (own_traceback(error) or "".join(traceback.format_exception(error))).rstrip().splitlines()
    return "\n  ".join([_summary(error), *lines[-_LINES:-1]])
