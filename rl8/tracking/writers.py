"""What records a run beside MLflow: TensorBoard's event files, and Weights & Biases. Both are extras.

A writer never stops training: one that fails is named once, and gets nothing more.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rl8.settings import TrainerSettings
from rl8.tracking.provenance import as_yaml
from rl8.tracking.store import JOB_VARIABLE, first_line

Status = Literal["FINISHED", "FAILED", "KILLED"]

#: Folders of the run's own.
TENSORBOARD: Final = "tensorboard"
WANDB: Final = "wandb"
#: Pictures and films, which are shown; other files are left where they are, or only kept.
PICTURES: Final = (".png", ".gif")
# Seconds until events are in the file, and that Weights & Biases may take to answer.
_FLUSH_S: Final = 10
_ANSWER_S: Final = 20
_NO_PROJECT: Final = re.compile(r"[/\\#?%:]")  # what a project's name may not have


@dataclass(frozen=True)
class Recorded:
    """A run, as writers need to know it.

    Attributes:
        folder: Of its files.
        name: Of the run.
        experiment: That it belongs to.
        config: Its nested configuration.
        env_steps: Env steps at which a run goes on; None for a new one.
    """

    folder: Path
    name: str
    experiment: str
    config: Mapping[str, Any]
    env_steps: int | None = None


class Writer(ABC):
    """Records a run in one place.

    Attributes:
        title: What the place is called.
        where: How to look at the run.
    """

    title: str
    where: str

    @abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record values by name at some env steps."""

    @abstractmethod
    def log_artifact(self, path: Path, folder: str | None) -> None:
        """Record a file, in a folder of the run's."""

    @abstractmethod
    def describe(self, text: str) -> None:
        """Record a description of the run, in Markdown."""

    @abstractmethod
    def flush(self) -> None:
        """Let what was recorded so far outlive this process."""

    @abstractmethod
    def finish(self, status: Status) -> None:
        """End the run."""


def check(settings: TrainerSettings) -> None:
    """Check that what the settings ask for can be written.

    Raises:
        ValueError: If a package is missing, or nobody is logged in.
    """
    for key, value, package in (
        ("tensorboard", "true" if settings.tensorboard else None, "tensorboard"),
        ("wandb", settings.wandb, "wandb"),
    ):
        if value is not None and not _is_installed(package):
            raise ValueError(f"trainer.{key}={value} needs {package}. Type: pip install 'rl8[{package}]'.")
    if settings.wandb == "online" and not _logged_in():
        raise ValueError(
            "trainer.wandb=online: nobody is logged in to Weights & Biases. Type: wandb login. Or try "
            "trainer.wandb=offline, and later wandb sync."
        )


def _is_installed(package: str) -> bool:
    """Return whether a package is there; a folder of its name, as Weights & Biases makes one, is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def _logged_in() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except wandb.errors.Error as error:
        raise ValueError(f"trainer.wandb=online: {first_line(error)}. Try trainer.wandb=offline.") from error


def start(settings: TrainerSettings, run: Recorded, notify: Callable[[str], None]) -> list[Writer]:
    """Return the writers that the settings ask for.

    Args:
        settings: Of the run.
        run: What is recorded.
        notify: Called with a message where one can't begin.
    """
    found: list[Writer] = []
    for title, begin in (
        ("TensorBoard", (lambda: TensorBoard(run)) if settings.tensorboard else None),
        ("Weights & Biases", (lambda: WeightsAndBiases(run, settings.wandb, notify)) if settings.wandb else None),
    ):
        if begin is not None:
            try:
                found.append(begin())
            except Exception as error:
                notify(f"{title} can't begin: {first_line(error)}. Training goes on without it.")
    return found


class TensorBoard(Writer):
    """Event files in the run's folder: scalars, pictures, films, configuration and description.

    Args:
        run: What is recorded.
    """

    title = "TensorBoard"

    def __init__(self, run: Recorded) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._step = run.env_steps or 0
        folder = run.folder / TENSORBOARD
        self.where = f"tensorboard --logdir {folder}"
        self._file = EventFileWriter(str(folder), flush_secs=_FLUSH_S)
        if run.env_steps is not None:  # what a killed process wrote after its last checkpoint is void
            log = SessionLog(status=SessionLog.START)
            self._file.add_event(Event(wall_time=time.time(), step=run.env_steps + 1, session_log=log))
        self._text("config", "\n".join(f"    {line}" for line in as_yaml(run.config).splitlines()))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one event with all values."""
        self._step = step
        self._add([{"tag": name, "simple_value": value} for name, value in metrics.items()])

    def log_artifact(self, path: Path, folder: str | None) -> None:
        """Write a picture or film; other files lie in the run's folder anyway."""
        if path.suffix not in PICTURES:
            return
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as picture:
            width, height = picture.size
        content = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes())
        step = int(path.stem) if path.stem.isdigit() else None  # films are written later than they were made
        self._add([{"tag": folder or path.name, "image": content}], step)

    def describe(self, text: str) -> None:
        """Write a text."""
        self._text("description", text)

    def flush(self) -> None:
        """Write what is queued."""
        self._file.flush()

    def finish(self, status: Status) -> None:
        """Close the file."""
        self._file.close()

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
        from tensorboard.plugins.text.metadata import create_summary_metadata

        content = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
        self._add([{"tag": tag, "tensor": content, "metadata": create_summary_metadata(tag, "")}])

    def _add(self, values: list[dict[str, Any]], step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(**value) for value in values])
        at = self._step if step is None else step
        self._file.add_event(Event(wall_time=time.time(), step=at, summary=summary))


class WeightsAndBiases(Writer):
    """A run of Weights & Biases, whose own files are in the run's folder; the jobs of a sweep are one group.

    Where the server does not answer, the run is written offline.

    Args:
        run: What is recorded.
        mode: `"online"` or `"offline"`.
        notify: Called with a message where the server does not answer.
    """

    title = "Weights & Biases"

    def __init__(self, run: Recorded, mode: str | None, notify: Callable[[str], None]) -> None:
        import wandb
        import yaml

        before = sorted((run.folder / WANDB).glob("*run-*-*")) if run.env_steps is not None else []
        options: dict[str, Any] = {
            "project": _NO_PROJECT.sub("-", run.experiment)[:128],
            "name": run.name,
            "id": before[-1].name.rpartition("-")[2] if before else None,
            "resume": "allow" if before else None,
            "group": str(run.folder.parent) if JOB_VARIABLE in os.environ else None,
            "config": yaml.safe_load(as_yaml(run.config)),  # without secrets
            "dir": str(run.folder),
            "reinit": "create_new",  # a run of the user's own goes on beside it
            # what was typed may hold a password, and the terminal is the view's
            "settings": wandb.Settings(
                silent=True, console="off", save_code=False, x_disable_meta=True, init_timeout=_ANSWER_S
            ),
        }
        try:
            self._run: Any = wandb.init(mode="online" if mode == "online" else "offline", **options)
        except wandb.errors.CommError as error:
            notify(f"Weights & Biases does not answer: {first_line(error).rstrip('.')}. The run is written offline.")
            self._run = wandb.init(mode="offline", **options)
        self.where = f"wandb sync {self._run.settings.sync_dir}" if self._run.offline else str(self._run.url)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Hand values over to the process that writes and sends them."""
        self._run.log(dict(metrics), step=step)

    def log_artifact(self, path: Path, folder: str | None) -> None:
        """Show a picture or film, and keep any other file with the run."""
        import wandb

        if path.suffix == ".png":
            self._run.log({path.name: wandb.Image(str(path))}, commit=False)
        elif path.suffix == ".gif":
            self._run.log({folder or path.name: wandb.Video(str(path), caption=path.stem, format="gif")}, commit=False)
        else:
            target = Path(self._run.dir) / (folder or "")
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)

    def describe(self, text: str) -> None:
        """Set the run's notes."""
        self._run.notes = text

    def flush(self) -> None:
        """Do nothing: another process writes, and outlives this one."""

    def finish(self, status: Status) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)
