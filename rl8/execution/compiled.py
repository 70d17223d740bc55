"""One optimizer step of two small perceptrons as one function, compiled by Numba: the twin of `small.SmallUpdate`.

Imports Numba, which comes with the extra `rl8[fast]`; import it only where it may be missing. The function is compiled
at its first call, some seconds, and kept on disk for later processes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import scipy.linalg  # noqa: F401 (has the products that Numba calls)

# Sums in any order and fused products, but NaN and infinity stay what they are.
FAST = {"reassoc", "contract", "arcp", "nsz"}


@numba.njit(inline="always", fastmath=FAST)  # type: ignore[untyped-decorator]
def _tanh(x: Any) -> Any:
    """Return tanh in float32, as a quotient of polynomials (Eigen's), which compiles to vector operations."""
    f = np.float32
    x = f(7.90531110763549805) if x > f(7.90531110763549805) else x
    x = f(-7.90531110763549805) if x < f(-7.90531110763549805) else x
    s = x * x
    p = s * f(-2.76076847742355e-16) + f(2.00018790482477e-13)
    p = s * p + f(-8.60467152213735e-11)
    p = s * p + f(5.12229709037114e-08)
    p = s * p + f(1.48572235717979e-05)
    p = s * p + f(6.37261928875436e-04)
    p = s * p + f(4.89352455891786e-03)
    q = s * f(1.19825839466702e-06) + f(1.18534705686654e-04)
    q = s * q + f(2.26843463243900e-03)
    q = s * q + f(4.89352518554385e-03)
    return x * p / q


@numba.njit(fastmath=FAST)  # type: ignore[untyped-decorator]
def _activate(result: Any, bias: Any, tanh: Any) -> None:
    """Add the bias `[out]` to `[M, out]` and apply the activation, in place."""
    for r in range(result.shape[0]):
        if tanh:
            for c in range(result.shape[1]):
                result[r, c] = _tanh(result[r, c] + bias[c])
        else:
            for c in range(result.shape[1]):
                total = result[r, c] + bias[c]
                result[r, c] = np.float32(0.0) if total <= np.float32(0.0) else total


@numba.njit(fastmath=FAST)  # type: ignore[untyped-decorator]
def _slopes(flow: Any, result: Any, by_bias: Any, tanh: Any) -> None:
    """Multiply gradients `[M, out]` by the slopes at some results, in place; write the bias's gradient `[out]`."""
    by_bias[:] = np.float32(0.0)
    for r in range(flow.shape[0]):
        for c in range(flow.shape[1]):
            if tanh:
                flow[r, c] *= np.float32(1.0) - result[r, c] * result[r, c]
            elif result[r, c] <= np.float32(0.0):
                flow[r, c] = np.float32(0.0)
            by_bias[c] += flow[r, c]


@numba.njit(fastmath=FAST)  # type: ignore[untyped-decorator]
def _loss(
    logits: Any, values: Any, actions: Any, series: Any, start: Any, limits: Any, coeffs: Any, by_values: Any, out: Any
) -> None:
    """Turn logits `[M, F]` into the loss's derivatives by them, and write those by values `[M]`; add the parts."""
    clip, vf_clip, dual = limits
    vf_coeff, bonus = coeffs
    rows, choices = logits.shape
    share = 1.0 / rows
    policy: Any = 0.0
    divergence: Any = 0.0
    vf: Any = 0.0
    entropies: Any = 0.0
    clipped = 0.0
    for r in range(rows):
        old_logp, old_value = series[0, start + r], series[1, start + r]
        advantage, wanted = series[2, start + r], series[3, start + r]
        largest = logits[r, 0]
        for c in range(1, choices):
            largest = logits[r, c] if logits[r, c] > largest else largest
        total = np.float32(0.0)
        for c in range(choices):
            total += np.exp(logits[r, c] - largest)
        shift = largest + np.log(total)
        entropy = np.float32(0.0)
        for c in range(choices):
            logits[r, c] -= shift
            entropy -= np.exp(logits[r, c]) * logits[r, c]
        chosen = actions[start + r]
        log_ratio = logits[r, chosen] - old_logp
        ratio = np.exp(log_ratio)
        held: Any = min(max(ratio, np.float32(1.0 - clip)), np.float32(1.0 + clip)) if ratio == ratio else ratio
        gain: Any = ratio * advantage
        bound: Any = held * advantage
        stopped = gain > bound
        objective = bound if stopped else gain
        if dual > 0.0 and advantage < 0.0 and objective < dual * advantage:
            objective = np.float32(dual * advantage)
            stopped = True
        slope = 0.0 if stopped else -gain * share
        for c in range(choices):
            p = np.exp(logits[r, c])
            logits[r, c] = p * (bonus * share * (logits[r, c] + entropy) - slope)
        logits[r, chosen] += slope
        error = values[r] - wanted
        squared: Any = error * error
        slope = vf_coeff * share * error
        if vf_clip > 0.0:
            moved = values[r] - old_value
            off = old_value + min(max(moved, np.float32(-vf_clip)), np.float32(vf_clip)) - wanted
            if abs(moved) > vf_clip and off * off > squared:
                squared = off * off
                slope = 0.0
        by_values[r] = slope
        policy -= objective
        vf += 0.5 * squared
        entropies += entropy
        divergence += ratio - 1.0 - log_ratio
        clipped += 1.0 if abs(ratio - 1.0) > clip else 0.0
    out[0] = (policy + vf_coeff * vf - bonus * entropies) * share
    out[1], out[2], out[3] = policy * share, vf * share, entropies * share
    out[4], out[5] = divergence * share, clipped * share


@numba.njit(cache=True, fastmath=FAST)  # type: ignore[untyped-decorator]
def optimizer_step(
    inputs: Any,
    actions: Any,
    series: Any,
    start: Any,
    sizes: Any,
    tanh: Any,
    limits: Any,
    vf_coeff: Any,
    entropy_coeff: Any,
    adam: Any,
    vectors: Any,
    work: Any,
    out: Any,
) -> None:
    """Compute a minibatch's gradient, clip it and let Adam take its step.

    Args:
        inputs: `[M, D]` float32.
        actions: `[T * N]` int64, choices.
        series: `[4, T * N]` old log-probability, old value, advantage and return.
        start: Place of the minibatch's first row in these two.
        sizes: D, the widths of the hidden layers, and the number of choices.
        tanh: Whether the activation is tanh, else ReLU.
        limits: Clip parameter, of the value and of dual clipping; 0 for none.
        vf_coeff: Weight of the value loss.
        entropy_coeff: `[1]` weight of the entropy.
        adam: Learning rate, both betas, epsilon, norm to clip gradients to (0 for none), steps so far with this one.
        vectors: Weights, gradient, first and second moments, flat; see `small._Flat`.
        work: At least `M * (4 * sum(widths) + choices + 2)` float32.
        out: `[7]` gets the parts of the loss and the gradient's norm before clipping.
    """
    weights, gradient, first, second = vectors
    rows, hidden = inputs.shape[0], len(sizes) - 2
    choices, last = sizes[hidden + 1], sizes[hidden]
    place = spot = 0
    for layer in range(hidden):
        fan_in, width = sizes[layer], sizes[layer + 1]
        for net in range(2):
            weight = weights[place + net * width * fan_in :][: width * fan_in].reshape(width, fan_in)
            bias = weights[place + 2 * width * fan_in + net * width :][:width]
            below = inputs
            if layer > 0:
                below = work[spot - (2 - net) * rows * fan_in :][: rows * fan_in].reshape(rows, fan_in)
            result = work[spot + net * rows * width :][: rows * width].reshape(rows, width)
            np.dot(below, weight.T, result)
            _activate(result, bias, tanh)
        place += 2 * width * (fan_in + 1)
        spot += 2 * rows * width
    policy = work[spot - 2 * rows * last :][: rows * last].reshape(rows, last)
    value = work[spot - rows * last :][: rows * last].reshape(rows, last)
    logits = work[spot:][: rows * choices].reshape(rows, choices)
    values = work[spot + rows * choices :][:rows].reshape(rows, 1)
    by_values = work[spot + rows * (choices + 1) :][:rows].reshape(rows, 1)
    flows = work[spot + rows * (choices + 2) :]
    head = weights[place:][: choices * last].reshape(choices, last)
    value_head = weights[place + choices * (last + 1) :][:last].reshape(1, last)
    np.dot(policy, head.T, logits)
    np.dot(value, value_head.T, values)
    for r in range(rows):
        for c in range(choices):
            logits[r, c] += weights[place + choices * last + c]
        values[r, 0] += weights[place + choices * (last + 1) + last]
    _loss(logits, values[:, 0], actions, series, start, limits, (vf_coeff, entropy_coeff[0]), by_values[:, 0], out)
    np.dot(logits.T, policy, gradient[place:][: choices * last].reshape(choices, last))
    np.dot(by_values.T, value, gradient[place + choices * (last + 1) :][:last].reshape(1, last))
    for c in range(choices):
        gradient[place + choices * last + c] = logits[:, c].sum()
    gradient[place + choices * (last + 1) + last] = by_values.sum()
    taken = 0
    np.dot(logits, head, flows[: rows * last].reshape(rows, last))
    np.dot(by_values, value_head, flows[rows * last :][: rows * last].reshape(rows, last))
    for layer in range(hidden - 1, -1, -1):
        fan_in, width = sizes[layer], sizes[layer + 1]
        place -= 2 * width * (fan_in + 1)
        spot -= 2 * rows * width
        for net in range(2):
            flow = flows[taken + net * rows * width :][: rows * width].reshape(rows, width)
            result = work[spot + net * rows * width :][: rows * width].reshape(rows, width)
            _slopes(flow, result, gradient[place + 2 * width * fan_in + net * width :][:width], tanh)
            below = inputs
            if layer > 0:
                below = work[spot - (2 - net) * rows * fan_in :][: rows * fan_in].reshape(rows, fan_in)
            at = place + net * width * fan_in
            np.dot(flow.T, below, gradient[at:][: width * fan_in].reshape(width, fan_in))
            if layer > 0:
                weight = weights[at:][: width * fan_in].reshape(width, fan_in)
                after = flows[taken + 2 * rows * width + net * rows * fan_in :][: rows * fan_in]
                np.dot(flow, weight, after.reshape(rows, fan_in))
        taken += 2 * rows * width
    rate, beta1, beta2, epsilon, most, steps = adam
    squares = 0.0
    for index in range(len(gradient)):
        squares += gradient[index] * gradient[index]
    norm = np.sqrt(squares)
    out[6] = norm
    scale = np.float32(most / (norm + 1e-6)) if most > 0.0 and not norm + 1e-6 <= most else np.float32(1.0)
    size, root = np.float32(rate / (1.0 - beta1**steps)), np.float32(1.0 / np.sqrt(1.0 - beta2**steps))
    b1, b2, e = np.float32(beta1), np.float32(beta2), np.float32(epsilon)
    r1, r2 = np.float32(1.0 - beta1), np.float32(1.0 - beta2)
    for index in range(len(gradient)):
        slope = gradient[index] * scale
        gradient[index] = slope
        first[index] = b1 * first[index] + r1 * slope
        second[index] = b2 * second[index] + r2 * slope * slope
        weights[index] -= size * first[index] / (np.sqrt(second[index]) * root + e)
