"""What a run writes as it goes: checkpoints at their times, and what is left where it fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rl8.callbacks import Callbacks
from rl8.checkpoint import save_checkpoint
from rl8.files import RunFiles
from rl8.parallel import world
from rl8.ppo.algorithm import Algorithm
from rl8.rollout.nonfinite import evidence
from rl8.settings import TrainerSettings
from rl8.tracking.records import Records
from rl8.tracking.run import SAVED_AT
from rl8.tracking.secrets import redacted
from rl8.training.curve import Curve
from rl8.training.messages import Messages


class Checkpoints:
    """Writes a run's checkpoints.

    Args:
        algorithm: What is saved.
        settings: Of the run.
        files: Its folder.
        callbacks: Are saved too, and told of checkpoints.
        curve: Is saved too.
        messages: Gets what is to be said.
        extra: What the checkpoint that the run begins from says besides the algorithm's state.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        settings: TrainerSettings,
        files: RunFiles,
        callbacks: Callbacks,
        curve: Curve,
        messages: Messages,
        extra: Mapping[str, Any],
    ) -> None:
        self._algorithm, self._settings, self._files = algorithm, settings, files
        self._callbacks, self._curve, self._messages = callbacks, curve, messages
        self._extra = dict(extra)

    def note(self, stop: Mapping[str, Any], metrics: Mapping[str, float], run_id: str | None) -> None:
        """Note what a checkpoint of this moment says besides the algorithm's state.

        Args:
            stop: State of the stop condition before it saw `metrics`: a run that goes on asks it again.
            metrics: Of the last iteration.
            run_id: Of the MLflow run.
        """
        self._extra = {
            "stop": dict(stop),
            "metrics": dict(metrics),
            "run_id": run_id,
            "best": self._files.best,
            "env_config": redacted(repr(self._settings.env_config)),
            "callbacks": self._callbacks.state_dict(),
        }

    def copy(self, path: str | Path) -> Path:
        """Write a checkpoint of the last noted moment to a file elsewhere."""
        return save_checkpoint(path, self._algorithm, self._extra)

    def save_if_due(self, metrics: Mapping[str, float], records: Records) -> None:
        """Write what is due: the best checkpoint, the latest one. A full disk does not end the run: room may come."""
        files = self._files
        best, due = files.is_best(metrics), files.due()
        best, due = (bool(wanted) for wanted in world.most([world.first() and best, world.first() and due]))
        if not (best or due):
            return
        self._extra |= {"best": files.best}
        extra = self._whole(records)
        with self._messages.optional("A checkpoint", "Training goes on; the next one is tried at its time."):
            if best:
                files.save_best(extra)
            if due:
                files.save(extra)
                records.set_tag(SAVED_AT, str(self._algorithm.env_steps))
        with self.saved_if_it_fails():
            self._callbacks.call("on_checkpoint", dict(metrics))

    def save(self, records: Records) -> list[Path]:
        """Write checkpoint and policy at the end of a run.

        Raises:
            OSError: If one of them can't be written.
        """
        return self._save(self._whole(records))

    def _save(self, extra: Mapping[str, Any]) -> list[Path]:
        """Write checkpoint and policy; where there is no room for the one there may be for the other."""
        try:
            checkpoint = self._files.save(extra)
        except OSError:
            with suppress(OSError):
                self._files.save_policy()
            raise
        return [checkpoint, self._files.save_policy()]

    def _whole(self, records: Records) -> dict[str, Any]:
        """Return what `note` noted, with the curve so far and what MLflow has not got yet."""
        return {**self._extra, "curve": self._curve.points(), "unsent": records.unsent()}

    @contextmanager
    def saved_if_it_fails(self) -> Iterator[None]:
        """Save what was trained if the block raises."""
        try:
            yield
        except BaseException as error:
            with suppress(Exception):
                if world.known_to_all(error):
                    self._save(self._extra)
                else:  # a checkpoint takes all processes, and the others are elsewhere
                    self._files.save_policy()
            raise

    @contextmanager
    def evidence_if_it_fails(self) -> Iterator[None]:
        """Leave evidence if an iteration in the block fails, and the policy as it is now if its weights are sound."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, FloatingPointError):
                with suppress(Exception):
                    if world.first():
                        self._files.save_evidence({"reason": str(error), **evidence(self._algorithm.rollout)})
            if all(bool(weight.isfinite().all()) for weight in self._algorithm.parameters):  # host sync: it is over
                with suppress(Exception):
                    self._files.save_policy()
            raise
