import warnings
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from accelerator import DEVICE
from comparing import snapshot, weights
from envs import Endless, Episodes, Machine, MaskedBandit, Steering, Syncing, Terminating
from torch import nn
from torch.nn import functional

from rl8 import Algorithm, DeviceSettings, RecurrentAlgorithm, Trainer
from rl8.env import CartPole, CueRecall, Lander, MountainCar, Pendulum
from rl8.execution.cuda import CUDA
from rl8.execution.graphs import CapturedWork, Work
from rl8.models import GRUModel, Model, Output, TransformerModel
from rl8.rollout.evaluation import Evaluator

SMALL = {"num_envs": 6, "horizon": 8, "model_config": {"hiddens": [16]}}
SHORT = {"num_envs": 6, "horizon": 4, "num_sgd_iters": 2, "model_config": {"hiddens": [16]}}

GRAPH_RUNS = {
    "feedforward": (Algorithm, Episodes, SHORT),
    "minibatches": (Algorithm, Endless, {**SHORT, "sgd_minibatch_size": 12, "horizons_per_env_reset": -1}),
    "accumulated": (Algorithm, Endless, {**SHORT, "sgd_minibatch_size": 12, "accumulate_grads": True}),
    "composite": (Algorithm, Machine, {**SHORT, "normalize_obs": True}),
    "scheduled": (
        Algorithm,
        Steering,
        {
            **SHORT,
            "lr_schedule": [[0, 1e-2], [200, 1e-4]],
            "entropy_coeff_schedule": [[0, 0.1], [200, 0.01]],
            "entropy_coeff_schedule_kind": "interp",
            "schedules": {
                "clip_param": [[200, 0.0]],
                "vf_clip_param": [[0, 1.0], [200, 0.1]],
                "dual_clip_param": [[0, 3.0], [200, 1.1]],
                "vf_coeff": [[200, 0.1]],
            },
        },
    ),
    "adaptive": (Algorithm, Steering, {**SHORT, "sgd_minibatch_size": 12, "desired_kl": 1e-3}),
    "its own advantages": (
        Algorithm,
        Episodes,
        {
            **SHORT,
            "sgd_minibatch_size": 12,
            "normalize_advantages_per_minibatch": True,
            "critic_lr": 1e-2,
            "vf_huber_delta": 0.1,
        },
    ),
    "windowed": (
        Algorithm,
        Episodes,
        {**SHORT, "model_cls": TransformerModel, "model_config": {"size": 8}, "horizons_per_env_reset": -1},
    ),
    "recurrent": (
        RecurrentAlgorithm,
        Episodes,
        {**SHORT, "model_config": {"hidden_size": 8}, "horizons_per_env_reset": -1},
    ),
    "gated": (RecurrentAlgorithm, CueRecall, {**SHORT, "model_cls": GRUModel}),
    "cartpole": (Algorithm, CartPole, {**SHORT, "normalize_rewards": True}),
    "pendulum": (Algorithm, Pendulum, {**SHORT, "piece_size": 10}),
    "mountain_car": (Algorithm, MountainCar, {**SHORT, "vf_clip_param": 0.2, "dual_clip_param": 3.0}),
    "time limits": (Algorithm, partial(Lander, max_episode_steps=3), {**SHORT, "random_initial_ages": True}),
    "before the step": (Algorithm, Episodes, {**SHORT, "bootstrap": "last_value"}),
    "masked": (Algorithm, MaskedBandit, {**SHORT, "sgd_minibatch_size": 12, "shuffle_minibatches": False}),
}


def iterate(algorithm, count):
    metrics = [algorithm.collect() | algorithm.step() for _ in range(count)]
    return [{name: value.item() for name, value in each.items()} for each in metrics]


def run_with(graphs, run, *, count, **settings):
    """Return metrics of some iterations of a run, the weights after them, and the algorithm."""
    algorithm_cls, env_cls, options = GRAPH_RUNS[run]
    options = dict(options)
    torch.manual_seed(7)
    settings |= {"graphs": graphs, "piece_size": options.pop("piece_size", None)}
    algorithm = algorithm_cls(env_cls, device=DeviceSettings("cuda", **settings), **options)
    return iterate(algorithm, count), weights(algorithm), algorithm


# ------------------------------------------------------------------------------------------- on a pretended CUDA device


@pytest.mark.parametrize("run", GRAPH_RUNS)
def test_trap_12_a_run_by_graphs_equals_an_eager_one(run, device):
    eager, expected, _ = run_with(False, run, count=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fall-back would warn
        found, reached, algorithm = run_with(True, run, count=4)
    for one, other in zip(eager, found, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4, nan_ok=True)
    torch.testing.assert_close(expected.cpu(), reached.cpu(), rtol=1e-3, atol=1e-3)
    works = [algorithm.works.collect, algorithm.works.prepare, algorithm.works.learn]
    if algorithm.hparams.accumulate_grads:
        works.append(algorithm.works.apply)
    if algorithm.episodes is not None:
        works.append(algorithm.works.count)
    assert all(work.graph.replays > 1 and len(work.graph.kernels) > 10 for work in works)
    device.waits.clear()
    algorithm.collect()
    algorithm.step()
    assert device.waits == []


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    "options",
    [{"optimizer_config": {"fused": False, "capturable": False}}, {"enable_amp": True, "amp_dtype": "fp16"}],
    ids=["learning rate", "loss scale"],
)
def test_work_of_which_a_graph_would_freeze_something_is_not_captured(options, monkeypatch):
    monkeypatch.setattr(CUDA, "autocast", lambda _: nullcontext())
    algorithm = Algorithm(Endless, device="cuda", **SMALL, **options)
    assert isinstance(algorithm.works.collect, CapturedWork)
    assert type(algorithm.works.learn) is type(algorithm.works.apply) is Work


def captured(work, tensors):
    """Return work on named tensors, to be captured."""
    return CapturedWork(work, "work", lambda: tensors, torch.cuda.Stream())


def numbers(*values):
    return torch.tensor(values, device=DEVICE)


@pytest.mark.usefixtures("device")
def test_work_is_captured_at_its_third_call_and_changes_what_it_would_eagerly():
    total, eager = numbers(0.0, 0.0, 0.0), numbers(0.0, 0.0, 0.0)
    work = captured(lambda: total.mul_(0.5).add_(torch.rand(3, device=DEVICE)), {"total": total})
    for call in range(1, 7):
        torch.manual_seed(call)
        work()
        after = torch.get_rng_state()
        torch.manual_seed(call)
        eager.mul_(0.5).add_(torch.rand(3, device=DEVICE))
        assert total.tolist() == eager.tolist()
        assert torch.equal(after, torch.get_rng_state())
        assert (work.graph is not None) == (call > CapturedWork.warm_up_calls)
    assert work.graph.replays == 4  # at its capture, then in earnest


@pytest.mark.usefixtures("device")
def test_work_is_captured_anew_when_a_tensor_has_moved():
    totals = {"total": numbers(0.0)}
    work = captured(lambda: totals["total"].add_(1), totals)
    for _ in range(4):
        work()
    first = work.graph
    totals["total"] = numbers(0.0)
    work.invalidate()
    for call in range(1, 5):
        work()
        assert totals["total"].item() == call
    assert work.graph not in (None, first)


def reads_a_number(total):
    return total.add_(1 if total.item() >= 0 else 0)


def selects_by_mask(total):
    return total.add_(total[total >= 0].numel())


def copies_from_the_host(total):
    return total.add_(torch.ones(1).to(DEVICE))


def copies_unnoticed(total):  # which no debug mode knows of
    return total.add_(torch.ones(1).to(DEVICE, non_blocking=True))


def fails(total):
    assert FAILING.pop(), "nothing left"
    return total.add_(1)


FAILING = []


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (reads_a_number, r"called a synchronizing CUDA operation, in .*: return total.add_\(1 if total.item\(\) >= 0"),
        (
            selects_by_mask,
            r"called a synchronizing CUDA operation, in .*: return total.add_\(total\[total >= 0\].numel",
        ),
        (
            copies_from_the_host,
            r"called a synchronizing CUDA operation, in .*: return total.add_\(torch.ones\(1\).to\(DEV",
        ),
        (
            copies_unnoticed,
            r"CUDA error: operation not permitted when stream is capturing, in .*: return .*non_blocking",
        ),
        (fails, r"nothing left, in test_graphs.py, line \d+: assert FAILING.pop\(\), \"nothing left\""),
    ],
)
def test_work_that_cannot_be_captured_runs_eagerly_and_says_once_which_line_is_why(step, reason, device):
    total, noise = numbers(0.0), numbers(0.0)
    FAILING[:] = [True] * 6 + [False] + [True] * 3  # at the capture, and no more

    def work():
        noise.copy_(torch.rand(1, device=DEVICE))
        step(total)

    one = captured(work, {"total": total, "noise": noise})
    one()
    one()
    with pytest.warns(RuntimeWarning, match=f"The work can't be captured as a CUDA graph and runs eagerly: {reason}"):
        one()
    assert device.stream is device.default_stream
    one()
    one.invalidate()
    for _ in range(4):
        one()
    assert one.graph is None
    assert total.item() == 8
    assert device.sync_debug_mode == 0


@pytest.mark.usefixtures("device")
def test_a_replay_that_differs_from_eager_is_refused():
    total, calls = numbers(0.0), [0]

    def work():  # a Python counter, which a graph freezes
        calls[0] += 1
        total.add_(calls[0])

    one = captured(work, {"total": total})
    one()
    one()
    with pytest.warns(RuntimeWarning, match=r"a replay differs from the eager result in total by 1. Look .*Python"):
        one()
    assert total.item() == 1 + 2 + calls[0]  # what the trials did is undone
    one()
    assert total.item() == 1 + 2 + calls[0] - 1 + calls[0]


@pytest.mark.usefixtures("device")
def test_work_that_gets_another_tensor_is_refused():
    tensors, calls = {"total": numbers(0.0)}, []

    def work():
        calls.append(tensors["total"].add_(1))
        if len(calls) == 3:
            tensors["late"] = torch.zeros(1, device=DEVICE)

    one = captured(work, tensors)
    one()
    one()
    with pytest.warns(
        RuntimeWarning, match="The work can't be .* runs eagerly: late is there at some calls only. Look"
    ):
        one()
    one()
    assert one.graph is None


def test_the_host_and_the_device_cannot_be_mixed(device):
    ones = numbers(1.0, 1.0)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        ones + torch.ones(2)
    device.waits.clear()
    ones.add_(torch.zeros(2).to(DEVICE))
    assert device.waits == ["aten._to_copy.default"]
    assert (ones + torch.tensor(1.0)).tolist() == [2.0, 2.0]  # a number


@pytest.mark.usefixtures("device")
def test_a_moved_environment_tensor_is_captured_anew():
    algorithm = Algorithm(Endless, device="cuda", **SMALL)
    iterate(algorithm, 4)
    graph = algorithm.works.collect.graph
    assert graph is not None
    algorithm.collect(env_config={"noise": 2.0})  # in place
    assert algorithm.works.collect.graph is graph
    algorithm.collect(env_config={"noise": {"low": 1.0, "high": 2.0}})  # one number becomes one per environment
    assert algorithm.works.collect.graph is None
    iterate(algorithm, 3)
    assert algorithm.works.collect.graph is not None
    algorithm.collect(deterministic=True)
    assert algorithm.env.state is algorithm.execution._state


@pytest.mark.usefixtures("device")
def test_a_tensor_that_each_reset_makes_anew_stays_where_a_graph_reads_it():
    class Fresh(Endless):
        def reset(self, *, config=None):
            obs = super().reset(config=config)
            self.wind = torch.rand(self.num_envs, device=self.device)
            return obs

    algorithm = Algorithm(Fresh, device="cuda", **SMALL)
    iterate(algorithm, 4)
    graph, wind = algorithm.works.collect.graph, algorithm.env.wind
    assert graph is not None
    before = wind.tolist()
    iterate(algorithm, 2)
    assert algorithm.works.collect.graph is graph
    assert algorithm.env.wind is wind
    assert wind.tolist() != before


@pytest.mark.usefixtures("device")
def test_too_little_memory_is_named_as_that():
    algorithm = Algorithm(Endless, device="cuda", **SMALL)

    def full(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    algorithm.works.learn.work = full
    algorithm.collect()
    with pytest.raises(torch.OutOfMemoryError, match=r"for the update: CUDA out of .* device.piece_size=2"):
        algorithm.step()


def test_environments_that_step_on_their_own_are_not_captured(device):
    class Foreign(Episodes):
        opaque = True

    algorithm = Algorithm(Foreign, device=DeviceSettings("cuda"), **SHORT)
    assert not isinstance(algorithm.works.collect, CapturedWork)
    assert isinstance(algorithm.works.learn, CapturedWork)
    iterate(algorithm, 4)
    assert algorithm.resets == 1


@pytest.mark.usefixtures("device")
def test_the_first_end_of_an_episode_is_captured_anew():
    class Ending(Terminating):
        ends = ()

    algorithm = Algorithm(Ending, device="cuda", **SHORT)
    iterate(algorithm, 4)
    before = algorithm.works.prepare.graph
    assert before is not None
    Ending.ends = Terminating.ends
    algorithm.env.state = algorithm.env.state.clone()
    algorithm.works.collect.invalidate()
    algorithm.collect()
    assert algorithm.rollout.is_last.any().item()
    assert algorithm.works.prepare.graph is None
    assert algorithm.works.learn.graph is None
    algorithm.step()
    iterate(algorithm, 3)
    assert algorithm.works.prepare.graph not in (None, before)


@pytest.mark.usefixtures("device")
def test_a_state_of_another_shape_is_captured_anew():
    class Growing(Endless):
        def reset(self, *, config=None):
            obs = super().reset(config=config)
            if config:
                self.state["memory"] = torch.zeros(self.num_envs, device=self.device)
            return obs

        def step(self, action):
            memory = self.state.get("memory")
            out = super().step(action)
            if memory is not None:
                self.state["memory"] = memory + 1
            return out

    algorithm = Algorithm(Growing, device="cuda", **SMALL)
    iterate(algorithm, 3)
    assert algorithm.works.collect.graph is not None
    algorithm.collect(env_config={"noise": 1.0})
    assert algorithm.works.collect.graph is None
    assert algorithm.env.state["memory"].tolist() == [8] * 6


def test_an_environment_that_waits_falls_back_with_the_line(device):
    algorithm = Algorithm(Syncing, device="cuda", **SMALL)
    with pytest.warns(RuntimeWarning, match=r"The rollout can't be .* in envs.py, line \d+: scale = .*\.item\(\)"):
        iterate(algorithm, 4)
    assert algorithm.works.collect.graph is None
    assert algorithm.works.learn.graph.replays > 0  # the update still is
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iterate(algorithm, 2)
    runs = []
    for graphs in (False, True):
        torch.manual_seed(7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runs.append(iterate(Algorithm(Syncing, device=DeviceSettings("cuda", graphs=graphs), **SHORT), 4))
    for one, other in zip(*runs, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)  # the trial did not happen


@pytest.mark.parametrize("env_cls", [CartPole, Lander])
def test_the_host_waits_once_an_iteration(env_cls, device, store_dir):
    trainer = Trainer(env_cls, device="cuda", **SHORT)
    for _ in range(5):
        device.waits.clear()
        trainer.step()
    assert device.waits == ["aten._to_copy.default"]  # the metrics
    assert trainer.eval()["eval/returns/mean"] < 0


@pytest.mark.parametrize("every", [1, -1])
def test_the_host_launches_little_between_replays(every, device):
    algorithm = Algorithm(CartPole, device="cuda", horizons_per_env_reset=every, **SHORT)
    iterate(algorithm, 5)
    begin = algorithm.works.restart if every == 1 else algorithm.works.resume
    works = (begin, algorithm.works.rewards._work, algorithm.works.learned._work)
    assert all(work.graph is not None for work in works)
    kept = algorithm.collect() | algorithm.step()
    before = {name: value.item() for name, value in kept.items()}
    device.operations.clear()
    algorithm.collect()
    algorithm.step()
    assert sorted(device.operations) == [
        *["aten.clone.default"] * 2,  # metrics
        "aten.fill_.Scalar",  # entropy's weight
        "aten.zero_.default",  # sums of the update
    ]
    assert {name: value.item() for name, value in kept.items()} == before  # a replay did not write over them


@pytest.mark.usefixtures("device")
def test_a_reset_that_draws_a_number_is_not_captured():
    class Numbered(Endless):
        def reset(self, *, config=None):
            obs = super().reset(config=config)
            self.drift = [float(torch.rand(()))]
            return obs

    algorithm = Algorithm(Numbered, device="cuda", **SMALL)
    assert type(algorithm.works.restart) is Work
    seen = set()
    for _ in range(5):
        iterate(algorithm, 1)
        seen.add(algorithm.env.drift[0])
    assert len(seen) == 5


@pytest.mark.usefixtures("device")
def test_a_reset_that_waits_runs_eagerly_without_a_word():
    class Asking(Endless):
        def reset(self, *, config=None):
            obs = super().reset(config=config)
            assert obs.sum().item() < 1e9
            return obs

    algorithm = Algorithm(Asking, device="cuda", **SHORT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iterate(algorithm, 5)
    assert algorithm.works.restart.refused
    assert algorithm.works.collect.graph is not None


def test_memory_is_read_once_a_second(device, monkeypatch):
    algorithm, reads, now = Algorithm(Endless, device="cuda", **SMALL), [], [10.0]
    monkeypatch.setattr("rl8.execution.cuda.time.perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: reads.append(1) or 2**20 * len(reads))
    for seconds, expected in ((0.0, 1), (0.9, 1), (0.2, 2)):
        now[0] += seconds
        assert algorithm.execution.memory_mb() == expected


def test_an_evaluation_is_replayed(device):
    algorithm = Algorithm(Endless, device="cuda", **SHORT)
    iterate(algorithm, 1)
    options = {"num_envs": 4, "horizon": 5, "seq_len": 1, "seqs_per_state_reset": -1}
    eager = Evaluator(Endless, algorithm.policy, **options)
    replayed = Evaluator(Endless, algorithm.policy, **options, work=algorithm.execution.work)

    def run(evaluator, config=None):
        return {name: value.item() for name, value in evaluator.run(config=config, deterministic=False).items()}

    for call in range(1, 6):
        torch.manual_seed(call)  # other episodes
        assert run(eager) == pytest.approx(run(replayed), rel=1e-5)
        assert (replayed._replayed.graph is not None) == (call > CapturedWork.warm_up_calls)
        iterate(algorithm, 1)  # other weights
    device.operations.clear()
    run(replayed)
    assert len(device.operations) < 20  # its metrics
    for config in ({"noise": 2.0}, {"noise": 2.0}, {"noise": 0.5}):
        assert run(eager, config) == pytest.approx(run(replayed, config), rel=1e-5)
        assert replayed._replayed.graph is None
    for _ in range(4):
        assert run(eager, config) == pytest.approx(run(replayed, config), rel=1e-5)
    assert replayed._replayed.graph is not None


@pytest.mark.usefixtures("device")
def test_weights_are_cast_once_a_horizon(monkeypatch):
    class Watching(Model):
        def __init__(self, observation_spec, action_spec):
            super().__init__(observation_spec, action_spec)
            self.linear = nn.Linear(observation_spec.shape[0], 3)
            self.used = []

        def forward(self, obs, state=None):
            self.used.append(self.linear.weight)
            out = functional.linear(obs.to(self.linear.weight.dtype), self.linear.weight).float()
            return Output({"logits": out}, out[..., 0])

    monkeypatch.setattr(CUDA, "autocast", lambda _: nullcontext())
    settings = DeviceSettings("cuda", graphs=False, kernels="off")
    algorithm = Algorithm(Endless, model_cls=Watching, device=settings, enable_amp=True, num_envs=6, horizon=8)
    model = algorithm.policy.model
    weight, before = model.linear.weight, len(model.used)
    algorithm.collect()
    used = model.used[before:]
    assert len(used) == 9
    assert len({id(tensor) for tensor in used}) == 1
    assert used[0].dtype == torch.bfloat16
    assert model.linear.weight is weight
    algorithm.step()
    assert model.used[-1].dtype == torch.float32


@pytest.mark.usefixtures("device")
def test_a_resumed_run_by_graphs_equals_an_unbroken_one():
    options = {**SMALL, "device": "cuda", "lr_schedule": [[0, 1e-2], [100, 1e-3]], "horizons_per_env_reset": -1}
    unbroken = Algorithm(Endless, **options)
    iterate(unbroken, 2)
    saved, _, _ = snapshot(unbroken)
    resumed = Algorithm(Endless, **options)
    iterate(resumed, 5)
    assert resumed.works.collect.graph is not None
    assert resumed.works.learn.graph is not None
    resumed.load_state_dict(saved)
    assert resumed.works.collect.graph is None  # it would read what no longer counts
    assert resumed.works.learn.graph is None
    torch.set_rng_state(saved["execution"]["rng"])
    expected = iterate(unbroken, 4)
    torch.set_rng_state(saved["execution"]["rng"])
    for one, other in zip(iterate(resumed, 4), expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


# ------------------------------------------------------------------------------------------------- on a CUDA device


def cuda(**options):
    return DeviceSettings("cuda", matmul_precision="highest", **options)


@pytest.mark.cuda
@pytest.mark.parametrize("run", GRAPH_RUNS)
def test_a_replay_equals_eager_on_cuda(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a fall-back would warn
        eager, expected, _ = run_with(False, run, count=6, matmul_precision="highest")
        found, reached, _ = run_with(True, run, count=6, matmul_precision="highest")
    for one, other in zip(eager, found, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)
    torch.testing.assert_close(expected, reached, rtol=2e-2, atol=2e-3)


@pytest.mark.cuda
def test_trap_12_random_numbers_differ_from_replay_to_replay():
    algorithm = Algorithm(Endless, device=cuda(), **SMALL)
    actions = []
    for _ in range(6):
        algorithm.collect()
        actions.append(algorithm.rollout.actions.clone())
        algorithm.step()
    assert algorithm.works.collect.graph is not None
    assert all(not torch.equal(one, other) for one in actions for other in actions if one is not other)


@pytest.mark.cuda
def test_trap_12_learning_rate_and_entropy_stay_live():
    algorithm = Algorithm(Endless, device=cuda(), lr_schedule=[[0, 0.01], [48 * 6, 0.0]], **SMALL)
    moved = []
    for _ in range(8):
        before = weights(algorithm)
        algorithm.collect()
        algorithm.step()
        moved.append((weights(algorithm) - before).norm().item())
    assert algorithm.works.learn.graph is not None
    assert all(distance > 0 for distance in moved[:5])
    assert moved[5:] == [0, 0, 0]

    algorithm = Algorithm(Endless, device=cuda(), entropy_coeff_schedule=[[0, 0.0], [48 * 5, 10.0]], **SMALL)
    losses = [metrics["losses/total"] for metrics in iterate(algorithm, 7)]
    assert max(losses[4:]) < min(losses[:4]) - 5  # ten times an entropy of about log 3


@pytest.mark.cuda
@pytest.mark.parametrize("known", [True, False])
def test_an_environment_that_waits_falls_back_with_the_line_on_cuda(known, monkeypatch):
    if not known:  # as with what torch does not know to wait: the capture itself breaks
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    algorithm = Algorithm(Syncing, device=cuda(), **SMALL)
    with pytest.warns(RuntimeWarning, match=r"The rollout can't be .* in envs.py, line \d+: scale = .*\.item\(\)"):
        iterate(algorithm, 4)
    assert algorithm.works.collect.graph is None
    assert algorithm.works.learn.graph is not None  # the update still is
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iterate(algorithm, 2)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


@pytest.mark.cuda
def test_a_resumed_run_on_cuda_goes_on(tmp_path):
    from rl8.checkpoint import load_checkpoint, save_checkpoint

    options = {**SMALL, "horizons_per_env_reset": -1}
    unbroken = Algorithm(Endless, device=cuda(), **options)
    iterate(unbroken, 4)
    file = save_checkpoint(tmp_path / "checkpoint.pt", unbroken)
    expected = iterate(unbroken, 4)
    resumed = Algorithm(Endless, device=cuda(), **options)
    iterate(resumed, 4)
    load_checkpoint(file, resumed)
    for one, other in zip(iterate(resumed, 4), expected, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)
    on_cpu = Algorithm(Endless, **options)
    load_checkpoint(file, on_cpu)
    iterate(on_cpu, 1)
    assert on_cpu.env_steps == 5 * 48
