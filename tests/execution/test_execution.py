import pytest
import torch
from comparing import weights
from envs import Steering

from rl8 import Algorithm, DeviceSettings
from rl8.env import CartPole
from rl8.execution.execution import Execution
from rl8.execution.graphs import CapturedWork, Work

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


# ------------------------------------------------------------------------------------------- on a pretended CUDA device


@pytest.mark.usefixtures("device")
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


# ------------------------------------------------------------------------------------------------- on a CUDA device


@pytest.mark.cuda
@pytest.mark.parametrize("amp_dtype", ["bf16", "fp16"])
def test_mixed_precision_on_cuda(amp_dtype):
    device = DeviceSettings("cuda", matmul_precision="highest")
    small = {"num_envs": 6, "horizon": 8, "model_config": {"hiddens": [16]}}
    algorithm = Algorithm(Steering, device=device, enable_amp=True, amp_dtype=amp_dtype, **small)
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
