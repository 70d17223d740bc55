import time
import warnings
from contextlib import contextmanager, nullcontext

import pytest
import torch
from comparing import snapshot, weights
from envs import Endless, Episodes, Machine, Steering, Syncing

from rl8 import Algorithm, DeviceSettings, RecurrentAlgorithm
from rl8.env import CartPole
from rl8.execution import CapturedWork, Execution, Work
from rl8.models import TransformerModel

SMALL = {"num_envs": 6, "horizon": 8, "model_config": {"hiddens": [16]}}


class FakeGraph:
    """Stands in for a CUDA graph: calls the work again where a real one replays its kernels."""

    capturing = None

    def __init__(self):
        self.kernels = None
        self.replays = 0

    def replay(self):
        self.replays += 1
        self.kernels()


@pytest.fixture
def fake_cuda(monkeypatch):
    """Pretend that there are two CUDA devices; what is captured must be `recorded`."""

    @contextmanager
    def capture(graph):
        FakeGraph.capturing = graph
        try:
            yield
        finally:
            FakeGraph.capturing = None

    class FakeEvent:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = time.perf_counter()

        def elapsed_time(self, other):
            return (other.time - self.time) * 1e3

    class FakeStream:
        def __init__(self, device):
            self.device = device

        def wait_stream(self, other):
            assert other.device == self.device

    fakes = {
        "Stream": FakeStream,
        "current_stream": FakeStream,
        "stream": nullcontext,
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "CUDAGraph": FakeGraph,
        "Event": FakeEvent,
        "graph": capture,
        "get_rng_state": lambda device: torch.get_rng_state(),
        "set_rng_state": lambda state, device: torch.set_rng_state(state),
        "synchronize": lambda device: None,
        "max_memory_allocated": lambda device: 3 * 2**20,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)


def recorded(work, kernels=None):
    """Return `work` so that a fake graph that captures it can replay it (or what is given as its kernels)."""

    def recording():
        if FakeGraph.capturing is not None:
            FakeGraph.capturing.kernels = kernels or work
        work()

    return recording


@pytest.fixture
def graphs_on_cpu(fake_cuda, monkeypatch):
    """Make algorithms on the CPU go the way of CUDA graphs; return the list of works."""
    works = []

    class WithGraphs(Execution):
        def __init__(self, settings, **options):
            super().__init__(settings, **options)
            self.graphs = settings.graphs

        def replayed(self, work, name, tensors):
            if not self.graphs:
                return super().replayed(work, name, tensors)
            works.append(CapturedWork(recorded(work), name, tensors, self.device))
            return works[-1]

    monkeypatch.setattr("rl8.algorithm.Execution", WithGraphs)
    return works


# -------------------------------------------------------------------------------------------------------- on a CPU


@pytest.fixture
def _settings_of_torch():
    """Restore torch's global settings."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_settings_of_torch")
def test_a_cpu_calls_the_work_itself():
    execution = Execution(DeviceSettings(matmul_precision="highest", num_threads=2))
    calls = []
    work = execution.replayed(lambda: calls.append(1), "update", list)
    work()
    work.invalidate()
    work()
    assert calls == [1, 1]
    assert type(work) is Work
    assert not execution.graphs
    assert execution.device == torch.device("cpu")
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_num_threads() == 2
    assert execution.piece_size(2048) == 2048
    assert execution.threads == 2
    assert Execution(DeviceSettings(piece_size=7, num_threads=1)).piece_size(2048) == 7
    assert Execution(DeviceSettings(compile=True)).threads == 1


def test_work_whose_learning_rate_a_graph_would_freeze_is_not_captured(graphs_on_cpu):
    for options in (
        {"optimizer_config": {"fused": False, "capturable": False}},
        {"enable_amp": True, "amp_dtype": "fp16"},
    ):
        graphs_on_cpu.clear()
        iterate(Algorithm(Endless, **SMALL, **options), 4)
        assert [work.name for work in graphs_on_cpu] == ["rollout"]


def test_time_and_memory_on_a_cpu():
    execution = Execution(DeviceSettings())
    begin = execution.mark()
    assert 0 <= execution.elapsed_ms(begin, execution.mark()) < 1000
    assert 50 < execution.memory_mb() < 10**5


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision(dtype, expected):
    execution = Execution(DeviceSettings(), enable_amp=True, amp_dtype=dtype)
    with execution.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == expected
    assert execution.scaler.is_enabled() == (dtype == "fp16")
    with Execution(DeviceSettings(), amp_dtype=dtype).autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_named():
    for build in (lambda: Execution(DeviceSettings("cuda")), lambda: Algorithm(CartPole, device="cuda:1")):
        with pytest.raises(ValueError, match=r"device.device=cuda.* sees no CUDA device. Try device=cpu"):
            build()


# ------------------------------------------------------------------------------------------------- with a fake CUDA


@pytest.mark.usefixtures("fake_cuda")
def test_cuda_settings():
    execution = Execution(DeviceSettings("cuda:1"), enable_amp=True)
    assert execution.graphs
    assert not Execution(DeviceSettings("cuda", graphs=False)).graphs
    assert execution.piece_size(2048) is None
    assert execution.threads == 1
    assert execution.memory_mb() == 3
    begin = execution.mark()
    assert execution.elapsed_ms(begin, execution.mark()) >= 0
    assert isinstance(execution.replayed(list, "update", list), CapturedWork)
    with pytest.raises(ValueError, match=r"device.device=cuda:2 does not exist: torch sees 2 CUDA device\(s\)"):
        Execution(DeviceSettings("cuda:2"))


def captured(work, tensors, kernels=None):
    return CapturedWork(recorded(work, kernels), "work", lambda: tensors, torch.device("cpu"))


@pytest.mark.usefixtures("fake_cuda")
def test_work_is_captured_at_its_third_call_and_changes_what_it_would_eagerly():
    total, eager = torch.zeros(3), torch.zeros(3)
    work = captured(lambda: total.mul_(0.5).add_(torch.rand(3)), [total])
    for call in range(1, 7):
        torch.manual_seed(call)
        work()
        after = torch.get_rng_state()
        torch.manual_seed(call)
        eager.mul_(0.5).add_(torch.rand(3))
        assert torch.equal(total, eager)
        assert torch.equal(after, torch.get_rng_state())
        assert (work.graph is not None) == (call > CapturedWork.warm_up_calls)
    assert work.graph.replays == 4  # once to check it, then three in earnest


@pytest.mark.usefixtures("fake_cuda")
def test_work_is_captured_anew_when_a_tensor_has_moved():
    totals = [torch.zeros(1)]
    work = captured(lambda: totals[0].add_(1), totals)
    for _ in range(4):
        work()
    first = work.graph
    totals[0] = torch.zeros(1)
    work.invalidate()
    for call in range(1, 5):
        work()
        assert totals[0] == call
    assert work.graph not in (None, first)


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_work_that_cannot_be_captured_runs_eagerly_and_says_why_once(error):
    total = torch.zeros(1)

    def work():
        total.add_(1)
        if FakeGraph.capturing is not None:
            raise error("operation not permitted when stream is capturing\nand more")

    one = captured(work, [total])
    one()
    one()
    with pytest.warns(
        RuntimeWarning, match="The work can't be captured as a CUDA graph and runs eagerly: operation not"
    ):
        one()
    one()
    one.invalidate()
    for _ in range(4):
        one()
    assert total == 8
    assert one.graph is None


@pytest.mark.usefixtures("fake_cuda")
def test_a_replay_that_differs_from_eager_is_refused():
    total, calls = torch.zeros(1), [0]

    def work():  # a Python counter, which a graph freezes
        calls[0] += 1
        total.add_(calls[0])

    one = captured(work, [total], kernels=lambda: total.add_(100))
    one()
    one()
    with pytest.warns(RuntimeWarning, match=r"a replay differs from the eager result by 9\d.*Python counters"):
        one()
    assert total == 1 + 2 + calls[0]  # what the trials did is undone
    one()
    assert total == 1 + 2 + calls[0] - 1 + calls[0]


GRAPH_RUNS = {
    "feedforward": (Algorithm, Episodes, SMALL),
    "minibatches": (Algorithm, Endless, {**SMALL, "sgd_minibatch_size": 16, "horizons_per_env_reset": -1}),
    "accumulated": (Algorithm, Endless, {**SMALL, "sgd_minibatch_size": 16, "accumulate_grads": True}),
    "composite": (Algorithm, Machine, {**SMALL, "normalize_obs": True}),
    "scheduled": (
        Algorithm,
        Steering,
        {
            **SMALL,
            "lr_schedule": [[0, 1e-2], [200, 1e-4]],
            "entropy_coeff_schedule": [[0, 0.1], [200, 0.01]],
            "entropy_coeff_schedule_kind": "interp",
        },
    ),
    "windowed": (
        Algorithm,
        Episodes,
        {**SMALL, "model_cls": TransformerModel, "model_config": {"size": 8}, "horizons_per_env_reset": -1},
    ),
    "recurrent": (
        RecurrentAlgorithm,
        Episodes,
        {"num_envs": 6, "horizon": 8, "model_config": {"hidden_size": 8}, "horizons_per_env_reset": -1},
    ),
}


def iterate(algorithm, count):
    metrics = [algorithm.collect() | algorithm.step() for _ in range(count)]
    return [{name: value.item() for name, value in each.items()} for each in metrics]


@pytest.mark.parametrize("run", GRAPH_RUNS)
def test_trap_12_a_run_by_graphs_equals_an_eager_one(run, graphs_on_cpu):
    algorithm_cls, env_cls, options = GRAPH_RUNS[run]
    results = []
    for graphs in (False, True):
        torch.manual_seed(7)
        algorithm = algorithm_cls(env_cls, device=DeviceSettings(graphs=graphs), **options)
        results.append((iterate(algorithm, 5), weights(algorithm)))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)
    used = [work for work in graphs_on_cpu if work.calls > 0]
    assert len(used) == (3 if options.get("accumulate_grads") else 2)
    assert all(work.graph is not None and work.graph.replays > 2 for work in used)


def test_a_moved_environment_tensor_is_captured_anew(graphs_on_cpu):
    algorithm = Algorithm(Endless, **SMALL)
    rollout = graphs_on_cpu[0]
    iterate(algorithm, 4)
    graph = rollout.graph
    assert graph is not None
    algorithm.collect(env_config={"noise": 2.0})  # in place
    assert rollout.graph is graph
    algorithm.collect(env_config={"noise": {"low": 1.0, "high": 2.0}})  # one number becomes one per environment
    assert rollout.graph is None
    iterate(algorithm, 3)
    assert rollout.graph is not None
    algorithm.collect(deterministic=True)
    assert algorithm.env.state is algorithm._env_state


def test_a_state_of_another_shape_is_captured_anew(graphs_on_cpu):
    class Growing(Endless):
        def reset(self, *, config=None):
            obs = super().reset(config=config)
            if config:
                self.state["memory"] = torch.zeros(self.num_envs)
            return obs

        def step(self, action):
            memory = self.state.get("memory")
            out = super().step(action)
            if memory is not None:
                self.state["memory"] = memory + 1
            return out

    algorithm = Algorithm(Growing, **SMALL)
    iterate(algorithm, 3)
    assert graphs_on_cpu[0].graph is not None
    algorithm.collect(env_config={"noise": 1.0})
    assert graphs_on_cpu[0].graph is None
    assert algorithm.env.state["memory"].tolist() == [8] * 6


def test_a_resumed_run_by_graphs_equals_an_unbroken_one(graphs_on_cpu):
    options = {**SMALL, "lr_schedule": [[0, 1e-2], [100, 1e-3]], "horizons_per_env_reset": -1}
    unbroken = Algorithm(Endless, **options)
    iterate(unbroken, 2)
    saved, _, _ = snapshot(unbroken)
    resumed = Algorithm(Endless, **options)
    iterate(resumed, 5)
    rollout, update, _ = graphs_on_cpu[3:]  # those of the second algorithm
    assert rollout.graph is not None
    assert update.graph is not None
    resumed.load_state_dict(saved)
    assert rollout.graph is None  # it would read what no longer counts
    assert update.graph is None
    assert resumed.optimizer.param_groups[0]["lr"].item() == pytest.approx(1e-2)
    torch.set_rng_state(saved["rng"])
    expected = iterate(unbroken, 4)
    torch.set_rng_state(saved["rng"])
    for one, other in zip(iterate(resumed, 4), expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


# ------------------------------------------------------------------------------------------------- on a CUDA device


def cuda(graphs=True, **options):
    return DeviceSettings("cuda", graphs=graphs, matmul_precision="highest", **options)


@pytest.mark.cuda
@pytest.mark.parametrize("run", GRAPH_RUNS)
def test_a_replay_equals_eager_on_cuda(run):
    algorithm_cls, env_cls, options = GRAPH_RUNS[run]
    results = []
    for graphs in (False, True):
        torch.manual_seed(7)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a fall-back would warn
            algorithm = algorithm_cls(env_cls, device=cuda(graphs), **options)
            results.append((iterate(algorithm, 6), weights(algorithm)))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=2e-2, atol=2e-3)


@pytest.mark.cuda
def test_trap_12_random_numbers_differ_from_replay_to_replay():
    algorithm = Algorithm(Endless, device=cuda(), **SMALL)
    actions = []
    for _ in range(6):
        algorithm.collect()
        actions.append(algorithm.rollout.actions.clone())
        algorithm.step()
    assert algorithm._collect.graph is not None
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
    assert algorithm._learn.graph is not None
    assert all(distance > 0 for distance in moved[:5])
    assert moved[5:] == [0, 0, 0]

    algorithm = Algorithm(Endless, device=cuda(), entropy_coeff_schedule=[[0, 0.0], [48 * 5, 10.0]], **SMALL)
    losses = [metrics["losses/total"] for metrics in iterate(algorithm, 7)]
    assert max(losses[4:]) < min(losses[:4]) - 5  # ten times an entropy of about log 3


@pytest.mark.cuda
@pytest.mark.parametrize("amp_dtype", ["bf16", "fp16"])
def test_mixed_precision_on_cuda(amp_dtype):
    algorithm = Algorithm(Steering, device=cuda(), enable_amp=True, amp_dtype=amp_dtype, **SMALL)
    iterate(algorithm, 5)
    assert torch.isfinite(weights(algorithm)).all()
    algorithm.collect()
    rollout = algorithm.rollout
    batch = rollout.minibatch(torch.arange(48, device="cuda").unsqueeze(0))
    with torch.no_grad():
        logp, _, _ = algorithm.policy.evaluate(batch.seen, batch.actions, batch.state)
    torch.testing.assert_close(logp, batch.logp, rtol=0, atol=5e-2)


@pytest.mark.cuda
def test_an_environment_that_syncs_falls_back_with_the_reason():
    algorithm = Algorithm(Syncing, device=cuda(), **SMALL)
    with pytest.warns(RuntimeWarning, match="The rollout can't be captured as a CUDA graph and runs eagerly"):
        iterate(algorithm, 4)
    assert algorithm._collect.graph is None
    assert algorithm._learn.graph is not None  # the update still is
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        iterate(algorithm, 2)


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
