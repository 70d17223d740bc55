"""The MLflow store that a run is recorded in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rl8.runs import store_beside

if TYPE_CHECKING:
    from rl8.tracking.store import Store


def store_of(run_id: str, folder: Path) -> Store:
    """Return the MLflow store that a run is recorded in.

    Args:
        run_id: The run.
        folder: Its folder.

    Raises:
        ValueError: If the store that is set now does not have it.
    """
    from rl8.tracking.store import first_line, open_store, public_uri, sqlite_file, store_uri

    uri = store_beside(folder) or store_uri()
    file = sqlite_file(uri)
    reason = "there is no such file" if file is not None and not file.exists() else ""
    if not reason:
        store = open_store(uri)
        try:
            store.client.get_run(run_id)
        except Exception as error:  # MLflow's own, of many kinds
            reason = first_line(error)
        else:
            return store
    raise ValueError(
        f"The MLflow store {public_uri(uri)} does not have the run {run_id}: {reason.rstrip('.')}. Accepted: the store "
        "that it was recorded in. Set MLFLOW_TRACKING_URI to it, or start in the folder that training started in."
    )
