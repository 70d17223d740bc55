import sys

import pytest

from rl8.config.catalog import option_with
from rl8.config.targets import check_target, options_of


@pytest.fixture
def modules(workdir, monkeypatch):
    """Make the working directory importable, with a module that must not be imported and a package."""
    monkeypatch.syspath_prepend(workdir)
    (workdir / "lazy_env.py").write_text(
        "raise RuntimeError('imported')\n"
        "import os.path as p\n"
        "from json import loads as load\n"
        "if p:\n    class MyEnv:\n        inner = 1\n"
        "try:\n    limit: int = 3\nexcept ValueError:\n    pass\n"
        "def make(num_envs):\n    hidden = 1\n"
    )
    (workdir / "my_wall.py").write_text("from rl8.env import EpisodicEnv\nclass Wall(EpisodicEnv):\n    pass\n")
    (workdir / "conf" / "env").mkdir(parents=True)
    (workdir / "conf" / "env" / "another.yaml").write_text("_target_: my_wall.Wall\n")
    (workdir / "broken_env.py").write_text("class MyEnv(:\n")
    (workdir / "ending_env.py").write_text("raise ImportError('needs a licence')\n")
    (workdir / "open_env.py").write_text("def __getattr__(name):\n    return int\n")
    (workdir / "gadgets").mkdir()
    (workdir / "gadgets" / "__init__.py").write_text("from gadgets.first import One\n")
    (workdir / "gadgets" / "first.py").write_text("class One:\n    pass\n")
    return workdir


@pytest.mark.parametrize(
    "target",
    [
        "lazy_env.MyEnv",
        "lazy_env.MyEnv.inner",
        "lazy_env.make",
        "lazy_env.limit",
        "lazy_env.load",
        "gadgets.One",
        "gadgets.first.One",
        "rl8.env.CartPole",
        "rl8.Trainer",  # made by a module's __getattr__
        "ending_env.MyEnv",  # its import will say why there is none
        "open_env.Anything",
        "broken_env.MyEnv",  # the import will say what is wrong
        "torch.optim.Adam",
    ],
)
def test_names_that_may_be_classes_pass_without_an_import(modules, target):
    assert check_target("env._target_", target) == target
    assert "lazy_env" not in sys.modules


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("MyEnv", r"env\._target_='MyEnv' is no class. Accepted: module.Class, .* Try env\._target_=my_module.MyClass"),
        ("", "is no class"),
        (3, "env._target_=3 is no class"),
        ("a..b", "is no class"),
        ("lazy-env.MyEnv", "is no class"),
        ("os.system", "Python's standard library, which is not allowed"),
        ("builtins.eval", "Python's standard library, which is not allowed"),
        ("lazy_env.MyEnw", r"module 'lazy_env' has no 'MyEnw'. Accepted: MyEnv\. Try env\._target_=lazy_env.MyEnv"),
        ("lazy_env.hidden", "module 'lazy_env' has no 'hidden'"),
        ("lasy_env.MyEnv", r"no module 'lasy_env'.* \(there: .*lazy_env.py.* Try env\._target_=lazy_env.MyEnv"),
        ("no_such_thing_at_all.MyEnv", "no module 'no_such_thing_at_all'"),
        ("gadgets.fist.One", r"no module 'gadgets.fist'.* Try env\._target_=gadgets.first.One"),
        (
            "gadgets.first",
            r"'gadgets.first' is a module. Accepted: a class in it: One\. Try env\._target_=gadgets.first.One",
        ),
        ("my_wall.Wal", r"has no 'Wal'\. Accepted: Wall\. Try env\._target_=my_wall\.Wall\.$"),
        ("rl8.env.CartPol", r"module 'rl8.env' has no 'CartPol'.* Try env=cartpole\."),
    ],
)
def test_names_that_are_no_classes_are_refused(modules, target, message):
    with pytest.raises(ValueError, match=message):
        check_target("env._target_", target)


def test_an_empty_folder_is_said_to_be_empty(workdir):
    with pytest.raises(ValueError, match=r"there is no module 'my_env'.*\(there: none\)\.$"):
        check_target("env._target_", "my_env.MyEnv")


def test_a_module_without_a_spec_is_not_found(workdir, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(ValueError, match="there is no module '__main__'"):
        check_target("env._target_", "__main__.MyEnv")


def test_the_option_of_a_class_is_the_one_called_like_it(workdir):
    folder = workdir / "conf" / "env"
    folder.mkdir(parents=True)
    (folder / "another.yaml").write_text("_target_: walls.BrickWall\n")
    assert option_with("env", "walls.BrickWall") == "another"
    (folder / "wide.yaml").write_text("# @package _global_\nenv:\n  _target_: walls.BrickWall\n")
    assert option_with("env", "walls.BrickWall") is None
    (folder / "brick_wall.yaml").write_text("_target_: walls.BrickWall\n")
    assert option_with("env", "walls.BrickWall") == "brick_wall"
    assert option_with("env", "walls.Other") is None
    assert option_with("model", "rl8.models.mlp.MLPModel") == "mlp"


@pytest.mark.parametrize(
    ("key", "target", "options"),
    [
        ("stop", "rl8.conditions.StopsIncreasing", ["key", "patience"]),  # of a base class
        ("algo.optimizer", "options.Mine", ["lr", "eps"]),
        ("env", "options.Child", ["width", "speed"]),
        ("env", "gadgets.One", None),  # its base may be anything
        ("env", "options.Open", None),
        ("env", "options.Made", None),
        ("env", "options.make", None),
        ("env", "nowhere.Env", None),
    ],
)
def test_what_a_class_takes_is_read_from_its_source(key, target, options, modules):
    (modules / "options.py").write_text(
        "class Mine:\n    def __init__(self, params, lr=1, *, eps=2): ...\n"
        "class Base:\n    def __init__(self, n, t, width, device, speed=1): ...\n"
        "class Child(Base):\n    pass\n"
        "class Open:\n    def __init__(self, n, **more): ...\n"
        "@decorated\nclass Made:\n    def __init__(self, n): ...\n"
        "def make(n): ...\n"
    )
    assert options_of(key, target) == options
