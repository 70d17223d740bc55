"""An order of rows in which neighbours resemble each other, for networks that gain from it: see `piecewise`."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

# Rows that lie side by side because they resemble each other. Fewer resemble each other more, but then their common
# part is found for fewer: 512 to 2048 are about equally fast.
CELL: Final = 1024

# Cells that a thread computes together from which on they gain: two cost what they save.
MIN_CELLS: Final = 4

# Vectors that tell in which direction many spread most.
SAMPLE: Final = 256


def by_similarity(vectors: Tensor, shares: int) -> Tensor:
    """Return an order `[M]` of vectors `[M, D]` in which the first `CELL`, the next and so on resemble each other.

    Where they spread most they are cut in two halves, then each of these, as in a k-d tree (Bentley 1975,
    doi:10.1145/361002.361007).

    Args:
        vectors: `[M, D]` float, on the CPU.
        shares: In how many equal parts the order will be cut. Neighbouring cells are dealt to them in turn, so that no
            part has all the hard ones.
    """
    places = torch.arange(vectors.shape[0])
    cells = _cells(vectors, vectors.t().contiguous(), places)
    return torch.cat([cell for share in range(shares) for cell in cells[share::shares]])


def _cells(vectors: Tensor, columns: Tensor, places: Tensor) -> list[Tensor]:
    """Return which of the vectors `[M, D]` at some places `[n]` are in each cell; `columns` are the same, `[D, M]`."""
    count = places.shape[0]
    if count <= CELL:
        return [places]
    some = vectors.index_select(0, places[:: max(count // SAMPLE, 1)])
    values = columns[int(some.var(0).argmax())].index_select(0, places)
    left = (-(-count // CELL) + 1) // 2 * CELL  # whole cells
    order = torch.from_numpy(np.argpartition(values.numpy(), left))  # twenty times as fast as torch's sort
    parts = (places.index_select(0, part) for part in (order[:left], order[left:]))
    return [cell for part in parts for cell in _cells(vectors, columns, part)]
