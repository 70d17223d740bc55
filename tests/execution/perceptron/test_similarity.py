import pytest
import torch

from rl8.execution.perceptron.similarity import CELL, by_similarity


@pytest.mark.parametrize("count", [1, CELL, CELL + 1, 3 * CELL, 8 * CELL - 5])
@pytest.mark.parametrize("shares", [1, 2, 3])
def test_every_row_has_one_place(count, shares):
    order = by_similarity(torch.randn(count, 3), shares)
    assert order.sort().values.tolist() == list(range(count))


def test_neighbours_resemble_each_other():
    vectors = torch.randn(32 * CELL, 4)
    cells = vectors[by_similarity(vectors, 1)].unflatten(0, (32, CELL))
    # 32 cells are five cuts: each of the axes is cut once, one of them twice.
    assert cells.var(1).prod(-1).mean() < 0.01
    assert (cells.var(1).mean(0) < 0.6).all()


def test_cuts_go_where_rows_differ_most():
    vectors = torch.randn(8 * CELL, 2) * torch.tensor([100.0, 1.0])
    cells = vectors[by_similarity(vectors, 1)].unflatten(0, (8, CELL))
    ends = torch.stack([cells[:, :, 0].amin(1), cells[:, :, 0].amax(1)], 1)
    assert (ends[1:, 0] >= ends[:-1, 1]).all()


def test_neighbouring_cells_are_dealt_out_in_turn():
    vectors = torch.randn(8 * CELL, 1)
    alone, dealt = by_similarity(vectors, 1).split(CELL), by_similarity(vectors, 2).split(CELL)
    for place, cell in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
        assert torch.equal(dealt[place], alone[cell])


def test_equal_rows_and_what_is_not_a_number():
    assert by_similarity(torch.zeros(3 * CELL, 2), 1).sort().values.tolist() == list(range(3 * CELL))
    vectors = torch.randn(3 * CELL, 2)
    vectors[5] = float("nan")
    assert by_similarity(vectors, 1).sort().values.tolist() == list(range(3 * CELL))
