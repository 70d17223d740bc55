import pytest

import rl8


@pytest.mark.parametrize("name", rl8.__all__)
def test_public_names_are_found_where_they_are_defined(name):
    assert getattr(rl8, name).__name__ == name


@pytest.mark.parametrize("name", ["conditions", "env", "models", "specs"])
def test_modules_need_no_import_of_their_own(monkeypatch, name):
    monkeypatch.delattr(rl8, name, raising=False)
    assert getattr(rl8, name).__name__ == f"rl8.{name}"


def test_names_are_listed_before_they_are_loaded():
    assert {*rl8.__all__, "env", "specs", "__version__"} <= set(dir(rl8))


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="module 'rl8' has no attribute 'Trainr'"):
        rl8.Trainr  # noqa: B018
