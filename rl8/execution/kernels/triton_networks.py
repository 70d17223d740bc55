"""The default networks in kernels: `networks.update` and `networks.act`, with every row's activations on chip.

A program takes a tile of rows through all layers. A layer's sums stay in registers and are the next product's operand;
the second layer is computed by pieces of its width, because 128 rows by 256 sums are all that the registers hold. The
update writes both layers' results and gradients once, for the weights' gradients, which are plain matrix products over
all rows; it reads the results again where an activation's slope is needed, soon enough to find them in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl8.execution.kernels.loss import Discrete, Head, Samples, Terms, parts
from rl8.execution.kernels.networks import Acted, Layer, Layers, Update, product
from rl8.execution.kernels.triton_parts import (
    DISCRETE,
    HALF_LOG_2PI,
    HIGHEST_LOG_STD,
    LOWEST_LOG_STD,
    SQUASHED,
    SUMS,
    VALUE,
    add_up,
    constants,
    forbid,
    half_range,
    log_slope,
    log_softmax,
    policy_gradient,
    starts,
    tanh,
    value_loss,
)

HIDDEN = 2  # layers before the head
WIDEST = 256


class Tile(NamedTuple):
    """How much a program computes at a time, so that it fits into registers and shared memory.

    Attributes:
        rows: Rows of a tile.
        piece: Columns of the second layer at a time.
        num_warps: Warps of a program.
        num_stages: Pieces of weights in shared memory at a time.
    """

    rows: int
    piece: int
    num_warps: int
    num_stages: int


# Found by compiling: shared memory that each architecture has, and no spilled registers; see
# experiments/kernels/results.md.
LEARNS = {torch.bfloat16: Tile(64, 64, 8, 2), torch.float32: Tile(32, 32, 4, 2)}
LEARNS_ON_HOPPER = Tile(128, 64, 8, 2)  # in bf16: products take their first operand from registers there
# Fewer rows than in the update come at a time: enough programs for all processors.
ACTS = {torch.bfloat16: Tile(64, 32, 8, 2), torch.float32: Tile(32, 32, 4, 2)}
ACTS_ON_AMPERE = Tile(64, 16, 8, 2)  # in bf16: one piece more would spill


def tile_for(capability: int, dtype: torch.dtype, *, learns: bool) -> Tile:
    """Return the tile for an architecture, e.g. 90, and the dtype of the weights."""
    if learns and capability == 90 and dtype == torch.bfloat16:
        return LEARNS_ON_HOPPER
    if not learns and capability < 90 and dtype == torch.bfloat16:
        return ACTS_ON_AMPERE
    return (LEARNS if learns else ACTS)[dtype]


def fits(layers: Layers, dtype: torch.dtype) -> bool:
    """Return whether the kernels know a network: two hidden layers, no side longer than 256, in bf16 or TF32.

    Args:
        layers: The network's.
        dtype: In which it is to be computed.
    """
    rounded = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    if not rounded and dtype != torch.bfloat16:
        return False
    return len(layers) == HIDDEN + 1 and max(max(layer.weight.shape) for layer in layers) <= WIDEST


def update(
    inputs: Tensor,
    policy: Layers,
    value: Layers,
    head: Head,
    samples: Samples,
    terms: Terms,
    *,
    activation: str = "relu",
    log_std: Tensor | None = None,
    rows: int | None = None,
) -> Update:
    """Return what the plain function of this name returns.

    Args:
        inputs: `[M, D]`, contiguous.
        policy: Three layers; see `fits`.
        value: Three layers.
        head: A `Gaussian` needs `log_std`.
        samples: Contiguous.
        terms: Coefficients.
        activation: `"relu"` or `"tanh"`.
        log_std: `[A]`.
        rows: Samples that means are taken over; by default M.
    """
    share = 1 / (rows or len(inputs))
    known = constants(head, terms, masked=samples.mask is not None)
    common = (inputs, samples, terms, share, activation)
    by_policy, sums = _gradient(policy, common, known._asdict(), head, log_std)
    by_value, vf_sums = _gradient(value, common, {**known._asdict(), "kind": 3, "size": 1, "masked": False}, head, None)
    by_std = None if log_std is None else sums[SUMS.value : SUMS.value + known.size]
    return Update(by_policy, by_value, by_std, parts((sums[:5] + vf_sums[:5]) * share, terms))


def act(
    inputs: Tensor,
    policy: Layers,
    value: Layers,
    head: Head,
    noise: Tensor,
    *,
    activation: str = "relu",
    log_std: Tensor | None = None,
    mask: Tensor | None = None,
) -> Acted:
    """Return what the plain function of this name returns; a `Gaussian` needs `log_std`."""
    known = constants(head, None, masked=mask is not None)
    count, device = len(inputs), inputs.device
    discrete = isinstance(head, Discrete)
    actions = torch.empty(
        count,
        known.elements if discrete else known.size,
        dtype=torch.int64 if discrete else torch.float32,
        device=device,
    )
    logp, values = torch.empty(count, device=device), torch.empty(count, device=device)
    tile = tile_for(capability(inputs), policy[0].weight.dtype, learns=False)
    grid = (triton.cdiv(count, tile.rows),)
    _act[grid](
        inputs,
        *_pointers(policy),
        *_pointers(value),
        noise,
        noise if log_std is None else log_std,
        noise if mask is None else mask.contiguous().view(torch.uint8),
        starts(head, device),
        actions,
        logp,
        values,
        count,
        half_range(head),
        kind=known.kind,
        elements=known.elements,
        size=known.size,
        masked=known.masked,
        **_shape(inputs, activation, tile, [layer.weight.shape[0] for layer in policy], known.size),
    )
    return Acted(actions, logp, values)


def _gradient(
    layers: Layers, common: tuple[Tensor, Samples, Terms, float, str], known: dict[str, Any], head: Head, log_std: Any
) -> tuple[list[Layer], Tensor]:
    """Return one network's gradient, and sums over all rows: five of the loss, three unused, the log_std's."""
    inputs, samples, terms, share, activation = common
    count, device, dtype = len(inputs), inputs.device, layers[0].weight.dtype
    width_1, width_2, size = (layer.weight.shape[0] for layer in layers)
    tile = tile_for(capability(inputs), dtype, learns=True)
    tiles = triton.cdiv(count, tile.rows)
    result_1, by_1 = (torch.empty(count, width_1, dtype=dtype, device=device) for _ in range(2))
    result_2, by_2 = (torch.empty(count, width_2, dtype=dtype, device=device) for _ in range(2))
    by_head = torch.empty(count, size, dtype=dtype, device=device)
    shape = _shape(inputs, activation, tile, (width_1, width_2), size)
    columns = shape["columns_tile"]
    found = torch.empty(tiles, SUMS.value + 2 * columns + shape["block_1"] + shape["block_2"], device=device)
    _update[(tiles,)](
        inputs,
        *_pointers(layers),
        log_std if log_std is not None else inputs,
        samples.actions,
        samples.logp,
        samples.values,
        samples.advantages,
        samples.returns,
        inputs if samples.mask is None else samples.mask.contiguous().view(torch.uint8),
        inputs if samples.noise is None else samples.noise,
        starts(head, device),
        torch.as_tensor(terms.entropy_coeff, dtype=torch.float32, device=device),
        result_1,
        result_2,
        by_1,
        by_2,
        by_head,
        found,
        count,
        terms.weight * share,
        terms.vf_coeff,
        terms.clip_param,
        terms.vf_clip_param or 0.0,
        terms.dual_clip_param or 0.0,
        half_range(head),
        **known,
        **shape,
    )
    sums = found.sum(0)
    loss, of_head, of_1, of_2 = sums.split([SUMS.value + columns, columns, shape["block_1"], shape["block_2"]])
    gradient = [
        Layer(product(by_1, inputs.to(dtype)), of_1[:width_1]),
        Layer(product(by_2, result_1), of_2[:width_2]),
        Layer(product(by_head, result_2), of_head[:size]),
    ]
    return gradient, loss


def capability(tensor: Tensor) -> int:
    """Return the architecture that a tensor lies on, e.g. 90; the interpreter on a CPU takes any."""
    major, minor = torch.cuda.get_device_capability(tensor.device) if tensor.is_cuda else (9, 0)
    return 10 * major + minor


def _pointers(layers: Layers) -> list[Tensor]:
    return [tensor for weight, bias in layers for tensor in (weight.contiguous(), bias.float())]


def _shape(inputs: Tensor, activation: str, tile: Tile, widths: Sequence[int], size: int) -> dict[str, Any]:
    """Return the sizes that a kernel is compiled for."""
    depth, block_2 = inputs.shape[1], _padded(widths[1])
    return {
        "depth": depth,
        "width_1": widths[0],
        "width_2": widths[1],
        "squeezed": activation == "tanh",
        "tile": tile.rows,
        "step": min(64, _padded(depth)),
        "block_1": _padded(widths[0]),
        "block_2": block_2,
        "piece": min(tile.piece, block_2),
        "part": min(128, _padded(widths[0])),
        "columns_tile": _padded(size),
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
    }


def _padded(size: int) -> int:
    """Return the size of a tile's side: a power of two, and enough for the tensor cores."""
    return max(16, int(triton.next_power_of_2(size)))


@triton.jit
def product_of(a, b, total):
    """Return `total + a @ b`, added up in float32; operands in float32 are rounded to TF32."""
    return tl.dot(a, b, total, input_precision="tf32")


@triton.jit
def activated(x, squeezed: tl.constexpr):
    """Return the activation."""
    # where, not maximum: what is no number stays visible
    return tanh(x) if squeezed else tl.where(x < 0, 0.0, x)


@triton.jit
def sloped(gradient, result, squeezed: tl.constexpr):
    """Return the gradient before an activation, for the one after it and the activation's result."""
    result = result.to(tl.float32)
    return gradient * (1 - result * result) if squeezed else tl.where(result > 0, gradient, 0.0)


@triton.jit
def first_layer(
    inputs_ptr,
    weight_ptr,
    bias_ptr,
    rows,
    live,
    depth: tl.constexpr,
    width: tl.constexpr,
    squeezed: tl.constexpr,
    tile: tl.constexpr,
    step: tl.constexpr,
    block: tl.constexpr,
):
    """Return the first layer's result `[tile, block]` in the weights' dtype."""
    dtype = weight_ptr.dtype.element_ty
    units = tl.arange(0, block)
    total = tl.zeros([tile, block], tl.float32)
    for start in range(0, depth, step):
        columns = start + tl.arange(0, step)
        known = columns < depth
        places = rows[:, None] * depth + columns[None, :]
        x = tl.load(inputs_ptr + places, mask=live[:, None] & known[None, :], other=0.0).to(dtype)
        places = units[None, :] * depth + columns[:, None]
        weight = tl.load(weight_ptr + places, mask=known[:, None] & (units < width)[None, :], other=0.0)
        total = product_of(x, weight, total)
    bias = tl.load(bias_ptr + units, mask=units < width, other=0.0)
    return activated(total + bias[None, :], squeezed).to(dtype)


@triton.jit
def head_of(
    first,  # [tile, block_1]
    weight_2_ptr,
    bias_2_ptr,
    weight_3_ptr,
    bias_3_ptr,
    result_2_ptr,
    rows,
    live,
    columns,
    width_1: tl.constexpr,
    width_2: tl.constexpr,
    size: tl.constexpr,
    squeezed: tl.constexpr,
    kept: tl.constexpr,
    tile: tl.constexpr,
    block_1: tl.constexpr,
    block_2: tl.constexpr,
    piece: tl.constexpr,
    columns_tile: tl.constexpr,
):
    """Return what the head puts out, `[tile, columns]` float32, zero past `size`; keep the second layer's result."""
    inner = tl.arange(0, block_1)
    total = tl.zeros([tile, columns_tile], tl.float32)
    for start in range(0, block_2, piece):
        units = start + tl.arange(0, piece)
        known = units < width_2
        places = units[None, :] * width_1 + inner[:, None]
        weight = tl.load(weight_2_ptr + places, mask=known[None, :] & (inner < width_1)[:, None], other=0.0)
        bias = tl.load(bias_2_ptr + units, mask=known, other=0.0)
        sums = product_of(first, weight, tl.zeros([tile, piece], tl.float32)) + bias[None, :]
        second = activated(sums, squeezed).to(first.dtype)
        if kept:
            places = rows[:, None] * width_2 + units[None, :]
            tl.store(result_2_ptr + places, second, mask=live[:, None] & known[None, :])
        places = columns[None, :] * width_2 + units[:, None]
        weight = tl.load(weight_3_ptr + places, mask=known[:, None] & (columns < size)[None, :], other=0.0)
        total = product_of(second, weight, total)
    return total + tl.load(bias_3_ptr + columns, mask=columns < size, other=0.0)[None, :]


@triton.jit(do_not_specialize=["count"])
def _update(
    inputs_ptr,
    weight_1_ptr,
    bias_1_ptr,
    weight_2_ptr,
    bias_2_ptr,
    weight_3_ptr,
    bias_3_ptr,
    log_std_ptr,
    actions_ptr,
    logp_ptr,
    old_values_ptr,
    advantages_ptr,
    returns_ptr,
    mask_ptr,
    noise_ptr,
    starts_ptr,
    entropy_coeff_ptr,
    result_1_ptr,
    result_2_ptr,
    by_1_ptr,
    by_2_ptr,
    by_head_ptr,
    sums_ptr,
    count,
    scale,
    vf_coeff,
    clip,
    vf_clip,
    dual_clip,
    log_half_range,
    kind: tl.constexpr,
    elements: tl.constexpr,
    size: tl.constexpr,
    masked: tl.constexpr,
    vf_clipped: tl.constexpr,
    dual_clipped: tl.constexpr,
    depth: tl.constexpr,
    width_1: tl.constexpr,
    width_2: tl.constexpr,
    squeezed: tl.constexpr,
    tile: tl.constexpr,
    step: tl.constexpr,
    block_1: tl.constexpr,
    block_2: tl.constexpr,
    piece: tl.constexpr,
    part: tl.constexpr,
    columns_tile: tl.constexpr,
):
    """Forward, loss and backward of one network for `tile` rows; `sums` as in `_gradient`."""
    program = tl.program_id(0)
    begin = program.to(tl.int64) * tile  # tensors may have more than 2^31 elements
    rows = tl.arange(0, tile)
    live = begin + rows < count
    columns = tl.arange(0, columns_tile)
    dtype = weight_1_ptr.dtype.element_ty
    inputs_ptr += begin * depth
    result_1_ptr += begin * width_1
    result_2_ptr += begin * width_2
    by_1_ptr += begin * width_1
    by_2_ptr += begin * width_2
    sums_ptr += program * (SUMS + 2 * columns_tile + block_1 + block_2)

    first = first_layer(inputs_ptr, weight_1_ptr, bias_1_ptr, rows, live, depth, width_1, squeezed, tile, step, block_1)
    units_1 = tl.arange(0, block_1)
    places_1 = rows[:, None] * width_1 + units_1[None, :]
    known_1 = live[:, None] & (units_1 < width_1)[None, :]
    tl.store(result_1_ptr + places_1, first, mask=known_1)
    outputs = head_of(
        first,
        weight_2_ptr,
        bias_2_ptr,
        weight_3_ptr,
        bias_3_ptr,
        result_2_ptr,
        rows,
        live,
        columns,
        width_1,
        width_2,
        size,
        squeezed,
        True,
        tile,
        block_1,
        block_2,
        piece,
        columns_tile,
    )

    if kind == VALUE:
        values = tl.sum(outputs, 1)
        old_values = tl.load(old_values_ptr + begin + rows, mask=live, other=0.0)
        returns = tl.load(returns_ptr + begin + rows, mask=live, other=0.0)
        vf, slope = value_loss(values, old_values, returns, vf_clip, vf_clipped)
        slope = tl.where(live, slope * (scale * vf_coeff), 0.0)
        by_outputs = tl.where((columns == 0)[None, :], slope[:, None], 0.0)
        by_log_stds = tl.zeros_like(by_outputs)
        add_up(sums_ptr, live, 0.0, vf, 0.0, 0.0, 0.0)
    else:
        by_outputs, by_log_stds, loss, entropy, kl, clipped = policy_gradient(
            outputs,
            tl.load(log_std_ptr + columns, mask=(columns < size) & (kind != DISCRETE), other=0.0)[None, :],
            actions_ptr + begin * (elements if kind == DISCRETE else size),
            logp_ptr + begin,
            advantages_ptr + begin,
            mask_ptr + begin * size,
            noise_ptr + begin * size,
            starts_ptr,
            rows,
            live,
            columns,
            scale,
            tl.load(entropy_coeff_ptr),
            clip,
            dual_clip,
            log_half_range,
            kind,
            size,
            elements,
            masked,
            dual_clipped,
        )
        add_up(sums_ptr, live, loss, 0.0, entropy, kl, clipped)
    tl.store(sums_ptr + SUMS + columns, tl.sum(by_log_stds, 0))
    tl.store(sums_ptr + SUMS + columns_tile + columns, tl.sum(by_outputs, 0))
    sums_ptr += SUMS + 2 * columns_tile
    by_head = by_outputs.to(dtype)
    places = rows[:, None] * size + columns[None, :]
    tl.store(by_head_ptr + begin * size + places, by_head, mask=live[:, None] & (columns < size)[None, :])

    tl.debug_barrier()  # results are read again by threads that did not write them
    for start in range(0, block_2, piece):
        units = start + tl.arange(0, piece)
        known = units < width_2
        places_3 = columns[:, None] * width_2 + units[None, :]
        weight_3 = tl.load(weight_3_ptr + places_3, mask=(columns < size)[:, None] & known[None, :], other=0.0)
        by_second = product_of(by_head, weight_3, tl.zeros([tile, piece], tl.float32))
        places_2 = rows[:, None] * width_2 + units[None, :]
        known_2 = live[:, None] & known[None, :]
        by_second = sloped(by_second, tl.load(result_2_ptr + places_2, mask=known_2, other=0.0), squeezed)
        tl.store(by_2_ptr + places_2, by_second.to(dtype), mask=known_2)
        tl.store(sums_ptr + block_1 + units, tl.sum(by_second, 0))

    tl.debug_barrier()
    for left in range(0, block_1, part):
        inner = left + tl.arange(0, part)
        wanted = inner < width_1
        total = tl.zeros([tile, part], tl.float32)
        for start in range(0, block_2, piece):
            units = start + tl.arange(0, piece)
            places_2 = rows[:, None] * width_2 + units[None, :]
            by_second = tl.load(by_2_ptr + places_2, mask=live[:, None] & (units < width_2)[None, :], other=0.0)
            places_5 = units[:, None] * width_1 + inner[None, :]
            weight_2 = tl.load(weight_2_ptr + places_5, mask=(units < width_2)[:, None] & wanted[None, :], other=0.0)
            total = product_of(by_second, weight_2, total)
        places_4 = rows[:, None] * width_1 + inner[None, :]
        known_4 = live[:, None] & wanted[None, :]
        total = sloped(total, tl.load(result_1_ptr + places_4, mask=known_4, other=0.0), squeezed)
        tl.store(by_1_ptr + places_4, total.to(dtype), mask=known_4)
        tl.store(sums_ptr + inner, tl.sum(total, 0))


@triton.jit(do_not_specialize=["count"])
def _act(
    inputs_ptr,
    policy_weight_1_ptr,
    policy_bias_1_ptr,
    policy_weight_2_ptr,
    policy_bias_2_ptr,
    policy_weight_3_ptr,
    policy_bias_3_ptr,
    value_weight_1_ptr,
    value_bias_1_ptr,
    value_weight_2_ptr,
    value_bias_2_ptr,
    value_weight_3_ptr,
    value_bias_3_ptr,
    noise_ptr,
    log_std_ptr,
    mask_ptr,
    starts_ptr,
    actions_ptr,
    logp_ptr,
    values_ptr,
    count,
    log_half_range,
    kind: tl.constexpr,
    elements: tl.constexpr,
    size: tl.constexpr,
    masked: tl.constexpr,
    depth: tl.constexpr,
    width_1: tl.constexpr,
    width_2: tl.constexpr,
    squeezed: tl.constexpr,
    tile: tl.constexpr,
    step: tl.constexpr,
    block_1: tl.constexpr,
    block_2: tl.constexpr,
    piece: tl.constexpr,
    part: tl.constexpr,
    columns_tile: tl.constexpr,
):
    """Both networks of the same widths for `tile` rows, the action drawn, and its log-probability."""
    begin = tl.program_id(0).to(tl.int64) * tile
    rows = tl.arange(0, tile)
    live = begin + rows < count
    columns = tl.arange(0, columns_tile)
    inside = live[:, None] & (columns < size)[None, :]
    places = rows[:, None] * size + columns[None, :]
    inputs_ptr += begin * depth
    first = first_layer(
        inputs_ptr, policy_weight_1_ptr, policy_bias_1_ptr, rows, live, depth, width_1, squeezed, tile, step, block_1
    )
    outputs = head_of(
        first,
        policy_weight_2_ptr,
        policy_bias_2_ptr,
        policy_weight_3_ptr,
        policy_bias_3_ptr,
        inputs_ptr,
        rows,
        live,
        columns,
        width_1,
        width_2,
        size,
        squeezed,
        False,
        tile,
        block_1,
        block_2,
        piece,
        columns_tile,
    )
    noise = tl.load(noise_ptr + begin * size + places, mask=inside, other=1.0)
    if kind == DISCRETE:
        logits, allowed = forbid(outputs, mask_ptr + begin * size, rows, live, columns, size, masked)
        logp = tl.zeros([tile], tl.float32)
        for k in tl.static_range(elements):
            start = tl.load(starts_ptr + k)
            own = ((columns >= start) & (columns < tl.load(starts_ptr + k + 1)))[None, :]
            cells = log_softmax(logits, own)
            rings = tl.where(own & allowed, tl.log(noise) - cells, float("inf"))
            choice = tl.maximum(tl.argmin(rings, 1) - start, 0)  # 0 where nothing is allowed
            logp += tl.sum(tl.where(columns[None, :] == (start + choice)[:, None], cells, 0.0), 1)
            tl.store(actions_ptr + (begin + rows) * elements + k, choice.to(tl.int64), mask=live)
    else:
        log_std = tl.load(log_std_ptr + columns, mask=columns < size, other=0.0)
        log_std = tl.minimum(tl.maximum(log_std, LOWEST_LOG_STD), HIGHEST_LOG_STD)[None, :]
        std = tl.exp(log_std)
        actions = outputs + std * noise
        z = (actions - outputs) / std
        logp = -tl.sum(tl.where(inside, log_std + 0.5 * z * z, 0.0), 1) - HALF_LOG_2PI * size
        if kind == SQUASHED:
            logp -= log_slope(actions, log_half_range, size, inside)
        tl.store(actions_ptr + begin * size + places, actions, mask=inside)
    tl.store(logp_ptr + begin + rows, logp, mask=live)

    first = first_layer(
        inputs_ptr, value_weight_1_ptr, value_bias_1_ptr, rows, live, depth, width_1, squeezed, tile, step, block_1
    )
    outputs = head_of(
        first,
        value_weight_2_ptr,
        value_bias_2_ptr,
        value_weight_3_ptr,
        value_bias_3_ptr,
        inputs_ptr,
        rows,
        live,
        columns,
        width_1,
        width_2,
        1,
        squeezed,
        False,
        tile,
        block_1,
        block_2,
        piece,
        columns_tile,
    )
    tl.store(values_ptr + begin + rows, tl.sum(outputs, 1), mask=live)
