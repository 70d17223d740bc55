"""Which run a person means by RUN: its folder, a file of it, its MLflow id, or `latest`.

Loads no torch, and MLflow only to look up an id that no folder here has.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rl8.atomic import atomic
from rl8.checks import check_path, closest
from rl8.tracking.provenance import origin

Wanted = Literal["policy", "checkpoint"]

POLICY: Final = "policy.pt"
CHECKPOINT: Final = "checkpoint.pt"
#: The checkpoint with the highest evaluation so far.
BEST: Final = "best.pt"
#: The composed config, its interpolations as they were written.
CONFIG: Final = "config.yaml"
#: Where the run is recorded.
RECORD: Final = "run.json"
OUTPUTS: Final = Path("outputs")
LATEST: Final = "latest"

_SHOWN: Final = 5  # runs that a message lists
_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Found:
    """Where a run's files are.

    Attributes:
        file: What was wanted. A checkpoint holds a policy too, and stands for it where a run has not ended.
        folder: The run's folder.
    """

    file: Path
    folder: Path

    def config(self) -> dict[str, Any] | None:
        """Return the run's composed config, interpolations left as they are; None if nobody kept it.

        Raises:
            ValueError: If its file is damaged.
        """
        from omegaconf import OmegaConf
        from yaml import YAMLError

        for file in (self.folder / CONFIG, self.folder / ".hydra" / "config.yaml"):
            if file.is_file():
                try:
                    content = OmegaConf.to_container(OmegaConf.load(file))
                except (OSError, ValueError, YAMLError) as error:
                    raise ValueError(
                        f"{file} can't be read: {str(error).splitlines()[0]}. Accepted: the YAML that the run wrote "
                        "there. Mend it, or take a copy of it from the run's files in MLflow."
                    ) from error
                return {str(key): value for key, value in content.items()} if isinstance(content, dict) else None
        return None

    def modules(self) -> list[str]:
        """Return the modules that the run's config names for model and distribution, which loading may then import."""
        parts = [(self.config() or {}).get(key) for key in ("model", "distribution")]
        targets = [str(part.get("_target_") or "") for part in parts if isinstance(part, dict)]
        return [target.rpartition(".")[0] for target in targets if "." in target]

    def run_id(self) -> str | None:
        """Return the id of the run in MLflow; None where it is not recorded."""
        return record(self.folder).get("run_id")


def find(run: str | Path, wanted: Wanted, *, key: str = "RUN") -> Found:
    """Return the file that is wanted of a run.

    Args:
        run: The run's folder, one of its files, its MLflow id, or `latest`: the newest one under `outputs/`.
        wanted: `"policy"` or `"checkpoint"`.
        key: What the person typed it for, e.g. `trainer.resume`.

    Raises:
        ValueError: If there is no such run, or it has no such file; near ones are listed.
    """
    path = origin() / check_path(key, run)
    if str(run) == LATEST and not path.exists():
        newest = known(wanted)
        if not newest:
            raise ValueError(
                f"{key}=latest: there is no run with a {wanted} under {OUTPUTS}/ here. Accepted: {_ACCEPTED}. Train "
                "one first, e.g. rl8 env=cartpole."
            )
        path = newest[0]
    elif not path.exists() and _ID.fullmatch(str(run)):
        path = _by_id(str(run), wanted, key)
    if path.is_file():
        # a run's other file stands for the run
        stands = path.name in (CONFIG, RECORD) or (wanted == "checkpoint" and path.name == POLICY)
        file = (_file(path.parent, wanted) or path.with_name(CHECKPOINT)) if stands else path
        if file.is_file() and not _is_saved(file):
            raise ValueError(f"{key}={run} is no {wanted}. Accepted: {_ACCEPTED}. {_near(str(run), wanted)}")
        if file.is_file():
            return Found(file, path.parent)
        raise ValueError(f"{key}={run}: there is no {CHECKPOINT} beside it. {_near(str(run), wanted)}")
    file_of = _file(path, wanted)
    if file_of is not None:
        return Found(file_of, path)
    if path.is_dir():
        there = sorted(entry.name for entry in path.iterdir())
        raise ValueError(
            f"{key}={run} is a folder without a {wanted} ({' or '.join(_names(wanted))}); there: "
            f"{', '.join(there[:12]) or 'nothing'}. {_near(str(run), wanted, path)}"
        )
    raise ValueError(f"{key}={run} is no run. Accepted: {_ACCEPTED}. {_near(str(run), wanted)}")


def known(wanted: Wanted, below: Path = OUTPUTS) -> list[Path]:
    """Return the folders below a folder that hold a policy or checkpoint, the newest first."""
    below = origin() / below
    folders = {file.parent for name in _names(wanted) for file in below.rglob(name)}
    return sorted(folders, key=lambda folder: (_age(folder, wanted), str(folder)), reverse=True)


def own_folder(run: str | None) -> Path | None:
    """Return the folder that a run goes on in; None if it is to be gone on with by a bare checkpoint, or not at all.

    Raises:
        ValueError: If there is no such run.
    """
    if run is None:
        return None
    folder = find(run, "checkpoint", key="trainer.resume").folder
    return folder if (folder / CONFIG).is_file() else None


def record(folder: Path) -> dict[str, Any]:
    """Return what a run's folder says about where the run is recorded; empty if it says nothing."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def store_beside(folder: Path) -> str | None:
    """Return the address of the database file that a run is recorded in, found from the run's folder.

    A command may be started in another folder than training was. None where somebody says which store is to be taken,
    or the run's own is no file, or gone.
    """
    from rl8.tracking.store import store_is_said

    name = record(folder).get("store")
    if store_is_said() or not isinstance(name, str) or "://" in name:
        return None
    files = (parent / name for parent in folder.absolute().parents)
    return next((f"sqlite:///{file}" for file in files if file.is_file()), None)


_ACCEPTED: Final = f"a run's folder, its {POLICY} or {CHECKPOINT}, an MLflow run id, or {LATEST}"


def _names(wanted: Wanted) -> tuple[str, ...]:
    return (POLICY, CHECKPOINT) if wanted == "policy" else (CHECKPOINT,)


def _file(folder: Path, wanted: Wanted) -> Path | None:
    return next((folder / name for name in _names(wanted) if (folder / name).is_file()), None)


def _is_saved(file: Path) -> bool:
    """Return whether torch may have written a file; a run's own that is damaged is told of where it is loaded."""
    return zipfile.is_zipfile(file) or (file.suffix == ".pt" and (file.parent / CONFIG).is_file())


def _age(folder: Path, wanted: Wanted) -> float:
    """Return when a run's file was last written, in seconds since 1970."""
    file = _file(folder, wanted)
    try:
        return file.stat().st_mtime if file is not None else 0.0
    except OSError:  # it was just replaced or removed
        return 0.0


def _near(run: str, wanted: Wanted, below: Path = OUTPUTS) -> str:
    """Return a sentence that lists runs which may have been meant."""
    beside = _file((origin() / run).parent, wanted)
    if beside is not None:
        return f"Did you mean {Path(run).parent / beside.name}?"
    folders = [str(folder) for folder in known(wanted, below)]
    if not folders:
        return f"No run with a {wanted} is below {below}{'/' if below == OUTPUTS else ''}."
    if below != OUTPUTS:
        return f"Runs below it: {', '.join(folders[:_SHOWN])}. Try {folders[0]}."
    near = closest(run, folders)
    hint = f"Did you mean {near}? " if near else ""
    return f"{hint}The newest runs: {', '.join(folders[:_SHOWN])}."


def _by_id(run_id: str, wanted: Wanted, key: str) -> Path:
    """Return the folder of a run by its MLflow id: the run's own, else a copy of what MLflow keeps of it."""
    for folder in known(wanted):
        if record(folder).get("run_id") == run_id:
            return folder
    from rl8.tracking.store import StoreUnreachableError, first_line, open_store, public_uri, store_uri

    shown = public_uri(store_uri())
    try:
        client = open_store().client
        tags = client.get_run(run_id).data.tags
        folder = Path(tags.get("folder", ""))
        if "folder" in tags and record(folder).get("run_id") == run_id and _file(folder, wanted) is not None:
            return folder
        copy = origin() / OUTPUTS / "downloads" / run_id
        kept = {str(file.path) for file in client.list_artifacts(run_id)}
        names = [name for name in _names(wanted) if name in kept][:1]
        if not names:
            raise ValueError(
                f"{key}={run_id} is a run that MLflow keeps no {wanted} of; kept: "
                f"{', '.join(sorted(kept)) or 'nothing'}. {_near(run_id, wanted)}"
            )
        copy.mkdir(parents=True, exist_ok=True)
        for name in (*names, *({CONFIG} & kept)):
            client.download_artifacts(run_id, name, str(copy))
        with atomic(copy / RECORD) as file:
            file.write_text(json.dumps({"run_id": run_id}), encoding="utf-8")
    except StoreUnreachableError as error:
        raise ValueError(f"{key}={run_id}: {error} {_near(run_id, wanted)}") from error
    except ValueError:
        raise
    except Exception as error:  # MLflow raises many kinds
        raise ValueError(
            f"{key}={run_id} is no run of the MLflow store {shown}: {first_line(error).rstrip('.')}. Accepted: "
            f"{_ACCEPTED}. {_near(run_id, wanted)}"
        ) from error
    return copy


def claim(folder: Path) -> Path:
    """Create a folder that nobody else has, and return it: `folder`, or one beside it with a number.

    Raises:
        ValueError: If it can't be created.
    """
    number = 1
    while True:
        wanted = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            wanted.mkdir(parents=True)
        except FileExistsError:
            if wanted.parent.is_dir():
                number += 1
                continue
            raise ValueError(_unwritable(wanted, f"{wanted.parent} is no folder")) from None
        except OSError as error:
            raise ValueError(_unwritable(wanted, error.strerror or str(error))) from error
        return wanted


def _unwritable(folder: Path, reason: str) -> str:
    return (
        f"The folder {folder} for the run's files can't be made: {reason}. Accepted: a place that can be written to. "
        f"Start in another folder, or try trainer.output_dir={Path.home() / 'rl8'}."
    )
