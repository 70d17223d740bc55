"""Prove the kernels on a machine without a GPU: compile them ahead of time, count what they move and compute.

    python -m experiments.kernels.prove            # all, five to ten minutes; writes results.md beside this file
    python -m experiments.kernels.prove --short    # a few, prints them; exit code 1 if one does not fit

Needs Triton (the development extra has it) and no GPU. Times are bounds, nothing here was measured.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from experiments.kernels import cases

FOLDER = Path(__file__).parent
ROWS = 256
SHARED_LIMIT = {80: 163, 90: 227, 120: 99}  # KiB for one program, from CUDA's programming guide
# One H200: bytes/s copied, bytes/s from the L2 cache (assumed), operations/s in bf16 (measured) and TF32 (half).
COPY, CACHE, OPERATIONS = 4.3e12, 5.5e12, {"bf16": 790e12, "fp32": 395e12}
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}


class Case(NamedTuple):
    kernel: str
    what: str
    dtype: str
    activation: str = "relu"

    def run(self, rows):
        """Call the function whose kernels are meant."""
        if self.kernel in ("update", "act"):
            getattr(cases, self.kernel)(self.what, rows, TYPES[self.dtype], self.activation)
        else:
            getattr(cases, self.kernel)(self.what, rows)


class Compiled(NamedTuple):
    registers: int
    spilled: int  # bytes
    shared: int  # bytes
    instructions: str  # of the tensor cores


def all_cases():
    plain = [Case("advantages", what, "fp32") for what in ("endless", "ends")]
    plain += [Case("loss", what, "fp32") for what in cases.HEADS]
    for kernel in ("update", "act"):
        plain += [Case(kernel, what, "bf16") for what in cases.HEADS]
        plain += [Case(kernel, "squashed 6", "bf16", "tanh"), Case(kernel, "one of 2", "fp32")]
    return plain


SHORT = [
    (Case("advantages", "ends", "fp32"), 90),
    (Case("loss", "5 + 3 + 7", "fp32"), 90),
    (Case("update", "one of 2", "bf16"), 80),
    (Case("update", "one of 2", "bf16"), 90),
    (Case("update", "one of 2", "bf16"), 120),
    (Case("act", "one of 2", "bf16"), 90),
]


def launches(case, capability):
    """Return the kernels that a case launches on an architecture, with their arguments, without running them."""
    from triton.runtime.jit import JITFunction

    from rl8.execution.kernels import triton_networks

    found = []
    kept = JITFunction.run, triton_networks.capability

    def record(self, *args, grid, warmup, **keywords):
        found.append((self, args, keywords))

    JITFunction.run, triton_networks.capability = record, lambda tensor: capability
    try:
        case.run(ROWS)
    finally:
        JITFunction.run, triton_networks.capability = kept
    return found


def compiled(function, args, keywords, capability):
    """Compile a launch for an architecture, and let the assembler tell what it takes."""
    import triton
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    options = {name: keywords[name] for name in ("num_warps", "num_stages") if name in keywords}
    values = dict(zip(function.arg_names, args, strict=False)) | keywords
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(function.params):
        name, value = parameter.name, values[parameter.name]
        if parameter.is_constexpr:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(place,)] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
    source = ASTSource(function, signature, constants, attributes)
    with knobs.compilation.scope(), knobs.nvidia.scope(), contextlib.redirect_stdout(io.StringIO()) as said:
        # not from the cache: then the assembler says nothing
        knobs.compilation.always_compile = knobs.nvidia.dump_ptxas_log = True
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    said = said.getvalue()
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    used = [name for name in ("wgmma", "mma.sync") if name in made.asm["ptx"]]
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    return Compiled(registers, int(spilled[1]) + int(spilled[2]), made.metadata.shared, " ".join(used))


def fault(case, capability, found):
    """Return what is wrong with a compiled kernel, or an empty text."""
    faults = []
    if found.spilled:
        faults.append(f"{found.spilled} bytes spilled")
    if found.shared > 1024 * SHARED_LIMIT[capability]:
        faults.append(f"{found.shared} bytes of shared memory")
    if case.kernel in ("update", "act"):
        expected = ("wgmma",) if capability == 90 and case.dtype == "bf16" else ("wgmma", "mma.sync")
        if found.instructions not in expected:
            faults.append(f"{found.instructions or 'nothing'} instead of {' or '.join(expected)}")
    return ", ".join(faults)


def compile_rows(wanted):
    """Yield case, name of the part, architecture, what was compiled and what is wrong with it."""
    for case, capability in wanted:
        found = launches(case, capability)
        # The value's kernel knows nothing of the policy's head: one for each activation is enough.
        kept = found if case.what == "one of 2" or case.activation == "tanh" else found[:1]
        for part, launch in zip(("policy", "value"), kept, strict=False):
            found = compiled(*launch, capability)
            yield case, part if case.kernel == "update" else "", capability, found, fault(case, capability, found)


def count():
    """Print per case: bytes of memory, bytes of the caches and operations, for one row more."""
    from experiments.kernels import interpreted

    interpreted.prepare()
    for case in all_cases():
        measured = []
        for rows in (ROWS, 2 * ROWS):
            torch.manual_seed(0)
            with interpreted.counted() as traffic:
                case.run(rows)
            measured.append((traffic.memory, traffic.requested, traffic.operations))
        per_row = [(more - less) / ROWS for less, more in zip(*measured, strict=True)]
        if case.kernel == "advantages":
            per_row = [number / cases.HORIZON for number in per_row]
        print(json.dumps([case, per_row]), flush=True)


def counts():
    """Return by case what `count` printed, in a process whose kernels are interpreted."""
    command = [sys.executable, "-m", "experiments.kernels.prove", "--count"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return {Case(*case): numbers for case, numbers in map(json.loads, done.stdout.splitlines())}


def products_read(case):
    """Return the bytes per row that the update's matrix products over all rows read, each operand once."""
    head = cases.HEADS[case.what]
    size = sum(head.sizes) if isinstance(head, cases.Discrete) else head.size
    element = TYPES[case.dtype].itemsize
    # of each network: inputs and first gradient, first result and second gradient, second result and head's gradient
    return sum(element * (cases.OBS + 4 * cases.WIDTH + out) for out in (size, 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--count", action="store_true")
    options = parser.parse_args()
    if options.count:
        return count()
    wanted = SHORT if options.short else [(case, target) for case in all_cases() for target in SHARED_LIMIT]
    header = ["kernel", "of", "dtype", "part", "sm", "registers", "spilled B", "shared KiB", "tensor cores", "fault"]
    rows, faulty = [], 0
    print(line(header), line(["---"] * len(header)), sep="\n")
    for case, part, capability, found, wrong in compile_rows(wanted):
        shared = f"{found.shared / 1024:.0f} of {SHARED_LIMIT[capability]}"
        numbers = [found.registers, found.spilled, shared, found.instructions or "-", wrong or "none"]
        rows.append(line([*named(case), part or "-", capability, *numbers]))
        faulty += bool(wrong)
        print(rows[-1], flush=True)
    if not options.short:
        write([line(header), line(["---"] * len(header)), *rows])
    return 1 if faulty else 0


def line(cells):
    return f"| {' | '.join(map(str, cells))} |"


def named(case):
    what = case.what if case.activation == "relu" else f"{case.what}, {case.activation}"
    return case.kernel, what, case.dtype


def bounds(found):
    """Return rows of the table of traffic and operations."""
    for case, (memory, requested, operations) in found.items():
        products = products_read(case) if case.kernel == "update" else 0
        times = ((memory + products) / COPY, requested / CACHE, operations / OPERATIONS[case.dtype])
        longest = ("memory", "cache", "products")[times.index(max(times))]
        numbers = [f"{memory:.0f}", f"{products or '-'}", f"{requested:.0f}", f"{operations / 1e6:.3f}"]
        yield line([*named(case), *numbers, *(f"{1e9 * time:.3f}" for time in times), longest])


@functools.cache
def versions():
    import triton

    return f"torch {torch.__version__}, triton {triton.__version__}"


def write(table):
    header = ["kernel", "of", "dtype", "memory B", "products B", "caches B", "MFLOP", "memory ns", "caches ns"]
    header += ["tensor cores ns", "bound by"]
    text = [
        "# The kernels, proven without a GPU",
        f"Written by `python -m experiments.kernels.prove` ({versions()}). Nothing here was run on a GPU.",
        "## Compiled ahead of time",
        f"Observations of {cases.OBS} numbers, two hidden layers of {cases.WIDTH}; `sm` is the architecture "
        "(80: A100, 90: H100 and H200, 120: RTX 50).",
        "\n".join(table),
        "## Counted per row",
        "Counted by the interpreter from the kernel's own loads, stores and products, for one row more: for "
        "advantages an environment's step. *memory* is what must come from or go to the device's memory, *products* "
        "what the matrix products over all rows read afterwards, *caches* every byte that a load asks for, weights "
        "included: "
        f"they are read anew by each program. Times are bounds for one H200: {COPY / 1e12} TB/s of memory and "
        f"{OPERATIONS['bf16'] / 1e12:.0f} TFLOP/s in bf16 as measured elsewhere, {CACHE / 1e12} TB/s of cache and half "
        "the operations in TF32 as assumed.",
        "\n".join([line(header), line(["---"] * len(header)), *bounds(counts())]),
        "Predicted for the update before it was written: 24 kB a row and pass without the kernel, 8 kB with it (bf16), "
        "30 ms an iteration of 4 x 32 x 65 536 rows in all, which is 3.6 ns a row. Advantages: 0.1 ms, 0.3 ms with "
        "ends, for 32 x 65 536 steps, which is 0.05 and 0.14 ns a step.",
    ]
    (FOLDER / "results.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
