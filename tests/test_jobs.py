import os
import sys

import pytest

from rl8 import jobs, launch, runs
from rl8.config.compose import checked, composer
from rl8.config.schema import check

SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.eval_num_envs=4"]
QUIET = ["trainer.view=none", "trainer.render=false", "goal.env_steps=32"]
UNTRACKED = [*SMALL, *QUIET, "trainer.track=false"]


def plan(*words):
    with composer():
        return check(*checked(words))


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""


def test_a_run_leaves_its_files_in_its_folder(workdir):
    outcome = jobs.run(plan(*UNTRACKED), UNTRACKED, "config", workdir / "a b'c")
    assert outcome.stopped_by is None
    assert outcome.objective < 0
    assert {"policy.pt", "checkpoint.pt", "rl8.log", ".hydra"} <= {path.name for path in (workdir / "a b'c").iterdir()}
    assert sys.argv == ["rl8"]
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_what_training_raises_comes_through(workdir, monkeypatch, capfd):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def fail(*args):
        raise RuntimeError("no luck")

    monkeypatch.setattr(launch, "train", fail)
    with pytest.raises(RuntimeError, match="no luck"):
        jobs.run(plan(), [], "config", workdir / "run")
    assert os.environ["HYDRA_FULL_ERROR"] == "0"
    assert capfd.readouterr().err == ""


def test_a_folder_is_claimed_once(workdir):
    claimed = [runs.claim(workdir / "2026" / "12-00-00") for _ in range(3)]
    assert [folder.name for folder in claimed] == ["12-00-00", "12-00-00-2", "12-00-00-3"]
    assert all(folder.is_dir() for folder in claimed)
