"""What one transition must cost: floating-point operations and bytes, counted by hand, and the speeds that follow.

Three bounds, each in transitions per second:

* arithmetic: all matrix products at the machine's measured rate, nothing else;
* fused: every array of an iteration read once and written once per phase, activations never leave the chip;
* layered: every layer of every network reads its input from memory and writes its output, as separate kernels do.

A multiply and an add are two operations. Element-wise work is left out of the arithmetic: it is under 1% of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """What an iteration does for each transition.

    Attributes:
        obs: Numbers in an observation.
        outputs: Numbers that the policy network puts out.
        state: Numbers in the environment's state.
        action_bytes: Bytes of a stored action.
        hiddens: Widths of the hidden layers, the same in both networks.
        horizon: Steps per iteration, T.
        passes: Passes over the data.
        lstm: Width of an LSTM that feeds both heads, instead of the two networks; 0 for none.
        seq_len: Steps that a gradient flows back through, L, with an LSTM.
    """

    obs: int = 5
    outputs: int = 3
    state: int = 4
    action_bytes: int = 8
    hiddens: tuple[int, ...] = (256, 256)
    horizon: int = 32
    passes: int = 4
    lstm: int = 0
    seq_len: int = 4

    @property
    def networks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Widths from input to output of the policy network and of the value network."""
        return (self.obs, *self.hiddens, self.outputs), (self.obs, *self.hiddens, 1)


ENVS: Mapping[str, Work] = {
    "cartpole": Work(),
    "pendulum": Work(obs=3, outputs=1, state=2, action_bytes=4),
    "dummy": Work(obs=1, outputs=2, state=1),
}


def work_of(env: str, *, model: str = "mlp", width: int = 256, horizon: int = 32, passes: int = 4) -> Work:
    """Return the work of a point of the study; `width` is that of the hidden layers or of the LSTM."""
    if model == "lstm":
        return replace(ENVS[env], lstm=width, horizon=horizon, passes=passes)
    return replace(ENVS[env], hiddens=(width, width), horizon=horizon, passes=passes)


# ------------------------------------------------------------------------------------------------------- arithmetic


def forward_flops(sizes: Sequence[int]) -> int:
    """Return operations of one row through linear layers of these widths."""
    return sum(2 * a * b for a, b in pairwise(sizes))


def backward_flops(sizes: Sequence[int]) -> int:
    """Return operations of its backward pass: gradients of all weights, and of every layer's input but the first's."""
    return 2 * forward_flops(sizes) - 2 * sizes[0] * sizes[1]


def iteration_flops(work: Work) -> dict[str, float]:
    """Return operations per transition by phase: `act`, `values` and `learn` (all passes)."""
    if work.lstm:
        return _lstm_flops(work)
    policy, value = work.networks
    both = forward_flops(policy) + forward_flops(value) + backward_flops(policy) + backward_flops(value)
    return {
        "act": float(forward_flops(policy)),
        "values": forward_flops(value) * (work.horizon + 1) / work.horizon,  # T transitions need T + 1 values
        "learn": float(work.passes * both),
    }


def _lstm_flops(work: Work) -> dict[str, float]:
    hidden, length = work.lstm, work.seq_len
    from_obs, from_state = 2 * work.obs * 4 * hidden, 2 * hidden * 4 * hidden  # four gates
    heads = 2 * hidden * (work.outputs + 1)
    forward = from_obs + from_state + heads
    # No gradient is needed for observations, nor for the state before a sequence's first step.
    backward = from_obs + from_state + from_state * (length - 1) / length + 2 * heads
    return {"act": float(forward), "values": forward / work.horizon, "learn": work.passes * (forward + backward)}


# ----------------------------------------------------------------------------------------------------------- memory


def fused_bytes(work: Work) -> dict[str, float]:
    """Return bytes per transition by phase if each array is read once and written once in each phase that needs it."""
    obs, scalar, rows = FLOAT * work.obs, FLOAT, (work.horizon + 1) / work.horizon
    memory = 2 * FLOAT * work.lstm  # hidden and cell: in and out at every step, stored and read once per sequence
    start = memory / work.seq_len
    return {
        # state in and out; the observation that is acted on, and the next one; action, logp, reward
        "act": 2.0 * FLOAT * work.state + 2 * obs + work.action_bytes + 2 * scalar + 2 * memory + start,
        "values": (obs + scalar) * rows,
        # rewards and values in, returns and raw advantages out, these in again, normalised ones out
        "advantages": 6.0 * scalar,
        # observation, action, logp, advantage, return
        "learn": float(work.passes * (obs + work.action_bytes + 3 * scalar + start)),
    }


def forward_elements(sizes: Sequence[int]) -> int:
    """Return numbers read and written for one row: each linear layer's input and output, each activation's too."""
    hidden = sizes[1:-1]
    return sum(a + b for a, b in pairwise(sizes)) + sum(2 * width for width in hidden)


def backward_elements(sizes: Sequence[int]) -> int:
    """Return numbers read and written for one row in the backward pass.

    A layer's weight gradient reads its input and its output's gradient; its input's gradient reads the latter and is
    written (not for the first layer); an activation reads a gradient and its own output and writes a gradient.
    """
    weights = sum(a + b for a, b in pairwise(sizes))
    inputs = sum(a + b for a, b in pairwise(sizes[1:]))
    return weights + inputs + sum(3 * width for width in sizes[1:-1])


def layered_bytes(work: Work, *, number_bytes: int = FLOAT) -> dict[str, float]:
    """Return bytes per transition by phase if every layer goes through memory; perceptrons only.

    Args:
        work: What is done.
        number_bytes: Size of an activation: 4 in float32, 2 in bf16.
    """
    assert not work.lstm
    policy, value = work.networks
    both = sum(forward_elements(sizes) + backward_elements(sizes) for sizes in (policy, value))
    rows = (work.horizon + 1) / work.horizon
    return {
        "act": float(number_bytes * forward_elements(policy)),
        "values": number_bytes * forward_elements(value) * rows,
        "learn": float(number_bytes * work.passes * both),
    }


# ----------------------------------------------------------------------------------------------------------- speeds


def arithmetic_bound(work: Work, flops_per_s: float) -> float:
    """Return transitions per second at a rate of matrix products."""
    return flops_per_s / sum(iteration_flops(work).values())


def fused_bound(work: Work, bytes_per_s: float) -> float:
    """Return transitions per second at a memory bandwidth, activations on chip."""
    return bytes_per_s / sum(fused_bytes(work).values())


def layered_bound(work: Work, bytes_per_s: float, *, number_bytes: int = FLOAT) -> float:
    """Return transitions per second at a memory bandwidth, every layer through memory."""
    return bytes_per_s / sum(layered_bytes(work, number_bytes=number_bytes).values())


def bounds(work: Work, peaks: Mapping[str, float]) -> dict[str, float]:
    """Return all bounds that measured peaks allow, by name.

    Args:
        work: What is done.
        peaks: `gflops` (and `bf16_gflops` where there is one), `triad_gb_s`; see `peaks.py`.
    """
    memory = peaks["triad_gb_s"] * 1e9
    found = {"arithmetic": arithmetic_bound(work, peaks["gflops"] * 1e9), "fused": fused_bound(work, memory)}
    if "bf16_gflops" in peaks:
        found["arithmetic_bf16"] = arithmetic_bound(work, peaks["bf16_gflops"] * 1e9)
    if not work.lstm:
        found["layered"] = layered_bound(work, memory)
        if "bf16_gflops" in peaks:
            found["layered_bf16"] = layered_bound(work, memory, number_bytes=2)
    return found
