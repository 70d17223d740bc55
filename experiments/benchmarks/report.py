"""The table and the curves of the runs that are done."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .statistics import Summary, overlap, summary
from .tasks import TASKS, Published, Task

PROGRAMS = {"rl8": "rl8", "sb3": "Stable-Baselines3"}
COLOURS = {"rl8": "tab:blue", "sb3": "tab:orange"}
SEEDS = 5  # what a full study has
POINTS = 100
WAITED = 1.5

Runs = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]  # by task and program, in the order of seeds


def read(folder: Path) -> Runs:
    """Return the runs of a folder."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text())
        found.setdefault((run["task"], run["program"]), []).append(run)
    return {key: sorted(runs, key=lambda run: run["seed"]) for key, runs in found.items()}


def scores(runs: Sequence[Mapping[str, Any]]) -> Summary:
    """Return what runs came to: the score of each is the mean return of its episodes."""
    return summary([statistics.fmean(run["returns"]) for run in runs])


def trained(runs: Sequence[Mapping[str, Any]]) -> Summary:
    """Return what training's last 100 episodes came to, actions drawn: what CleanRL publishes."""
    return summary([run["curve"][-1][1] for run in runs])


def verdict(ours: Summary, theirs: Summary | None, published: Published | None, training: Summary | None = None) -> str:
    """Return how rl8's return compares, as far as the intervals tell; a single run has none."""
    said = []
    if theirs is not None:
        said.append(_against(ours, theirs.interval, theirs.iqm, "SB3"))
    if published is not None:
        spread = published.spread
        bounds = None if spread is None else (published.value - spread, published.value + spread)
        name = published.who.split(",")[0]
        mine = training if training is not None and name == "CleanRL" else ours
        said.append(_against(mine, bounds, published.value, name))
    return "; ".join(said)


def _against(ours: Summary, theirs: tuple[float, float] | None, value: float, name: str) -> str:
    if ours.interval is None or theirs is None:
        if theirs is not None and theirs[0] <= ours.iqm <= theirs[1]:
            return f"within {name}'s spread"
        if ours.interval is not None and ours.interval[0] <= value <= ours.interval[1]:
            return f"{name}'s one run lies within"
        return f"{'above' if ours.iqm >= value else 'below'} {name}'s, one run"
    if overlap(ours.interval, theirs):
        return f"overlaps {name}'s"
    return f"{'above' if ours.iqm > value else 'below'} {name}'s"


def table(runs: Runs) -> str:
    """Return the page's tables."""
    returns = [
        "| task | env steps | program | seeds | median | IQM | 95% interval | in training | published | rl8 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    times = [
        "| task | env steps | rl8, s | SB3, s | SB3 / rl8 | rl8, processor s | SB3, processor s | SB3 / rl8 | on |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        for program, title in ((each, PROGRAMS[each]) for each in task.programs):
            returns.append(_returns(name, task, program, title, runs))
        if row := _times(task, *(runs.get((name, program), ()) for program in PROGRAMS)):
            times.append(row)
    return "\n".join(["## Return", "", *returns, "", "## Time", "", *times, ""])


def _returns(name: str, task: Task, program: str, title: str, runs: Runs) -> str:
    published = "; ".join(
        f"[{each.who}]({each.where}): {each.value:.1f}{_spread(each)}, {each.env_steps:,}" for each in task.published
    )
    ours = program == "rl8"
    cells = [task.title if ours else "", "", title, "not run", "", "", "", "", published if ours else "", ""]
    if found := runs.get((name, program)):
        result = scores(found)
        low_high = "one run" if result.interval is None else f"{result.interval[0]:.1f} to {result.interval[1]:.1f}"
        training = trained(found)
        cells[1:8] = [
            f"{found[0]['env_steps']:,}", title, f"{result.runs}" + (f" of {SEEDS}" if result.runs < SEEDS else ""),
            f"{result.median:.1f}", f"{result.iqm:.1f}", low_high, f"{training.iqm:.1f}",
        ]  # fmt: skip
        if ours:
            other = runs.get((name, "sb3"))
            cells[9] = verdict(result, scores(other) if other else None, (task.published or (None,))[0], training)
    return f"| {' | '.join(cells)} |"


def _spread(published: Published) -> str:
    return "" if published.spread is None else f" ± {published.spread:.1f}"


def _times(task: Task, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a row of medians over the runs of one machine, which has runs of both where any has."""
    ours, theirs = ([run for run in each if run["clock_s"] <= WAITED * run["processor_s"]] for each in (ours, theirs))
    if not ours:
        return None
    mine, other = (Counter(run["machine"] for run in each) for each in (ours, theirs))
    machine = max(mine, key=lambda name: (min(mine[name], other[name]), mine[name]))
    ours, theirs = ([run for run in each if run["machine"] == machine] for each in (ours, theirs))
    cells = [task.title, f"{ours[0]['env_steps']:,}"]
    for key in ("clock_s", "processor_s"):
        seconds = statistics.median(run[key] for run in ours)
        longer = statistics.median(run[key] for run in theirs) if theirs else None
        cells += [f"{seconds:.0f}", "not run" if longer is None else f"{longer:.0f}"]
        cells.append("" if longer is None else f"{longer / seconds:.2f}")
    cells.append(machine.partition(",")[0])
    return f"| {' | '.join(cells)} |"


def band(runs: Sequence[Mapping[str, Any]]) -> tuple[Any, Any, Any, Any]:
    """Return env steps, and over the seeds the median and the quartiles of the training's returns."""
    begin = max(run["curve"][0][0] for run in runs)
    end = min(run["curve"][-1][0] for run in runs)
    steps = np.linspace(begin, end, POINTS)
    curves = [np.interp(steps, *np.array(run["curve"]).T) for run in runs]
    return (steps, *np.quantile(curves, (0.5, 0.25, 0.75), axis=0))


def draw(runs: Runs, target: Path) -> None:
    """Write the curves as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in TASKS if any((name, program) in runs for program in PROGRAMS)]
    rows = -(-len(shown) // 3) or 1
    figure, axes = pyplot.subplots(rows, 3, figsize=(12, 3.2 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for name, axis in zip(shown, axes.flat, strict=False):
        for program, title in PROGRAMS.items():
            found = [run for run in runs.get((name, program), ()) if run["curve"]]
            if found:
                steps, middle, low, high = band(found)
                axis.plot(steps, middle, color=COLOURS[program], label=f"{title} ({len(found)})")
                axis.fill_between(steps, low, high, color=COLOURS[program], alpha=0.2, linewidth=0)
        for published, style in zip(TASKS[name].published, (":", "--"), strict=False):
            axis.axhline(published.value, color="grey", linestyle=style, linewidth=1, label=published.who)
        axis.set_title(TASKS[name].title)
        axis.set_xlabel("env steps")
        axis.legend(fontsize=7)
    figure.supylabel("return of the last 100 episodes")
    figure.savefig(target, dpi=80)
    pyplot.close(figure)


def write(folder: Path) -> None:
    """Write the page and the picture beside the folder of the runs."""
    runs = read(folder)
    every = [run for found in runs.values() for run in found]
    known = sorted({f"{name} {version}" for run in every for name, version in run["versions"].items()})
    machines = sorted({run["machine"] for run in every})
    page = [
        "# rl8 beside published results",
        "",
        f"Made by `python -m experiments.benchmarks.run --report` of {len(every)} runs, "
        f"{' and '.join(machines)}, one processor and one thread a run. Commits: "
        f"{', '.join(sorted({run['commit'] for run in every}))}. {', '.join(known)}.",
        "",
        "A run's score is the mean return of its 100 episodes after training, begun alike for both programs, with "
        "the most probable action. Median, interquartile mean (IQM) and the 95% bootstrap interval of the latter are "
        "over seeds. *In training* is the IQM of training's last 100 episodes, whose actions are drawn: CleanRL "
        "publishes such; rl-zoo judges as the other columns do. The last column compares rl8 with Stable-Baselines3 "
        "and the first one named. What is *not run* waits for the same command. Seconds are medians over the runs "
        "of one machine, from the command to its end; SB3 / rl8 above 1: rl8 is faster. Runs that waited for their "
        f"processor, whose clock is more than {WAITED} times its seconds, are left out of them.",
        "",
        "![Learning curves: median and quartiles over seeds](curves.png)",
        "",
        table(runs),
    ]
    (folder.parent / "README.md").write_text("\n".join(page))
    draw(runs, folder.parent / "curves.png")
