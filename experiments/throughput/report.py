"""The study's results as a page of tables and as pictures, from its JSON.

python -m experiments.throughput.report experiments/throughput/results/throughput-cpu.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import compare, overhead, pictures
from .bounds import bounds, fused_bytes, iteration_flops, layered_bytes, work_of
from .figures import Study, amount, chosen, point_lines, result, shares, skipped_points
from .programs import PROGRAMS, Line, phases, speed

BOUND_NAMES = {
    "arithmetic": "arithmetic, float32",
    "arithmetic_bf16": "arithmetic, bf16",
    "layered": "memory, every layer through it, float32",
    "layered_bf16": "memory, every layer through it, bf16",
    "fused": "memory, activations on chip",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table, numbers to the right."""
    aligned = ["---" if index == 0 else "---:" for index in range(len(head))]
    return ["| " + " | ".join(cells) + " |" for cells in (head, aligned, *rows)] + [""]


def percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"


def heading(study: Study) -> list[str]:
    """Return title and provenance: one line per part, as parts may have been run at different times."""
    lines = [f"# Throughput on {study['hardware']}", ""]
    lines += ["Made by the study's own command; see `../README.md` for what each figure means.", ""]
    rows = []
    for name, part in study["parts"].items():
        facts = part["provenance"]
        commit = facts.get("commit", "unknown")[:12] + (" + changes" if facts.get("dirty") == "true" else "")
        rows.append((name, facts["date"], commit, f"{facts['versions'].get('torch', '-')}", f"{part['seconds']:.0f}"))
    return lines + table(("part", "date (UTC)", "commit", "torch", "seconds"), rows)


def bounds_section(study: Study) -> list[str]:
    """Return the default configuration's costs and bounds at the measured peaks."""
    measured = result(study, "peaks")
    if not measured:
        return []
    work = work_of("cartpole")
    rows = [
        (name, amount(value) + "/s", f"{1e6 / value:.3g}")
        for name, value in ((BOUND_NAMES[key], value) for key, value in bounds(work, measured).items())
    ]
    flops, fused, layered = (sum(f(work).values()) for f in (iteration_flops, fused_bytes, layered_bytes))
    rates = f"{measured['gflops']:.0f} GFLOP/s in float32 products"
    rates += f", {measured['bf16_gflops']:.0f} in bf16" if "bf16_gflops" in measured else ""
    rates += f"; copy {measured['copy_gb_s']:.1f} GB/s, triad {measured['triad_gb_s']:.1f} GB/s"
    return [
        "## Bounds of the default CartPole configuration",
        "",
        f"Per transition: {flops / 1e6:.2f} MFLOP; {fused:.0f} bytes with activations on chip, "
        f"{layered / 1e3:.0f} kB with every layer through memory (float32).",
        f"Measured peaks: {rates}.",
        "",
        *table(("bound", "transitions", "microseconds each"), rows),
    ]


def size_table(found: dict[str, Any], size: str, peaks: dict[str, Any] | None) -> list[str]:
    """Return what the programs reached at one size."""
    rows = []
    for name, program in PROGRAMS.items():
        summary = compare.summary(found, size, name)
        if summary is None:
            continue
        runs = list(compare.of_round(found, size, name).values())
        collect, update = (median(phase) for phase in zip(*map(phases, runs), strict=True))
        share = percent(median(shares(line, peaks)["arithmetic"] for line in runs)) if peaks else "-"
        ratio = f"{summary['ratio']:.2f} ({summary['ratio_min']:.2f} to {summary['ratio_max']:.2f})"
        rows.append(
            (
                program.title,
                amount(summary["transitions_per_s"]),
                amount(collect),
                amount(update),
                "1" if name == "rl8" else ratio if "ratio" in summary else "-",
                f"{summary['peak_mb']:.0f}",
                f"{summary['peak_mb'] - summary['base_mb']:.0f}",
                share,
            )
        )
    count = max((len(compare.of_round(found, size, name)) for name in PROGRAMS), default=0)
    note = f" ({found['cut'][size]})" if size in found["cut"] else ""
    return [
        f"### {size}, {count} rounds{note}",
        "",
        *table(
            (
                "program",
                "transitions/s",
                "collect",
                "update",
                "rl8 is faster by",
                "peak MB",
                "above imports",
                "of arithmetic",
            ),
            rows,
        ),
    ]


def compare_section(study: Study) -> list[str]:
    """Return the comparison of programs, a table per size."""
    found = result(study, "compare")
    if not found:
        return []
    lines = ["## Side by side", ""]
    for part in (found, result(study, "later") or {"sizes": [], "failed": {}}):
        for size in part["sizes"]:
            lines += size_table(part, size, result(study, "peaks"))
        lines += [f"- {name} {why}" for name, why in part["failed"].items()] + ([""] if part["failed"] else [])
    compiled = [line["compile_s"] for line in found["lines"] if "compile_s" in line]
    if compiled:
        lines += [
            f"JAX compiles for {median(compiled):.1f} s before its first iteration; that is not in its speed.",
            "",
        ]
    lines += [
        "Shares of the arithmetic count all of it. On a CPU rl8 sorts env steps so that neighbours are alike, and "
        "computes row by row only units that are neither zero nor open for a whole group of them; others compute all.",
        "",
    ]
    ran = [program for name, program in PROGRAMS.items() if any(line["program"] == name for line in found["lines"])]
    differences = [f"- {program.title}: {program.differs}." for program in ran if program.name != "rl8"]
    return [*lines, "What differs from rl8's iteration:", "", *differences, ""]


def count_columns(lines: Sequence[Line]) -> tuple[str, ...]:
    """Return the names of what was counted."""
    names = [key for line in lines for key in line.get("counts", {}).get("update", {})]
    return tuple(dict.fromkeys(name for name in names if name != "views"))


def grid_section(study: Study) -> list[str]:
    """Return the table of speeds over environments and horizon, then every point with all that is known of it."""
    lines = point_lines(study)
    if not lines:
        return []
    cells = {(line["num_envs"], line["horizon"]): amount(speed(line)) for line in chosen(lines)}
    horizons = sorted({horizon for _, horizon in cells})
    rows = [
        (f"{num_envs:,}", *(cells.get((num_envs, horizon), "-") for horizon in horizons))
        for num_envs in sorted({num_envs for num_envs, _ in cells})
    ]
    out = ["## Points", ""]
    if rows:
        head = ("environments", *(f"T = {horizon}" for horizon in horizons))
        out += ["CartPole, transitions/s of the whole iteration:", "", *table(head, rows)]
    out += ["All points; counts are per iteration:", "", *points_table(lines, result(study, "peaks"))]
    skipped = skipped_points(study)
    if skipped:
        out += ["Left out:", "", *(f"- {one['point']}: {one['reason']}" for one in skipped), ""]
    return out


def points_table(lines: Sequence[Line], peaks: Mapping[str, float] | None) -> list[str]:
    """Return a row per point."""
    counted = count_columns(lines)
    rows = []
    for line in lines:
        collect, update = phases(line)
        share = shares(line, peaks) if peaks else {}
        extras = [word for word in ("amp", "compile") if line[word]]
        counts = line.get("counts", {})
        rows.append(
            (
                " ".join([line["env"], line["model"], *extras]),
                f"{line['num_envs']:,}",
                str(line["horizon"]),
                str(line["width"]),
                str(line["minibatches"]),
                amount(speed(line)),
                amount(collect),
                amount(update),
                f"{line['peak_mb']:.0f}",
                *(percent(share[name]) if name in share else "-" for name in ("arithmetic", "layered", "fused")),
                *(f"{sum(phase[name] for phase in counts.values()):,.6g}" if counts else "-" for name in counted),
            )
        )
    head = ("point", "N", "T", "width", "minibatches", "transitions/s", "collect", "update", "peak MB")
    names = (
        *head,
        "of arithmetic",
        "of layered memory",
        "of fused memory",
        *(name.replace("_", " ") for name in counted),
    )
    return table(names, rows)


def cost_section(study: Study) -> list[str]:
    """Return start-up times and the cost of logging, view and evaluation."""
    out: list[str] = []
    extra = result(study, "overhead")
    if extra:
        found = overhead.summary(extra)
        out += [
            "## Logging, live view and evaluation",
            "",
            f"Switched on and off in turn, {len(extra['rounds'])} rounds of {extra['iterations']} iterations each at "
            f"{extra['num_envs']} x {extra['horizon']}: an iteration takes {100 * found['wall_s']:+.1f}% wall time, "
            f"median (rounds {100 * found['wall_s_min']:+.1f}% to {100 * found['wall_s_max']:+.1f}%) and "
            f"{100 * found['cpu_s']:+.1f}% processor time (rounds {100 * found['cpu_s_min']:+.1f}% to "
            f"{100 * found['cpu_s_max']:+.1f}%) with them.",
            "",
            "What they take themselves, evaluations in the training thread, sending and drawing in threads of their "
            f"own, is {100 * found['own_s']:.1f}% of an iteration (rounds {100 * found['own_s_min']:.1f}% to "
            f"{100 * found['own_s_max']:.1f}%), {100 * found['eval_s']:.1f}% of it evaluations.",
            "",
        ]
    times = result(study, "startup")
    if times:
        rows = [
            (name, f"{median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
            for name, values in times.items()
            if values
        ]
        out += [
            "## Start-up",
            "",
            "Seconds from the command to the end of the first iteration (or of the command):",
            "",
        ]
        out += table(("command", "median", "least", "most"), rows)
    return out


def device_section(study: Study) -> list[str]:
    """Return how the tests ended on a GPU, and how long CartPole took from the command to solved."""
    out: list[str] = []
    tests, solved = result(study, "tests"), result(study, "solve")
    if tests:
        out += ["## Tests on the device", "", f"{tests['summary']} ({tests['files']} files; `tests.txt`)", ""]
    if solved:
        out += ["## From the command to solved", "", f"`{solved['command']}`:", ""]
        for one in solved["runs"]:
            last = [" ".join(line.split()) for line in one["end"] if line.strip().startswith(("ended", "evaluation"))]
            out.append(f"- {one['seconds']:.1f} s, exit code {one['exit_code']}; {', '.join(last) or one['end'][-1:]}")
        out.append("")
    return out


def markdown(study: Study) -> str:
    """Return the whole page."""
    sections = (heading, device_section, bounds_section, compare_section, grid_section, cost_section)
    return "\n".join(line for section in sections for line in section(study)).rstrip() + "\n"


def write(study: Study, folder: Path) -> list[Path]:
    """Write page and pictures next to the study's JSON; return the files."""
    name = f"throughput-{study['device']}"
    page = folder / f"{name}.md"
    page.write_text(markdown(study))
    drawn = (
        pictures.speed_picture(study, folder / f"{name}-speed.png"),
        pictures.scaling_picture(study, folder / f"{name}-scaling.png"),
        pictures.compare_picture(study, folder / f"{name}-peers.png"),
    )
    return [page, *filter(None, drawn)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    path = parser.parse_args().json
    for file in write(json.loads(path.read_text()), path.parent):
        print(file)


if __name__ == "__main__":
    main()
