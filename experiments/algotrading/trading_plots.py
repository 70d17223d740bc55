"""The study's pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

COLORS = ("#2563eb", "#ea580c", "#059669")
INK, SOFT, GRID = "#1f2937", "#6b7280", "#e5e7eb"

# Of each model: (env steps, share of the best possible return) per run, in order.
Curves = Mapping[str, Sequence[Sequence[tuple[int, float]]]]


def learning_curves(curves: Curves, limits: Mapping[str, float], path: Path) -> None:
    """Draw the mean over seeds, the band between the lowest and the highest, and horizontal lines at `limits`."""
    figure, axes = _figure("Learning to trade: evaluations on 512 assets, mean and range of the seeds")
    for color, (model, runs) in zip(COLORS, curves.items(), strict=True):
        steps = [step / 1000 for step, _ in runs[0]]
        shares = list(zip(*([100 * share for _, share in run] for run in runs), strict=True))  # by evaluation
        axes.plot(steps, [sum(values) / len(values) for values in shares], color=color, linewidth=1.8, label=model)
        axes.fill_between(steps, list(map(min, shares)), list(map(max, shares)), color=color, alpha=0.18, linewidth=0)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 108)
    for name, share in limits.items():
        axes.axhline(100 * share, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        place = (0.995, 100 * share + 1)
        axes.annotate(name, place, xycoords=("axes fraction", "data"), ha="right", color=SOFT, fontsize=9)
    axes.set_xlabel("thousand env steps", color=SOFT)
    axes.set_ylabel("% of the best possible return", color=SOFT)
    axes.legend(frameon=False, loc="lower center", labelcolor=INK)
    figure.savefig(path)


def shares_by_step(shares: Mapping[str, Tensor], path: Path) -> None:
    """Draw the share of the best possible reward by step after the reset, `[T]` each."""
    figure, axes = _figure("Share of the best possible reward, by step: an asset is unknown at first")
    for color, (name, share) in zip((*COLORS, SOFT), shares.items(), strict=True):
        style = "--" if color == SOFT else "-"
        axes.plot(range(len(share)), 100 * share.numpy(), style, color=color, linewidth=1.6, label=name)
    axes.set_ylim(-5, 104)
    axes.set_xticks(range(0, len(next(iter(shares.values()))) + 1, 5))
    axes.set_xlabel("step k after the reset", color=SOFT)
    axes.set_ylabel("% of the best possible reward at this step", color=SOFT)
    axes.legend(frameon=False, loc="lower right", labelcolor=INK)
    figure.savefig(path)


def trades(prices: Tensor, invested: Mapping[str, Tensor], path: Path) -> None:
    """Draw one asset's price `[T + 1]`, and when each strategy holds it, `[T]` bool."""
    figure, axes = _figure("One asset nobody trained on: price, and who holds it when", height=5.2)
    axes.plot(range(len(prices)), prices.numpy(), color=INK, linewidth=1.6)
    axes.set_ylabel("price", color=SOFT)
    axes.set_xlabel("step k after the reset", color=SOFT)
    low, high = float(prices.min()), float(prices.max())
    lane = 0.08 * (high - low)
    for row, (color, (name, held)) in enumerate(zip((*COLORS, SOFT), invested.items(), strict=True), start=1):
        spans = [(k, 1) for k, is_held in enumerate(held.tolist()) if is_held]
        axes.broken_barh(spans, (low - (row + 0.8) * lane, 0.7 * lane), color=color, linewidth=0)
        place = (len(held) + 1, low - (row + 0.45) * lane)
        axes.annotate(name, place, va="center", color=color, fontsize=9, annotation_clip=False)
    figure.subplots_adjust(right=0.76)
    figure.savefig(path)


def _figure(title: str, height: float = 4.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=110)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=SOFT)
    return figure, axes
