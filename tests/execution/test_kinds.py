import pytest
import torch
from comparing import weights
from envs import Endless, Steering

from rl8 import Algorithm, DeviceSettings, RecurrentAlgorithm
from rl8.env import CartPole, CueRecall
from rl8.execution import kinds
from rl8.execution.cpu import CPU
from rl8.execution.cuda import CUDA
from rl8.execution.eager import Eager
from rl8.execution.graphs import CapturedWork, Work
from rl8.execution.kinds import execution_for

SMALL = {"num_envs": 6, "horizon": 8, "model_config": {"hiddens": [16]}}


@pytest.fixture(autouse=True)
def _settings_of_torch():
    """Restore torch's global settings."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


def test_a_cpu_calls_the_work_itself():
    execution = execution_for(DeviceSettings(matmul_precision="highest", num_threads=2))
    calls = []
    work = execution.work(calls.append, "update", dict)
    work(1)
    work.invalidate()
    work(2)
    assert calls == [1, 2]
    assert type(work) is Work
    assert type(execution) is CPU
    assert execution.device == torch.device("cpu")
    with execution.applied():
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_num_threads() == 2
    assert execution.threads == 2
    assert execution_for(DeviceSettings(compile=True)).threads == 1


def test_pieces_on_a_cpu_suit_the_model_unless_told():
    assert Algorithm(Endless, **SMALL).execution.piece_size == 2**22 // 16
    assert Algorithm(Endless, **SMALL, device=DeviceSettings(piece_size=7)).execution.piece_size == 7


def test_time_and_memory_on_a_cpu():
    execution = execution_for(DeviceSettings())
    begin = execution.mark()
    assert 0 <= execution.elapsed_ms(begin, execution.mark()) < 1000
    assert 50 < execution.memory_mb() < 10**5


@pytest.mark.parametrize(("dtype", "expected"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision(dtype, expected):
    execution = execution_for(DeviceSettings(), enable_amp=True, amp_dtype=dtype)
    with execution.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == expected
    assert execution.scaler.is_enabled() == (dtype == "fp16")
    with execution_for(DeviceSettings(), amp_dtype=dtype).autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_named():
    for build in (lambda: execution_for(DeviceSettings("cuda")), lambda: Algorithm(CartPole, device="cuda:1")):
        with pytest.raises(ValueError, match=r"device.*=.?cuda.* sees no CUDA device. Try device=.?cpu"):
            build()


RUNS = {
    "feedforward": (Algorithm, Endless, SMALL),
    "minibatches": (Algorithm, Steering, {**SMALL, "sgd_minibatch_size": 12}),
    "accumulated": (Algorithm, Endless, {**SMALL, "sgd_minibatch_size": 12, "accumulate_grads": True}),
    "in pieces": (Algorithm, CartPole, {**SMALL, "device": DeviceSettings(piece_size=10)}),
    "recurrent, terminating": (RecurrentAlgorithm, CueRecall, {**SMALL, "model_config": {"hidden_size": 8}}),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_cpu_gives_the_results_of_the_plain_reference(run, monkeypatch):
    algorithm_cls, env_cls, options = RUNS[run]
    after = []
    for kind in (Eager, CPU):
        monkeypatch.setattr(kinds, "CPU", kind)
        torch.manual_seed(3)
        algorithm = algorithm_cls(env_cls, **options)
        assert type(algorithm.execution) is kind
        metrics = [algorithm.collect() | algorithm.step() for _ in range(3)][-1]
        after.append((weights(algorithm), {name: value.item() for name, value in metrics.items()}))
    torch.testing.assert_close(after[0][0], after[1][0], rtol=1e-4, atol=2e-5)
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-3, abs=1e-4)


# ------------------------------------------------------------------------------------------- on a pretended CUDA device


@pytest.mark.usefixtures("device")
def test_cuda_settings():
    execution = execution_for(DeviceSettings("cuda:1"), enable_amp=True)
    assert isinstance(execution, CUDA)
    assert execution.live_optimizer
    assert not execution_for(DeviceSettings("cuda", graphs=False)).live_optimizer
    assert execution.piece_size == 2**20
    assert execution.memory_mb() == 3
    begin = execution.mark()
    assert execution.elapsed_ms(begin, execution.mark()) >= 0
    assert isinstance(execution.work(list, "update", dict), CapturedWork)
    with pytest.raises(ValueError, match=r"device.device=cuda:2 does not exist: torch sees 2 CUDA device\(s\)"):
        execution_for(DeviceSettings("cuda:2"))


@pytest.mark.usefixtures("device")
def test_other_arguments_are_captured_anew():
    total, calls = torch.zeros(3), []
    work = execution_for(DeviceSettings("cuda")).work(
        lambda rows: calls.append(rows) or total.add_(1), "work", lambda: {"total": total}
    )
    for _ in range(4):
        work(slice(0, 2))
    assert work.graph is not None
    work(slice(2, 4))
    assert work.graph is None
    assert calls[-1] == slice(2, 4)


# ------------------------------------------------------------------------------------------------- on a CUDA device


@pytest.mark.cuda
@pytest.mark.parametrize("amp_dtype", ["bf16", "fp16"])
def test_mixed_precision_on_cuda(amp_dtype):
    device = DeviceSettings("cuda", matmul_precision="highest")
    algorithm = Algorithm(Steering, device=device, enable_amp=True, amp_dtype=amp_dtype, **SMALL)
    for _ in range(5):
        algorithm.collect()
        algorithm.step()
    assert torch.isfinite(weights(algorithm)).all()
    algorithm.collect()
    rollout = algorithm.rollout
    batch = rollout.minibatch(torch.arange(48, device="cuda").unsqueeze(0))
    with torch.no_grad():
        logp, _, _ = algorithm.policy.evaluate(batch.seen, batch.actions, batch.state)
    torch.testing.assert_close(logp, batch.logp, rtol=0, atol=5e-2)
