from pathlib import Path

import pytest
import torch
from envs import Endless, GoesBad
from short_runs import BATCH, QUIET

from rl8 import Trainer, data
from rl8.checkpoint import load_policy, read_checkpoint
from rl8.conditions import EnvSteps

pytestmark = pytest.mark.usefixtures("workdir")


def test_checkpoints_are_written_every_k_iterations(monkeypatch):
    trainer = Trainer(Endless, steps_per_checkpoint=2, **QUIET)
    saved = []
    monkeypatch.setattr(
        "rl8.files.save_checkpoint", lambda path, algorithm, *rest, **more: saved.append(algorithm.iterations)
    )
    trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    assert saved == [2, 4, 5]


def test_a_run_saves_what_it_has_by_the_clock(monkeypatch):
    now = [0.0]
    trainer = Trainer(Endless, minutes_per_checkpoint=5, keep_checkpoints=2, **QUIET)
    trainer.files._clock = lambda: now[0]
    trainer.files._saved = 0.0
    seen = []

    def tick(metrics):
        seen.append((trainer.output_dir / "checkpoint.pt").exists())
        now[0] += 100
        return metrics[data.ITERATIONS] == 5

    trainer.run(stop_conditions=[tick])
    assert seen == [False, False, False, True, True]  # at 300 s, after the third iteration
    names = sorted(file.name for file in trainer.output_dir.glob("*.pt"))
    assert names == ["checkpoint.1.pt", "checkpoint.pt", "policy.pt"]


def test_the_best_checkpoint_by_evaluation_is_kept(monkeypatch):
    values = iter([1.0, 3.0, float("nan"), 2.0])
    trainer = Trainer(Endless, steps_per_eval=1, output_dir="here", **QUIET)
    evaluate = trainer.eval
    monkeypatch.setattr(trainer, "eval", lambda config: {**evaluate(config), "eval/returns/mean": next(values)})
    trainer.run(stop_conditions=[EnvSteps(4 * BATCH)])
    assert read_checkpoint("here/best.pt").algorithm["counters"]["iterations"] == 2
    assert read_checkpoint("here/checkpoint.pt").extra["best"] == 3.0
    with pytest.raises(ValueError, match=r"^resume=here/best.pt is not its run's last.*Try resume='here', "):
        Trainer(Endless, resume="here/best.pt", **QUIET)
    assert Trainer(Endless, branch="here/best.pt", **QUIET).algorithm.iterations == 2


def test_an_evaluation_that_fails_midway_ends_the_run_with_everything_saved(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", steps_per_eval=2, **QUIET)
    monkeypatch.setattr(trainer, "eval", lambda config: (_ for _ in ()).throw(RuntimeError("no luck")))
    with pytest.raises(RuntimeError, match="no luck"):
        trainer.run(stop_conditions=[EnvSteps(5 * BATCH)])
    assert load_policy("here/policy.pt").recurrent is False
    assert Trainer(Endless, resume="here", **QUIET).algorithm.iterations == 2


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_a_policy_is_not(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", steps_per_checkpoint=1, **QUIET)
    monkeypatch.setattr(torch, "save", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"here/checkpoint.pt can't be written: No space left on device"):
        trainer.run(stop_conditions=[EnvSteps(2 * BATCH)])
    assert len(trainer.warnings) == 2
    assert trainer.warnings[0].endswith("is whole. Training goes on; the next one is tried at its time.")


def test_where_there_is_no_room_for_the_checkpoint_there_may_be_for_the_policy(monkeypatch):
    trainer = Trainer(Endless, output_dir="here", **QUIET)
    monkeypatch.setattr("rl8.files.save_checkpoint", lambda *a, **k: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        trainer.run(stop_conditions=[EnvSteps(BATCH)])
    assert load_policy("here/policy.pt").recurrent is False


def test_no_checkpoint_holds_a_password():
    class Asking(Endless):
        def reset(self, *, config=None):
            return super().reset()

    config = {"password": "s3cret", "url": "https://me:s3cret@host"}
    trainer = Trainer(Asking, env_config=config, eval_env_config=config, output_dir="here", **QUIET)
    trainer.run(stop_conditions=[EnvSteps(BATCH)])
    for file in ("checkpoint.pt", "policy.pt"):
        assert b"s3cret" not in Path("here", file).read_bytes()


def test_a_run_that_meets_no_number_leaves_evidence_and_no_wrong_weights(workdir, monkeypatch):
    monkeypatch.setattr(GoesBad, "reward", float("nan"))
    trainer = Trainer(GoesBad, horizons_per_env_reset=-1, **QUIET, output_dir="run")
    with pytest.raises(FloatingPointError, match="The reward is nan at step"):
        trainer.run(stop_conditions=[EnvSteps(10**6)])
    kept = torch.load(workdir / "run" / "nonfinite.pt", weights_only=True)
    assert kept["reason"].startswith("returns/mean is nan after")
    assert kept["rewards"].isnan().any()
