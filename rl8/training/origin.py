"""What a run begins from: nothing, another run's policy, or a checkpoint."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rl8 import runs
from rl8.checkpoint import Saved, lost_processes, read_checkpoint, restore, start_from
from rl8.conditions import Condition
from rl8.parallel import world
from rl8.ppo.algorithm import Algorithm
from rl8.settings import TrainerSettings
from rl8.training.resets import configure_anew


@dataclass(frozen=True)
class Origin:
    """What a run begins from.

    Attributes:
        file: The policy or checkpoint; None for a run from nothing.
        saved: What the checkpoint holds, if it is one.
        folder: The run's own folder, where the same run goes on.
    """

    file: Path | None = None
    saved: Saved | None = None
    folder: Path | None = None

    @property
    def extra(self) -> dict[str, Any]:
        """What the checkpoint says besides the algorithm's state."""
        return {} if self.saved is None else dict(self.saved.extra)


def begin(settings: TrainerSettings, algorithm: Algorithm, seed: int | None, note: Callable[[str], None]) -> Origin:
    """Put what the settings say a run begins from into its algorithm.

    Args:
        settings: Of the run.
        algorithm: Takes over the policy, or all of the checkpoint's state.
        seed: Of a branch's own random numbers; None goes on with the checkpoint's.
        note: Called with what is to be said.

    Raises:
        ValueError: If there is no such run, or it does not fit.
    """
    if settings.init_from is not None:
        found = runs.find(settings.init_from, "policy", key="trainer.init_from")
        start_from(found.file, algorithm)
        return Origin(found.file)
    how = "branch" if settings.branch is not None else "resume"
    run = getattr(settings, how)
    if run is None:
        return Origin()
    key = f"trainer.{how}"
    found = runs.find(run, "checkpoint", key=key)
    if how == "resume":
        _check_last(found)
    saved = read_checkpoint(found.file, key=key)
    restore(saved, algorithm, key=key)
    if how == "branch" and seed is not None:
        torch.manual_seed(seed)
        world.part_random_numbers()
    for reason in saved.skipped:
        note(f"{reason} Going on from {saved.file.name}.")
    if lost := lost_processes(saved):
        note(lost)
    for text in configure_anew(settings.env_config, algorithm, saved):
        note(text)
    if algorithm.env.opaque:
        name = type(algorithm.env).__name__
        note(f"Not an exact resume: the state of {name} can't be saved, so its episodes begin anew.")
    return Origin(found.file, saved, runs.own_folder(settings.resume))


def go_on(stop: Condition, saved: Saved | None, note: Callable[[str], None]) -> tuple[dict[str, float], bool]:
    """Let a condition go on from a checkpoint, or start anew.

    Args:
        stop: The condition.
        saved: What the checkpoint holds; None starts anew.
        note: Called with what is to be said.

    Returns:
        The last iteration's metrics, empty if there was none, and whether the condition is met already.
    """
    stop.reset()
    if saved is None:
        return {}, False
    metrics = {str(name): float(value) for name, value in saved.extra.get("metrics", {}).items()}
    state, asked = saved.extra.get("stop"), stop
    try:
        if state is not None:
            stop.load_state_dict(state)
    except ValueError:  # resumed with another condition, to train on
        stop.reset()
        note("The stop condition is another than the checkpoint's, so it counts from here on.")
        asked = copy.deepcopy(stop)
    return metrics, bool(metrics) and bool(asked(metrics))


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
