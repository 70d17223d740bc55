import ctypes
import stat

import pytest
import torch

from rl8.execution.compiled import building

NO_COMPILER = "there is no C compiler"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Builds something small, in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(building, "SOURCE", tmp_path / "small.c")
    building.SOURCE.write_text("int answer(void) { return 42; }")
    built = building.library.__wrapped__
    if isinstance(found := built(), str):
        pytest.skip(found)
    return built


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "rl8").iterdir())


def compiler(tmp_path, monkeypatch, text):
    """Let the compiler be a script."""
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(path))


def test_it_is_built_once(build, tmp_path, monkeypatch):
    path = kept(tmp_path)[0]
    assert path.suffix == ".so"
    before = path.stat().st_mtime_ns
    monkeypatch.setattr(building, "_build", lambda *_: pytest.fail("it was there"))
    assert build().answer() == 42
    assert [path] == kept(tmp_path)
    assert path.stat().st_mtime_ns == before


def test_another_processor_has_another_library(build, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    monkeypatch.setitem(building.VECTORS, "DEFAULT", ("-DOTHER",))
    assert isinstance(build(), ctypes.CDLL)
    assert len(kept(tmp_path)) == 2


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert building.library.__wrapped__().startswith(NO_COMPILER)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo it is too old >&2; exit 1", "failed: it is too old"),
        ("exit 3", "failed: it said nothing"),
        ("exit 0", "nothing that could be loaded"),
        ('while [ "$1" != -o ]; do shift; done; echo no library > "$2"', "nothing that could be loaded"),
    ],
)
def test_a_compiler_that_fails_is_named(build, tmp_path, monkeypatch, text, reason):
    compiler(tmp_path, monkeypatch, text)
    found = build()
    assert str(tmp_path / "compiler") in found
    assert reason in found


def test_a_cache_that_cannot_be_written_is_done_without(build, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(build(), ctypes.CDLL)
