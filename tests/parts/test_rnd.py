import pytest
import torch
from envs import Episodes

from rl8 import Trainer
from rl8.conditions import EnvSteps
from rl8.env import Pendulum
from rl8.parts.rnd import RandomNetworkDistillation

from .running import QUIET, run


def test_what_is_seen_often_is_rewarded_less(tmp_path):
    part = RandomNetworkDistillation(passes=20, lr=1e-2)
    trainer = run(tmp_path, Episodes, part, steps=16 * 12)
    losses = [metrics["rnd/loss"] for metrics in trainer.history]
    assert losses[-1] < 0.3 * losses[0]


def test_rewards_are_added_with_their_weight_and_returns_stay_the_tasks(tmp_path):
    class Watching(RandomNetworkDistillation):
        def on_collect(self, trainer, metrics):
            before = trainer.algorithm.rollout.rewards.clone()
            super().on_collect(trainer, metrics)
            self.added = trainer.algorithm.rollout.rewards - before

    part = Watching(weight=0.5)
    trainer = run(tmp_path, Pendulum, part, steps=16)
    assert (part.added >= 0).all()
    assert part.added.mean().item() == pytest.approx(0.5 * trainer.history[-1]["rnd/reward"], rel=1e-4)
    plain = run(tmp_path / "plain", Pendulum, RandomNetworkDistillation(weight=0.0), steps=16)
    assert trainer.history[-1]["returns/mean"] == plain.history[-1]["returns/mean"]


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    def weights(trainer):
        return torch.cat([each.detach().flatten() for each in trainer.algorithm.policy.parameters()])

    unbroken = run(tmp_path / "whole", Pendulum, RandomNetworkDistillation(), steps=48)
    run(tmp_path / "part", Pendulum, RandomNetworkDistillation(), steps=32)
    options = {**QUIET, "resume": str(tmp_path / "part"), "output_dir": str(tmp_path / "rest")}
    resumed = Trainer(Pendulum, callbacks=[RandomNetworkDistillation()], seed=1, **options)
    resumed.run(stop_conditions=[EnvSteps(48)])
    torch.testing.assert_close(weights(resumed), weights(unbroken))
    assert resumed.history[-1]["rnd/loss"] == pytest.approx(unbroken.history[-1]["rnd/loss"])
