"""One table of a measurement on a GPU: figures beside their goals, for the README and the study alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .figures import Study, amount, result
from .programs import PROGRAMS, Line, speed

LARGE, SMALL = 65536, 8192
MISSING = "not measured"
Rows = list[tuple[str, str, str]]


def table(study: Study) -> str:
    """Return the table in Markdown; what was not measured says so."""
    rows: Rows = []
    for section in (own_rows, sweep_rows, kernel_rows, idle_rows, peer_rows, solved_rows, test_rows):
        rows += section(study)
    head = ["| what | result | goal |", "| --- | ---: | ---: |"]
    facts = next(iter(study["parts"].values()), {}).get("provenance", {})
    told = f"{study.get('hardware', 'unknown')}, torch {facts.get('versions', {}).get('torch', 'unknown')}, "
    told += f"commit {facts.get('commit', 'unknown')[:12]}, {facts.get('date', 'unknown')} UTC."
    shape = "CartPole, two layers of 256, four passes over N x 32 transitions; whole iterations, in transitions/s."
    return "\n".join([f"{told} {shape}", "", *head, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def lines_in(study: Study, *parts: str) -> list[Line]:
    """Return the lines of some parts."""
    return [line for part in parts for line in (result(study, part) or {}).get("lines", []) if line.get("timings")]


def of(lines: Iterable[Line], **wanted: Any) -> float | None:
    """Return the speed of the first line with these options."""
    for line in lines:
        if all(line[name] == value for name, value in wanted.items()):
            return speed(line)
    return None


def told(number: float | None, form: Callable[[float], str] = amount) -> str:
    return MISSING if number is None else form(number)


def precision(amp: bool) -> str:
    return "bf16" if amp else "TF32"


def own_rows(study: Study) -> Rows:
    lines = lines_in(study, "speeds")
    sizes = sorted({line["num_envs"] for line in lines}) or [SMALL, LARGE]
    return [
        (f"rl8, {precision(amp)}, N = {size:,}", told(of(lines, num_envs=size, amp=amp)), "")
        for size in sizes[:3]
        for amp in (False, True)
    ]


def sweep_rows(study: Study) -> Rows:
    lines = [line for line in lines_in(study, "speeds") if line["amp"]]
    if not lines:
        return [("rl8, bf16, most environments", MISSING, "")]
    most = max(lines, key=lambda line: line["num_envs"])
    text = f"{amount(speed(most))}, {most['peak_mb'] / 1024:.1f} GB"
    return [(f"rl8, bf16, most environments: N = {most['num_envs']:,}", text, "")]


def kernel_rows(study: Study) -> Rows:
    lines = lines_in(study, "kernels")
    sizes = sorted({line["num_envs"] for line in lines}) or [LARGE]
    goals = {"off": "33 M", "auto": "65 M"}
    found = []
    for size in sizes:
        for amp in (False, True):
            for kind in ("off", "auto"):
                goal = goals[kind] if amp and size == LARGE else ""
                name = f"rl8, {precision(amp)}, N = {size:,}, kernels {kind}"
                found.append((name, told(of(lines, num_envs=size, amp=amp, kernels=kind, piece_size=0)), goal))
    return found


def idle_rows(study: Study) -> Rows:
    """Return the share of an iteration in which no kernel ran: a profile's kernel times beside another's timings."""
    timed = lines_in(study, "speeds")
    found = []
    for line in (result(study, "profile") or {}).get("lines", []):
        rate = of(timed, num_envs=line["num_envs"], amp=line["amp"])
        share = None if rate is None or "busy_s" not in line else 1 - line["busy_s"] * rate / line["transitions"]
        name = f"idle, {precision(line['amp'])}, N = {line['num_envs']:,}"
        found.append((name, told(share, lambda x: f"{100 * x:.1f}%"), "< 3%" if line["num_envs"] == SMALL else ""))
    return found or [(f"idle, TF32, N = {SMALL:,}", MISSING, "< 3%")]


def peer_rows(study: Study) -> Rows:
    found: Mapping[str, Any] = result(study, "compare") or {"lines": [], "sizes": [], "failed": {}}
    size: Sequence[str] = found["sizes"][-1:]
    rates = {line["program"]: speed(line) for line in found["lines"] if [line["size"]] == list(size)}
    ours, rows = rates.get("rl8"), []
    for name, goal in (("jax", "> 1"), ("upstream", ">= 5"), ("upstream-fp16", ""), ("skrl", ""), ("sb3", "")):
        reason = "failed" if name in found["failed"] else MISSING
        text = reason
        if ours is not None and name in rates:
            base = rates.get("rl8-bf16", ours) if name == "upstream-fp16" else ours
            text = f"{amount(rates[name])}, rl8 is {base / rates[name]:.2f} times as fast"
        at = f" at {size[0]}" if size else ""
        rows.append((f"{PROGRAMS[name].title}{at}", text, goal))
    return rows


def solved_rows(study: Study) -> Rows:
    runs = [run for run in (result(study, "solve") or {}).get("runs", []) if run["exit_code"] == 0]
    best = min((run["seconds"] for run in runs), default=None)
    return [("CartPole from the command to solved", told(best, lambda x: f"{x:.1f} s"), "< 10 s")]


def test_rows(study: Study) -> Rows:
    return [("tests that need CUDA", (result(study, "tests") or {}).get("summary", MISSING).strip("= "), "all")]
