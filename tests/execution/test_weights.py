import torch
from torch import nn

from rl8.execution.weights import cast_once


def test_layers_compute_the_same_with_weights_that_are_cast_already():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2, bias=False))
    rows, weights = torch.randn(5, 3), list(model.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        expected = model(rows)
        with cast_once(model, torch.bfloat16):
            cast = [weight.dtype for weight in model.parameters()]
            found = model(rows)
        with cast_once(model, None):
            assert [weight.dtype for weight in model.parameters()] == [torch.float32] * 5
    assert torch.equal(found, expected)
    assert cast == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
    assert all(one is other for one, other in zip(model.parameters(), weights, strict=True))
