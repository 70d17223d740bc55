import json
import os
from pathlib import Path

import pytest

from rl8 import runs
from rl8.tracking.run import Tracker

SAVED = b"PK\x05\x06" + bytes(18)  # what torch writes is a zip file; this is an empty one


def make(folder, *names, age=0, run_id=None):
    """Make a run's folder with files that hold nothing, written `age` seconds before the newest."""
    path = Path(folder)
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(SAVED)
        os.utime(path / name, (1e9 - age, 1e9 - age))
    if run_id:
        (path / "run.json").write_text(json.dumps({"run_id": run_id}))
    return path


@pytest.fixture
def three(workdir):
    """Make three runs: an old one that ended, a newer one of a sweep, and the newest, which was killed."""
    make("outputs/2026-01-01/10-00-00", "policy.pt", "checkpoint.pt", age=20, run_id="a" * 32)
    make("outputs/sweeps/2026-01-02/11-00-00/0", "policy.pt", "checkpoint.pt", age=10)
    make("outputs/2026-01-03/12-00-00", "checkpoint.pt")
    return workdir


@pytest.mark.parametrize(
    ("run", "policy", "checkpoint"),
    [
        ("outputs/2026-01-01/10-00-00", "policy.pt", "checkpoint.pt"),
        ("outputs/2026-01-01/10-00-00/", "policy.pt", "checkpoint.pt"),
        ("outputs/2026-01-01/10-00-00/policy.pt", "policy.pt", "checkpoint.pt"),
        ("outputs/2026-01-01/10-00-00/checkpoint.pt", "checkpoint.pt", "checkpoint.pt"),
        ("a" * 32, "policy.pt", "checkpoint.pt"),
    ],
)
def test_a_run_is_found_by_folder_file_and_id(run, policy, checkpoint, three):
    folder = Path("outputs/2026-01-01/10-00-00")
    assert runs.find(run, "policy") == runs.Found(folder / policy, folder)
    assert runs.find(run, "checkpoint") == runs.Found(folder / checkpoint, folder)
    assert runs.find(run, "policy").run_id() == "a" * 32


def test_what_a_run_says_of_itself_stands_for_the_run(workdir):
    for name in ("checkpoint.pt", "config.yaml", "run.json"):
        (workdir / name).touch()
    for name in ("config.yaml", "run.json"):
        assert runs.find(name, "checkpoint").file == Path("checkpoint.pt")
        assert runs.find(name, "policy").file == Path("checkpoint.pt")
    (workdir / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match=r"RUN=config\.yaml: there is no checkpoint\.pt beside it"):
        runs.find("config.yaml", "policy")


def test_latest_is_the_newest_that_has_what_is_wanted(three):
    newest = Path("outputs/2026-01-03/12-00-00")
    assert runs.find("latest", "checkpoint") == runs.Found(newest / "checkpoint.pt", newest)
    assert runs.find("latest", "policy").file == newest / "checkpoint.pt"  # it holds a policy too
    assert runs.find("latest", "policy").run_id() is None
    assert [folder.name for folder in runs.known("policy")] == ["12-00-00", "0", "10-00-00"]


def test_a_file_of_any_name_is_taken_as_it_is(workdir):
    Path("mine.pt").write_bytes(SAVED)
    assert runs.find("mine.pt", "policy").file == runs.find(Path("mine.pt"), "checkpoint").file == Path("mine.pt")


@pytest.mark.parametrize("wanted", ["policy", "checkpoint"])
def test_a_file_that_torch_did_not_write_is_refused(wanted, three):
    for name in ("queues.py", "queues.pt"):
        Path(name).write_text("a = 1\n", encoding="utf-8")
        with pytest.raises(
            ValueError, match=rf"^RUN={name} is no {wanted}\. Accepted: a run's folder, .* newest runs: "
        ):
            runs.find(name, wanted)


@pytest.mark.parametrize(
    ("run", "wanted", "message"),
    [
        (
            "outputs/2026-01-01/10-00-01",
            "policy",
            r"^RUN=outputs/2026-01-01/10-00-01 is no run\. Accepted: a run's folder.*, an MLflow run id, or latest\. "
            r"Did you mean outputs/2026-01-01/10-00-00\? The newest runs: outputs/2026-01-03/12-00-00, outputs/sweeps",
        ),
        (
            "outputs/sweeps",
            "policy",
            r"folder without a policy \(policy.pt or checkpoint.pt\); there: 2026-01-02. Ru",
        ),
        (
            "outputs/2026-01-01/10-00-00/chekpoint.pt",
            "checkpoint",
            r"chekpoint.pt is no run\. .*, or latest\. Did you mean outputs/2026-01-01/10-00-00/checkpoint\.pt\?$",
        ),
        ("outputs/sweeps", "checkpoint", r"Runs below it: outputs/sweeps/2026-01-02/11-00-00/0\. Try outputs/sweeps/"),
    ],
)
def test_near_ones_are_listed_where_nothing_fits(run, wanted, message, three):
    with pytest.raises(ValueError, match=message):
        runs.find(run, wanted)


def test_where_there_are_no_runs_the_message_says_so(workdir):
    with pytest.raises(ValueError, match=r"^trainer.resume=latest: there is no run with a checkpoint under outputs/ h"):
        runs.find("latest", "checkpoint", key="trainer.resume")
    make("empty")
    with pytest.raises(ValueError, match=r"^RUN=empty is a folder without a policy .*; there: nothing. No run with a"):
        runs.find("empty", "policy")
    make("moved", "policy.pt")
    with pytest.raises(ValueError, match=r"^RUN=moved/policy.pt: there is no checkpoint.pt beside it\. No run with a"):
        runs.find("moved/policy.pt", "checkpoint")


def test_the_config_is_the_one_that_the_run_was_composed_to(workdir):
    folder = make("run", "policy.pt")
    found = runs.find(folder, "policy")
    assert found.config() is None
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 1\n")
    assert found.config() == {"seed": 1}
    (folder / "config.yaml").write_text("seed: 2\nstop: {env_steps: '${goal.env_steps}'}\n")
    assert found.config() == {"seed": 2, "stop": {"env_steps": "${goal.env_steps}"}}
    for damaged in (b"seed: [1", b"seed: \xff"):
        (folder / "config.yaml").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run/config.yaml can't be read: .*Accepted: the YAML that the run wrote"):
            found.config()


@pytest.mark.usefixtures("store_dir")
def test_a_run_whose_folder_is_gone_is_found_in_mlflow(workdir):
    make("made", "policy.pt", run_id="0" * 32)
    tracker = Tracker.start(experiment_name="rl8", params={"seed": 3})
    tracker.log_artifact("made/policy.pt")
    tracker.finish()
    found = runs.find(str(tracker.run_id), "policy")
    assert found.file == Path("outputs/downloads") / str(tracker.run_id) / "policy.pt"
    assert found.file.is_file()
    assert found.config() == {"seed": 3}
    assert found.run_id() == tracker.run_id
    with pytest.raises(ValueError, match=r"is a run that MLflow keeps no checkpoint of; kept: config.yaml, policy.pt"):
        runs.find(str(tracker.run_id), "checkpoint")


@pytest.mark.usefixtures("store_dir")
def test_an_id_that_mlflow_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"^RUN=f{32} is no run of the MLflow store mlflow.db: .*not found. Accepted"):
        runs.find("f" * 32, "policy")


@pytest.mark.usefixtures("store_dir")
def test_a_folder_elsewhere_is_found_by_the_tag_that_names_it(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere") / "run"
    tracker = Tracker.start(experiment_name="rl8", tags={"folder": str(folder)})
    tracker.finish()
    make(folder, "policy.pt", run_id=str(tracker.run_id))
    assert runs.find(str(tracker.run_id), "policy").file == folder / "policy.pt"
