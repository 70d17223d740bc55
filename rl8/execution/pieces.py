"""The gradient of a minibatch, computed in pieces that suit a processor's caches.

Each piece's loss is weighted by its share of the minibatch, so that the gradients add up to that of the whole
minibatch, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Two threads of their own with fewer env steps each are slower than two that share every operation.
MIN_STEPS_PER_THREAD = 2048


Rows = Tensor | slice  # places of sequences in a rollout, see `Rollout.minibatch`

# Gives the loss of the sequences at some places: first what is differentiated, then what is logged, 0-d each.
Loss = Callable[..., Sequence[Tensor]]


class Piece(NamedTuple):
    """Some sequences of a minibatch.

    Attributes:
        rows: Their places in the rollout, `[L, B]`, or a slice of consecutive steps; see `Rollout.minibatch`.
        share: Which part of the minibatch they are, in (0, 1].
    """

    rows: Rows
    share: float


class Gradient(NamedTuple):
    """What a backward pass gives.

    Attributes:
        tensors: Gradient of each parameter, None where the loss does not depend on it.
        losses: `[K]` the parts of the loss, each times the share of the minibatch.
    """

    tensors: list[Tensor | None]
    losses: Tensor


def whole(rows: Rows) -> list[Piece]:
    """Return a minibatch as one piece."""
    return [Piece(rows, 1.0)]


def split(rows: Rows, *, piece_size: int | None, threads: int) -> list[list[Piece]]:
    """Return for each thread the pieces that it computes, as equal as possible.

    Args:
        rows: Places of the minibatch's sequences, `[L, B]`, or a slice of consecutive steps.
        piece_size: Env steps per piece at most, but at least one sequence; None for no limit.
        threads: Threads that there are, >= 1; fewer are used where the minibatch is small.
    """
    seq_len, num_seqs = (1, rows.stop - rows.start) if isinstance(rows, slice) else rows.shape
    threads = min(threads, max(seq_len * num_seqs // MIN_STEPS_PER_THREAD, 1))
    most = num_seqs if piece_size is None else max(piece_size // seq_len, 1)
    per_thread = -(-num_seqs // (threads * most))
    size = -(-num_seqs // (threads * per_thread))
    pieces = []
    for start in range(0, num_seqs, size):
        stop = min(start + size, num_seqs)
        part = slice(rows.start + start, rows.start + stop) if isinstance(rows, slice) else rows[:, start:stop]
        pieces.append(Piece(part, (stop - start) / num_seqs))
    return [pieces[start : start + per_thread] for start in range(0, len(pieces), per_thread)]


def gradient(
    parameters: Sequence[Tensor], loss: Loss, scale: Callable[[Tensor], Tensor], pieces: Sequence[Piece]
) -> Gradient:
    """Return the gradient of some pieces of a minibatch.

    Args:
        parameters: What to differentiate by.
        loss: Gives the loss of the sequences at some places: first what is differentiated, then what is logged.
        scale: Applied to the weighted loss before differentiation.
        pieces: At least one.
    """
    tensors: list[Tensor | None] = [None] * len(parameters)
    losses: Tensor | None = None
    learned = [parameter for parameter in parameters if parameter.requires_grad]  # others may be frozen for a while
    for rows, share in pieces:
        found = loss(rows)
        more = iter(torch.autograd.grad(scale(found[0] * share), learned, allow_unused=True))
        tensors = add(tensors, [next(more) if parameter.requires_grad else None for parameter in parameters])
        parts = torch.stack([found[0].detach(), *found[1:]])
        losses = parts * share if losses is None else losses.add_(parts, alpha=share)
    assert losses is not None
    return Gradient(tensors, losses)


def add(total: Sequence[Tensor | None], more: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the sum of two gradients, written into the tensors of the first."""
    pairs = [(one, other) for one, other in zip(total, more, strict=True) if one is not None and other is not None]
    if pairs:
        torch._foreach_add_([one for one, _ in pairs], [other for _, other in pairs])
    return [other if one is None else one for one, other in zip(total, more, strict=True)]
