"""The study's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import compare
from .bounds import bounds, work_of
from .figures import Study, amount, base_of, chosen, line_bounds, point_lines, result
from .programs import PROGRAMS, Line, phases, speed


def _figure(columns: int, rows: int = 1) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 3.9 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _axes(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Label axes: x logarithmic with a tick at each point, y from zero unless the values span a wide range."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale="log")
    points = sorted({x for curve in axes.lines for x in curve.get_xdata()})
    axes.set_xticks(points, [_short(x) for x in points], rotation=40 if len(points) > 5 else 0)
    axes.minorticks_off()
    values = [y for curve in axes.lines for y in curve.get_ydata()]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: _short(value))
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend(fontsize=8)


def _short(value: float) -> str:
    if value >= 1e5:
        return f"{value / 1e6:.3g}M" if value >= 1e6 else f"{value / 1e3:.0f}k"
    return f"{value:.3g}" if value < 1e3 else f"{value:.0f}"


def speed_picture(study: Study, path: Path) -> Path | None:
    """Draw transitions per second against the number of environments: CartPole by horizon, then the others."""
    lines, peaks = point_lines(study), result(study, "peaks")
    if not lines:
        return None
    figure, ((left, right),) = _figure(2)
    for horizon in sorted({line["horizon"] for line in chosen(lines)}):
        _curve(left, chosen(lines, horizon=horizon), f"T = {horizon}")
    for env, model in (("cartpole", "mlp"), ("pendulum", "mlp"), ("dummy", "mlp"), ("cartpole", "lstm")):
        _curve(right, chosen(lines, env=env, model=model, horizon=32), f"{env}, {model}")
    if peaks:
        found = bounds(work_of("cartpole"), peaks)
        ends = [extreme(line["num_envs"] for line in lines) for extreme in (min, max)]
        for axes in (left, right):
            axes.plot(
                ends, [found["arithmetic"]] * 2, color="black", linestyle="--", linewidth=1, label="arithmetic, MLP"
            )
    _axes(left, "CartPole", "environments", "transitions/s")
    _axes(right, "T = 32", "environments", "transitions/s")
    figure.suptitle(study["hardware"])
    figure.savefig(path, dpi=130)
    return path


def _curve(axes: Any, lines: Sequence[Line], label: str) -> None:
    ordered = sorted(lines, key=lambda line: line["num_envs"])
    if ordered:
        axes.plot([line["num_envs"] for line in ordered], [speed(line) for line in ordered], marker="o", label=label)


def scaling_picture(study: Study, path: Path) -> Path | None:
    """Draw the cost of a transition against environments, horizon, width and minibatches, with its arithmetic alone."""
    lines, peaks, base = point_lines(study), result(study, "peaks"), base_of(study)
    series = {
        "num_envs": chosen(lines, horizon=base["horizon"]),
        "horizon": chosen(lines, num_envs=base["num_envs"]),
        "width": chosen(lines, **base, width=...),
        "minibatches": chosen(lines, **base, minibatches=...),
    }
    if not any(series.values()):
        return None
    figure, grid = _figure(2, 2)
    labels = {
        "num_envs": "environments",
        "horizon": "horizon",
        "width": "network width",
        "minibatches": "minibatches per pass",
    }
    for axes, (key, found) in zip(grid.flat, series.items(), strict=True):
        ordered = sorted(found, key=lambda line: line[key])
        x = [line[key] for line in ordered]
        for label, cost in (
            ("whole", [1e6 / speed(line) for line in ordered]),
            ("collect", [1e6 / phases(line)[0] for line in ordered]),
            ("update", [1e6 / phases(line)[1] for line in ordered]),
        ):
            if x:
                axes.plot(x, cost, marker="o", label=label)
        if peaks and x:
            bound = [1e6 / line_bounds(line, peaks)["arithmetic"] for line in ordered]
            axes.plot(x, bound, color="black", linestyle="--", linewidth=1, label="arithmetic bound")
        title = ", ".join(f"{name} {value}" for name, value in base.items() if name != key)
        _axes(
            axes, title.replace("num_envs", "N =").replace("horizon", "T ="), labels[key], "microseconds per transition"
        )
    figure.suptitle(f"Cost of a transition, CartPole, {study['hardware']}")
    figure.savefig(path, dpi=130)
    return path


def compare_picture(study: Study, path: Path) -> Path | None:
    """Draw speed and peak memory of the programs, a pair of panels per size; whiskers span the rounds."""
    found = result(study, "compare")
    if not found or not found["lines"]:
        return None
    sizes = [size for size in found["sizes"] if any(line["size"] == size for line in found["lines"])]
    figure, grid = _figure(2, len(sizes))
    for (left, right), size in zip(grid, sizes, strict=True):
        names = [name for name in PROGRAMS if compare.of_round(found, size, name)]
        for index, name in enumerate(names):
            runs = [speed(line) for line in compare.of_round(found, size, name).values()]
            middle = median(runs)
            spread = [[middle - min(runs)], [max(runs) - middle]]
            color = "tab:blue" if name == "rl8" else "tab:gray"
            left.barh(index, middle, color=color, xerr=spread)
            left.text(middle, index, f" {amount(middle)}", va="bottom", fontsize=8)
            memory = compare.summary(found, size, name)
            assert memory is not None
            right.barh(index, memory["peak_mb"], color=color)
            right.text(memory["peak_mb"], index, f" {memory['peak_mb']:.0f}", va="center", fontsize=8)
        for axes, label in ((left, "transitions/s"), (right, "peak memory (MB)")):
            axes.set_yticks(range(len(names)), names)
            axes.invert_yaxis()
            axes.margins(x=0.18)
            axes.set(title=size, xlabel=label)
    figure.suptitle(f"Same work, side by side, {study['hardware']}")
    figure.savefig(path, dpi=130)
    return path
