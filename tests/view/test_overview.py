import itertools
import math

import pytest
from PIL import Image

from rl8.view import plots
from rl8.view.overview import overview


@pytest.fixture
def figure(monkeypatch):
    """Keep the figure that is saved, to look at what was drawn."""
    kept = []
    save = plots.save
    monkeypatch.setattr(plots, "save", lambda figure, path: kept.append(figure) or save(figure, path))
    return kept


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_two_settings_make_a_heat_map_of_the_means_over_seeds(tmp_path, figure):
    runs = list(itertools.product(["0.99", "0.9"], ["8", "16", "128"], "12"))
    settings = [{"algo.gamma": gamma, "algo.horizon": horizon, "seed": seed} for gamma, horizon, seed in runs]
    results = [int(horizon) * float(gamma) + int(seed) for gamma, horizon, seed in runs]
    results[0] = None  # one seed of two
    results[-1] = results[-2] = math.nan  # gamma 0.9, horizon 128
    path = overview(settings, results, tmp_path / "o.png", metric="eval/returns/mean", title="Sweep of both")
    with Image.open(path) as image:
        assert image.format == "PNG"
    axes, bar = figure[0].axes
    assert [text.get_text() for text in figure[0].texts] == ["Sweep of both", "6 combinations, mean of up to 2 seeds"]
    (cells,) = axes.get_images()
    assert cells.get_array().tolist() == [  # a row per horizon, a column per gamma, both rising
        [pytest.approx(8 * 0.9 + 1.5), pytest.approx(8 * 0.99 + 2)],
        [pytest.approx(16 * 0.9 + 1.5), pytest.approx(16 * 0.99 + 1.5)],
        [None, pytest.approx(128 * 0.99 + 1.5)],
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.9", "0.99"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["8", "16", "128"]
    assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == (
        "algo.gamma",
        "algo.horizon",
        "eval/returns/mean",
    )
    assert sorted(words(axes)) == sorted(["9.92", "17.3", "128", "8.7", "15.9"])
    assert [line.get_xydata().tolist() for line in axes.get_lines()] == [[[0, 2]]]  # the cross
    (best,) = axes.patches
    assert best.get_xy() == (0.5, 1.5)


def test_more_settings_make_parallel_coordinates(tmp_path, figure):
    runs = list(itertools.product(["0.001", "0.01", "0.1"], ["mlp", "my.models.Big"], ["1", "2"]))
    settings = [{"lr": lr, "model": model, "n": n} for lr, model, n in runs]
    results = [float(number) for number in range(11)] + [None]
    overview(settings, results, tmp_path / "o.png", metric="m", title="t")
    axes = figure[0].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["lr", "model", "n", "m"]
    assert words(axes)[:7] == ["0.001", "0.01", "0.1", "mlp", "Big", "1", "2"]
    drawn = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    best, failed = drawn["best: 10"], drawn["failed"]
    assert best[:, 0].tolist() == [0, 1, 2, 3]
    assert best[:, 1] == pytest.approx([0.97, 0.97, 0.03, 0.94])  # the best is on top of those through one value
    assert failed[:, 1] == pytest.approx([0.94, 0.94, 0.94])  # and has no result


def test_a_search_of_two_settings_would_leave_a_heat_map_empty(tmp_path, figure):
    settings = [{"a": str(0.1 * number), "b": str(number**2 + 0.5)} for number in range(1, 10)]
    overview(settings, [float(number) for number in range(9)], tmp_path / "o.png", metric="m", title="t")
    axes = figure[0].axes[0]
    assert not axes.get_images()
    assert words(axes)[0] == "0.1"
    assert len(words(axes)) == 3 * 6  # ticks are spread over the axes


def test_what_one_setting_shows_is_in_the_other_chart(tmp_path):
    path = tmp_path / "o.png"
    assert overview([{"a": "1", "seed": "1"}, {"a": "2", "seed": "1"}], [1.0, 2.0], path, metric="m", title="t") is None
    assert overview([{"a": "1", "b": "1"}, {"a": "2", "b": "1"}], [1.0, None], path, metric="m", title="t") is None
    assert overview([], [], path, metric="m", title="t") is None
    assert not path.exists()
