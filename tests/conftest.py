"""What every test finds: one thread, a fixed seed, no MLflow settings of the user's."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "cuda: needs a CUDA device")
    # MLflow 3.17 with SQLAlchemy 2.1
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy:DeprecationWarning")
    # a shell's background job ignores Ctrl-C, and so would the processes that tests start
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # before any OpenMP library is loaded, in this process and in those that tests start
    os.environ["OMP_NUM_THREADS"] = "1"
    # before anything imports Triton, as tensordict does: kernels are interpreted where there is no GPU to run them
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device here"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """Seed torch, and hide the user's MLflow settings."""
    import torch

    torch.manual_seed(0)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Make an empty folder the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Return an empty MLflow database to copy: MLflow takes seconds to create one."""
    from rl8.tracking.store import open_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(f"sqlite:///{path}")
    return path


@pytest.fixture
def store_dir(empty_store, workdir):
    """Make a folder with an empty MLflow database the working directory, so that a run is recorded there."""
    shutil.copyfile(empty_store, workdir / "mlflow.db")
    return workdir


@pytest.fixture
def device(monkeypatch):
    """Pretend that there are two CUDA devices, and compute on the first."""
    import accelerator

    from rl8.execution.graphs import NOT_THE_CULPRIT

    monkeypatch.setattr("rl8.execution.graphs.NOT_THE_CULPRIT", [*NOT_THE_CULPRIT, accelerator.__file__])
    with accelerator.Accelerator() as device:
        device.install(monkeypatch)
        yield device


@pytest.fixture
def program(workdir, monkeypatch):
    """Let this process be the program `rl8` in an empty folder; forget afterwards what it imported and logged there."""
    monkeypatch.setattr(sys, "argv", ["rl8"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield workdir
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("hydra").setLevel(logging.NOTSET)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(workdir)):
            del sys.modules[name]
