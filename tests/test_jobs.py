import json
import os
import signal
import sys
import threading

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rl8 import jobs, launch, runs
from rl8.cli import main
from rl8.config.compose import checked, composer
from rl8.config.schema import check
from rl8.guest import terminable
from rl8.launch import Outcome
from rl8.tracking.store import open_store
from rl8.whole import whole

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


def test_a_sweep_is_one_parent_with_a_run_per_job_and_goes_on_after_a_failure(store_dir, capfd):
    (store_dir / "my_env.py").write_text(
        "from rl8.env import DiscreteDummyEnv\n\n\n"
        "class MyEnv(DiscreteDummyEnv):\n"
        "    def __init__(self, num_envs, /, horizon=None, *, device='cpu', mode='fine'):\n"
        "        super().__init__(num_envs, horizon, device=device)\n"
        "        if mode == 'early':\n            raise RuntimeError('failed to build')\n"
        "        self.late = mode == 'late'\n\n"
        "    def reset(self, *, config=None):\n"
        "        if config and self.late:\n            raise RuntimeError('failed in training')\n"
        "        return super().reset()\n"
    )
    (store_dir / "conf" / "env").mkdir(parents=True)
    (store_dir / "conf" / "env" / "my_env.yaml").write_text("_target_: my_env.MyEnv\nmode: fine\n")
    words = ["env=my_env", "env.mode=fine,early,late", "trainer.env_config={any: 1}", *SMALL, *QUIET]
    assert main(["-m", *words]) == 1

    client = open_store().client
    experiment = client.get_experiment_by_name("rl8").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    names = {run.data.params["env.mode"]: run.info.run_name for run in children}
    assert names == {mode: f"mode={mode}" for mode in ("fine", "early", "late")}
    status = {run.data.params["env.mode"]: run.info.status for run in children}
    assert status == {"fine": "FINISHED", "early": "FAILED", "late": "FAILED"}
    errors = {run.data.params["env.mode"]: run.data.tags.get("error", "") for run in children}
    assert "failed to build" in errors["early"]
    assert "failed in training" in errors["late"]
    assert {item.path for item in client.list_artifacts(parents[0].info.run_id)} >= {"sweep.csv", "sweep.png"}

    out, err = capfd.readouterr()
    assert "1 of 3 runs finished; files in outputs/sweeps/" in out
    assert "job 0: env=my_env env.mode=fine" in out
    assert err.count("failed to build") == 2  # when it happens, and at the end
    folder = next((store_dir / "outputs" / "sweeps").glob("*/*"))
    assert "RuntimeError: failed to build" in (folder / "1" / "rl8.log").read_text()
    assert [result.error.split(":")[0] for result in jobs.results(folder)] == ["", "RuntimeError", "RuntimeError"]
    assert not {"RL8_SWEEP_RUN", "RL8_SWEEP_FIXED"} & set(os.environ)


def test_parallel_jobs(workdir, capfd):
    (workdir / "more" / "stop").mkdir(parents=True)
    (workdir / "more" / "stop" / "soon.yaml").write_text("_target_: rl8.conditions.EnvSteps\nenv_steps: 48\n")
    words = [
        "--config-dir",
        "more",
        "stop=soon",
        "seed=1,2",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "trainer.view=auto",
        "hydra.sweep.dir=out",
    ]
    (workdir / "out" / "7").mkdir(parents=True)
    (workdir / "out" / "7" / "result.json").write_text(json.dumps({"number": 7, "overrides": []}))
    assert main(["-m", *UNTRACKED, *words]) == 0
    found = jobs.results(workdir / "out")
    assert [(result.number, f"seed={result.number + 1}" in result.overrides) for result in found] == [
        (0, True),
        (1, True),
    ]
    assert found[0].objective != found[1].objective
    assert "2 of 2 runs finished; files in out" in capfd.readouterr().out


def test_jobs_that_were_given_one_folder_have_a_part_of_it_each(workdir, monkeypatch):
    folders = []
    monkeypatch.setattr(launch, "build", lambda plan, folder, words: folders.append(plan.trainer.output_dir))
    monkeypatch.setattr(launch, "run", lambda trainer, plan: Outcome(0.0, None))
    monkeypatch.setattr(jobs, "rehearse", lambda plans, folder, key: None)
    assert main(["-m", "seed=3,5", "trainer.output_dir=x", *UNTRACKED]) == 0
    assert main(["-m", "trainer.output_dir=a,b", *UNTRACKED]) == 0
    assert folders == ["x/0", "x/1", "a/0", "b/1"]


def test_a_result_that_can_not_be_kept_costs_its_job_alone(workdir, monkeypatch, capfd):
    def full(path):
        if path.parent.name == "0":
            raise OSError(f"{path.name} can't be written: No space left on device.")
        return whole(path)

    monkeypatch.setattr(jobs, "whole", full)
    monkeypatch.setattr(launch, "build", lambda plan, folder, words: None)
    monkeypatch.setattr(launch, "run", lambda trainer, plan: Outcome(0.0, None))
    monkeypatch.setattr(jobs, "rehearse", lambda plans, folder, key: None)
    assert main(["-m", "seed=3,5", *UNTRACKED]) == 1
    out, err = capfd.readouterr()
    assert "rl8: result.json can't be written: No space left on device." in err
    assert "1 of 2 runs finished" in out


def test_the_objective_goes_to_the_sweeper(workdir, monkeypatch):
    returned = []
    monkeypatch.setattr(launch, "build", lambda plan, folder, words: None)
    monkeypatch.setattr(launch, "run", lambda trainer, plan: Outcome(float(plan.seed), None))
    job = jobs.sweep_job
    monkeypatch.setattr(jobs, "sweep_job", lambda cfg: returned.append(job(cfg)))
    assert main(["-m", "seed=3,5", *UNTRACKED]) == 0
    assert returned == [3.0, 5.0]


def test_a_searching_sweeper_sees_failures_itself(workdir, monkeypatch):
    def fail(*args):
        raise RuntimeError("no luck")

    settings = {
        "overrides": {"task": [*UNTRACKED, "trainer.view=auto"]},
        "runtime": {"output_dir": str(workdir), "config_sources": []},
        "job": {"num": 3, "config_name": "config"},
        "launcher": {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"},
        "sweeper": {"_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"},
    }
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(settings))
    monkeypatch.setattr(launch, "build", fail)
    with composer(), pytest.raises(RuntimeError, match="no luck"):
        jobs.sweep_job(OmegaConf.create())
    assert json.loads((workdir / "result.json").read_text())["error"] == "RuntimeError: no luck"


def test_a_signal_ends_the_whole_sweep(workdir, monkeypatch, capfd):
    begun = []
    monkeypatch.setattr(launch, "build", lambda plan, folder, words: begun.append(words))
    monkeypatch.setattr(launch, "run", lambda trainer, plan: Outcome(0.0, "SIGTERM"))
    assert main(["-m", "seed=3,5", *UNTRACKED]) == 143
    assert len(begun) == 1
    assert "rl8: stopped by SIGTERM" in capfd.readouterr().err


def test_a_signal_between_jobs_ends_the_sweep_too(workdir, monkeypatch, capfd):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(jobs, "sweep_job", lambda cfg: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["-m", "seed=3,5", *UNTRACKED]) == 143
    assert "rl8: stopped by SIGTERM" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def block():
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_job_that_left_no_result_counts_as_failed(workdir, monkeypatch, capfd):
    monkeypatch.setattr(jobs, "sweep_job", lambda cfg: 0.0)
    assert main(["-m", "seed=3,5", *UNTRACKED]) == 1
    assert "0 of 2 runs finished" in capfd.readouterr().out
