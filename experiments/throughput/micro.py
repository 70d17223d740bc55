"""The device's peaks, and pieces of an iteration's work in more than one form: what is worth changing?

    python -m experiments.throughput.micro --device cuda

prints one line of JSON: peaks as `peaks` has them, and milliseconds by name under `"ms"`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from torch import Tensor

from . import peaks

ROWS = {"cuda": 65536 * 32, "cpu": 4096}
LAUNCHES = 1000


def forms(device: torch.device, rows: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    found: dict[str, Callable[[], object]] = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):

        def made(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(*shape, device=device, dtype=dtype)

        hidden, slopes, weight, bias = made(rows, 256), made(rows, 256), made(256, 256), made(256)
        for size in (5, 8):
            inputs, first = made(rows, size), made(256, size)
            found[f"first layer of {size}, {name}"] = lambda x=inputs, w=first, b=bias: torch.addmm(b, x, w.t())
        for size in (1, 3):
            head = made(size, 256)
            found[f"head of {size}, {name}"] = lambda h=hidden, w=head: torch.mm(h, w.t())
        found[f"weight's gradient, {name}"] = lambda s=slopes, h=hidden: torch.mm(s.t(), h)
        found[f"bias's gradient, {name}"] = lambda s=slopes: s.sum(0)
        found[f"product, then relu, {name}"] = lambda h=hidden, w=weight, b=bias: torch.addmm(b, h, w.t()).relu_()
        found[f"product with relu, {name}"] = lambda h=hidden, w=weight, b=bias: torch._addmm_activation(b, h, w.t())
    return found


def graph_of_small_kernels(device: torch.device) -> Callable[[], object]:
    """Return what launches a thousand small kernels; as a graph on CUDA."""
    number = torch.zeros(1, device=device)

    def work() -> None:
        for _ in range(LAUNCHES):
            number.add_(1.0)

    if device.type != "cuda":
        return work
    work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each figure")
    args = parser.parse_args()
    found = peaks.measure(args.device, 0, args.seconds)
    device = torch.device(args.device)
    rows = ROWS[device.type] if args.seconds >= 0.1 else 256
    work = {f"{LAUNCHES} small kernels": graph_of_small_kernels(device), **forms(device, rows)}
    each = args.seconds / 5
    found["ms"] = {name: 1e3 * peaks.fastest(one, each, device) for name, one in work.items()}
    found["rows"] = rows
    print(json.dumps(found))


if __name__ == "__main__":
    main()
