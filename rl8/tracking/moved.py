"""A project folder that was moved, renamed or copied: its MLflow database goes on recording beside itself.

MLflow writes the absolute folder of artifacts into the database when an experiment is created. Files of later runs
would go to the old place, which may be gone or belong to another project by now.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Final

# Where MLflow keeps absolute paths of artifacts.
_COLUMNS: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

_logger = logging.getLogger(__name__)


def follow(file: Path) -> None:
    """Let a database's artifacts lie beside it, where they came along with it or their old folder is gone.

    Artifacts that lie elsewhere by choice, in a folder that there is, stay where they are.

    Args:
        file: The SQLite file, which holds MLflow's tables.
    """
    # `timeout`: who is at work in the database has followed it, or will
    with contextlib.closing(sqlite3.connect(file, timeout=1)) as connection:
        try:
            with connection:
                for folder in _left_behind(connection, file.parent):
                    for table, column in _COLUMNS:
                        _replace_prefix(connection, table, column, f"{folder}/", f"{file.parent / 'mlruns'}/")
                    _logger.info("Artifacts recorded in %s are now taken from %s.", folder, file.parent / "mlruns")
        except sqlite3.OperationalError as error:
            _logger.debug("%s can't be looked at: %s", file, error)


def _left_behind(connection: sqlite3.Connection, folder: Path) -> set[Path]:
    """Return the folders `mlruns` in which artifacts lay before the database's folder got its name."""
    found = set()
    for (location,) in connection.execute("select artifact_location from experiments"):
        path = Path(location or "")  # an address (`s3://...`) is no absolute path
        old = path.parent
        if not path.is_absolute() or old.name != "mlruns" or old.parent == folder:
            continue
        if (folder / "mlruns" / path.name).is_dir() or not old.parent.is_dir():
            found.add(old)
    return found


def _replace_prefix(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    if any(name == column for _, name, *_ in connection.execute(f"pragma table_info({table})")):
        connection.execute(
            f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
            (new, len(old) + 1, len(old), old),
        )
