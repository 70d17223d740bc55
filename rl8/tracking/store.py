"""Opening an MLflow store: which one, whether it answers, its creation without races, and what its errors mean.

MLflow is imported inside the functions: it takes seconds, and `rl8 --help` must not pay for it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import logging
import os
import socket
import sqlite3
import ssl
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rl8 import checks
from rl8.checks import closest
from rl8.guest import log_levels, variables
from rl8.tracking.moved import follow
from rl8.tracking.pages import VIEW_TAG, experiment_tags
from rl8.tracking.provenance import clean_name, origin
from rl8.tracking.secrets import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Environment variables that tell a sweep's jobs the parent run and its store; the jobs may run in other folders.
SWEEP_VARIABLE: Final = "RL8_SWEEP_RUN"
STORE_VARIABLE: Final = "RL8_SWEEP_STORE"
FIXED_VARIABLE: Final = "RL8_SWEEP_FIXED"  # keys that were typed with one value, a line each
# And which of the sweep's jobs a process is doing: a job that is tried again has another run.
JOB_VARIABLE: Final = "RL8_SWEEP_JOB"
ANSWER_TIMEOUT_S: Final = 3.0

# A failed request is repeated by the tracker's own thread; MLflow's own defaults repeat it for four minutes before
# they say anything, and wait two minutes for a server that hangs. What a user has set wins.
_CLIENT_DEFAULTS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_DATABASE_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_WEB: Final = ("http", "https")
_KINDS: Final = ("sqlite", *_WEB, *_DATABASE_PORTS)
# Answers that will be the same however often one asks.
_FINAL_ERRORS: Final = frozenset(
    {
        "BAD_REQUEST",
        "CUSTOMER_UNAUTHORIZED",
        "ENDPOINT_NOT_FOUND",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "PERMISSION_DENIED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)


class StoreUnreachableError(ConnectionError):
    """The store does not answer now, and may later: a server that is down, a name that does not resolve."""


@dataclass(frozen=True)
class Store:
    """An open MLflow store.

    Attributes:
        uri: Its address, as MLflow writes it.
        client: MLflow's client for it.
    """

    uri: str
    client: MlflowClient

    @property
    def is_server(self) -> bool:
        """Whether the store is an MLflow server rather than a database."""
        return _scheme(self.uri) in _WEB


def client_defaults() -> AbstractContextManager[None]:
    """Let MLflow's environment variables suit training in the block, where the user has set none."""
    return variables(_CLIENT_DEFAULTS)


def store_uri() -> str:
    """Return the address of the store: MLflow's own choice, or in a sweep's job the sweep's store.

    MLflow's choice is `mlflow.set_tracking_uri`, then `MLFLOW_TRACKING_URI`, then `mlflow.db` in the working
    directory.
    """
    with client_defaults():
        import mlflow

    # mlflow.set_tracking_uri sets the variable too
    if STORE_VARIABLE in os.environ and not os.environ.get("MLFLOW_TRACKING_URI"):
        return os.environ[STORE_VARIABLE]
    return _anchored(str(mlflow.get_tracking_uri()))


def store_is_said() -> bool:
    """Return whether the user, or the sweep that this process is a job of, says which store is to be taken."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get(STORE_VARIABLE))


def _anchored(uri: str) -> str:
    """Return an address whose file, if it is relative, lies where rl8 was started, whatever folder a job works in."""
    name = uri.removeprefix("sqlite:///")
    if name == uri or name.startswith((":memory:", "file:")) or origin() == Path():
        return uri
    if not os.environ.get("MLFLOW_TRACKING_URI") and Path(name) == Path.cwd() / "mlflow.db":
        name = "mlflow.db"  # MLflow's own choice, made absolute
    return f"sqlite:///{origin() / name}"


def load_client() -> None:
    """Import what opening the store takes, which MLflow would import in the middle of it."""
    if _scheme(store_uri()).split("+")[0] in ("sqlite", *_DATABASE_PORTS):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def open_store(uri: str | None = None) -> Store:
    """Open a store; create it if it is a database that does not exist yet.

    Processes that open one fresh database at the same time wait for the first to create its tables: MLflow itself
    would let them collide.

    Args:
        uri: Its address; None takes `store_uri()`.

    Raises:
        StoreUnreachableError: If it does not answer within a few seconds.
        ValueError: If it can't be used, with what to do about it.
    """
    uri = uri or store_uri()
    _check_sqlite(uri)
    check_answers(uri)
    with client_defaults():
        from mlflow import MlflowClient

    try:
        with client_defaults(), _quiet(), _creation_lock(uri):
            store = Store(uri, MlflowClient(tracking_uri=uri, registry_uri=uri))
            if (file := sqlite_file(uri)) is not None:
                follow(file)
            return store
    except Exception as error:
        raise ValueError(store_problem(uri, error)) from error


def close_run(run_id: str, error: str) -> None:
    """Mark a run as failed whose own process is gone.

    Raises:
        Exception: If the store does not take it.
    """
    client = open_store().client
    client.set_tag(run_id, "error", error)
    client.set_terminated(run_id, "FAILED")


def check_answers(uri: str, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    """Ask a server or database host whether it is there; files and unknown kinds of store are taken to be.

    Args:
        uri: Address of the store.
        timeout_s: Seconds to wait for a connection, and again for an answer.

    Raises:
        StoreUnreachableError: If nothing answers.
        ValueError: If the address names no host.
    """
    parts = urllib.parse.urlsplit(uri)
    _check_address(parts, uri)
    try:
        if parts.scheme in _WEB:
            with urllib.request.urlopen(_health(parts), timeout=timeout_s):
                pass
        elif parts.scheme.split("+")[0] in _DATABASE_PORTS and parts.hostname:
            port = parts.port or _DATABASE_PORTS[parts.scheme.split("+")[0]]
            with socket.create_connection((parts.hostname, port), timeout=timeout_s):
                pass
    except urllib.error.HTTPError as answer:
        answer.close()  # a proxy, a login page or an error: something is there
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # MLflow has its own certificate settings
        raise StoreUnreachableError(
            f"The MLflow store at {public_uri(uri)} does not answer ({redacted(str(reason))})."
        ) from error


def _check_address(parts: urllib.parse.SplitResult, uri: str) -> None:
    """Refuse a server's address without a host, or with a port that is none.

    Raises:
        ValueError: If it is so.
    """
    if parts.scheme in _WEB and not parts.hostname:
        raise ValueError(
            f"MLFLOW_TRACKING_URI={redacted(uri)!r} names no host. Accepted: the address of a server. "
            f"Try MLFLOW_TRACKING_URI={parts.scheme}://127.0.0.1:5000."
        )
    try:
        parts.port  # noqa: B018 (looking is what checks it)
    except ValueError:
        raise ValueError(
            f"MLFLOW_TRACKING_URI={redacted(uri)!r} has no port that is a number from 0 to 65535. Accepted: "
            f"{parts.scheme}://user:password@host:port. Write %2F for a / in a password, and %40 for an @."
        ) from None


def _health(parts: urllib.parse.SplitResult) -> urllib.request.Request:
    """Return the question whether a server is there; what the address says of user and password becomes a header."""
    login, _, host = parts.netloc.rpartition("@")
    address = parts._replace(netloc=host, path=f"{parts.path.rstrip('/')}/health", query="", fragment="").geturl()
    request = urllib.request.Request(address)
    if login:
        pair = ":".join(urllib.parse.unquote(part) for part in login.partition(":")[::2])
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request


def is_final(error: Exception) -> bool:
    """Return whether the store would answer the same request in the same way again, so that repeating is idle."""
    code = getattr(error, "error_code", None)  # MlflowException
    if code is not None:
        return code in _FINAL_ERRORS
    status = getattr(getattr(error, "response", None), "status_code", None)  # an upload's HTTPError
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 425, 429)
    return isinstance(error, (FileNotFoundError, PermissionError, TypeError, ValueError))


def experiment_id(store: Store, name: str) -> str:
    """Return the id of the experiment called `name`, which is created if there is none.

    Raises:
        ValueError: If it was deleted, or its artifacts can't be written from here.
        Exception: What MLflow raises when the store fails.
    """
    from mlflow.exceptions import MlflowException

    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        try:
            # MLflow's own choice is a folder of the working directory, which may be a job's
            place = None if origin() == Path() else str((origin() / "mlruns" / clean_name(name)).absolute())
            place = None if store.is_server else place
            return str(store.client.create_experiment(name, artifact_location=place, tags=experiment_tags()))
        except MlflowException as error:
            # another process was first
            experiment = store.client.get_experiment_by_name(name)
            if experiment is None:
                raise error
    number = str(experiment.experiment_id)
    if experiment.lifecycle_stage != "active":
        raise ValueError(
            f"experiment_name={name!r} is an experiment that was deleted from {public_uri(store.uri)}. Accepted: an "
            f"active experiment or a new name. Bring it back with `mlflow experiments restore --experiment-id "
            f"{number}`, or type trainer.experiment_name={name}-2."
        )
    if experiment.tags.get(VIEW_TAG) != (view := experiment_tags()[VIEW_TAG]):
        with contextlib.suppress(MlflowException):  # who may not write tags may still have runs
            store.client.set_experiment_tag(number, VIEW_TAG, view)
    if str(experiment.artifact_location).startswith("mlflow-artifacts:") and not store.is_server:
        raise ValueError(
            f"experiment_name={name!r} was created through an MLflow server, which alone can store its files "
            f"({experiment.artifact_location}), but the store is {public_uri(store.uri)}. Start the server and set "
            f"MLFLOW_TRACKING_URI=http://127.0.0.1:5000, or type trainer.experiment_name={name}-2."
        )
    return number


def public_uri(uri: str) -> str:
    """Return the address without a password, and a database in the working directory by its file name."""
    file = sqlite_file(uri)
    if file is not None:
        return file.name if file.parent == Path.cwd() else str(file)
    return redacted(uri)


def typed_uri(uri: str) -> str:
    """Return the address as a command takes it: by the variable that holds it if there is a password in it."""
    return uri if redacted(uri) == uri else '"$MLFLOW_TRACKING_URI"'


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store, absolute, or None for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    name = urllib.parse.unquote(uri.removeprefix("sqlite:///").split("?")[0])
    return Path(name).absolute() if name not in ("", ":memory:") else None


def _scheme(uri: str) -> str:
    return urllib.parse.urlsplit(uri).scheme


def _check_sqlite(uri: str) -> None:
    """Refuse a file that can't be a database: MLflow would try ten times, over more than a minute."""
    file = sqlite_file(uri)
    if file is None:
        return
    advice = f"Set MLFLOW_TRACKING_URI=sqlite:///{Path.home() / 'mlflow.db'}, or start in another folder."
    where = next(folder for folder in (file, *file.parents) if folder.exists())
    if where != file and not (where.is_dir() and os.access(where, os.W_OK)):
        raise ValueError(
            f"The MLflow store {file} can't be created: {where} is no folder that can be written to. {advice}"
        )
    if where != file:
        return
    try:
        # `mode=ro` neither creates nor locks; reading the header says whether it is a database at all
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=0)) as connection:
            connection.execute("pragma schema_version").fetchone()
    except sqlite3.OperationalError:
        return  # busy: another process is at work in it
    except sqlite3.DatabaseError as error:
        raise ValueError(f"The MLflow store {file} is no SQLite database ({error}). {advice}") from error


@contextlib.contextmanager
def _creation_lock(uri: str) -> Iterator[None]:
    """Hold a lock of this machine while a database may be created; none for servers, which see to it themselves."""
    if _scheme(uri) in _WEB:
        yield
        return
    from filelock import FileLock

    # One per user, in the temporary folder: no lock file is left beside the database, nor one per database anywhere.
    owner = os.getuid() if hasattr(os, "getuid") else "all"
    lock = FileLock(Path(tempfile.gettempdir()) / f"rl8-mlflow-{owner}.lock")
    file = sqlite_file(uri)
    with lock:
        # The creator holds the lock until the tables are there: a file seen from inside is complete, and opening it
        # takes a second that parallel jobs should not spend waiting for one another.
        if file is None or not file.exists() or file.stat().st_size == 0:
            yield
            return
    yield


def store_problem(uri: str, error: Exception) -> str:
    """Return what a store's refusal to open means, and what to type.

    Args:
        uri: Address of the store.
        error: What MLflow or the database driver raised.
    """
    text = redacted(str(error))
    shown = public_uri(uri)
    if "unsupported URI" in text and _scheme(uri) in _KINDS:
        return f"The MLflow store {shown} needs packages that are missing. Type: pip install sqlalchemy alembic."
    if "unsupported URI" in text:
        near = closest(_scheme(uri), _KINDS) or "sqlite"
        example = "sqlite:///mlflow.db" if near == "sqlite" else f"{near}://{shown.partition('://')[2]}"
        return (
            f"MLFLOW_TRACKING_URI={shown!r} is no kind of store that MLflow knows. Accepted: an address that starts "
            f"with one of {', '.join(f'{kind}://' for kind in _KINDS)}. Try MLFLOW_TRACKING_URI={example}."
        )
    if isinstance(error, ImportError):
        return f"The MLflow store {shown} needs a database driver: {text}. Install it with pip."
    if "out-of-date database schema" in text:
        return (
            f"The MLflow store {shown} was made by another version of MLflow than the one installed. Accepted: a "
            f"database of the same version. Type `mlflow db upgrade {typed_uri(uri)}` (after a copy of it), or start "
            f"in another folder."
        )
    if "maintenance mode" in text:
        return (
            f"The MLflow store {shown} holds runs in the file format that MLflow no longer writes. Accepted: a "
            f"database or a server. Set MLFLOW_TRACKING_URI=sqlite:///mlflow.db, or move the old runs with "
            f"`mlflow migrate-filestore`."
        )
    return f"The MLflow store {shown} can't be opened: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without passwords, or its kind if it has none."""
    return redacted(checks.first_line(error))


def _quiet() -> AbstractContextManager[None]:
    """Keep MLflow's and Alembic's remarks about creating tables off the terminal; their warnings stay."""
    names = () if os.environ.get("MLFLOW_LOGGING_LEVEL") else ("mlflow", "alembic")
    return log_levels(names, logging.WARNING)
