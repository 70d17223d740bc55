"""A run's folder: nobody else's, with checkpoints at their times, and whole files only.

Of several processes the first writes; the others only take part in making a checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rl8 import runs
from rl8.atomic import atomic
from rl8.checkpoint import save_checkpoint, save_policy, write
from rl8.parallel import world
from rl8.ppo.algorithm import Algorithm
from rl8.settings import TrainerSettings
from rl8.tracking.provenance import origin


class RunFiles:
    """Writes a run's files.

    Args:
        settings: When checkpoints are written, and where.
        algorithm: What is saved.
        own: A folder that holds this very run already; None for a new run.
        clock: Returns the time in seconds.

    Attributes:
        best: Highest value so far of the metric that says which checkpoint is the best; None before the first.

    Raises:
        ValueError: If the folder that was asked for holds a run already, or is none.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        algorithm: Algorithm,
        own: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._algorithm, self._clock = settings, algorithm, clock
        asked = None if settings.output_dir is None else origin() / settings.output_dir
        self._own = own is not None and (asked is None or asked.resolve() == own.resolve())
        self._folder = own if self._own else None
        self._asked, self._fresh = asked, False
        self._saved = clock()
        self._iterations: int | None = None  # of the last checkpoint
        self.best: float | None = None
        if asked is not None and not self._own and world.first():  # who may have begun to use it
            _check_free(asked)

    @property
    def folder(self) -> Path:
        """The run's folder; one that was not asked for is made when this is first looked at."""
        if self._folder is None and not world.first():
            return self._asked or origin()
        if self._folder is None:
            self._folder = self._asked or runs.claim(origin() / time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))
        return self._folder

    def open(self, config: str) -> None:
        """Make the folder this run's own, and keep its config there.

        Raises:
            ValueError: If another run was faster, or the folder can't be written.
        """
        if not world.first():
            return
        if self._own:
            self._replace(runs.CONFIG, config)  # what acts from now on
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / runs.CONFIG).open("x", encoding="utf-8") as file:
                file.write(config)
        except FileExistsError as error:
            _check_free(self.folder)
            raise ValueError(_no_folder(self.folder, "it is a file")) from error
        except OSError as error:
            with suppress(OSError):  # half of it may be there
                (self.folder / runs.CONFIG).unlink(missing_ok=True)
            raise ValueError(_no_folder(self.folder, error.strerror or str(error))) from error
        self._own = self._fresh = True

    def abandon(self) -> None:
        """Take back what `open` did for a run that does not begin after all."""
        if self._fresh:
            (self.folder / runs.CONFIG).unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's files are in it
                self.folder.rmdir()
            self._own = self._fresh = False

    def record(self, content: Mapping[str, Any]) -> None:
        """Keep where the run is recorded."""
        self._replace(runs.RECORD, json.dumps(dict(content), indent=1))

    def _replace(self, name: str, text: str) -> None:
        with atomic(self.folder / name) as file:
            file.write_text(text, encoding="utf-8")

    def due(self) -> bool:
        """Return whether a checkpoint is to be written after this iteration."""
        steps, minutes = self._settings.steps_per_checkpoint, self._settings.minutes_per_checkpoint
        by_steps = steps is not None and self._algorithm.iterations % steps == 0
        return by_steps or (minutes is not None and self._clock() - self._saved >= 60 * minutes)

    def save(self, extra: Mapping[str, Any]) -> Path:
        """Write a checkpoint, unless this iteration has one; those before it move on.

        Raises:
            OSError: If it can't be written.
        """
        self._saved = self._clock()  # also if it fails: the next attempt is the next checkpoint's
        path = self.folder / runs.CHECKPOINT
        (wanted,) = world.most(
            [world.first() and (self._iterations != self._algorithm.iterations or not path.exists())]
        )
        if wanted:
            save_checkpoint(path, self._algorithm, extra, keep=self._settings.keep_checkpoints)
            self._iterations = self._algorithm.iterations
        return path

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Return whether these metrics have the highest value so far, and note it."""
        value = metrics.get(self._settings.best_metric or "")
        if value is None or not math.isfinite(value) or (self.best is not None and value <= self.best):
            return False
        self.best = value
        return True

    def save_best(self, extra: Mapping[str, Any]) -> Path:
        """Write the best checkpoint so far.

        Raises:
            OSError: If it can't be written.
        """
        return save_checkpoint(self.folder / runs.BEST, self._algorithm, extra)

    def save_policy(self) -> Path:
        """Write the policy.

        Raises:
            OSError: If it can't be written.
        """
        if not world.first():
            return self.folder / runs.POLICY
        return save_policy(self.folder / runs.POLICY, self._algorithm)

    def save_evidence(self, evidence: dict[str, Any]) -> Path:
        """Write what shows why training failed, in plain containers.

        Raises:
            OSError: If it can't be written.
        """
        return write(self.folder / "nonfinite.pt", {**evidence, "last_checkpoint": str(self.folder / runs.CHECKPOINT)})


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds a run.

    Raises:
        ValueError: If it does.
    """
    held = [name for name in (runs.CONFIG, runs.CHECKPOINT, runs.POLICY) if (folder / name).exists()]
    if held:
        raise ValueError(
            f"trainer.output_dir={folder} holds a run already ({', '.join(held)}). Accepted: a folder without one. Try "
            f"trainer.output_dir={folder}-2, or trainer.resume={folder} to go on with it."
        )


def _no_folder(folder: Path, reason: str) -> str:
    return (
        f"trainer.output_dir={folder} can't be written: {reason}. Accepted: a folder that can be made or written to. "
        f"Try trainer.output_dir={Path.home() / 'rl8'}."
    )
