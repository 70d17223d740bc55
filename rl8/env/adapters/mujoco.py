"""MuJoCo, imported so that it can draw."""

from __future__ import annotations

import importlib
import os
import sys

from rl8.checks import first_line

BACKEND = "MUJOCO_GL"  # the variable by which MuJoCo, as it is imported, decides what draws


def load_mujoco(*, drawing: bool) -> None:
    """Import MuJoCo; where it shall draw and there is no screen, so that it draws without one.

    Args:
        drawing: Whether pictures are wanted. Without, nothing is chosen: what draws may not be installed.

    Raises:
        ValueError: If it can't be imported with what shall draw.
    """
    typed = os.environ.get(BACKEND)
    if drawing:
        draw_without_screen()
    try:
        importlib.import_module("mujoco")
    except Exception as error:  # its libraries raise what they like
        if not (typed or drawing):
            raise
        said = first_line(error).rstrip(".")
        if typed:
            raise ValueError(
                f"{BACKEND}={typed}, a variable of the environment: MuJoCo can't be imported with it: {said}. "
                f"Accepted: what is installed of egl, glfw and osmesa. Type: unset {BACKEND}."
            ) from error
        raise ValueError(cannot_draw(said)) from error


def draw_without_screen() -> None:
    """Let MuJoCo draw by EGL where there is no screen and nothing else is chosen."""
    screen = sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if not (os.environ.get(BACKEND) or screen):
        os.environ[BACKEND] = "egl"


def cannot_draw(reason: str) -> str:
    """Return the message for a machine where MuJoCo does not draw."""
    return (
        f"env.render_mode=rgb_array: MuJoCo can't draw on this machine: {reason.rstrip('.')}. Accepted: a screen, or "
        f"without one the library EGL (libegl1 of Debian and Ubuntu, or a GPU's driver), which {BACKEND}=egl in the "
        "environment names. Try env.render_mode=null."
    )
