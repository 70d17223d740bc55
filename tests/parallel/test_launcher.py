import os
import signal
import sqlite3
import sys

import pytest
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from rl8.checkpoint import read_checkpoint
from rl8.cli import main
from rl8.parallel import launcher
from rl8.settings import DeviceSettings

FAILING = """
import os
import signal

from rl8.env import DiscreteDummyEnv

STEPS = [0]


class Failing(DiscreteDummyEnv):
    def step(self, action):
        STEPS[0] += 1
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if os.environ["RANK"] == "1" and STEPS[0] == (60 if first else 40):
            if first:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the motor is on fire")
        return super().step(action)
"""
SMALL = [
    "env=discrete_dummy",
    "env._target_=failing.Failing",
    "algo.num_envs=4",
    "algo.horizon=4",
    "algo.sgd_minibatch_size=null",
    "network.hiddens=[8]",
    "trainer.eval_num_envs=4",
    "trainer.render=false",
    "trainer.steps_per_eval=null",
    "trainer.steps_per_checkpoint=1",
    "goal.env_steps=640",  # twenty iterations
]


WORKER = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}


def test_processes_start_again_and_go_on_with_their_run_until_one_raises_once_more(store_dir, monkeypatch, capfd):
    (store_dir / "failing.py").write_text(FAILING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(store_dir)]))
    monkeypatch.syspath_prepend(store_dir)
    assert main(["device.processes=2", "device.max_restarts=1", *SMALL]) == 1
    said = capfd.readouterr()
    assert said.err.count("rl8: Process 1 (pid ") == said.err.count("has ended without a word") == 1, said.err
    assert "begins from" in said.out
    assert said.err.count("Traceback") == said.err.count("OSError: the motor is on fire") == 1
    (folder,) = {path.parent for path in store_dir.glob("outputs/*/*/checkpoint.pt")}
    assert (
        read_checkpoint(folder / "checkpoint.pt").algorithm["counters"]["iterations"] > 40 / 4
    )  # more than the second time alone
    with sqlite3.connect(store_dir / "mlflow.db") as store:
        assert store.execute("select status from runs").fetchall() == [("FAILED",)]


def test_a_mistake_is_answered_before_any_process_is_started(program, capsys, monkeypatch):
    monkeypatch.setattr(launcher, "launch", lambda *_: pytest.fail("started"))
    assert main(["device.processes=2", "algo.gamma=2"]) == 2
    assert capsys.readouterr().err.count("rl8: algo.gamma=2") == 1
    assert not list(program.iterdir())


def test_the_launcher_gets_what_was_typed(program, monkeypatch):
    given = []
    monkeypatch.setattr(launcher, "launch", lambda words, settings: given.append((words, settings.processes)) or 7)
    words = ["device.processes=3", "algo.gamma=0.9", "--config-name", "config"]
    assert main(words) == 7
    assert given == [(words, 3)]


def test_another_number_than_the_launcher_started_is_refused(monkeypatch):
    assert launcher.is_wanted(DeviceSettings(processes=2))
    assert launcher.is_wanted(DeviceSettings(max_restarts=1))
    assert not launcher.is_wanted(DeviceSettings())
    for name, value in {**WORKER, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert not launcher.is_wanted(DeviceSettings(processes=2))
    assert not launcher.is_wanted(DeviceSettings())
    with pytest.raises(ValueError, match=r"device\.processes=3 contradicts the launcher, which started 2"):
        launcher.is_wanted(DeviceSettings(processes=3))


def test_a_sweep_in_a_launcher_is_refused(program, monkeypatch, capsys):
    for name, value in WORKER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rl8.parallel.world.may_speak", lambda: True)
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    assert main(["-m", "seed=1,2"]) == 2
    assert codes == [2]
    assert "-m starts many runs, and a launcher started this process for one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ChildFailedError("rl8", {0: ProcessFailure(0, 1, 2, "")}), 2),
        (ChildFailedError("rl8", {0: ProcessFailure(0, 1, -9, ""), 1: ProcessFailure(1, 2, 1, "")}), 1),
        (ChildFailedError("rl8", {0: ProcessFailure(0, 1, -9, "")}), 1),
        (SignalException("", signal.SIGTERM), 143),
    ],
)
def test_exit_codes_are_those_of_one_process(monkeypatch, error, code):
    def elastic_launch(config, entrypoint):
        def start(*words):
            assert words == ("-m", "rl8", "seed=3")
            assert (config.nproc_per_node, config.max_restarts) == (2, 4)
            raise error

        return start

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", elastic_launch)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert launcher.launch(["seed=3"], DeviceSettings(processes=2, max_restarts=4)) == code
    assert int(os.environ["OMP_NUM_THREADS"]) >= 1
