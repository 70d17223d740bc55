"""Kernels at work on a pretended CUDA device, where Triton interprets them."""

import logging
import sys

import pytest
import torch
from comparing import weights
from envs import Endless, MaskedBandit, Terminating

from execution.kernels import sides  # noqa: F401 (lets kernels be interpreted)
from rl8 import Algorithm, DeviceSettings, RecurrentAlgorithm, Trainer
from rl8.env import CartPole, CueRecall, Pendulum
from rl8.execution.kernels import choice, triton_advantages

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted beside a CUDA device")

TINY = {"num_envs": 3, "horizon": 2, "num_sgd_iters": 1}
SMALL = {**TINY, "model_config": {"hiddens": [16, 16]}}
ALL = {"_gae", "_update", "_act"}

RUNS = {
    "choices": (Algorithm, CartPole, SMALL, ALL),
    "squashed, in pieces": (
        Algorithm,
        Pendulum,
        {**SMALL, "piece_size": 4, "model_config": {"hiddens": [16, 16], "activation": "tanh"}},
        ALL,
    ),
    "masked": (Algorithm, MaskedBandit, SMALL, ALL),
    "ends": (Algorithm, Terminating, {**SMALL, "sgd_minibatch_size": 3, "accumulate_grads": True}, ALL),
    "recurrent": (
        RecurrentAlgorithm,
        CueRecall,
        {**TINY, "seq_len": 2, "model_config": {"hidden_size": 8}},
        {"_gae", "_loss"},
    ),
    "std by state": (Algorithm, Pendulum, {**TINY, "model_config": {"state_dependent_std": True}}, {"_gae", "_loss"}),
    "another loss": (
        Algorithm,
        CartPole,
        {**SMALL, "extra_losses": {"far": (0.1, lambda _policy, batch: batch.logp.mean())}},
        {"_gae", "_act"},
    ),
}


def build(kernels, algorithm_cls=Algorithm, env_cls=CartPole, options=SMALL):
    torch.manual_seed(3)
    options = dict(options)
    settings = DeviceSettings("cuda", kernels=kernels, piece_size=options.pop("piece_size", None))
    return algorithm_cls(env_cls, device=settings, **options)


def iterate(algorithm, count):
    found = [algorithm.collect() | algorithm.step() for _ in range(count)]
    return [{name: value.item() for name, value in metrics.items()} for metrics in found]


@pytest.fixture
def quick(monkeypatch):
    """Let kernels be faster than the plain path."""
    monkeypatch.setattr(choice, "_fastest", lambda *_: [1.0, 2.0])


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_the_same_with_kernels(run, device):
    *parts, expected = RUNS[run]
    plain = build("off", *parts)
    without = iterate(plain, 3)
    assert device.launched == []
    algorithm = build("on", *parts)
    found = iterate(algorithm, 3)
    assert set(device.launched) == expected
    for one, other in zip(without, found, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4, nan_ok=True)
    torch.testing.assert_close(weights(plain).cpu(), weights(algorithm).cpu(), rtol=1e-3, atol=1e-4)
    works = (algorithm.works.collect, algorithm.works.prepare, algorithm.works.learn)
    assert all(work.graph is not None for work in works)


@pytest.mark.usefixtures("quick")
def test_what_acts_is_found_once_and_told_once(device):
    algorithm = build("auto")
    iterate(algorithm, 1)
    each = "the kernel acts, 1 ms against 2 ms"
    assert algorithm.execution.notes() == [f"Kernels: act: {each}; advantages: {each}; update: {each}."]
    device.launched.clear()
    iterate(algorithm, 1)
    assert [device.launched.count(name) for name in ("_act", "_gae", "_update")] == [2, 1, 2]
    assert algorithm.execution.notes() == []


def test_the_plain_path_acts_where_it_is_faster(device, caplog):
    caplog.set_level(logging.WARNING)
    trainer = Trainer(CartPole, device=DeviceSettings("cuda"), **SMALL)
    trainer.step()
    told = [record.message for record in caplog.records if "Kernels" in record.message]
    assert len(told) == 1
    parts = [part.split(": ") for part in told[0].removeprefix("Kernels: ").split("; ")]
    assert [name for name, _ in parts] == ["act", "advantages", "update", "loss"]
    assert all(reason.startswith("the plain path acts, the kernel takes ") for _, reason in parts)
    device.launched.clear()
    trainer.step()
    assert device.launched == []
    assert len([record for record in caplog.records if "Kernels" in record.message]) == 1


@pytest.mark.usefixtures("quick", "device")
def test_a_wrong_kernel_does_not_act_and_may_not(monkeypatch):
    right = triton_advantages.gae_endless
    monkeypatch.setattr(triton_advantages, "gae_endless", lambda *args, **options: 1.1 * right(*args, **options))
    algorithm = build("auto")
    iterate(algorithm, 1)
    assert (
        "advantages: the plain path acts, result 0 differs by 1.0e-01 of its length" in algorithm.execution.notes()[0]
    )
    algorithm = build("on")
    algorithm.collect()
    with pytest.raises(RuntimeError, match=r"device.kernels=on, but the kernel for advantages .* device.kernels=auto"):
        algorithm.step()


@pytest.mark.usefixtures("device")
def test_without_triton_the_plain_path_acts_unless_kernels_must(monkeypatch):
    monkeypatch.setitem(sys.modules, "rl8.execution.kernels.chosen", None)
    algorithm = build("auto", Algorithm, Endless)
    iterate(algorithm, 1)
    assert algorithm.execution.notes() == []
    with pytest.raises(ValueError, match=r"kernels='on'\) needs Triton, .*: auto, off. Try .*kernels='auto'"):
        build("on")


@pytest.mark.usefixtures("device")
def test_changed_numbers_reach_the_kernels():
    runs = []
    for kernels in ("off", "on"):
        algorithm = build(kernels, options={**SMALL, "num_sgd_iters": 3})
        iterate(algorithm, 2)
        algorithm.change(clip_param=0.001, vf_coeff=3.0)
        runs.append((iterate(algorithm, 2), weights(algorithm).cpu()))
    (plain, expected), (found, ours) = runs
    assert plain[-1]["monitors/clip_fraction"] > 0
    assert [metrics["losses/total"] for metrics in found] == pytest.approx(
        [metrics["losses/total"] for metrics in plain], rel=1e-3, abs=1e-4
    )
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
