import contextlib
import shutil
import sqlite3

import pytest

from rl8.tracking.moved import follow
from rl8.tracking.store import experiment_id, open_store


def places(folder):
    """Return the folders of all experiments and runs that a database knows."""
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        found = connection.execute("select artifact_location from experiments union select artifact_uri from runs")
        return {place for (place,) in found}


@pytest.fixture
def project(tmp_path, empty_store, monkeypatch):
    """Return a project's folder with a database that holds an experiment and a run with a file."""
    folder = tmp_path / "a"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    store = open_store()
    run = store.client.create_run(experiment_id(store, "rl8"))
    store.client.log_text(run.info.run_id, "hello", "note.txt")
    return folder


@pytest.mark.parametrize("copied", [False, True])
def test_artifacts_follow_their_database(project, tmp_path, monkeypatch, copied):
    before = places(project)
    new = tmp_path / "b"
    (shutil.copytree if copied else shutil.move)(project, new)
    monkeypatch.chdir(new)
    store = open_store()
    inside = {place for place in before if place.startswith(f"{project}/")}
    assert len(inside) == 2
    assert {place for place in places(new) if place.startswith(f"{new}/")} >= {
        place.replace(str(project), str(new), 1) for place in inside
    }
    assert not any(place.startswith(f"{project}/") for place in places(new))
    later = store.client.create_run(experiment_id(store, "rl8")).info.run_id
    store.client.log_text(later, "again", "later.txt")
    assert len(list(new.rglob("later.txt"))) == len(list(new.rglob("note.txt"))) == 1
    assert not list(project.rglob("later.txt"))
    assert project.exists() is copied
    if copied:
        assert places(project) == before


def test_artifacts_that_lie_elsewhere_stay(project, tmp_path):
    before = places(project)
    (tmp_path / "shared").mkdir()
    shutil.move(project / "mlflow.db", tmp_path / "shared" / "mlflow.db")
    follow(tmp_path / "shared" / "mlflow.db")
    assert {place for place in places(tmp_path / "shared") if place.startswith(f"{project}/")} == {
        place for place in before if place.startswith(f"{project}/")
    }


def test_a_busy_database_is_left_alone(project, tmp_path, monkeypatch):
    new = tmp_path / "b"
    shutil.move(project, new)
    before = places(new)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, timeout: real(file, timeout=0))
    with contextlib.closing(real(new / "mlflow.db")) as other:
        other.execute("begin exclusive")
        follow(new / "mlflow.db")
        other.rollback()
    monkeypatch.undo()
    assert places(new) == before
