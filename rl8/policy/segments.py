"""Sequences in which episodes end, cut into segments that a recurrent network goes through side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Steps to compute, padding among them, for each that is wanted; beyond, one step after the other is less work.
MOST_PADDING = 4


class Segments(NamedTuple):
    """The parts of `[L, B]` sequences between ends of episodes, S of them, each padded to the longest of K steps.

    Attributes:
        steps, sequences: `[K, S]` where each step is in the sequences; padding repeats a segment's last step, because
            a network may not know what to do with zeros.
        begins: `[S]` bool, whether a segment begins in the midst of a sequence, so with a new episode.
        places: `[L, B]` where each step of the sequences is, counted `k * S + s`.
    """

    steps: Tensor
    sequences: Tensor
    begins: Tensor
    places: Tensor

    def unfold(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return features `[K, S, ...]`, nested as they may be, as those of the sequences, `[L, B, ...]`."""
        return {
            name: part.flatten(0, 1)[self.places] if isinstance(part, Tensor) else self.unfold(part)
            for name, part in features.items()
        }


def segments(is_last: Tensor) -> Segments | None:
    """Return the segments of sequences, or None where they would mostly be padding. The device is waited for.

    Args:
        is_last: `[L, B]` bool, steps after which an episode is over.
    """
    length, number = is_last.shape
    first = torch.ones_like(is_last)
    first[1:] = is_last[:-1]
    first = first.T.flatten()  # [B * L], one sequence after the other
    segment = first.cumsum(0) - 1
    starts = first.nonzero().squeeze(1)  # [S]
    within = torch.arange(length * number, device=is_last.device) - starts[segment]
    longest = int(within.max()) + 1
    if longest * len(starts) > MOST_PADDING * length * number:
        return None
    lengths = torch.bincount(segment)
    table = starts + torch.minimum(torch.arange(longest, device=is_last.device).unsqueeze(1), lengths - 1)
    places = (within * len(starts) + segment).view(number, length).T
    return Segments(table % length, table // length, starts % length > 0, places)
