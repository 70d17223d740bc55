import copy
import os
import signal

import pytest
import torch
from comparing import assert_same
from envs import Episodes, Steering
from together import once, together

from rl8 import Trainer
from rl8.checkpoint import load_policy, read_checkpoint
from rl8.conditions import HitsUpperBound
from rl8.parallel.failure import FirstFailedError

SMALL = {
    "num_envs": 4,
    "horizon": 4,
    "model_config": {"hiddens": (8,)},
    "normalize_rewards": True,
    "track": False,
    "view": "none",
    "render": False,
    "eval_num_envs": 4,
}


class BadInOne(Steering):
    """Steering whose reward is NaN in process 1."""

    def step(self, action):
        out = super().step(action)
        if os.environ.get("RANK") == "1" and torch.get_rng_state() is not None and self.armed:
            out["rewards"] = torch.full_like(out["rewards"], torch.nan)
        return out

    armed = False


def trainer(folder, name, iterations, env=Episodes, **options):
    stop = HitsUpperBound("algorithm/steps", iterations)
    return Trainer(env, stop_conditions=[stop], output_dir=str(folder / name), seed=5, **{**SMALL, **options})


def ended(trained):
    return copy.deepcopy(trained.algorithm.state_dict())


def training(rank, folder):
    """Return what became of several runs, each of which begins where the one before has ended in both processes."""
    found = {}
    whole = trainer(folder, "whole", 6, steps_per_eval=2)
    found["metrics"] = whole.run()
    found["whole"] = ended(whole)
    trainer(folder, "half", 3, steps_per_eval=2).run()
    resumed = trainer(folder, "half", 6, steps_per_eval=2, resume=str(folder / "half"))
    found["notes"] = list(resumed._messages.notes)
    resumed.run()
    found["resumed"] = ended(resumed)
    more = trainer(folder, "more", 3, branch=str(folder / "single"))
    found["more"] = list(more._messages.notes)
    more.run()
    found["of one"] = ended(more)
    found["stopped_by"] = stopped(rank, folder)
    found["nonfinite"] = nonfinite(folder)
    found["evaluation"] = failing_evaluation(folder)
    return found


def stopped(rank, folder):
    """Return by what a run ends in which process 1 alone gets a signal, and after how many iterations."""
    run = trainer(folder, "stopped", 1000)
    step = run.step

    def signalled(*arguments):
        if rank == 1 and run.algorithm.iterations == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # as a launcher may
        return step(*arguments)

    run.step = signalled
    run.run()
    return run.stopped_by, run.algorithm.iterations


def nonfinite(folder):
    run = trainer(folder, "nonfinite", 3, env=BadInOne)
    BadInOne.armed = True
    with pytest.raises(FloatingPointError, match="training has failed") as error:
        run.run()
    return str(error.value)


def failing_evaluation(folder):
    run = trainer(folder, "evaluation", 3, steps_per_eval=1)
    run._evaluation.run = broken
    with pytest.raises((ZeroDivisionError, FirstFailedError), match="no evaluation today") as error:
        run.run()
    return type(error.value).__name__


def broken(env_config, deterministic):
    raise ZeroDivisionError("no evaluation today")


def of_one_and_of_two(folder):
    trainer(folder, "single", 2).run()
    return together(training, folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return once(tmp_path_factory, "training", of_one_and_of_two)


@pytest.fixture
def folder(both):
    return both[0]


@pytest.fixture
def found(both):
    return both[1]


def test_a_resumed_run_equals_an_unbroken_one_in_every_process(found):
    for each in found:
        assert_same(each["whole"], each["resumed"])
        assert not each["notes"]
    assert not torch.equal(found[0]["whole"]["execution"]["rng"], found[1]["whole"]["execution"]["rng"])


def test_all_processes_know_the_same_numbers(found):
    one, other = (each["metrics"] for each in found)
    assert {name: one[name] for name in one if name != "env/resets"} == {
        name: other[name] for name in other if name != "env/resets"
    }
    assert one["env/steps"] == 6 * 2 * 16
    assert one["memory/peak_mb"] == pytest.approx(one["memory/process_0_peak_mb"] + one["memory/process_1_peak_mb"])
    speeds = [one[f"profiling/process_{number}_transitions_per_s"] for number in (0, 1)]
    assert one["profiling/transitions_per_s"] <= sum(speeds) * 1.001
    assert "eval/returns/mean" in one


def test_process_0_writes_what_all_have(found, folder):
    names = {path.name for path in (folder / "whole").iterdir()}
    assert {"checkpoint.pt", "policy.pt", "best.pt", "config.yaml"} <= names
    assert not [name for name in names if name.startswith(".")]
    saved = read_checkpoint(folder / "whole" / "checkpoint.pt")
    assert [set(own) for own in saved.others] == [{"env", "episodes", "execution", "reward_scaler", "rollout"}]
    weights = load_policy(folder / "whole" / "policy.pt").state_dict()
    assert_same(dict(weights), dict(found[1]["whole"]["policy"]))


def test_another_number_of_processes_is_told_what_it_loses(found, folder):
    (note,) = found[0]["more"]
    assert note == (
        "Not an exact resume: there were 1 processes and there are 2 now. The new ones begin new episodes with new "
        "random numbers."
    )
    assert_same(found[0]["of one"]["policy"], found[1]["of one"]["policy"])
    assert found[0]["of one"]["counters"]["env_steps"] == 2 * 16 + 2 * 16
    fewer = trainer(folder, "fewer", 8, branch=str(folder / "whole"))
    assert fewer._messages.notes == [
        "Not an exact resume: there were 2 processes and there are 1 now. The environments and random numbers of the "
        "others are lost."
    ]
    assert fewer.run()["algorithm/steps"] == 8


def test_a_signal_to_one_process_stops_all_after_the_same_iteration(found):
    assert found[0]["stopped_by"] == found[1]["stopped_by"] == ("SIGTERM", 2)


def test_a_number_that_is_not_finite_fails_all_and_names_the_process(found):
    for each in found:
        assert "In process 1: The reward is nan" in each["nonfinite"]


def test_an_evaluation_that_fails_ends_all(found, folder):
    assert [each["evaluation"] for each in found] == ["ZeroDivisionError", "FirstFailedError"]
    assert (folder / "evaluation" / "checkpoint.pt").exists()
