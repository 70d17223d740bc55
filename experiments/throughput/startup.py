"""How long it takes from the command to the end of the first iteration, as a user would wait: fresh processes.

    python -m experiments.throughput.startup

prints one line of JSON. The first command makes the store that the later ones find.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST_LINE = re.compile(r"steps +return ")
TRAIN = ("-m", "rl8", "trainer.view=plain")
# Name and command line, in their order.
COMMANDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("new store", TRAIN),
    ("warm", TRAIN),
    ("warm, no MLflow", (*TRAIN, "trainer.track=false")),
    ("import torch", ("-c", "import torch")),
    ("help", ("-m", "rl8", "--help")),
)


def seconds_to(command: Sequence[str], folder: Path, *, timeout_s: float = 120.0) -> float:
    """Return the seconds until a command ends, or until it prints its first iteration if it trains.

    Raises:
        RuntimeError: If it ends without that, or takes too long.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    trains = "trainer.view=plain" in command
    seen: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            seen.append(line)
            if trains and FIRST_LINE.search(line):
                return time.perf_counter() - begin
            if time.perf_counter() - begin > timeout_s:
                break
        process.wait(timeout=timeout_s)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if trains or process.returncode:
        raise RuntimeError(f"{' '.join(command)} showed no iteration: {''.join(seen[-5:])}")
    return time.perf_counter() - begin


def measure(repeats: int, extra: Sequence[str] = ()) -> dict[str, list[float]]:
    """Return the seconds of each command, `repeats` times each but once with a new store, round by round."""
    found: dict[str, list[float]] = {name: [] for name, _ in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            for name, command in COMMANDS:
                if name == "new store" and number:
                    continue
                more = extra if "trainer.view=plain" in command else ()
                found[name].append(seconds_to([*command, *more], Path(folder)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", help="what to add to the training command, e.g. device=cuda")
    args = parser.parse_args()
    print(json.dumps(measure(args.repeats, args.overrides)))


if __name__ == "__main__":
    main()
