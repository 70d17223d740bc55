"""The kernels compile ahead of time, in a process of its own: here they are interpreted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is an extra for development, for Linux on x86-64")

ROOT = Path(__file__).parents[3]


@pytest.mark.timeout(600)
def test_kernels_fit_every_architecture(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "experiments.kernels.prove", "--short"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines()[2:]]
    assert {row[4] for row in rows if row[0] == "update"} == {"80", "90", "120"}
    assert {row[8] for row in rows if row[0] == "update" and row[4] == "90"} == {"wgmma"}
    assert {row[6] for row in rows} == {"0"}  # bytes spilled
