import os
import sys
from types import ModuleType

import pytest

from rl8.env.adapters.mujoco import load_mujoco


@pytest.fixture
def machine(monkeypatch):
    """Stand for a machine with MuJoCo and no screen."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "mujoco", ModuleType("mujoco"))
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "drawing", "chosen"),
    [
        ({}, True, "egl"),
        ({}, False, None),
        ({"DISPLAY": ":0"}, True, None),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True, None),
        ({"MUJOCO_GL": "osmesa"}, True, "osmesa"),
    ],
)
def test_what_draws_is_chosen_where_there_are_pictures_and_no_screen(machine, variables, drawing, chosen):
    for name, value in variables.items():
        machine.setenv(name, value)
    load_mujoco(drawing=drawing)
    assert os.environ.get("MUJOCO_GL") == chosen


@pytest.mark.parametrize(
    ("typed", "drawing", "error", "message"),
    [
        (
            "screen",
            False,
            ValueError,
            "MUJOCO_GL=screen, a variable .* can't be imported with it: .* unset MUJOCO_GL",
        ),
        (
            "",
            True,
            ValueError,
            "env.render_mode=rgb_array: MuJoCo can't draw on this .* Accepted: a screen, or",
        ),
        ("", False, ImportError, "import of mujoco halted"),
    ],
)
def test_what_cannot_be_imported(machine, typed, drawing, error, message):
    machine.setenv("MUJOCO_GL", typed)
    machine.setitem(sys.modules, "mujoco", None)  # Python refuses its import
    with pytest.raises(error, match=message):
        load_mujoco(drawing=drawing)
