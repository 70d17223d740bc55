import csv
import importlib.util
import itertools
import math

import pytest
from PIL import Image

from rl8.view import plots
from rl8.view.plots import learning_curve, sweep_chart, sweep_csv


@pytest.fixture
def figure(monkeypatch):
    """Keep the figure that is saved, to look at what was drawn."""
    kept = []
    save = plots.save

    def keep(figure, path):
        kept.append(figure)
        return save(figure, path)

    monkeypatch.setattr(plots, "save", keep)
    return kept


def lines(axes):
    """Return the points of each labelled line."""
    return {
        line.get_label(): [tuple(point) for point in line.get_xydata()]
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_learning_curve(tmp_path, figure):
    history = [
        {"env/steps": 100.0, "returns/mean": -9.0, "returns/std": 2.0},
        {"env/steps": 200.0, "returns/mean": -5.0, "returns/std": 1.0, "eval/returns/mean": -4.0},
        {"env/steps": 300.0, "returns/mean": math.nan, "returns/std": math.nan},
        {"env/steps": 400.0, "returns/mean": -3.0, "returns/std": 0.5, "eval/returns/mean": -2.5},
    ]
    path = learning_curve(history, tmp_path / "new" / "curve.png", title="CartPole, seed 1", subtitle="on a CPU")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 600
    (axes,) = figure[0].axes
    assert texts(figure[0]) == ["CartPole, seed 1", "on a CPU"]
    assert lines(axes) == {
        "training": [(100, -9), (200, -5), (400, -3)],
        "evaluation": [(200, -4), (400, -2.5)],
    }
    assert [text.get_text() for text in axes.texts] == ["-2.5"]
    assert axes.get_xlim()[0] == 0
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("env steps", "return")
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices
    assert (edges[:, 1].min(), edges[:, 1].max()) == (-11, -2.5)


def test_training_is_drawn_per_as_many_steps_as_the_evaluation(tmp_path, figure):
    history = [
        {"env/steps": float(step), "returns/mean": -8.0, "returns/std": 1.0, "eval/returns/mean": -25.0}
        for step in (100, 200)
    ]
    learning_curve(history, tmp_path / "curve.png", title="t", scale=200 / 64)
    axes = figure[0].axes[0]
    assert lines(axes) == {"training": [(100, -25), (200, -25)], "evaluation": [(100, -25), (200, -25)]}
    edges = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (-28.125, -21.875)


def test_long_curves_are_smoothed(tmp_path, figure):
    history = [{"env/steps": float(i), "returns/mean": float(i % 2)} for i in range(400)]
    assert learning_curve(history, tmp_path / "curve.png", title="t")
    smooth = lines(figure[0].axes[0])["training"]
    assert len(smooth) == 400
    assert all(0.4 < value < 0.6 for _, value in smooth)


def test_moving_mean():
    # reach 1: (1+2)/2, (1+2+6)/3, (2+6)/2
    assert plots._moving_mean([1.0, 2.0, 6.0], 1) == [1.5, 3.0, 4.0]
    assert plots._moving_mean([1.0, 2.0], 0) == [1.0, 2.0]


@pytest.mark.parametrize("name", ["returns/mean", "eval/returns/mean"])
def test_one_point_is_visible(tmp_path, figure, name):
    assert learning_curve([{"env/steps": 5.0, name: 1.0}], tmp_path / "curve.png", title="t")
    (line,) = figure[0].axes[0].get_lines()
    assert line.get_marker() == "o"


def test_nothing_to_draw_is_no_file(tmp_path):
    assert learning_curve([], tmp_path / "a.png", title="t") is None
    assert learning_curve([{"env/steps": 1.0, "returns/mean": math.inf}], tmp_path / "a.png", title="t") is None
    assert sweep_chart([], [], tmp_path / "a.png", metric="m", title="t") is None
    assert sweep_chart([{}], [1.0], tmp_path / "a.png", metric="m", title="t") is None
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_there_is_a_hint_and_no_chart(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert learning_curve([{"env/steps": 1.0, "returns/mean": 1.0}], tmp_path / "a.png", title="t") is None
    assert sweep_chart([{"x": "1"}], [1.0], tmp_path / "b.png", metric="m", title="t") is None
    assert [record.message for record in caplog.records] == [
        f"{name} is not drawn: Matplotlib is missing. Type: pip install matplotlib" for name in ("a.png", "b.png")
    ]


def test_sweep_of_a_number_and_seeds(tmp_path, figure):
    settings = [{"algo.gamma": gamma, "seed": seed} for gamma in ("0.99", "0.9") for seed in ("1", "2")]
    path = sweep_chart(settings, [3.0, 5.0, 1.0, None], tmp_path / "s.png", metric="m", title="Sweep")
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figure[0].axes
    assert texts(figure[0]) == ["Sweep", "4 runs, 1 without a result"]
    assert lines(axes) == {"mean": [(0.9, 1.0), (0.99, 4.0)]}
    dots, failed = axes.collections
    assert sorted(map(tuple, dots.get_offsets())) == [(0.9, 1.0), (0.99, 3.0), (0.99, 5.0)]
    assert [tuple(point) for point in failed.get_offsets()] == [(0.9, 0.03)]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == ("algo.gamma", "m", "linear")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.9", "0.99"]


def test_sweep_of_two_settings_has_a_colour_per_value_of_the_other(tmp_path, figure):
    pairs = list(itertools.product(("1e-4", "1e-3", "1e-2"), ("mlp", "lstm")))
    settings = [{"algo.lr": lr, "model": model} for lr, model in pairs]
    sweep_chart(settings, [float(i) for i in range(6)], tmp_path / "s.png", metric="m", title="t")
    first, second = figure[0].axes
    assert lines(first) == {
        "model = mlp": [(1e-4, 0.0), (1e-3, 2.0), (1e-2, 4.0)],
        "model = lstm": [(1e-4, 1.0), (1e-3, 3.0), (1e-2, 5.0)],
    }
    assert first.get_xscale() == "log"
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert lines(second) == {
        "lr = 1e-4": [(0.0, 0.0), (1.0, 1.0)],
        "lr = 1e-3": [(0.0, 2.0), (1.0, 3.0)],
        "lr = 1e-2": [(0.0, 4.0), (1.0, 5.0)],
    }
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["mlp", "lstm"]  # as first met


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("algo.optimizer.lr", "1e-3 2e-3 3e-3", "log"),
        ("algo.optimizer.lr", "1e-3 1e-2", "log"),
        ("algo.entropy_coeff", "0.001 0.003 0.01", "log"),
        ("network.size", "32 64 128", "log"),
        ("algo.max_grad_norm", "0.1 10", "log"),
        ("algo.gamma", "0.9 0.95 0.99", "linear"),
        ("algo.horizon", "16 32 48 64", "linear"),
        ("algo.entropy_coeff", "0 0.001 0.01", "linear"),
        ("algo.optimizer.lr", "1e-3", "linear"),
    ],
)
def test_a_setting_that_is_spread_by_its_ratios_has_a_logarithmic_axis(tmp_path, figure, name, values, scale):
    settings = [{name: value} for value in values.split()]
    sweep_chart(settings, [1.0] * len(settings), tmp_path / "s.png", metric="m", title="t")
    assert figure[0].axes[0].get_xscale() == scale


def test_sweep_of_many_settings_has_a_panel_each(tmp_path, figure):
    settings = [
        {"a": a, "b": b, "c": "x.y.Long" + "g" * 30, "d": "[64, 64]", "e": e}
        for a, b, e in itertools.product("123", ("", "yes"), "12")
    ]
    sweep_chart(settings, [1.0] * 12, tmp_path / "s.png", metric="m", title="t")
    axes = figure[0].axes
    assert [each.get_xlabel() for each in axes] == list("abcde")
    assert [tick.get_text() for tick in axes[1].get_xticklabels()] == ["none", "yes"]
    assert [tick.get_text() for tick in axes[2].get_xticklabels()] == ["Longgggggggggggggg"[:17] + "…"]
    assert [tick.get_text() for tick in axes[3].get_xticklabels()] == ["[64, 64]"]
    assert set(lines(axes[0])) == {"mean"}


def test_sweep_of_seeds_alone(tmp_path, figure):
    sweep_chart([{"seed": seed} for seed in "123"], [1.0, 2.0, math.nan], tmp_path / "s.png", metric="m", title="t")
    (axes,) = figure[0].axes
    assert axes.get_xlabel() == "seed"
    (mean,) = axes.get_lines()  # across, not from seed to seed
    assert list(mean.get_ydata()) == [1.5, 1.5]
    assert len(axes.collections[0].get_offsets()) == 2
    assert axes.get_xlim()[1] > 3  # where the third failed


@pytest.mark.parametrize("values", [("1", "2", "3"), ("1e-4", "1e-3", "1e-2")])
def test_a_run_that_failed_is_in_sight_whatever_the_scale(values, tmp_path, figure):
    settings = [{"lr": value} for value in values]
    sweep_chart(settings, [2.0, 1.0, None], tmp_path / "s.png", metric="m", title="t")
    assert figure[0].axes[0].get_xlim()[1] > float(values[-1])


def test_sweep_with_more_values_than_colours_shows_the_mean(tmp_path, figure):
    settings = [{"a": str(a), "b": str(b)} for a in range(2) for b in range(9)]
    sweep_chart(settings, [float(i) for i in range(18)], tmp_path / "s.png", metric="m", title="t")
    first, second = figure[0].axes
    assert lines(first) == {"mean": [(0.0, 4.0), (1.0, 13.0)]}
    assert set(lines(second)) == {"a = 0", "a = 1"}
    assert len(second.get_xticklabels()) != 9  # too many to name each


def test_infinite_settings_are_words(tmp_path, figure):
    sweep_chart([{"a": "inf"}, {"a": "1"}], [1.0, 2.0], tmp_path / "s.png", metric="m", title="t")
    assert [tick.get_text() for tick in figure[0].axes[0].get_xticklabels()] == ["1", "inf"]


def test_sweep_csv(tmp_path):
    path = sweep_csv([{"run": "a,b", "x": 1}, {"run": "c", "y": 'say "z"'}], tmp_path / "s.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["run", "x", "y"], ["a,b", "1", ""], ["c", "", 'say "z"']]
