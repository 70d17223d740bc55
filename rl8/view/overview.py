"""All of a sweep in one picture: a heat map of two settings, parallel coordinates of more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rl8.view import plots
from rl8.view.plots import FAILED, GRID, INK, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED: Final = "seed"
_COLORS: Final = "viridis"
_DARK: Final = 0.55  # of the colours, below which text is white
_MOST: Final = 24  # values of a setting that a heat map has room for
_TICKS: Final = 8
_HEIGHT: Final = 0.94  # of an axis, from its lowest value to its highest
_FAN: Final = 0.06  # by which lines through one value are spread, the best on top

#: A combination of settings, and the results that its seeds had.
Combination = tuple[tuple[str, ...], list[float]]


def overview(
    settings: Sequence[Mapping[str, str]],
    results: Sequence[float | None],
    path: str | Path,
    *,
    metric: str,
    title: str,
) -> Path | None:
    """Draw the mean over seeds of every combination.

    Two settings make a heat map, unless most of it would be empty, as after a search; more make parallel coordinates:
    an axis for each setting, a line for each combination, and the result as the last axis and as colour.

    Args:
        settings: For each run the swept settings by name, as text.
        results: For each run the metric's final value, or None if it has none (the run failed).
        path: The PNG file to write.
        metric: Name of the metric.
        title: E.g. `"sweep of algo.gamma, algo.horizon"`.

    Returns:
        The file; None with fewer than two settings or results, or nothing to draw it with.
    """
    names = [name for name in dict.fromkeys(key for setting in settings for key in setting) if name != SEED]
    found: dict[tuple[str, ...], list[float]] = {}
    for setting, value in zip(settings, results, strict=True):
        values = found.setdefault(tuple(setting.get(name, "") for name in names), [])
        if value is not None and math.isfinite(value):
            values.append(value)
    if len(names) < 2 or sum(map(bool, found.values())) < 2 or not plots.can_draw(path):
        return None
    seeds = max(map(len, found.values()))
    subtitle = f"{len(found)} combinations" + (f", mean of up to {seeds} seeds" if seeds > 1 else "")
    figure, (axes,) = plots.new_figure(title, subtitle, panels=1)
    columns, rows = (len({combination[place] for combination in found}) for place in (0, 1))
    if len(names) == 2 and max(columns, rows) <= _MOST and len(found) >= columns * rows / 2:
        _heat_map(axes, names, found, metric)
    else:
        _parallel(axes, names, list(found.items()), metric)
    return plots.save(figure, path)


def _heat_map(axes: Axes, names: Sequence[str], found: Mapping[tuple[str, ...], list[float]], metric: str) -> None:
    """Draw a cell per combination: the mean as colour and number, a cross where every seed failed."""
    from matplotlib.patches import Rectangle

    columns, rows = (plots.in_order(combination[place] for combination in found) for place in (0, 1))
    means = {combination: statistics.fmean(values) for combination, values in found.items() if values}
    cells = [[means.get((column, row), math.nan) for column in columns] for row in rows]
    image: Any = axes.imshow(cells, cmap=_COLORS, aspect="auto", origin="lower")
    best = max(means, key=lambda combination: means[combination])
    size = 10 if len(columns) <= 10 and len(rows) <= 12 else 7
    for (column, row), values in found.items():
        place = columns.index(column), rows.index(row)
        if not values:
            axes.plot(*place, marker="x", color=FAILED, markersize=9, markeredgewidth=2)
            continue
        mean = means[column, row]
        color = "white" if float(image.norm(mean)) < _DARK else INK
        bold: Any = "bold" if (column, row) == best else "normal"
        axes.text(*place, f"{mean:.3g}", ha="center", va="center", color=color, fontsize=size, fontweight=bold)
    corner = columns.index(best[0]) - 0.5, rows.index(best[1]) - 0.5
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=FAILED, linewidth=2))
    axes.set_xticks(range(len(columns)), list(map(_label, columns)), rotation=0 if size > 7 else 90)
    axes.set_yticks(range(len(rows)), list(map(_label, rows)))
    axes.set_xlabel(names[0], color=SOFT)
    axes.set_ylabel(names[1], color=SOFT)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _color_bar(axes, image, metric)


def _label(text: str) -> str:
    number = plots.as_number(text)
    return plots.short(text) if number is None else f"{number:.6g}"


def _color_bar(axes: Axes, image: Any, metric: str) -> None:
    figure: Any = axes.figure
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT, labelsize=9, length=0)
    bar.set_label(metric, color=SOFT)


def _parallel(axes: Axes, names: Sequence[str], found: Sequence[Combination], metric: str) -> None:
    """Draw a line per combination through an axis per setting to its mean, the best one last and bold."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    done = sorted(((one, statistics.fmean(values)) for one, values in found if values), key=lambda item: item[1])
    means = [mean for _, mean in done]
    norm, colors = Normalize(means[0], means[-1]), colormaps[_COLORS]
    heights = [_axis(axes, place, name, [one[place] for one, _ in found]) for place, name in enumerate(names)]
    last = len(names)
    _axis(axes, last, metric, [repr(mean) for mean in means], continuous=True)
    for number, one in enumerate(one for one, values in found if not values):
        points = [height[text] for height, text in zip(heights, one, strict=True)]
        label = None if number else "failed"
        axes.plot(range(last), points, color=FAILED, linewidth=1, linestyle=":", zorder=2, label=label)
    span = means[-1] - means[0] or 1.0
    fans = [_FAN if len(height) <= _TICKS else 0.0 for height in heights]
    for number, (one, mean) in enumerate(done):
        share = (mean - means[0]) / span
        points = [height[text] + fan * (share - 0.5) for height, fan, text in zip(heights, fans, one, strict=True)]
        best = number == len(done) - 1
        axes.plot(
            range(last + 1),
            [*points, _HEIGHT * share],
            color=colors(norm(mean)) if not best else FAILED,
            linewidth=3 if best else 1.2,
            alpha=1.0 if best else 0.7,
            zorder=3 + number / len(done),
            solid_joinstyle="round",
            label=f"best: {mean:.4g}" if best else None,
        )
    axes.set_xlim(-0.3, last + 0.3)
    axes.set_ylim(-0.05, 1.02)
    axes.set_xticks(range(last + 1), [*names, metric], rotation=15 if sum(map(len, names)) > 60 else 0)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right", bbox_to_anchor=(1.0, 1.08), ncols=2)
    _color_bar(axes, ScalarMappable(norm, _COLORS), metric)


def _axis(axes: Axes, place: int, name: str, texts: Sequence[str], *, continuous: bool = False) -> dict[str, float]:
    """Draw one axis with its ticks; return the height of each value.

    Args:
        axes: Where to draw.
        place: On the horizontal axis.
        name: Of the setting.
        texts: Its values.
        continuous: Whether ticks are spread over the axis rather than set to the values.
    """
    from matplotlib.patheffects import withStroke

    ordered = plots.in_order(texts)
    numbers = [plots.as_number(text) for text in ordered]
    found = [number for number in numbers if number is not None]
    axes.axvline(place, color=GRID, linewidth=2, zorder=1)
    if len(found) < len(ordered):  # names: spread evenly
        heights = {text: _HEIGHT * index / max(1, len(ordered) - 1) for index, text in enumerate(ordered)}
        ticks = {_label(text): height for text, height in heights.items()}
    else:
        logarithmic = not continuous and plots.is_logarithmic(name, found)
        scaled = [math.log(number) if logarithmic else number for number in found]
        low, span = scaled[0], scaled[-1] - scaled[0] or 1.0
        heights = {text: _HEIGHT * (value - low) / span for text, value in zip(ordered, scaled, strict=True)}
        ticks = {_label(text): heights[text] for text in ordered}
        if continuous or len(ticks) > _TICKS:
            places = [low + span * part / 5 for part in range(6)]
            ticks = {
                f"{math.exp(value) if logarithmic else value:.3g}": _HEIGHT * part / 5
                for part, value in enumerate(places)
            }
    paper = [withStroke(linewidth=3, foreground="white")]
    for text, height in ticks.items():
        axes.text(place + 0.03, height, text, color=INK, fontsize=9, va="center", zorder=6, path_effects=paper)
        axes.plot([place - 0.02, place + 0.02], [height, height], color=SOFT, linewidth=1, zorder=5)
    return heights
