"""What docs/ makes of the files of the repository: the configuration's reference, tables of names, links."""

import importlib
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rl8.config.catalog import CONF
from rl8.config.compose import checked, composer
from rl8.names import ours

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def docs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module


def test_every_key_of_a_file_is_in_its_table_with_value_and_comment(docs):
    configuration = docs("configuration")
    for path in CONF.glob("**/*.yaml"):
        rows = {row.key: row for row in configuration.rows(path)}
        content = OmegaConf.to_container(OmegaConf.load(path))
        content.pop("defaults", None)
        package = "" if "@package _global_" in path.read_text() else ".".join(path.parent.relative_to(CONF).parts)
        found = {
            key: OmegaConf.to_container(OmegaConf.create(f"it: {row.value}"))["it"]
            for key, row in rows.items()
            if row.value
        }
        assert found == dict(leaves(content, package)), path


def leaves(content, prefix):
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else key
        nested = isinstance(value, dict) and value and not name.endswith(("_config", "hydra.job_logging.loggers.hydra"))
        yield from leaves(value, name) if nested else [(name, value)]


def test_the_pages_of_the_configuration(docs):
    pages = docs("configuration").pages()
    assert {"index", "algo", "env", "model", "stop", "hydra_sweeper"} <= pages.keys()
    assert "| `algo.gamma` | `0.95` | discount per env step; in [0, 1], higher looks further ahead |" in pages["algo"]
    assert "## env=cartpole\n\nBalance a pole on a cart" in pages["env"]
    assert re.search(r"\nAdvantages\n\n\| key", pages["algo"])
    assert "| [env](env.md) | `cartpole` |" in pages["index"]
    assert "| `seed` | `1` |" in pages["index"]
    assert "hydra.job" not in pages["index"]
    # neither a tag nor attributes, which would not be shown
    assert "type goal.target=&lt;number> where" in pages["stop"]
    assert "e.g. &#123;gravity: 3.7} |" in pages["trainer"]


def test_names_of_other_libraries_are_those_that_rl8_answers(docs):
    coming = docs("coming")
    for key, theirs in coming.DEFAULTS.items():
        for one in theirs:
            name = "" if one is None else one.split()[0]
            assert name in ("", key.rpartition(".")[2]) or ours(name) == key, (key, name)
    page = coming.filled((ROOT / "docs" / "coming.md").read_text())
    assert "<!-- table" not in page
    assert "| `algo.gamma` | `0.95` | `gamma` 0.99 | `gamma` 0.99 | `gamma` 0.99 |" in page
    with composer():
        cfg, _ = checked([])
    for key in coming.DEFAULTS:
        assert key.rpartition(".")[2] in OmegaConf.select(cfg, key.rpartition(".")[0])


def test_sections_have_what_is_there_and_nothing_is_left_out(docs):
    sections = dict(docs("pages").sections(["quickstart", "sweeps", "unheard_of"]))
    assert sections == {"Begin": ["quickstart"], "Train": ["sweeps"], "More": ["unheard_of"]}


def test_links_lead_to_the_site_or_name_what_is_not_in_it(docs, monkeypatch, tmp_path):
    pages = docs("pages")
    text = (
        "[a](docs/policies.md#x) ![b](docs/live.svg) ![c](experiments/learning/results/curves.png) [d](LICENSE) "
        "[e](https://example.org) `[f](LICENSE)`"
    )
    linked, pictures = pages.linked(text, ROOT / "README.md")
    assert linked == (
        "[a](policies.md#x) ![b](live.svg) ![c](experiments/learning/results/curves.png) d (`LICENSE`) "
        "[e](https://example.org) `[f](LICENSE)`"
    )
    assert pictures == ["docs/live.svg", "experiments/learning/results/curves.png"]
    assert pages.linked("[a](../README.md) [b](api/rl8/env/index.md)", ROOT / "docs" / "sweeps.md")[0] == (
        "[a](index.md) [b](api/rl8/env/index.md)"
    )
    monkeypatch.setattr(pages, "PLANNED", {"later"})
    assert pages.linked("[a](later.md) [b](lost.md)", ROOT / "docs" / "sweeps.md")[0] == "a [b](lost.md)"
