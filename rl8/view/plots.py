"""Charts of runs as PNG files: the learning curve of one run, and a sweep's result against what was swept.

Matplotlib is imported inside the functions, and only its object interface is used: no global state, so that several
runs may draw at once and a user's own figures stay as they are.
"""

from __future__ import annotations

import csv
import importlib.util
import itertools
import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rl8.atomic import atomic
from rl8.data import ENV_STEPS, EVAL_RETURNS_MEAN, RETURNS_MEAN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

#: (env steps, value) in their order.
Points = Sequence[tuple[float, float]]

RETURNS_STD: Final = "returns/std"

INK: Final = "#1f2937"
SOFT: Final = "#6b7280"
GRID: Final = "#e5e7eb"
_TRAIN: Final = "#2563eb"
_EVAL: Final = "#ea580c"
FAILED: Final = "#dc2626"
_HUES: Final = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#ca8a04", "#db2777")
_DPI: Final = 160
# A curve of more points than this is drawn over its moving mean.
_SMOOTH_OVER: Final = 60


def learning_curve(
    history: Sequence[Mapping[str, float]],
    path: str | Path,
    *,
    title: str,
    subtitle: str = "",
    ylabel: str = "return",
    scale: float = 1.0,
) -> Path | None:
    """Draw the return of training and of evaluation against env steps.

    Args:
        history: Metrics of each iteration: `env/steps`, and where known `returns/mean`, `returns/std` (the shaded
            band) and `eval/returns/mean`. Values that are not finite are left out.
        path: The PNG file to write.
        title: E.g. `"CartPole, seed 1"`.
        subtitle: A second, smaller line, e.g. hardware and speed.
        ylabel: What the return is, e.g. `"return per 64 steps"`.
        scale: Steps that an evaluation sums rewards over, as a multiple of training's: training's returns are drawn
            times this, so that both are sums over as many steps.

    Returns:
        The file; None if there is nothing to draw, or nothing to draw it with.
    """
    train = [(step, scale * value) for step, value in _points(history, RETURNS_MEAN)]
    evaluation = _points(history, EVAL_RETURNS_MEAN)
    if not (train or evaluation) or not can_draw(path):
        return None
    figure, (axes,) = new_figure(title, subtitle, panels=1)
    if train:
        _draw_training(axes, train, {step: scale * width for step, width in _points(history, RETURNS_STD)})
    if evaluation:
        steps, values = zip(*evaluation, strict=True)
        axes.plot(
            steps, values, "o-", color=_EVAL, markersize=4.5, markeredgecolor="white", linewidth=1.8, label="evaluation"
        )
        _note_last(axes, evaluation[-1], _EVAL)
    else:
        _note_last(axes, train[-1], _TRAIN)
    axes.set_xlabel("env steps", color=SOFT)
    axes.set_ylabel(ylabel, color=SOFT)
    axes.set_xlim(left=0)
    _count_steps(axes)
    _legend(axes)
    return save(figure, path)


def can_draw(path: str | Path) -> bool:
    """Return whether Matplotlib is installed, which mlflow-skinny does not bring; if not, say so."""
    if importlib.util.find_spec("matplotlib") is not None:
        return True
    _logger.warning("%s is not drawn: Matplotlib is missing. Type: pip install matplotlib", Path(path).name)
    return False


def _draw_training(axes: Axes, points: Points, spread: Mapping[float, float]) -> None:
    steps, values = zip(*points, strict=True)
    smooth = _moving_mean(values, len(values) // 40) if len(values) > _SMOOTH_OVER else list(values)
    band = [spread.get(step, 0.0) for step in steps]
    if any(band):
        low = [value - width for value, width in zip(smooth, band, strict=True)]
        high = [value + width for value, width in zip(smooth, band, strict=True)]
        axes.fill_between(steps, low, high, color=_TRAIN, alpha=0.10, linewidth=0, label="training, mean ± std")
    if len(values) > _SMOOTH_OVER:
        axes.plot(steps, values, color=_TRAIN, linewidth=0.7, alpha=0.35)
    single: dict[str, Any] = {"marker": "o", "markersize": 4.5} if len(values) == 1 else {}
    axes.plot(steps, smooth, color=_TRAIN, linewidth=1.8, label="training", **single)


def _note_last(axes: Axes, point: tuple[float, float], color: str) -> None:
    axes.annotate(
        f"{point[1]:.4g}",
        point,
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=color,
        fontsize=10,
        fontweight="bold",
        annotation_clip=False,
    )


def sweep_csv(rows: Sequence[Mapping[str, object]], path: str | Path) -> Path:
    """Write a table: one line per row, columns in the order in which they first appear, empty where a row has none."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def sweep_chart(
    settings: Sequence[Mapping[str, str]],
    results: Sequence[float | None],
    path: str | Path,
    *,
    metric: str,
    title: str,
) -> Path | None:
    """Draw a sweep's results against each swept setting: a dot per run, and the means.

    Numbers lie on a number line (logarithmic where they are spread more evenly by their ratios, as learning rates
    are), their means joined; other values stand side by side, as first met. Seeds repeat a setting, so they get no
    panel of their own unless nothing else was swept: then a line across is the mean of all. With two settings swept,
    each panel has a colour per value of the other.

    Args:
        settings: For each run the swept settings by name, as text.
        results: For each run the metric's final value, or None if it has none (the run failed).
        path: The PNG file to write.
        metric: Name of the metric, for the axis.
        title: E.g. `"sweep of algo.gamma"`.

    Returns:
        The file; None if there is nothing to draw, or nothing to draw it with.
    """
    names = list(dict.fromkeys(name for setting in settings for name in setting))
    panels = [name for name in names if name != "seed"] or names
    if not panels or not results or not can_draw(path):
        return None
    values = [value if value is not None and math.isfinite(value) else None for value in results]
    failed = sum(value is None for value in values)
    subtitle = f"{len(results)} runs" + (f", {failed} without a result" if failed else "")
    figure, all_axes = new_figure(title, subtitle, panels=len(panels))
    for name, axes in zip(panels, all_axes, strict=True):
        others = [other for other in panels if other != name]
        hue = others[0] if len(others) == 1 else None
        _draw_setting(axes, name, hue, settings, values)
        axes.set_ylabel(metric, color=SOFT)
    return save(figure, path)


def _draw_setting(
    axes: Axes, name: str, hue: str | None, settings: Sequence[Mapping[str, str]], values: Sequence[float | None]
) -> None:
    """Draw one panel: the results against the setting `name`, a colour per value of the setting `hue`."""
    texts = [setting.get(name, "") for setting in settings]
    places, labels = _places(texts)
    groups = in_order(setting.get(hue, "") for setting in settings) if hue else [""]
    if len(groups) > len(_HUES):
        hue, groups = None, [""]
    for group, color in zip(groups, _HUES, strict=False):
        means: dict[float, list[float]] = defaultdict(list)
        for setting, text, value in zip(settings, texts, values, strict=True):
            if value is not None and (hue is None or setting.get(hue, "") == group):
                means[places[text]].append(value)
        dots = [(place, value) for place, found in means.items() for value in found]
        axes.scatter(
            *_columns(dots), s=26, color=color, alpha=0.45, linewidth=0, zorder=3, label=None if hue else "one run"
        )
        if name == "seed":
            if dots:
                axes.axhline(statistics.fmean(value for _, value in dots), color=color, linewidth=1.6, label="mean")
            continue
        line = sorted((place, statistics.fmean(found)) for place, found in means.items())
        look: dict[str, Any] = {"marker": "o", "linewidth": 1.6, "markersize": 5}
        if labels:
            look = {"marker": "_", "linestyle": "none", "markersize": 22, "markeredgewidth": 2.2}
        label = f"{hue.rpartition('.')[2]} = {group}" if hue else "mean"
        axes.plot(*_columns(line), color=color, label=label, zorder=4, **look)
    failed = [places[text] for text, value in zip(texts, values, strict=True) if value is None]
    if failed:
        # at the bottom of the panel, whatever its scale: they have no value
        axes.scatter(
            failed,
            [0.03] * len(failed),
            transform=axes.get_xaxis_transform(),
            marker="x",
            s=40,
            color=FAILED,
            label="failed",
            zorder=5,
            clip_on=False,
        )
    axes.set_xlabel(name, color=SOFT)
    _scale(axes, name, places, labels)
    _legend(axes)


def _places(texts: Iterable[str]) -> tuple[dict[str, float], list[str]]:
    """Return where on the x axis each value lies, and the labels of values that are no numbers."""
    ordered = in_order(texts)
    numbers = [as_number(text) for text in ordered]
    if all(number is not None for number in numbers):
        return {text: float(number or 0.0) for text, number in zip(ordered, numbers, strict=True)}, []
    return {text: float(index) for index, text in enumerate(ordered)}, [short(text) for text in ordered]


def _scale(axes: Axes, name: str, places: Mapping[str, float], labels: Sequence[str]) -> None:
    """Set the ticks to the values that occur, on a logarithmic axis where that suits them."""
    if labels:
        axes.set_xticks(range(len(labels)), labels, rotation=20 if sum(map(len, labels)) > 40 else 0)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        return
    ticks = sorted(set(places.values()))
    axes.update_datalim([(tick, 0.0) for tick in ticks], updatey=False)  # a run that failed has a place too
    if is_logarithmic(name, ticks):
        axes.set_xscale("log")
    if len(ticks) <= 8:
        axes.set_xticks(ticks, [f"{tick:.6g}" for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
    axes.margins(x=0.08)


def is_logarithmic(name: str, ticks: Sequence[float]) -> bool:
    """Return whether values belong on a logarithmic axis: learning rates, and what its ratios spread more evenly.

    Args:
        name: The setting.
        ticks: Its values, rising.
    """
    if ticks[0] <= 0 or len(ticks) < 2:
        return False
    if name.rpartition(".")[2] == "lr" or ticks[-1] / ticks[0] >= 100:
        return True
    return ticks[-1] / ticks[0] >= 4 and _widest_gap([math.log(tick) for tick in ticks]) < _widest_gap(ticks)


def _widest_gap(ticks: Sequence[float]) -> float:
    """Return the largest distance between neighbours as a share of the whole."""
    return max(b - a for a, b in itertools.pairwise(ticks)) / (ticks[-1] - ticks[0])


def in_order(texts: Iterable[str]) -> list[str]:
    """Return each value once: numbers by size, then the rest as first met."""
    return sorted(dict.fromkeys(texts), key=lambda text: (as_number(text) is None, as_number(text) or 0.0))


def as_number(text: str) -> float | None:
    """Return the finite number that a text is, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def short(text: str) -> str:
    """Return a label that fits: the end of an import path, at most 18 characters."""
    name = text if text.startswith(("[", "{")) else text.rpartition(".")[2]
    return (name if len(name) <= 18 else f"{name[:17]}…") or "none"


def _points(history: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """Return a metric against env steps, without what is absent, infinite or NaN."""
    points = [(metrics[ENV_STEPS], metrics[name]) for metrics in history if name in metrics]
    return [(step, value) for step, value in points if math.isfinite(value)]


def _moving_mean(values: Sequence[float], reach: int) -> list[float]:
    """Return the mean over `reach` points on either side of each, fewer at the ends."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = ((max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values)))
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in spans]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def new_figure(title: str, subtitle: str, panels: int) -> tuple[Figure, list[Axes]]:
    """Return an empty figure in the common look, with its panels side by side, at most three in a row."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = 2 if panels == 4 else min(panels, 3)
    rows = -(-panels // columns)
    width, height = (8.0 if panels == 1 else 5.0 * columns), 0.7 + 3.9 * rows  # inches
    header = 0.62 if subtitle else 0.42
    layout = ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.97, 0.98 - header / height))
    figure = Figure(figsize=(width, height), dpi=_DPI, layout=layout)
    figure.text(0.02, 1 - 0.16 / height, title, va="top", color=INK, fontsize=14, fontweight="bold")
    figure.text(0.02, 1 - 0.44 / height, subtitle, va="top", color=SOFT, fontsize=9.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    all_axes = [axes for row in grid for axes in row]
    for axes in all_axes[panels:]:
        axes.remove()
    for axes in all_axes[:panels]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GRID)
        axes.tick_params(colors=SOFT, labelsize=9.5, length=0)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, all_axes[:panels]


def _count_steps(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _legend(axes: Axes) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if len(handles) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure as PNG, as a whole or not at all."""
    with atomic(path) as file:
        figure.savefig(file, format="png", facecolor="white")
    return Path(path)
