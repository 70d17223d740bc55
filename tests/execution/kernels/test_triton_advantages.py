import pytest
import torch

from execution.kernels.sides import compare
from rl8.execution.kernels import triton_advantages
from rl8.ppo import advantages

DISCOUNT = {"gamma": 0.97, "gae_lambda": 0.9}


@pytest.mark.parametrize(("horizon", "envs"), [(1, 1), (5, 127), (32, 128), (7, 300)])
def test_it_is_the_plain_functions(horizon, envs):
    rewards, values = torch.randn(horizon, envs), torch.randn(horizon + 1, envs)
    following, is_last = torch.randn(horizon, envs), torch.rand(horizon, envs) < 0.2
    arguments = (rewards, values[:-1], following, is_last)
    compare(triton_advantages.gae, advantages.gae, *arguments, **DISCOUNT)
    compare(triton_advantages.gae_endless, advantages.gae_endless, rewards, values, **DISCOUNT, atol=1e-5)


def test_an_episodes_end_cuts_the_trace_whatever_came_after():
    rewards, zeros = torch.tensor([[1.0], [torch.inf]]), torch.zeros(2, 1)
    is_last = torch.tensor([[True], [True]])
    found = triton_advantages.gae(rewards, zeros, zeros, is_last, **DISCOUNT)
    assert found.tolist() == [[1.0], [torch.inf]]
