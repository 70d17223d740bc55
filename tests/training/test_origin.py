from functools import partial
from pathlib import Path

import pytest
import torch
from comparing import assert_same, weights
from envs import Endless, Episodes
from short_runs import BATCH, QUIET, comparable

from rl8 import Algorithm, RecurrentTrainer, Trainer, data
from rl8.checkpoint import read_checkpoint
from rl8.conditions import EnvSteps, Plateaus

pytestmark = pytest.mark.usefixtures("workdir")


@pytest.mark.parametrize("trainer_cls", [Trainer, RecurrentTrainer])
def test_trap_11_a_run_resumed_through_the_settings_equals_an_unbroken_one(trainer_cls):
    options = {**QUIET, "normalize_obs": True, "horizons_per_env_reset": 3, "steps_per_eval": 2}
    options["lr_schedule"] = [[0, 1e-3], [4 * BATCH, 1e-4]]
    if trainer_cls is RecurrentTrainer:
        options["model_config"] = {"hidden_size": 8}
    torch.manual_seed(1)
    unbroken = trainer_cls(Episodes, **options)
    unbroken.run(stop_conditions=[EnvSteps(5 * BATCH)])
    torch.manual_seed(1)
    first = trainer_cls(Episodes, output_dir="first", **options)
    first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    torch.manual_seed(2)
    second = trainer_cls(Episodes, resume="first/checkpoint.pt", **options)
    second.run(stop_conditions=[EnvSteps(5 * BATCH)])
    assert comparable(first.history + second.history) == comparable(unbroken.history)
    assert_same(second.algorithm.state_dict(), unbroken.algorithm.state_dict())


def test_a_resumed_run_counts_on_where_its_stop_condition_stood(capsys):
    first = Trainer(Endless, output_dir="first", **QUIET)
    first.run(stop_conditions=[Plateaus("coefficients/vf", patience=3), EnvSteps(2 * BATCH)])
    second = Trainer(Endless, resume="first/checkpoint.pt", output_dir="second", **QUIET)
    second.run(stop_conditions=[Plateaus("coefficients/vf", patience=3), EnvSteps(9 * BATCH)])
    assert second.algorithm.iterations == 4
    third = Trainer(Endless, resume="second/checkpoint.pt", **{**QUIET, "view": "plain"})
    third.run(stop_conditions=[Plateaus("coefficients/vf", patience=1)])
    assert third.algorithm.iterations == 6
    assert "The stop condition is another than the checkpoint's, so it counts from here on" in capsys.readouterr().out


def test_a_run_whose_condition_is_met_only_finishes_what_is_missing(monkeypatch):
    first = Trainer(Endless, output_dir="first", steps_per_checkpoint=1, **QUIET)
    monkeypatch.setattr(first, "eval", lambda config: (_ for _ in ()).throw(KeyboardInterrupt))  # killed
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    for condition in (EnvSteps(2 * BATCH), EnvSteps(BATCH)):
        second = Trainer(Endless, resume="first", **QUIET)
        metrics = second.run(stop_conditions=[condition])
        assert second.algorithm.iterations == 2
        assert metrics[data.ENV_STEPS] == 2 * BATCH
        assert "eval/returns/mean" in metrics
        assert second.output_dir == Path("first")
        assert (second.output_dir / "learning_curve.png").is_file()
    third = Trainer(Endless, resume="first", **QUIET)
    third.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert third.algorithm.iterations == 3


def test_a_run_with_nothing_left_says_where_it_stands(capsys):
    Trainer(Endless, output_dir="first", **QUIET).run(stop_conditions=[EnvSteps(2 * BATCH)])
    Trainer(Endless, resume="first", **{**QUIET, "view": "plain"}).run(stop_conditions=[EnvSteps(2 * BATCH)])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "  eval " in line]
    assert line.startswith("100%     128 steps  ")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(capsys):
    Trainer(Endless, output_dir="first", steps_per_checkpoint=1, **QUIET).run(stop_conditions=[EnvSteps(3 * BATCH)])
    file = Path("first/checkpoint.pt")
    file.write_bytes(file.read_bytes()[:5000])
    second = Trainer(Endless, resume="first", **{**QUIET, "view": "plain"})
    assert second.algorithm.iterations == 2
    second.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert "it is damaged or of another kind. Going on from checkpoint.1.pt." in capsys.readouterr().out
    assert Trainer(Endless, resume="first", **QUIET).algorithm.iterations == 3


def test_a_run_begins_from_one_thing():
    with pytest.raises(ValueError, match=r"resume=a and init_from=b exclude one another. Accepted: resume to"):
        Trainer(Endless, resume="a", init_from="b", **QUIET)


def test_a_branch_is_a_run_of_its_own():
    Trainer(Endless, output_dir="a", **QUIET).run(stop_conditions=[EnvSteps(2 * BATCH)])
    branch = Trainer(Endless, branch="a", **QUIET)
    branch.run(stop_conditions=[EnvSteps(3 * BATCH)])
    assert branch.algorithm.iterations == 3
    assert branch.output_dir != Path("a")
    assert read_checkpoint("a/checkpoint.pt").algorithm["counters"]["iterations"] == 2


def begun(how, seed=None, env=Endless):
    trainer = Trainer(env, **{how: "a"}, seed=seed, **QUIET)
    trainer.run(stop_conditions=[EnvSteps(4 * BATCH)])
    return trainer


def test_a_seed_acts_on_what_begins_from_another_run():
    first = Trainer(Endless, output_dir="a", seed=3, **QUIET)
    first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    runs = {(how, seed): begun(how, seed) for how in ("branch", "init_from") for seed in (5, 6)}
    last = [weights(run.algorithm) for run in (*runs.values(), begun("branch"))]
    assert len({tuple(each.tolist()) for each in last}) == 5
    assert torch.equal(weights(begun("branch", 5).algorithm), last[0])
    assert torch.equal(weights(begun("branch").algorithm), last[-1])
    ready = Trainer(Algorithm(Endless, num_envs=8, horizon=8, model_config={"hiddens": [16]}), branch="a", seed=5)
    assert torch.initial_seed() == 5
    assert ready.config["seed"] == 5
    assert [begun("branch", seed).config["seed"] for seed in (5, None)] == [5, 3]
    with pytest.raises(ValueError, match=r"^seed=5 would have no.*no seed, or seed=3, .*try branch=a seed=5"):
        Trainer(Endless, resume="a", seed=5, **QUIET)
    Trainer(Endless, output_dir="none", **QUIET).run(stop_conditions=[EnvSteps(BATCH)])
    with pytest.raises(ValueError, match=r"^seed=5 would have no.* Accepted: no seed\. For a new run"):
        Trainer(Endless, resume="none", seed=5, **QUIET)
    resumed = Trainer(Endless, resume="a", seed=3, **QUIET)  # the command that began it, typed again
    resumed.run(stop_conditions=[EnvSteps(4 * BATCH)])
    assert resumed.config["seed"] == begun("resume").config["seed"] == 3
    assert torch.equal(weights(resumed.algorithm), last[-1])


def test_a_run_starts_from_a_policy_in_other_physics():
    first = Trainer(Endless, output_dir="a", normalize_obs=True, **QUIET)
    first.run(stop_conditions=[EnvSteps(2 * BATCH)])
    options = {**QUIET, "normalize_obs": True, "num_envs": 4}
    second = Trainer(partial(Endless, noise=3.0), init_from="a", gamma=0.5, **options)
    assert torch.equal(weights(second.algorithm), weights(first.algorithm))
    second.run(stop_conditions=[EnvSteps(BATCH)])
    assert second.algorithm.env.noise == 3.0
    assert second.algorithm.iterations == 2
    assert second.output_dir != Path("a")
    with pytest.raises(ValueError, match=r"^init_from=a/policy.pt does not fit .*\[16, 3\] there, \[8, 3\] here"):
        Trainer(Endless, init_from="a", normalize_obs=True, **{**QUIET, "model_config": {"hiddens": [8]}})
