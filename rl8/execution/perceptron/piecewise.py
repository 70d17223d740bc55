"""A perceptron of ReLUs on a CPU, as what it is: an affine function of its inputs, another one in each region.

Rows that resemble each other find most units either idle (zero in all of these rows) or opened (zero in none). An idle
unit adds nothing. An opened one passes on what comes in, so that all opened units of a layer together are an affine
function of what the layer before has, a matrix that is found without looking at a row. Left to be computed row by row
are the mixed units, idle in some of the rows and opened in others: a fifth of them on CartPole, where similar rows lie
side by side. Since products of hidden layers cost the units of one times the units of the other, little is left of
them. What is left then is to find the mixed ones: where few are, bounds of the features, which differ little within
similar rows, tell of most units on which side they are, and nobody looks at their sums.

Backwards the same holds. Gradients by opened units' sums are linear functions of the gradients that the layer above
has, and the gradient by a weight, a sum over rows of products of one with the other, needs no more of the rows than the
sums of products of the few gradients and the few features that all others consist of.

Result and gradient are those of the ordinary computation, to rounding. Montufar et al. 2014 (arXiv:1402.1869) count the
regions of such networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from rl8.execution.perceptron.blocks import Activation, Layer, Network, buffers, sizes
from rl8.execution.perceptron.similarity import CELL, MIN_CELLS

# Width from which on a layer between two hidden ones costs more than finding out which of its units are mixed.
MIN_WIDTH: Final = 128

# Most features of a first hidden layer, as a share of its units, with which this is faster than computing every unit.
MOST_FEATURES: Final = 0.6

# What decides that: so many rows of each of so many cells.
SAMPLE_CELLS: Final = 4
SAMPLE_ROWS: Final = 64

# Share of mixed units, in that sample, up to which bounds tell of most others. Then twice as many cells are computed at
# once, which pays for the operations that this takes.
FEW: Final = 0.15

# Floats of the widest layer in cells that are computed at once. Fewer cost more operations, at each of which Python's
# threads may wait for each other; more leave the caches, and each cell computes as many units as the worst of them.
BLOCK_FLOATS: Final = 2**20


def suits(layers: Sequence[Layer], activation: Activation) -> bool:
    """Return whether these layers can gain from rows that are alike: ReLUs, and a large product of hidden layers."""
    return activation.piecewise and any(min(weight.shape) >= MIN_WIDTH for weight, _ in layers[1:])


class _Told(NamedTuple):
    """What bounds tell of a layer's units.

    Attributes:
        opened: `[G, out]` bool, opened units; none if there are so few that they cost less row by row.
        unsure: `[G, K]` units of which only their sums tell.
        by_unsure: `[G, 1 + F, K]` these sums, as functions of the features before.
    """

    opened: Tensor
    unsure: Tensor
    by_unsure: Tensor


class _Hidden(NamedTuple):
    """A hidden layer of G cells of B rows.

    Attributes:
        features: `[1 + F, G, B]` ones, and what all units are linear functions of.
        chosen: `[G, K]` units that were computed row by row: the last K features.
        opened: `[G, out]` bool, units that are passed on as functions of the features before; None if none is.
        by_before: `[G, 1 + E, out]` these functions, zero for all other units; None if there are none.
    """

    features: Tensor
    chosen: Tensor
    opened: Tensor | None
    by_before: Tensor | None

    @property
    def values(self) -> Tensor:
        """`[K, G, B]` what the chosen units gave."""
        return self.features[self.features.shape[0] - self.chosen.shape[1] :]


class _Block(NamedTuple):
    """What is kept of a block of cells.

    Attributes:
        buffer: `[(1 + in + ...) * G, B]` where features lie.
        inputs: `[1 + in, G, B]` ones, and the inputs.
        hidden: The hidden layers.
    """

    buffer: Tensor
    inputs: Tensor
    hidden: list[_Hidden]


class Piecewise(Network):
    """Computes a perceptron of ReLUs for rows whose neighbours resemble each other.

    Args:
        rows: `[M, in]` that it is for.
        layers: Weight and bias of each layer.
        activation: ReLU.
        activated: The number of layers, or one less.

    Attributes:
        few: Whether few units are mixed, so that bounds are worth their while.
    """

    def __init__(self, rows: Tensor, layers: Sequence[Layer], activation: Activation, activated: int) -> None:
        super().__init__(rows, layers, activation, activated)
        # [1 + in, out]: what the ones and each feature add to a layer's sums
        self._by_inputs = [torch.cat([bias.unsqueeze(0), weight.t()]) for weight, bias in layers]
        widest = max(weight.shape[0] for weight, _ in layers)
        cells, rest = divmod(rows.shape[0], CELL)
        at_once = max(BLOCK_FLOATS // (widest * CELL), 1)
        self.few = cells >= 2 * at_once and _share_mixed(rows, layers[:-1]) <= FEW
        blocks = sizes(cells, at_once * (1 + self.few))
        self.sizes = [*(count * CELL for count in blocks), *sizes(rest, CELL)]

    @staticmethod
    def gains(rows: Tensor, layers: Sequence[Layer], activation: Activation) -> bool:
        """Return whether this is faster than computing every unit, judged by the first layer for a few rows."""
        if rows.shape[0] < MIN_CELLS * CELL or not suits(layers, activation):
            return False
        weight, _ = layers[0]
        return weight.shape[1] / weight.shape[0] + _share_mixed(rows, layers[:1]) <= MOST_FEATURES

    def forward(self, rows: Tensor, out: Tensor) -> _Block:
        """See `Network.forward`."""
        cells = max(rows.shape[0] // CELL, 1)
        size, width = rows.shape[0] // cells, rows.shape[1]
        # Feature by feature, so that choosing some copies whole rows. Only as many are ever written as there are.
        room = 1 + width + sum(1 + weight.shape[0] for weight, _ in self.layers[:-1])
        buffer = buffers.take(room * cells, size, rows)
        features = buffer.view(room, cells, size)
        features[0] = 1
        features[1 : 1 + width] = rows.unflatten(0, (cells, size)).permute(2, 0, 1)
        start, stop = 0, 1 + width  # features of the layer at hand
        bounds = torch.stack([features[:stop].amin(2).t(), features[:stop].amax(2).t()], 1) if self.few else None
        by_features = self._by_inputs[0].expand(cells, -1, -1)  # [G, 1 + F, out] its sums, as functions of them
        hidden = []
        for (weight, _), following in zip(self.layers, self._by_inputs[1:], strict=False):
            told = None if bounds is None else _tell(by_features, bounds)
            by_unsure = by_features if told is None else told.by_unsure
            units = by_unsure.shape[2]  # that are looked at
            rows_of_sums = buffers.take(cells * weight.shape[0], size, rows)
            sums = rows_of_sums[: cells * units].view(cells, units, size)
            torch.bmm(by_unsure.transpose(1, 2), features[start:stop].transpose(0, 1), out=sums)
            least, most = sums.amin(2), sums.amax(2)
            idle, sure = most <= 0, least > 0  # neither of them where there is a NaN
            opened = sure if told is None else told.opened.scatter_(1, told.unsure, sure)
            passed_on = int(opened.count_nonzero()) > (stop - start) * cells  # else they cost less row by row
            wanted = _places((idle | sure).logical_not_() if passed_on else idle.logical_not_())
            chosen = wanted if told is None else told.unsure.gather(1, wanted)
            by_chosen = following[1:].index_select(0, chosen.flatten()).unflatten(0, chosen.shape)
            if passed_on:
                by_before = by_features * opened.scatter_(1, chosen, False).unsqueeze(1)
                through = torch.mm(by_before.flatten(0, 1), following[1:]).unflatten(0, by_before.shape[:2])
                through[:, 0] += following[0]
            else:
                by_before, through = None, following[:1].expand(cells, 1, -1)
                features[stop] = 1
                start, stop = stop, stop + 1
            by_features = torch.cat([through, by_chosen], 1)
            if bounds is not None:
                ends = torch.stack([least.gather(1, wanted), most.gather(1, wanted)], 1)
                bounds = torch.cat([bounds if passed_on else bounds[:, :, :1], ends.relu_()], 2)
            values = features[stop : stop + chosen.shape[1]]
            places = (wanted + torch.arange(cells).mul_(units).unsqueeze(1)).t().flatten()
            self.activation.apply_(torch.index_select(rows_of_sums, 0, places, out=values.view(-1, size)))
            buffers.give([rows_of_sums])
            stop += chosen.shape[1]
            hidden.append(_Hidden(features[start:stop], chosen, opened if passed_on else None, by_before))
        last = torch.bmm(by_features.transpose(1, 2), features[start:stop].transpose(0, 1))  # [G, out, B]
        out.unflatten(0, (cells, size)).copy_(last.transpose(1, 2))
        if self.activated == len(self.layers):
            self.activation.apply_(out)
        return _Block(buffer, features[: 1 + width], hidden)

    def backward(
        self, kept: Sequence[_Block], rows: Tensor, out: Tensor, gradient: Tensor, by_rows: Tensor | None
    ) -> list[Tensor]:
        """See `Network.backward`."""
        totals = [by_inputs.new_zeros(by_inputs.shape[::-1]) for by_inputs in self._by_inputs]  # [out, 1 + in]
        outs = [gradient, out] if by_rows is None else [gradient, out, by_rows]
        for block, (flow, result, *by_block) in zip(kept, self.blocks(*outs), strict=True):
            if self.activated == len(self.layers):
                flow = flow.clone()  # autograd's own is not ours to write to
                self.activation.backward_(flow, result)
            self._backward(block, flow, totals, by_block[0] if by_block else None)
            self.give(block)
        return [part for total in totals for part in (total[:, 1:].contiguous(), total[:, 0].contiguous())]

    def _backward(self, block: _Block, flow: Tensor, totals: Sequence[Tensor], by_rows: Tensor | None) -> None:
        """Add a block's gradient by each layer's bias and weight; write that by its rows.

        Args:
            block: What was kept of it.
            flow: `[G * B, out]` gradient by the last layer's sums.
            totals: `[out, 1 + in]` for each layer.
            by_rows: `[G * B, in]`, or None.
        """
        _, cells, size = block.inputs.shape
        start, stop = 0, flow.shape[1]
        room = sum(weight.shape[0] for weight, _ in self.layers)  # of which as much is written as units were chosen
        buffer = buffers.take(room * cells, size, flow)
        flows = buffer.view(room, cells, size)  # gradients that others are linear functions of
        flows[:stop] = flow.unflatten(0, (cells, size)).permute(2, 0, 1)
        above: _Hidden | None = None  # the layer at hand, none while that is the last one
        to_opened: Tensor | None = None  # [G, P, out] gradients by its opened units' sums, as functions of the flows
        for index in reversed(range(len(self.layers))):
            weight, below = self.layers[index][0], block.hidden[index - 1] if index else None
            features = block.inputs if below is None else below.features
            here = flows[start:stop].transpose(0, 1)
            _add(totals[index], torch.bmm(here, features.permute(1, 2, 0)), above, to_opened, below)
            if above is None:
                to_below = weight.expand(cells, -1, -1)  # [G, P, in] gradients by its inputs, as functions of them
            else:
                to_below = weight.index_select(0, above.chosen.flatten()).unflatten(0, above.chosen.shape)
                if to_opened is not None:
                    through = torch.mm(to_opened.flatten(0, 1), weight).unflatten(0, to_opened.shape[:2])
                    to_below = torch.cat([through, to_below], 1)
            if below is not None:
                places = below.chosen.unsqueeze(1).expand(-1, to_below.shape[1], -1)
                more = flows[stop : stop + below.chosen.shape[1]]
                torch.bmm(to_below.gather(2, places).transpose(1, 2), here, out=more.transpose(0, 1))
                self.activation.backward_(more, below.values)
                to_opened = None if below.opened is None else to_below * below.opened.unsqueeze(1)
                start, stop = stop if to_opened is None else start, stop + more.shape[0]
            elif by_rows is not None:
                torch.bmm(here.transpose(1, 2), to_below, out=by_rows.unflatten(0, (cells, size)))
            above = below
        buffers.give([buffer])

    def give(self, kept: _Block) -> None:
        """See `Network.give`."""
        buffers.give([kept.buffer])


def _share_mixed(rows: Tensor, layers: Sequence[Layer]) -> float:
    """Return the largest share of mixed units that a hidden layer has, as a few rows `[M, in]` of a few cells tell.

    Args:
        rows: `[M, in]`, at least one cell of them.
        layers: The hidden layers.
    """
    cells = rows[: rows.shape[0] // CELL * CELL].unflatten(0, (-1, CELL))
    sample = cells[:: -(-cells.shape[0] // SAMPLE_CELLS), :: max(CELL // SAMPLE_ROWS, 1)].contiguous()
    shares = []
    for weight, bias in layers:
        sums = torch.addmm(bias, sample.flatten(0, 1), weight.t()).unflatten(0, sample.shape[:2])
        mixed = (sums.amax(1) > 0) & (sums.amin(1) <= 0)
        shares.append(int(mixed.count_nonzero()) / mixed.numel())
        sample = sums.relu_()
    return max(shares, default=0.0)


def _tell(by_features: Tensor, bounds: Tensor) -> _Told:
    """Return what bounds tell of a layer's units.

    Args:
        by_features: `[G, 1 + F, out]` the units' sums, as functions of the features.
        bounds: `[G, 2, 1 + F]` the least and the largest that each feature is.
    """
    known = by_features.shape[1]
    rising = by_features.relu()
    both = torch.cat([rising, by_features - rising], 1)
    least, most = torch.bmm(torch.cat([bounds, bounds.flip(1)], 2), both).unbind(1)
    idle, opened = most <= 0, least > 0
    if int(opened.count_nonzero()) <= known * by_features.shape[0]:
        opened = torch.zeros_like(opened)
    unsure = _places((idle | opened).logical_not_())
    return _Told(opened, unsure, by_features.gather(2, unsure.unsqueeze(1).expand(-1, known, -1)))


def _places(wanted: Tensor) -> Tensor:
    """Return units `[G, K]` among which are all wanted ones `[G, out]`; K is the most that a cell wants."""
    most = int(wanted.sum(1).amax())
    return wanted.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :most]


def _add(
    total: Tensor, products: Tensor, above: _Hidden | None, to_opened: Tensor | None, below: _Hidden | None
) -> None:
    """Add the gradient by a layer's bias and weight.

    Args:
        total: `[out, 1 + in]` to add to.
        products: `[G, P, 1 + F]` of flows and features, summed over a cell's rows.
        above: The layer, None for the last one.
        to_opened: `[G, Q, out]` gradients by its opened units' sums, as functions of the first Q flows; None if none.
        below: The layer before, None for the inputs.
    """
    if below is not None:  # from features to units
        products, by_features = products.new_zeros(*products.shape[:2], total.shape[1]), products
        products[:, :, 0] = by_features[:, :, 0]
        units, known = products[:, :, 1:], by_features.shape[2] - below.chosen.shape[1]
        if below.by_before is not None:
            units.copy_(torch.bmm(by_features[:, :, :known], below.by_before))
        places = below.chosen.unsqueeze(1).expand(-1, products.shape[1], -1)
        units.scatter_add_(2, places, by_features[:, :, known:])
    if above is None:
        total.add_(products.sum(0))
        return
    known = 0 if to_opened is None else to_opened.shape[1]
    if to_opened is not None:
        total.addmm_(to_opened.flatten(0, 1).t(), products[:, :known].flatten(0, 1))
    total.index_add_(0, above.chosen.flatten(), products[:, known:].flatten(0, 1))
