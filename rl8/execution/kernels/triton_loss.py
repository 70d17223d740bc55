"""PPO's loss and its gradient in one kernel; the plain function is `loss.loss_gradient`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl8.execution.kernels.loss import Head, LossGradient, Samples, Terms, parts
from rl8.execution.kernels.triton_parts import (
    SUMS,
    add_up,
    constants,
    half_range,
    policy_gradient,
    starts,
    value_loss,
)


def loss_gradient(
    head: Head,
    features: Tensor,
    values: Tensor,
    samples: Samples,
    terms: Terms,
    *,
    log_std: Tensor | None = None,
    rows: int | None = None,
) -> LossGradient:
    """Return what the plain function of this name returns, in float32."""
    count, share = len(values), 1 / (rows or len(values))
    known = constants(head, terms, masked=samples.mask is not None)
    columns = triton.next_power_of_2(known.size)
    tile = max(4, 512 // columns)  # more would not fit into registers
    features = features.contiguous()
    gradient = torch.empty_like(features, dtype=torch.float32)
    by_values = torch.empty_like(values, dtype=torch.float32)
    tiles = triton.cdiv(count, tile)
    found = torch.empty(tiles, SUMS.value + columns, device=values.device)
    _loss[(tiles,)](
        features,
        values.contiguous(),
        features if log_std is None else log_std,
        samples.actions,
        samples.logp,
        samples.values,
        samples.advantages,
        samples.returns,
        features if samples.mask is None else samples.mask.contiguous().view(torch.uint8),
        features if samples.noise is None else samples.noise,
        starts(head, values.device),
        torch.as_tensor(terms.entropy_coeff, dtype=torch.float32, device=values.device),
        gradient,
        by_values,
        found,
        count,
        terms.weight * share,
        terms.vf_coeff,
        terms.clip_param,
        terms.vf_clip_param or 0.0,
        terms.dual_clip_param or 0.0,
        half_range(head),
        **known._asdict(),
        by_state=log_std is None,
        width=features.shape[1],
        tile=tile,
        columns_tile=columns,
        num_warps=8,
    )
    sums = found.sum(0)
    by_std = None if log_std is None else sums[SUMS.value : SUMS.value + known.size]
    return LossGradient(gradient, by_values, by_std, parts(sums[:5] * share, terms))


@triton.jit(do_not_specialize=["count"])
def _loss(
    features_ptr,
    values_ptr,
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
    by_features_ptr,
    by_values_ptr,
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
    by_state: tl.constexpr,
    width: tl.constexpr,
    tile: tl.constexpr,
    columns_tile: tl.constexpr,
):
    """Each program takes `tile` rows; `sums` `[programs, SUMS + columns]` are what it adds up over them."""
    program = tl.program_id(0)
    rows = program * tile + tl.arange(0, tile)
    live = rows < count
    rows = rows.to(tl.int64)  # M times F may pass 2^31
    columns = tl.arange(0, columns_tile)
    inside = live[:, None] & (columns < size)[None, :]
    places = rows[:, None] * width + columns[None, :]
    features = tl.load(features_ptr + places, mask=inside, other=0.0).to(tl.float32)
    if by_state:
        log_stds = features
        if kind != 0:
            log_stds = tl.load(features_ptr + places + size, mask=inside, other=0.0).to(tl.float32)
    else:
        log_stds = tl.load(log_std_ptr + columns, mask=columns < size, other=0.0)[None, :]
    by_features, by_log_stds, loss, entropy, kl, clipped = policy_gradient(
        features,
        log_stds,
        actions_ptr,
        logp_ptr,
        advantages_ptr,
        mask_ptr,
        noise_ptr,
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
    tl.store(by_features_ptr + places, by_features, mask=inside)
    sums_ptr += program * (SUMS + columns_tile)
    if by_state:
        if kind != 0:
            tl.store(by_features_ptr + places + size, by_log_stds, mask=inside)
    else:
        tl.store(sums_ptr + SUMS + columns, tl.sum(by_log_stds, 0))
    values = tl.load(values_ptr + rows, mask=live, other=0.0).to(tl.float32)
    old_values = tl.load(old_values_ptr + rows, mask=live, other=0.0)
    returns = tl.load(returns_ptr + rows, mask=live, other=0.0)
    vf, by_values = value_loss(values, old_values, returns, vf_clip, vf_clipped)
    tl.store(by_values_ptr + rows, by_values * (scale * vf_coeff), mask=live)
    add_up(sums_ptr, live, loss, vf, entropy, kl, clipped)
