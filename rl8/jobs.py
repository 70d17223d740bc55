"""Calling Hydra, which makes a run's folder and hands each job its config; and the trial of all jobs before any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rl8 import launch
from rl8.checks import is_mistake
from rl8.config.catalog import CONF
from rl8.config.compose import explain, undisturbed
from rl8.config.effects import refusal
from rl8.config.schema import Plan
from rl8.guest import arguments, torch_settings, variable
from rl8.launch import Outcome
from rl8.parallel import launched, launcher
from rl8.tracking.secrets import redacted


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
                raise ValueError(f"{error} ({of_sweep(number, len(plans))})") from error
    idle = {key: reason for item in found for key, reason in item.idle.items()}
    always = {
        key: reason for key, reason in idle.items() if all(key in item.idle for item in found if key in item.typed)
    }
    if always:
        raise ValueError(refusal(always))
    for note in dict.fromkeys(note for item in found for note in item.notes):
        say(note)
    for key, reason in idle.items():
        say(f"{key} has no effect in some of the jobs: {reason}.")


def of_sweep(number: int, count: int) -> str:
    """Return which run of a sweep a mistake is in; people count from 1, folders from 0."""
    return f"run {number + 1} of the sweep's {count}; none was begun"


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
            outcomes.append(launch.train(plan, Path(HydraConfig.get().runtime.output_dir), launcher.typed(words)))
        except Exception as error:
            failures.append(error)

    call_hydra(job, [*words, f"hydra.run.dir={quoted(folder)}"], config_name)
    if failures:
        raise failures[0]
    return outcomes[0]


def say(message: str) -> None:
    """Print a message to the user beside what the program prints."""
    if launched.rank() == 0:
        print(f"rl8: {redacted(message)}", file=sys.stderr, flush=True)


def call_hydra(job: Callable[[DictConfig], object], words: Sequence[str], config_name: str) -> None:
    """Let Hydra act on `words` as its own command line would, errors raised rather than printed (`HYDRA_FULL_ERROR`).

    Raises:
        ValueError: If Hydra refuses what it is told.
    """
    with undisturbed(), arguments(words), variable("HYDRA_FULL_ERROR", "1"):
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error)) from error


def quoted(path: Path) -> str:
    """Return a path as an override's value."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
