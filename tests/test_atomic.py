import pytest

from rl8.atomic import atomic


def test_a_file_is_there_as_a_whole(tmp_path):
    with atomic(tmp_path / "deep" / "x.txt") as file:
        file.write_text("new")
        assert not (tmp_path / "deep" / "x.txt").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.txt"]
    assert (tmp_path / "deep" / "x.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), r"x.txt can't be written: No space left on device. What was there"),
        (RuntimeError("drawing failed"), r"^drawing failed$"),
        (KeyboardInterrupt("now"), r"^now$"),
    ],
)
def test_a_write_that_fails_leaves_what_was_there(tmp_path, error, message):
    (tmp_path / "x.txt").write_text("old")

    def write():
        with atomic(tmp_path / "x.txt") as file:
            file.write_text("half")
            raise error

    with pytest.raises(type(error), match=message):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/x.txt can't be written: "), atomic(tmp_path / "file" / "x.txt") as file:
        file.touch()
