"""Take a picture of the live view: run a command in a real terminal (tmux) and write what it shows as SVG.

python docs/capture.py docs/live.svg 8 "python -m rl8 seed=1"
"""

from __future__ import annotations

import io
import subprocess
import sys
import time

from rich.console import Console
from rich.text import Text

WIDTH, HEIGHT = 88, 22


def tmux(*words: str) -> str:
    """Return what a tmux command prints."""
    return subprocess.run(["tmux", *words], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Write the picture."""
    target, seconds, command = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    tmux("new-session", "-d", "-s", "rl8-capture", "-x", str(WIDTH), "-y", str(HEIGHT), command)
    try:
        time.sleep(seconds)
        screen = tmux("capture-pane", "-e", "-p", "-t", "rl8-capture")
    finally:
        tmux("kill-session", "-t", "rl8-capture")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen.rstrip()))
    console.save_svg(target, title=f"$ {command.rpartition('/')[2]}")


if __name__ == "__main__":
    main()
