import json
import math
import os
import signal
import threading
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rl8 import jobs, launch
from rl8.atomic import atomic
from rl8.checkpoint import read_checkpoint
from rl8.cli import main, parser
from rl8.conditions import EnvSteps
from rl8.config import catalog, compose
from rl8.config.compose import composer
from rl8.config.schema import check
from rl8.guest import terminable
from rl8.launch import Outcome
from rl8.parallel import launcher
from rl8.sweeps import folder as kept
from rl8.sweeps import job
from rl8.tracking.store import open_store

SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.eval_num_envs=4"]
QUIET = ["trainer.view=none", "trainer.render=false", "goal.env_steps=32"]
UNTRACKED = [*SMALL, *QUIET, "trainer.track=false"]


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""


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
    assert err.count("RuntimeError: failed to build\n") == 2  # when it happens, and at the end
    assert "line 8, in __init__\n      raise RuntimeError('failed to build')" in err
    folder = next((store_dir / "outputs" / "sweeps").glob("*/*"))
    assert "RuntimeError: failed to build" in (folder / "1" / "rl8.log").read_text()
    assert [result.error.split(":")[0] for result in kept.results(folder)] == ["", "RuntimeError", "RuntimeError"]
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
    assert main(["-m", *(word for word in UNTRACKED if word != "trainer.view=none"), *words]) == 0
    found = kept.results(workdir / "out")
    assert [(result.number, f"seed={result.number + 1}" in result.overrides) for result in found] == [
        (0, True),
        (1, True),
    ]
    assert found[0].objective != found[1].objective
    assert "2 of 2 runs finished; files in out" in capfd.readouterr().out


def test_each_job_gets_processes_of_its_own(workdir, monkeypatch, capfd):
    """Here they are pretended: the first job's train, the second's fail."""
    (workdir / "my conf" / "stop").mkdir(parents=True)
    (workdir / "my conf" / "stop" / "soon.yaml").write_text("_target_: rl8.conditions.EnvSteps\nenv_steps: 48\n")
    plans = []

    def launch(words, settings, outcome, typed):
        args = parser().parse(words)
        catalog.prepare(args.config_dir)
        plans.append(check(*compose.checked(args.overrides, args.config_name)))
        assert settings.processes == 2
        assert f"seed={len(plans)}" in typed
        assert not [word for word in typed if word.startswith("hydra")]
        left = {"error": "OSError: on fire"} if len(plans) == 2 else asdict(Outcome(3.0, None))
        outcome.write_text(json.dumps(left))
        return 0

    monkeypatch.setattr(launcher, "launch", launch)
    words = ["--config-dir", "my conf", "stop=soon", "seed=1,2", "device.processes=2", "trainer.output_dir=a b"]
    assert main(["-m", *UNTRACKED, *words, "hydra.sweep.dir=out"]) == 1
    assert [plan.seed for plan in plans] == [1, 2]
    assert [plan.trainer.output_dir for plan in plans] == ["a b/0", "a b/1"]
    assert all(plan.stop["env_steps"] == 48 for plan in plans)
    found = kept.results(workdir / "out")
    assert found[0].objective == 3.0
    assert [result.error for result in found] == ["", "OSError: on fire"]
    assert "job 1 failed: OSError: on fire" in capfd.readouterr().err


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
        return atomic(path)

    monkeypatch.setattr(kept, "atomic", full)
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
    run = job.run
    monkeypatch.setattr(job, "run", lambda cfg: returned.append(run(cfg)))
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
        job.run(OmegaConf.create())
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
    monkeypatch.setattr(job, "run", lambda cfg: os.kill(os.getpid(), signal.SIGTERM))
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
    monkeypatch.setattr(job, "run", lambda cfg: 0.0)
    assert main(["-m", "seed=3,5", *UNTRACKED]) == 1
    assert "0 of 2 runs finished" in capfd.readouterr().out


def test_an_interrupted_sweep_goes_on_by_the_same_command(store_dir, monkeypatch, capfd):
    words = ["-m", "env=discrete_dummy", "seed=1,2,3", *SMALL, *QUIET]
    run, begun = launch.run, []

    def interrupted(trainer, plan):
        begun.append(plan.seed)
        if len(begun) != 2:
            return run(trainer, plan)
        trainer.stop_conditions = [EnvSteps(16)]  # after one of its two iterations
        return replace(run(trainer, plan), stopped_by="SIGTERM")

    monkeypatch.setattr(launch, "run", interrupted)
    assert main(words) == 143
    assert "goes on by the same command, or by rl8 resume outputs/sweeps/" in capfd.readouterr().err
    (folder,) = (store_dir / "outputs/sweeps").glob("*/*")
    assert [one.stopped_by for one in kept.results(folder)] == [None, "SIGTERM"]
    first = json.loads((folder / "0/run.json").read_text())["run_id"], (folder / "0/policy.pt").stat().st_mtime_ns

    assert main(words) == 0
    out = capfd.readouterr().out
    assert f"Going on with the sweep in {folder.relative_to(store_dir)}: 1 of its runs are finished" in out
    assert "job 0: finished already" in out
    assert "eval/returns/mean  95% interval" in out
    assert begun == [1, 2, 2, 3]
    assert (json.loads((folder / "0/run.json").read_text())["run_id"], (folder / "0/policy.pt").stat().st_mtime_ns) == (
        first
    )
    assert [one.stopped_by for one in kept.results(folder)] == [None, None, None]
    assert [read_checkpoint(folder / f"{n}/checkpoint.pt").algorithm["counters"]["env_steps"] for n in range(3)] == (
        [32, 32, 32]
    )
    client = open_store().client
    runs = client.search_runs([client.get_experiment_by_name("rl8").experiment_id])
    parent = kept.load(folder).run_id
    assert sorted(run.data.tags.get("mlflow.parentRunId", "") for run in runs) == ["", parent, parent, parent]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert client.get_run(parent).data.metrics["sweep/runs"] == 3

    # it has ended: the same command begins another, and its own folder only repeats the table
    assert main(["resume", str(folder.relative_to(store_dir))]) == 0
    assert main(["resume", parent]) == 0
    assert begun == [1, 2, 2, 3]
    assert len(list((store_dir / "outputs/sweeps").glob("*/*"))) == 1
    capfd.readouterr()
    assert main(["resume", str(folder), "seed=5"]) == 2
    assert "'seed=5' would make it another sweep. Accepted: rl8 resume" in capfd.readouterr().err


def test_failed_jobs_are_left_out_or_tried_again(workdir, monkeypatch, capfd):
    luck = []

    def run(trainer, plan):
        if plan.seed == 5 and not luck:
            raise RuntimeError("no luck")
        return Outcome(1.0, None)

    monkeypatch.setattr(launch, "build", lambda plan, folder, words: None)
    monkeypatch.setattr(launch, "run", run)
    words = ["-m", "seed=3,5", "hydra.sweep.dir=out", *UNTRACKED]
    assert main(words) == 1
    luck.append(True)
    capfd.readouterr()
    assert main(words) == 1
    assert "job 1: failed before (RuntimeError: no luck), --retry tries it again" in capfd.readouterr().out
    assert main([*words, "--retry"]) == 0
    assert [one.error for one in kept.results(workdir / "out")] == ["", ""]
    assert main(["-m", "seed=3,6", "hydra.sweep.dir=out", *UNTRACKED]) == 2
    assert "hydra.sweep.dir=out holds another sweep: rl8 -m seed=3,5 algo.num_envs=4" in capfd.readouterr().err


def test_two_processes_are_never_at_one_sweep(workdir, capfd):
    with kept.held(workdir / "out"):
        assert main(["-m", "seed=3,5", "hydra.sweep.dir=out", *UNTRACKED]) == 2
    assert "The sweep in out is running in another process" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "2", "seed=1"], "--jobs is for sweeps. Accepted: with -m"),
        (["--retry"], "--retry is for sweeps. Accepted: with -m"),
        (["-m", "--jobs", "0", "seed=1,2"], "--jobs=0 is too small. Accepted: an integer >= 1. Try --jobs 2"),
        (["-m", "--jobs", "2", "hydra/launcher=joblib", "seed=1,2"], "both say how jobs are run"),
        (["resume", "nowhere", "--retry"], "RUN=nowhere is no run"),
        (["resume", "run", "--retry"], "--retry is for sweeps, and RUN=run is none"),
    ],
)
def test_flags_of_sweeps_where_they_have_no_effect(words, message, workdir, capfd):
    (workdir / "run").mkdir()
    (workdir / "run" / "checkpoint.pt").touch()
    assert main(words) == 2
    assert message in capfd.readouterr().err


def test_gpus_are_dealt_out(workdir, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [job._own_gpu(slot) for slot in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert job._own_gpu(3) == "cuda"


@pytest.mark.parametrize(("name", "slot"), [("MainProcess", 7), ("LokyProcess-3", 2), ("SpawnPoolWorker-1", 0)])
def test_a_gpu_goes_with_the_process_where_that_is_known(name, slot, monkeypatch):
    monkeypatch.delenv(job.SLOT, raising=False)
    monkeypatch.setattr(job.multiprocessing, "current_process", lambda: SimpleNamespace(name=name))
    assert job._slot(7) == slot
    monkeypatch.setenv(job.SLOT, "5")
    assert job._slot(7) == 5


def test_a_job_that_another_process_does_is_waited_for(workdir, monkeypatch, capfd):
    (workdir / "out" / "0").mkdir(parents=True)
    other = FileLock(workdir / "out" / "0" / ".job.lock", thread_local=False)
    other.acquire()

    def say(message):
        assert message == "job 0 is running in another process already, and is waited for."
        kept.save_result(workdir / "out" / "0", kept.Result(0, ["seed=3"], objective=4.0))
        other.release()

    monkeypatch.setattr(kept, "say", say)
    monkeypatch.setattr(launch, "run", lambda trainer, plan: pytest.fail("it was done twice"))
    monkeypatch.setattr(kept, "clear", lambda *arguments, **options: None)
    assert main(["-m", "seed=3", "hydra.sweep.dir=out", *UNTRACKED]) == 0
    assert "job 0: finished already" in capfd.readouterr().out


def test_submitits_local_executor(workdir, capfd):
    pytest.importorskip("submitit", reason="the extra rl8[submitit] is not installed")
    words = ["hydra/launcher=submitit_local", "seed=1,2", "env=discrete_dummy", "hydra.sweep.dir=out"]
    assert main(["-m", *UNTRACKED, *words]) == 0
    found = kept.results(workdir / "out")
    assert [(one.number, one.error, math.isfinite(one.objective)) for one in found] == [(0, "", True), (1, "", True)]
    assert "2 of 2 runs finished; files in out" in capfd.readouterr().out


def test_ray(workdir, capfd):
    pytest.importorskip("ray", reason="Ray and hydra-ray-launcher are not installed")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="hydra-ray-launcher is not installed")
    words = ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "seed=1,2", "env=discrete_dummy"]
    assert main(["-m", *UNTRACKED, *words, "hydra.sweep.dir=out"]) == 0
    found = kept.results(workdir / "out")
    assert [(one.number, one.error, math.isfinite(one.objective)) for one in found] == [(0, "", True), (1, "", True)]


def test_jobs_in_workers_and_one_that_dies(workdir, capfd):
    (workdir / "conf" / "env").mkdir(parents=True)
    (workdir / "conf" / "env" / "deadly.yaml").write_text("_target_: deadly.Deadly\nmode: fine\n")
    (workdir / "deadly.py").write_text(
        "import os\nimport multiprocessing\nfrom rl8.env import DiscreteDummyEnv\n\n\n"
        "class Deadly(DiscreteDummyEnv):\n"
        "    def __init__(self, num_envs, /, horizon=None, *, device='cpu', mode='fine'):\n"
        "        super().__init__(num_envs, horizon, device=device)\n"
        "        if mode == 'dies' and multiprocessing.parent_process():\n            os.abort()\n"
    )
    words = ["-m", "env=deadly", "env.mode=dies,fine,well", "hydra.sweep.dir=out", *UNTRACKED, "--jobs", "2"]
    assert main(words) == 1
    found = kept.results(workdir / "out")
    assert [one.error for one in found] == ["its process died of SIGABRT", "", ""]
    assert "job 0 failed: its process died of SIGABRT" in capfd.readouterr().err
