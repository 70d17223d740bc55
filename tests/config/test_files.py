import pytest

from rl8.config.catalog import prepare
from rl8.config.compose import checked, composer
from rl8.config.files import check_file

GOOD = "# @package _global_\nenv:\n  _target_: rl8.env.DiscreteDummyEnv\n"


@pytest.fixture
def option(workdir):
    """Return a function that composes with a file of the user's own."""

    def compose(group, content, ending="yaml"):
        path = workdir / "conf" / group / f"mine.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        prepare()
        with composer():
            return checked([f"{group}=mine"])[0]

    return compose


def test_a_good_file_is_read(option):
    assert option("env", GOOD).env._target_ == "rl8.env.DiscreteDummyEnv"


@pytest.mark.parametrize(
    ("group", "content", "message"),
    [
        (
            "env",
            "env:\n  _target_: my.Env\n",
            r"mine.yaml lacks its first line, '# @package _global_': .* under env. Add it",
        ),
        ("env", GOOD.replace("_target_", "target"), r"has 'target' where .* Write _target_: rl8.env.DiscreteDummyEnv"),
        ("env", "# @package _global_\n_target_: my.Env\n", r"has _target_ at its top level, .* options under `env:`"),
        ("model", "class_name: my.Model\n", r"has 'class_name' where .* Write _target_: my.Model"),
        ("model", "- _target_: my.Model\n", r"mine.yaml holds a list. Accepted: lines like `key: value`"),
        (
            "model",
            "_target_:my.Model\n",
            r"line 1: '_target_:my.Model' has no space after the colon. Write `_target_: my.Model`",
        ),
        (
            "env",
            GOOD + "  push:0.1\n  pull: 2\n",
            r"mine.yaml, line 4: 'push:0.1' has no space after the colon. Write `push: 0.1`",
        ),
        ("model", b"_target_: my.M\xf6del\n", r"mine.yaml is no UTF-8 text \(byte 14\). Save it as UTF-8"),
    ],
)
def test_a_wrong_file_is_named_with_its_mend(option, group, content, message):
    with pytest.raises(ValueError, match=message):
        option(group, content)


def test_another_ending_is_named(option):
    with pytest.raises(ValueError, match=r"mine.yml ends in .yml, and only .yaml is read. Rename it to mine.yaml"):
        option("env", GOOD, ending="yml")


def test_other_line_ends_are_read(option):
    assert option("env", GOOD.replace("\n", "\r\n")).env._target_ == "rl8.env.DiscreteDummyEnv"


def test_a_byte_order_mark_is_named(option):
    with pytest.raises(ValueError, match=r"mine.yaml starts with a byte order mark. Save it as UTF-8 without one"):
        option("env", b"\xef\xbb\xbf" + GOOD.encode())


def test_addresses_and_times_need_no_space(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("_target_: my.Model\nuri: http://host:80/x\nat: 12:30\n'a:b': 1\n")
    check_file(path, "model")
