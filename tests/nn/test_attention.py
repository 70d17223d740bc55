import pytest
import torch

from rl8.nn import CausalSelfAttention, TransformerBlock
from rl8.nn.attention import attention_mask

W, D = 6, 8
BLOCKS = [lambda: CausalSelfAttention(D, 2), lambda: TransformerBlock(D, 4, expansion=2)]


def windows(valid):
    """Return inputs `[1, W, D]` and a mask of which the last `valid` steps are True."""
    return torch.randn(1, W, D), (torch.arange(W) >= W - valid).unsqueeze(0)


def test_attention_mask_by_hand():
    mask = attention_mask(torch.tensor([[False, False, True, True]]))
    # Steps 0 and 1 are padding and see themselves; 2 sees itself; 3 sees 2 and itself.
    assert mask.int().tolist() == [[[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]]]


@pytest.mark.parametrize("make", BLOCKS)
@pytest.mark.parametrize("valid", range(1, W + 1))
def test_a_step_sees_itself_and_what_is_valid_before_it(make, valid):
    block = make()
    inputs, mask = windows(valid)
    for step in range(W - valid, W):
        one = inputs.clone().requires_grad_()
        block(one, mask)[0, step].square().sum().backward()
        seen = one.grad[0].abs().sum(-1) > 0
        assert seen.tolist() == [W - valid <= other <= step for other in range(W)]


@pytest.mark.parametrize("make", BLOCKS)
def test_padding_may_hold_anything(make):
    block = make()
    inputs, mask = windows(3)
    changed = torch.where(mask.unsqueeze(-1), inputs, 1e6)
    assert torch.equal(block(inputs, mask)[:, -3:], block(changed, mask)[:, -3:])


@pytest.mark.parametrize("make", BLOCKS)
def test_a_window_attends_as_the_same_steps_without_padding(make):
    block = make()
    inputs, mask = windows(3)
    torch.testing.assert_close(block(inputs, mask)[:, -3:], block(inputs[:, -3:], mask[:, -3:]))


@pytest.mark.parametrize("make", BLOCKS)
def test_windows_do_not_mix_and_gradients_are_finite(make):
    block = make()
    inputs, mask = torch.randn(5, W, D), torch.arange(W) >= torch.tensor([[0], [1], [3], [W - 1], [2]])
    outputs = block(inputs, mask)
    for m in range(5):
        torch.testing.assert_close(outputs[m : m + 1], block(inputs[m : m + 1], mask[m : m + 1]))
    outputs.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in block.parameters())
    assert sum((parameter.grad != 0).any() for parameter in block.parameters()) == len(list(block.parameters()))


def test_a_single_valid_step_returns_its_own_value():
    # Softmax over one key is 1: what comes out is the step's own value through the last layer.
    attention = CausalSelfAttention(D, 2)
    inputs, mask = windows(1)
    value = attention.qkv(inputs[:, -1])[:, 2 * D :]
    torch.testing.assert_close(attention(inputs, mask)[:, -1], attention.out(value))


@pytest.mark.parametrize(
    ("num_heads", "kind", "message"),
    [
        (3, ValueError, r"^model.num_heads=3 does not divide model.size=8. Use a divisor, e.g. model.num_heads=1"),
        (0, ValueError, r"^model.num_heads=0 is out of range. Accepted: an integer >= 1"),
        (2.0, TypeError, r"^model.num_heads=2.0 is not an integer"),
    ],
)
def test_heads_that_are_refused(num_heads, kind, message):
    with pytest.raises(kind, match=message):
        TransformerBlock(D, num_heads)
