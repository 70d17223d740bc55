"""The measurement on a GPU, rehearsed on a CPU: no slip of it should cost time on a device."""

import argparse
import contextlib
import io
import json
import os
import runpy
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from rl8 import cli

STUDIES = str(Path(__file__).parents[2] / "experiments")
sys.path.insert(0, STUDIES)  # no package that is installed
try:
    from throughput import gpu, gpu_steps, gpu_table, plan, programs
    from throughput.programs import ProgramError
finally:
    sys.path.remove(STUDIES)

BOTH = ["float32", "bf16"]


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def inside(command, folder=None):
    """Return what a Python program prints that runs in this process instead of one of its own, and its exit code."""
    assert command[0] == sys.executable
    name, arguments = (command[2], command[3:]) if command[1] == "-m" else (command[1], command[2:])
    printed, kept = io.StringIO(), (sys.argv, sys.path, torch.get_float32_matmul_precision(), Path.cwd())
    sys.argv, sys.path, code = [name, *arguments], [str(Path(name).parent), STUDIES, *sys.path], 0
    os.chdir(folder or Path.cwd())
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            if name == "pytest":
                print(f"{len([one for one in arguments if Path(one).is_file()])} skipped")
            elif name == "rl8":
                cli.main(arguments)
            elif name.endswith(".py"):
                runpy.run_path(name, run_name="__main__")
            elif name.endswith(".gpu"):
                gpu.main(arguments)
            else:
                runpy.run_module(name.removeprefix("experiments."), run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv, sys.path = kept[:2]
        torch.set_float32_matmul_precision(kept[2])
        os.chdir(kept[3])
    return printed.getvalue(), code


@pytest.fixture
def in_this_process(monkeypatch, program):
    """Let every program run in this process: to import torch a dozen times takes a minute."""

    def lines_of(command, _seconds, _env, *, cwd=None, errors=None):
        text, code = inside(command, cwd)
        yield from text.splitlines(keepends=True)
        if errors is not None:
            errors.write_text("")
        if code:
            raise ProgramError(f"exit code {code}")

    def run(command, *, timeout_s, env=None):
        assert timeout_s > 0
        text, code = inside(command)
        assert not code
        return programs.parse(text)

    monkeypatch.setattr(gpu, "lines_of", lines_of)
    monkeypatch.setattr(gpu_steps, "lines_of", lines_of)
    monkeypatch.setattr(gpu_steps, "run", run)
    monkeypatch.setattr(programs, "run", run)


def rehearsed(part, folder, *options):
    """Run a part's steps, tiny, on a CPU; return their results by name."""
    gpu.main([part, "--tiny", "--device", "cpu", "--out", str(folder), *options])
    study = json.loads((folder / "throughput-cpu.json").read_text())
    found = {name: one["result"] for name, one in study["parts"].items()}
    assert not [one["ended"] for one in found.values() if "ended" in one]
    assert {path.name for path in folder.iterdir()} >= {"table.md", "throughput-cpu.md", *(f"{n}.json" for n in found)}
    return found


def test_a_step_is_a_process(tmp_path):
    found = rehearsed("a", tmp_path, "--only", "versions")
    assert list(found) == ["versions"]
    assert found["versions"]["torch"][0].startswith(torch.__version__)


@pytest.mark.usefixtures("in_this_process")
def test_part_a_goes_through(tmp_path):
    found = rehearsed("a", tmp_path)
    assert list(found) == list(gpu.PARTS["a"])
    assert [line["amp"] for line in found["speeds"]["lines"]] == [False, True] * 2
    assert [line["kernels"] for line in found["kernels"]["lines"]] == ["off", "auto"] * 2
    assert not found["speeds"]["skipped"] + found["kernels"]["skipped"]
    assert list(found["smoke"]) == BOTH
    assert found["profile"]["lines"][0]["busy_s"] > 0
    assert "addmm" in (tmp_path / "profile.txt").read_text()
    assert found["peaks"]["copy_gb_s"] > 0
    assert all(any(name.endswith(dtype) for name in found["peaks"]["ms"]) for dtype in BOTH)
    assert "skipped" in found["tests"]["summary"]
    table = (tmp_path / "table.md").read_text()
    assert "| rl8, bf16, N = 4, kernels off | " in table
    assert "| CartPole from the command to solved | not measured | < 10 s |" in table


@pytest.mark.usefixtures("in_this_process")
def test_part_b_goes_through(tmp_path, store_dir):
    found = rehearsed("b", tmp_path)
    assert list(found) == list(gpu.PARTS["b"])
    assert [line["program"] for line in found["compare"]["lines"]] == ["rl8"]
    assert [run["exit_code"] for run in found["solve"]["runs"]] == [0]
    assert [line["model"] for line in found["more"]["lines"]] == ["lstm"]
    assert len(found["compile"]["lines"]) == 1


def test_parts_take_less_than_five_minutes():
    assert all(sum(steps.values()) <= gpu.PART_S < 300 for steps in gpu.PARTS.values())
    assert {name for steps in gpu.PARTS.values() for name in steps} == set(gpu_steps.STEPS)


def test_what_hangs_is_killed_with_its_children_and_what_it_said_is_kept():
    hang = "import threading; print('begun', flush=True); threading.Event().wait()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hang!r}])"
    lines, begin = gpu.lines_of([sys.executable, "-c", code], 5.0, {}), time.perf_counter()
    assert next(lines) == "begun\n"
    with pytest.raises(ProgramError, match="stopped after 5 s"):
        next(lines)
    assert time.perf_counter() - begin < 30
    with pytest.raises(ProgramError, match="exit code 3: "):
        list(gpu.lines_of([sys.executable, "-c", "raise SystemExit(3)"], 60.0, {}))


def test_a_step_that_crashes_keeps_what_it_wrote_and_the_next_ones_run(tmp_path, monkeypatch):
    said = []

    def process(command, *_arguments):
        name = command[command.index("--step") + 1]
        if name == "smoke":
            gpu.write(tmp_path / "smoke.json", {"half": 1})
        yield "a line\n"
        raise ProgramError("exit code -11: a crash")

    monkeypatch.setattr(gpu, "lines_of", process)
    monkeypatch.setattr(gpu, "PARTS", {"a": {"versions": 5.0, "smoke": 5.0}})
    monkeypatch.setattr(gpu.Clock, "say", lambda _clock, text: said.append(text))
    gpu.main(["a", "--device", "cpu", "--out", str(tmp_path), "--tiny"])
    parts = json.loads((tmp_path / "throughput-cpu.json").read_text())["parts"]
    assert {name: part["result"] for name, part in parts.items()} == {
        "smoke": {"half": 1, "ended": "exit code -11: a crash"}
    }
    assert "versions failed: exit code -11: a crash" in said
    assert "smoke: exit code -11: a crash; what it had measured is kept" in said


def test_a_point_that_fails_takes_no_other_with_it(tmp_path, monkeypatch):
    place = argparse.Namespace(folder=tmp_path, own={})
    args = argparse.Namespace(out=tmp_path, step="more", device="cpu", tiny=True, say=lambda _text: None)
    point = plan.Point(num_envs=4, horizon=4, width=8)
    listed = [gpu_steps.line_of(plan.replace(point, num_envs=n)) for n in (4, 8, 16)]
    measured = {**listed[0], "timings": [{"total_s": 1.0}], "transitions": 16, "peak_mb": 1.0}
    full = {**listed[1], "timings": [], "skipped": "out of memory"}

    def process(*_arguments, **_options):
        yield json.dumps(measured) + "\n"
        yield "no JSON\n"
        yield json.dumps(full) + "\n"
        raise ProgramError("stopped after 9 s")

    monkeypatch.setattr(gpu_steps, "lines_of", process)
    *_, found = gpu_steps.points(place, args, 9.0, listed)
    assert [line["num_envs"] for line in found["lines"]] == [4]
    assert [one["reason"] for one in found["skipped"]] == ["out of memory", "stopped after 9 s"]


def test_large_minibatches_are_cut():
    assert gpu_steps.line_of(plan.Point(num_envs=2**20))["piece_size"] == gpu_steps.PIECE_ROWS
    assert gpu_steps.line_of(plan.Point(num_envs=8192))["piece_size"] == 0


def line(num_envs, amp, speed, **more):
    transitions = 32 * num_envs
    made = {"num_envs": num_envs, "amp": amp, "transitions": transitions, "piece_size": 0, "kernels": "auto"}
    return {**made, "timings": [{"total_s": transitions / speed}], "peak_mb": 2048.0, **more}


def test_the_table_by_hand():
    speeds = [line(8192, False, 8e6), line(65536, True, 40e6), line(2**20, True, 50e6, peak_mb=1024.0)]
    kernels = [line(65536, True, 33e6, kernels="off"), line(65536, True, 66e6), line(65536, True, 1e6, piece_size=9)]
    compared = [line(65536, False, rate, size="65536 x 32", program=p) for p, rate in (("rl8", 20e6), ("jax", 8e6))]
    parts = {
        "speeds": {"lines": speeds},
        "kernels": {"lines": kernels},
        # 8192 x 32 transitions at 8 M/s take 32.768 ms, of which kernels ran 32
        "profile": {"lines": [{"num_envs": 8192, "amp": False, "transitions": 262144, "busy_s": 0.032}]},
        "compare": {"lines": compared, "sizes": ["8192 x 32", "65536 x 32"], "failed": {"skrl": "why"}},
        "solve": {"runs": [{"seconds": 12.0, "exit_code": 0}, {"seconds": 9.5, "exit_code": 0}]},
        "tests": {"summary": "== 20 passed =="},
    }
    facts = {"versions": {"torch": "2.11.0"}, "commit": "0123456789abcdef", "date": "2026-12-01 10:00"}
    study = {
        "hardware": "one GPU",
        "parts": {name: {"result": one, "provenance": facts} for name, one in parts.items()},
    }
    table = gpu_table.table(study)
    assert table.startswith("one GPU, torch 2.11.0, commit 0123456789ab, 2026-12-01 10:00 UTC. CartPole")
    for row in (
        "| rl8, TF32, N = 8,192 | 8 M |  |",
        "| rl8, bf16, N = 8,192 | not measured |  |",
        "| rl8, bf16, most environments: N = 1,048,576 | 50 M, 1.0 GB |  |",
        "| rl8, bf16, N = 65,536, kernels off | 33 M | 33 M |",
        "| rl8, bf16, N = 65,536, kernels auto | 66 M | 65 M |",
        "| idle, TF32, N = 8,192 | 2.3% | < 3% |",
        "| plain JAX, `lax.scan` over everything at 65536 x 32 | 8 M, rl8 is 2.50 times as fast | > 1 |",
        "| rl8 1.0.0 from PyPI at 65536 x 32 | not measured | >= 5 |",
        "| skrl at 65536 x 32 | failed |  |",
        "| CartPole from the command to solved | 9.5 s | < 10 s |",
        "| tests that need CUDA | 20 passed | all |",
    ):
        assert row in table.splitlines()
