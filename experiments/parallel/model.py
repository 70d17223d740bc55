"""How data parallel training scales on paper: 8 GPUs of a machine, and 32 such machines.

None of it was measured. T_update = T_gradient(rows) + T_exchange(bytes), without overlap: the exchange is one call
after the backward pass, and everything after it (clipping, Adam) waits for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What is assumed; each figure is a vendor's or a usual measurement by others, rounded down.

    Attributes:
        gpus: Of one machine.
        ns_per_row: Forward and backward pass of one row through the default networks in TF32, on an H200 at 88% of its
            memory's speed: 47 kB of traffic.
        floor_us: Least time of an update: some 128 kernels of 2 us in a graph.
        inside_gbs: GB/s that an all-reduce reaches between the GPUs of a machine (NVLink 4: 450 one way).
        between_gbs: The same between machines for each GPU (400 Gb/s InfiniBand: 50).
        inside_us: Latency of one step between GPUs of a machine.
        between_us: The same between machines.
        call_us: Starting an exchange.
    """

    gpus: int = 8
    ns_per_row: float = 12.7
    floor_us: float = 256.0
    inside_gbs: float = 300.0
    between_gbs: float = 40.0
    inside_us: float = 2.0
    between_us: float = 6.0
    call_us: float = 10.0


def weights(obs: int = 5, actions: int = 3, width: int = 256) -> int:
    """Return the weights of the default networks: two perceptrons with two hidden layers."""
    trunk = (obs + 1) * width + (width + 1) * width
    return 2 * trunk + (width + 1) * actions + (width + 1)


def exchange_us(sent: int, machines: int, machine: Machine) -> float:
    """Return the time of an all-reduce of so many bytes: inside machines first, then between them as a tree.

    inside:  2 (g - 1) / g * bytes / speed + 2 log2(g) * latency
    between: 2 * bytes / g / speed         + 2 log2(n) * latency
    """
    g = machine.gpus
    inside = 2 * (g - 1) / g * sent / machine.inside_gbs / 1e3 + 2 * math.log2(g) * machine.inside_us
    between = 2 * sent / g / machine.between_gbs / 1e3 + 2 * math.log2(machines) * machine.between_us
    return machine.call_us + inside + (between if machines > 1 else 0.0)


def gradient_us(rows: int, machine: Machine) -> float:
    """Return the time of the gradient of so many rows on one GPU."""
    return max(rows * machine.ns_per_row / 1e3, machine.floor_us)


def efficiency(rows: int, sent: int, machines: int, machine: Machine) -> float:
    """Return which share of the ideal speed is left, with minibatches of so many rows on each GPU."""
    alone = gradient_us(rows, machine)
    return alone / (alone + exchange_us(sent, machines, machine))


def speed_up(rows: int, sent: int, machines: int, machine: Machine) -> float:
    """Return how much faster all GPUs are than one, where a minibatch of `rows` in all is divided among them."""
    gpus = machines * machine.gpus
    divided = gradient_us(max(rows // gpus, 1), machine) + exchange_us(sent, machines, machine)
    return gradient_us(rows, machine) / divided


def report(machine: Machine | None = None) -> str:
    """Return the model's tables as Markdown."""
    machine = machine or Machine()
    sent = 4 * weights()
    lines = [
        f"Default networks: {weights():,} weights, {sent / 1e6:.2f} MB an update.",
        "",
        "| rows a GPU | gradient, us | 8 GPUs: exchange, us | efficiency | 32 machines: exchange, us | efficiency |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for rows in (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576):
        cells = [f"{rows:,}", f"{gradient_us(rows, machine):,.0f}"]
        for machines in (1, 32):
            cells += [
                f"{exchange_us(sent, machines, machine):.0f}",
                f"{100 * efficiency(rows, sent, machines, machine):.0f}%",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "One minibatch divided among all GPUs, times as fast as one GPU:",
        "",
        "| rows in all | 8 GPUs | 256 GPUs |",
        "|---:|---:|---:|",
    ]
    for rows in (16_384, 65_536, 262_144, 1_048_576, 16_777_216):
        speeds = [f"{speed_up(rows, sent, machines, machine):.1f}" for machines in (1, 32)]
        lines.append(f"| {rows:,} | {' | '.join(speeds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
