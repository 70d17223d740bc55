import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from comparing import assert_same

from rl8 import runs
from rl8.checkpoint import read_checkpoint
from rl8.cli import main
from rl8.tracking.store import open_store

SMALL = ["env=discrete_dummy", "algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null"]
QUIET = ["trainer.eval_num_envs=4", "network.hiddens=[8]", "trainer.view=none", "trainer.render=false"]


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""


def state(folder="outputs/a"):
    return read_checkpoint(f"{folder}/checkpoint.pt").algorithm


@pytest.mark.usefixtures("store_dir")
def test_a_run_goes_on_as_it_was_composed_in_its_folder_and_its_run(workdir):
    assert main([*SMALL, *QUIET, "trainer.output_dir=outputs/a", "goal.env_steps=32", "algo.gamma=0.5"]) == 0
    assert main(["resume", "latest", "goal.env_steps=64", "algo.optimizer.lr=1e-5"]) == 0  # stop refers to goal
    assert state()["counters"]["env_steps"] == 64
    assert state()["optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-5)
    assert main(["resume", "outputs/a"]) == 0  # what was typed last time still acts: it has reached its end
    assert state()["counters"]["env_steps"] == 64
    client = open_store().client
    (run,) = client.search_runs([client.get_experiment_by_name("rl8").experiment_id])
    assert runs.record(workdir / "outputs/a")["run_id"] == run.info.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["algo.gamma"] == "0.5"
    assert "algo.optimizer.lr=1e-05" in run.data.tags["resumed.with"]
    assert "- **env steps**: 64\n- **evaluation**: return" in run.data.tags["mlflow.note.content"]
    for name in ("losses/total", "eval/returns/mean"):
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
        assert steps == ([16, 32, 48, 64] if name == "losses/total" else [32, 64])
    assert list((workdir / "outputs").glob("**/checkpoint.pt")) == [workdir / "outputs/a/checkpoint.pt"]


def test_another_stop_condition_acts_and_what_is_no_going_on_is_refused(capfd):
    assert main([*SMALL, *QUIET, "trainer.track=false", "trainer.output_dir=outputs/a", "goal.env_steps=32"]) == 0
    assert main(["resume", "outputs/a", "stop=wall_time", "goal.env_steps=48"]) == 0
    assert state()["counters"]["env_steps"] == 48
    capfd.readouterr()
    for words, message in (
        (["nowhere"], "rl8: RUN=nowhere is no run. Accepted: a run's folder"),
        (["latest", "env=cartpole"], "'env=cartpole' would make it another run. Accepted: stop, callbacks, trainer, "),
        (["latest", "algo.gama=1"], "Unknown key 'algo.gama'. Did you mean 'algo.gamma'?"),
        (["latest", "trainer.output_dir=b"], "'trainer.output_dir=b' has no effect on a run that goes on"),
        (["latest", "trainer.resume=b"], "'trainer.resume=b' has no effect on a run that goes on"),
        (["latest", "+algo.gamma=1"], "adds algo.gamma, which is there already. "),
        (["latest", "algo.gamma=0.5,0.9"], "gives several values. Accepted: one value; a run goes on once"),
        (["latest", "algo.amp_dtype=fp16"], "would have no effect. algo.amp_dtype: algo.enable_amp is false"),
        (["latest", "algo.horizon=8"], "algo.horizon=8 differs from the checkpoint's. Try algo.horizon=4"),
        (["latest", "network.hiddens=[4]"], "the networks' shapes differ"),
        (["latest", "goal.env_steps=16"], "RUN=latest has 48 env steps and is at its end (env/steps >= 16), so goal"),
        (["latest", "algo.optimizer.lr=1e-5"], "would have no effect. Accepted: a goal beyond that, or no word, which"),
    ):
        assert main(["resume", *words]) == 2
        assert message in capfd.readouterr().err


def test_a_seed_is_refused_on_going_on_and_acts_on_a_branch(capfd):
    words = [*SMALL, *QUIET, "trainer.track=false"]
    assert main([*words, "trainer.output_dir=outputs/a", "goal.env_steps=32", "seed=3"]) == 0
    more = [*words, "goal.env_steps=64"]
    for command in (["resume", "outputs/a", "seed=5"], [*more, "trainer.resume=outputs/a", "seed=5"]):
        capfd.readouterr()
        assert main(command) == 2
        assert "no seed, or seed=3, that of the run. For a new run from there " in (said := capfd.readouterr().err)
        assert "try trainer.branch=outputs/a seed=5." in said
    for name, seed in (("five", ["seed=5"]), ("one", ["seed=1"]), ("none", []), ("again", ["seed=5"])):
        assert main([*more, "trainer.branch=outputs/a", f"trainer.output_dir=outputs/{name}", *seed]) == 0
    drawn = {name: state(f"outputs/{name}")["execution"]["rng"].tolist() for name in ("five", "one", "none", "again")}
    assert drawn["five"] == drawn["again"]
    assert drawn["five"] != drawn["one"] != drawn["none"] != drawn["five"]
    assert [runs.find(f"outputs/{name}", "policy").config()["seed"] for name in drawn] == [5, 1, 3, 5]
    assert main([*more, "trainer.resume=outputs/a"]) == 0
    assert state()["execution"]["rng"].tolist() == drawn["none"]
    assert runs.find("outputs/a", "policy").config()["seed"] == 3
    assert main(["resume", "outputs/a", "seed=3"]) == 0  # the run's own


def test_a_run_of_python_says_how_to_go_on(capfd):
    folder = runs.claim(runs.OUTPUTS / "python")
    (folder / "checkpoint.pt").touch()
    assert main(["resume", str(folder)]) == 2
    assert f"no config.yaml beside {folder}/checkpoint.pt says how the run was composed" in capfd.readouterr().err


def test_the_ordinary_command_goes_on_in_the_same_folder(workdir):
    words = [*SMALL, *QUIET, "trainer.track=false"]
    assert main([*words, "goal.env_steps=32"]) == 0
    (folder,) = workdir.glob("outputs/*/*")
    assert main([*words, f"trainer.resume={folder}", "goal.env_steps=48"]) == 0
    assert list(workdir.glob("outputs/*/*")) == [folder]
    assert state(folder)["counters"]["env_steps"] == 48


@pytest.mark.usefixtures("store_dir")
def test_a_killed_run_ends_as_an_unbroken_one(workdir):
    words = [*SMALL, *QUIET[:-2], "trainer.render=false", "trainer.steps_per_checkpoint=2", "trainer.seconds_per_log=0"]
    words += ["trainer.steps_per_eval=3", "algo.horizons_per_env_reset=3"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rl8",
            *words,
            "goal.env_steps=20_000",
            "trainer.output_dir=killed",
            "trainer.view=plain",
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        lines = (line for line in process.stdout if "  return " in line)
        assert [next(lines), next(lines)]
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    reached = state("killed")["counters"]["iterations"]
    assert 0 < reached < 1250
    goal = f"goal.env_steps={16 * (reached + 5)}"
    assert main(["resume", "killed", goal, "trainer.view=none"]) == 0
    assert main([*words, "trainer.output_dir=whole", "trainer.view=none", goal]) == 0
    assert_same(state("killed"), state("whole"))
    client = open_store().client
    ids = [runs.record(workdir / name)["run_id"] for name in ("killed", "whole")]
    assert client.get_run(ids[0]).info.status == "FINISHED"
    for name in ("losses/total", "eval/returns/mean", "returns/mean"):
        killed, whole = ([(m.step, m.value) for m in client.get_metric_history(run_id, name)] for run_id in ids)
        # after the last checkpoint the killed run may have recorded more than this goal asks for
        assert killed[: len(whole)] == whole
        assert [step for step, _ in killed] == sorted({step for step, _ in killed})
