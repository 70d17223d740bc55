"""What the machine can do at best: float32 products of the network's shapes, and memory bandwidth.

    python -m experiments.throughput.peaks --device cpu --threads 2

prints one line of JSON. Rates are of the fastest repetition: a bound must not depend on what else the machine did.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

WIDTH = 256
ROWS = {"cpu": (512, 1024, 2048, 4096, 8192), "cuda": (8192, 65536, 262144)}
# Several times the last-level cache, or the L2 of a GPU.
ELEMENTS = {"cpu": 2**25, "cuda": 2**29}


def fastest(work: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Return the seconds of the fastest of many repetitions within about `seconds`."""

    def once() -> float:
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    once()
    times, end = [once()], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(once())
    return min(times)


def products(rows: int, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Return GFLOP/s of a hidden layer's three products: forward, input gradient, weight gradient.

    On CUDA they are repeated within one timing, so that launches don't count.
    """
    inputs, grads = (torch.randn(rows, WIDTH, device=device, dtype=dtype) for _ in range(2))
    weight = torch.randn(WIDTH, WIDTH, device=device, dtype=dtype)
    out, weight_out = torch.empty_like(inputs), torch.empty_like(weight)
    repeats = 20 if device.type == "cuda" else 1

    def work() -> None:
        for _ in range(repeats):
            torch.mm(inputs, weight.t(), out=out)
            torch.mm(grads, weight, out=out)
            torch.mm(grads.t(), inputs, out=weight_out)

    return repeats * 3 * 2 * rows * WIDTH * WIDTH / fastest(work, seconds, device) / 1e9


def bandwidth(device: torch.device, seconds: float, elements: int) -> dict[str, float]:
    """Return GB/s of a copy and of a triad `a = b + 2 c`, bytes read and written counted alike."""
    one, two, three = (torch.ones(elements, device=device) for _ in range(3))
    copy = fastest(lambda: one.copy_(two), seconds, device)
    triad = fastest(lambda: torch.add(two, three, alpha=2.0, out=one), seconds, device)
    return {"copy_gb_s": 2 * 4 * elements / copy / 1e9, "triad_gb_s": 3 * 4 * elements / triad / 1e9}


def measure(device: str, threads: int, seconds: float) -> dict[str, object]:
    """Return all peaks of a device.

    Args:
        device: `"cpu"` or `"cuda"`.
        threads: CPU threads; 0 for torch's own choice.
        seconds: Time for each figure.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")
    place = torch.device(device)
    by_rows = {rows: products(rows, place, torch.float32, seconds) for rows in ROWS[place.type]}
    found: dict[str, object] = {"gflops": max(by_rows.values()), "gflops_by_rows": by_rows}
    found["bf16_gflops"] = max(products(rows, place, torch.bfloat16, seconds) for rows in ROWS[place.type])
    found |= bandwidth(place, seconds, ELEMENTS[place.type] if seconds >= 0.1 else 2**20)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure")
    args = parser.parse_args()
    print(json.dumps(measure(args.device, args.threads, args.seconds)))


if __name__ == "__main__":
    main()
