import pytest
import torch

from rl8.execution.pieces import MIN_STEPS_PER_THREAD, add, gradient, split
from rl8.ppo.losses import PPOLoss


def places(shares):
    """Return the pieces' places one after the other, whichever thread has them."""
    rows = [piece.rows for pieces in shares for piece in pieces]
    if isinstance(rows[0], slice):
        return [place for part in rows for place in range(part.start, part.stop)]
    return torch.cat(rows, dim=1).tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("piece_size", [None, 1, 100, 256, 10**6])
@pytest.mark.parametrize("num_seqs", [1, 255, 4096, 4097, 9000])
def test_every_sequence_is_in_one_piece(num_seqs, piece_size, threads):
    options = {"piece_size": piece_size, "threads": threads}
    shares = split(slice(7, 7 + num_seqs), **options)
    assert places(shares) == list(range(7, 7 + num_seqs))
    pieces = [piece for share in shares for piece in share]
    sizes = [piece.rows.stop - piece.rows.start for piece in pieces]
    assert [piece.share for piece in pieces] == [size / num_seqs for size in sizes]
    assert max(sizes) <= (piece_size or num_seqs)
    assert max(sizes) - min(sizes) <= len(sizes)
    assert len(shares) <= threads

    rows = torch.arange(2 * num_seqs).reshape(2, num_seqs)
    assert places(split(rows, **options)) == rows.tolist()


def test_threads_get_equal_work():
    # 5 pieces of at most 1000 become 6, since two threads share them.
    shares = split(slice(0, 4999), piece_size=1000, threads=2)
    sizes = [[piece.rows.stop - piece.rows.start for piece in share] for share in shares]
    assert sizes == [[834, 834, 834], [834, 834, 829]]


def test_small_minibatches_stay_in_one_thread():
    for steps, expected in ((2 * MIN_STEPS_PER_THREAD - 1, 1), (2 * MIN_STEPS_PER_THREAD, 2)):
        assert len(split(slice(0, steps), piece_size=None, threads=2)) == expected


def test_pieces_give_the_gradient_of_the_whole():
    # loss = mean((w x)^2) over x = 1 ... 4 at w = 3: 9 * 30 / 4 = 67.5; by w: 6 * 30 / 4 = 45
    weight, unused = torch.tensor(3.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    data = torch.arange(1.0, 5.0)

    def loss(rows):
        total = (weight * data[rows]).square().mean()
        return PPOLoss(total, *[torch.tensor(float(index)) for index in range(1, 6)])

    for piece_size in (1, 3, None):
        (pieces,) = split(slice(0, 4), piece_size=piece_size, threads=1)
        found = gradient([weight, unused], loss, lambda total: 2 * total, pieces)
        assert found.tensors[0].item() == pytest.approx(2 * 45)
        assert found.tensors[1] is None
        assert found.losses.tolist() == pytest.approx([67.5, 1, 2, 3, 4, 5])


def test_gradients_are_added_where_there_are_any():
    one = torch.ones(2)
    first, second, third, fourth = add([one, None, one * 3, None], [one * 2, one * 4, None, None])
    assert first.tolist() == [3, 3]
    assert first is one
    assert second.tolist() == [4, 4]
    assert third.tolist() == [3, 3]
    assert fourth is None
