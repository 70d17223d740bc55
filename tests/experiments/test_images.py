import sys
from pathlib import Path

import pytest

from rl8.config import catalog, compose
from rl8.config.schema import check

STUDY = Path(__file__).parents[2] / "experiments" / "images"


@pytest.fixture
def _folder(monkeypatch):
    monkeypatch.chdir(STUDY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    catalog.prepare()
    with compose.composer():
        yield


@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize(
    ("words", "model"),
    [
        ([], "CNNModel"),
        (["env.id=minatar_tasks:MinAtar/Asterix-v1", "model.window=2"], "CNNModel"),
        (["model=impala", "~model.filters", "model.channels=[16]"], "ImpalaModel"),
    ],
)
def test_the_words_of_the_readme_compose(words, model):
    plan = check(*compose.checked(["experiment=breakout", *words]))
    assert plan.model.target == f"rl8.models.{model}"
    assert plan.env.options["id"].startswith("minatar_tasks:MinAtar/")
