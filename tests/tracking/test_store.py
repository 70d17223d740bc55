import base64
import contextlib
import importlib.util
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException

from rl8.tracking import store
from rl8.tracking.run import Tracker
from rl8.tracking.store import (
    StoreUnreachableError,
    check_answers,
    experiment_id,
    is_final,
    open_store,
    public_uri,
    store_uri,
)


@contextlib.contextmanager
def listening(answer=None, heard=None):
    """Yield the port of a server that answers with a status, or takes connections and says nothing.

    What it is asked is added to `heard`: path and authorization.
    """
    if answer is None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if heard is not None:
                heard.append((self.path, self.headers.get("Authorization")))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_nothing_configured_is_a_database_in_the_working_directory(workdir):
    assert store_uri() == f"sqlite:///{workdir / 'mlflow.db'}"
    assert not list(workdir.iterdir())


def test_the_users_choice_comes_first_then_the_sweeps(workdir, monkeypatch):
    monkeypatch.setenv("RL8_SWEEP_STORE", "sqlite:////elsewhere/mlflow.db")
    assert store_uri() == "sqlite:////elsewhere/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert store_uri() == "http://127.0.0.1:1"


def test_client_defaults_leave_the_users_settings_alone(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with store.client_defaults():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_the_client_is_loaded_with_what_the_store_takes(workdir):
    code = (
        "import os, sys; from rl8.tracking.store import load_client; name = 'mlflow.store.tracking.sqlalchemy_store';"
        "os.environ['MLFLOW_TRACKING_URI'] = 'http://127.0.0.1:1'; load_client(); assert name not in sys.modules;"
        "del os.environ['MLFLOW_TRACKING_URI']; load_client(); assert name in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(workdir.iterdir())  # nothing has been created


def test_open_store(store_dir):
    opened = open_store()
    assert not opened.is_server
    number = experiment_id(opened, "rl8")
    assert experiment_id(opened, "rl8") == number
    assert opened.client.get_experiment(number).tags["mlflow.experimentKind"] == "custom_model_development"
    assert opened.client.get_experiment(number).artifact_location == str(store_dir / "mlruns" / number)


def test_a_server_that_is_absent():
    uri = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(StoreUnreachableError, match=rf"store at {uri} does not answer .*refused"):
        open_store(uri)


def test_a_server_that_hangs():
    with listening() as port, pytest.raises(StoreUnreachableError, match="timed out"):
        check_answers(f"http://127.0.0.1:{port}", timeout_s=0.05)


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_a_server_that_says_anything_is_there(status):
    with listening(status) as port:
        check_answers(f"http://127.0.0.1:{port}/prefix/")


def test_user_and_password_are_sent_as_mlflow_sends_them():
    heard = []
    with listening(200, heard) as port:
        check_answers(f"http://me:s%40cret@127.0.0.1:{port}/prefix")
        check_answers(f"http://127.0.0.1:{port}")
    expected = "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert heard == [("/prefix/health", expected), ("/health", None)]


def test_a_password_is_in_no_message(monkeypatch):
    for uri in ("postgresql://me:s3cret@host/db", "https://s3cret@host:5000", "postgresql+x://me:s3cret@host/db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        tracker = Tracker(experiment_name="x")
        assert "s3cret" not in f"{tracker.where} {tracker.place} {tracker.url}"
        tracker._outbox.close()
        for reason in ("out-of-date database schema", "unsupported URI", f"no {uri}", "maintenance mode"):
            assert "s3cret" not in store.store_problem(uri, RuntimeError(reason))
        assert "s3cret" not in store.store_problem(uri, ImportError(f"no driver for {uri}"))
    for uri in (
        "http://me:s3cret@",
        "http://me:s3cret@:5000",
        "http://me:s3/cret@host",
        "postgresql://me:s3/cret@host/x",
    ):
        with pytest.raises(ValueError, match=r"names no host|%2F for a / in a password") as refused:
            check_answers(uri)
        assert "s3" not in str(refused.value)
    assert store.typed_uri("postgresql://me:s3cret@host/db") == '"$MLFLOW_TRACKING_URI"'
    assert store.typed_uri("postgresql://host/db") == "postgresql://host/db"


def test_a_certificate_is_mlflows_business(monkeypatch):
    def untrusted(*args, **kwargs):
        raise urllib.request.URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr(urllib.request, "urlopen", untrusted)
    check_answers("https://127.0.0.1:1")


def test_a_database_host_is_asked_too():
    with listening() as port:
        check_answers(f"postgresql+psycopg2://user:word@127.0.0.1:{port}/runs")
    with pytest.raises(StoreUnreachableError, match=r"user:\*\*\*@127.0.0.1"):
        check_answers(f"postgresql+psycopg2://user:word@127.0.0.1:{port}/runs")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htp://server:5000", r"MLFLOW_TRACKING_URI='htp://server:5000' is no kind .* Try .*=http://server:5000\."),
        ("zzzz://ever", r"Accepted: an address that starts with .* Try MLFLOW_TRACKING_URI=sqlite:///mlflow.db"),
        ("http://", r"MLFLOW_TRACKING_URI='http://' names no host"),
        ("sqlite:///text.txt", r"text.txt is no SQLite database"),
        (
            "sqlite:///text.txt/mlflow.db",
            r"can't be created: .*text.txt is no folder that can be written",
        ),
        ("sqlite:///other.db", r"other.db was made by another version of MLflow .* Type `mlflow db upgrade"),
        ("./mlruns", r"holds runs in the file format that MLflow no longer writes"),
        ("postgresql+nodriver://localhost/runs", r"can't be opened|needs a database driver"),
    ],
)
def test_stores_that_cannot_be_used(store_dir, monkeypatch, uri, message):
    (store_dir / "text.txt").write_text("no database" * 100)
    shutil.copyfile("mlflow.db", "other.db")
    with contextlib.closing(sqlite3.connect("other.db")) as connection:
        connection.execute("update alembic_version set version_num = '451aebb31d03'")
        connection.commit()
    monkeypatch.setattr(store.socket, "create_connection", lambda *args, **kwargs: contextlib.nullcontext())
    with pytest.raises(ValueError, match=message):
        open_store(uri)


def test_a_database_without_its_packages(monkeypatch):
    error = MlflowException("got unsupported URI 'sqlite:///mlflow.db'")
    assert "pip install sqlalchemy alembic" in store.store_problem("sqlite:///mlflow.db", error)
    problem = store.store_problem("mysql://localhost/runs", ImportError("No module named 'MySQLdb'"))
    assert problem.endswith("needs a database driver: No module named 'MySQLdb'. Install it with pip.")


def test_a_busy_database_is_waited_for(store_dir):
    with contextlib.closing(sqlite3.connect("mlflow.db")) as connection:
        connection.execute("begin exclusive")
        store._check_sqlite(f"sqlite:///{store_dir / 'mlflow.db'}")


def test_experiments_that_cannot_be_used(store_dir):
    opened = open_store()
    number = opened.client.create_experiment("gone")
    opened.client.delete_experiment(number)
    with pytest.raises(ValueError, match=rf"'gone' is an experiment that was deleted.*--experiment-id {number}"):
        experiment_id(opened, "gone")
    opened.client.create_experiment("served", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(ValueError, match=r"'served' was created through an MLflow server.*experiment_name=served-2"):
        experiment_id(opened, "served")


def test_two_processes_may_make_one_experiment(store_dir, monkeypatch):
    opened = open_store()
    number = experiment_id(opened, "rl8")
    found = [None, opened.client.get_experiment(number)]
    monkeypatch.setattr(opened.client, "get_experiment_by_name", lambda name: found.pop(0))
    assert experiment_id(opened, "rl8") == number
    monkeypatch.setattr(opened.client, "get_experiment_by_name", lambda name: None)
    with pytest.raises(MlflowException, match="already exists"):
        experiment_id(opened, "rl8")


def test_errors_that_pass_and_errors_that_stay():
    response = requests.Response()
    upload = requests.HTTPError(response=response)
    assert not is_final(MlflowException("the server is overloaded"))
    assert is_final(MlflowException("no such run", error_code=mlflow.protos.databricks_pb2.RESOURCE_DOES_NOT_EXIST))
    for status, final in ((403, True), (404, True), (408, False), (429, False), (500, False), (503, False)):
        response.status_code = status
        assert is_final(upload) is final
    assert is_final(FileNotFoundError("gone"))
    assert not is_final(StoreUnreachableError("down"))
    assert not is_final(OSError(28, "No space left on device"))


def test_addresses_for_people(workdir):
    assert public_uri(f"sqlite:///{workdir / 'mlflow.db'}") == "mlflow.db"
    assert public_uri("sqlite:////some/where/runs.db") == "/some/where/runs.db"
    assert public_uri("https://me:secret@host:5000/x") == "https://me:***@host:5000/x"
    assert public_uri("mysql://me:secret@host/runs") == "mysql://me:***@host/runs"
    assert public_uri("http://host:5000") == "http://host:5000"
    assert public_uri("sqlite:///:memory:") == "sqlite:///:memory:"


def test_first_line_of_an_error():
    assert store.first_line(ValueError("\n\none\ntwo")) == "one"
    assert store.first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_importing_rl8s_side_of_it_imports_no_mlflow():
    code = "import sys, rl8.tracking.run, rl8.tracking.sweeps, rl8.view.progress, rl8.view.plots, rl8.view.movies; "
    code += "print(sorted({'mlflow', 'torch', 'matplotlib', 'rich', 'PIL', 'numpy'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(store.__file__).parents[1])}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.strip() == "[]"
    assert importlib.util.find_spec("mlflow") is not None
