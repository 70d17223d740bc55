"""The throughput study: its arithmetic by hand, its drivers at tiny sizes, its page from made-up results."""

import json
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rl8.env import CartPole
from rl8.execution import threads
from rl8.models import MLPModel
from rl8.specs import Categorical, Unbounded
from rl8.view.readings import Readings, line

STUDIES = str(Path(__file__).parents[2] / "experiments")
sys.path.insert(0, STUDIES)  # no package that is installed
try:
    from throughput import (
        bench,
        bounds,
        compare,
        figures,
        overhead,
        peaks,
        plan,
        programs,
        report,
        startup,
        venvs,
        wheels,
    )
    from throughput.peers import cartpole, contract, counts
finally:
    sys.path.remove(STUDIES)


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


# ------------------------------------------------------------------------------------------------------------- bounds

# Two networks of one hidden layer, 2 -> 3 -> 1 each, two steps, one pass.
SMALL = bounds.Work(obs=2, outputs=1, state=1, action_bytes=4, hiddens=(3,), horizon=2, passes=1)


def test_flops_of_a_small_network_by_hand():
    # forward: 2 (2*3 + 3*1) = 18; backward: weights 18, inputs of the second layer 2*3 = 6
    assert bounds.forward_flops((2, 3, 1)) == 18
    assert bounds.backward_flops((2, 3, 1)) == 24
    # values: three rows for two transitions; learn: both networks forward and backward
    assert bounds.iteration_flops(SMALL) == {"act": 18, "values": 27, "learn": 84}


def test_flops_of_the_default_cartpole():
    # act 2 (5*256 + 256*256 + 256*3); values 2 (5*256 + 256*256 + 256) * 33/32
    # learn 4 * (135168 + 134144 + 2 * 135168 - 2560 + 2 * 134144 - 2560)
    assert bounds.iteration_flops(bounds.work_of("cartpole")) == {"act": 135168, "values": 138336, "learn": 3211264}


def test_flops_are_those_that_torch_counts():
    work = bounds.work_of("cartpole", width=64, passes=1)
    options = {"feature_shapes": {"logits": torch.Size([3])}, "hiddens": (64, 64)}
    model = MLPModel(Unbounded(5), Categorical(3), **options, activation="elu")  # layer by layer: torch counts those
    with FlopCounterMode(display=False) as counter:
        out = model(torch.randn(1, 8, 5))
        (out.features["logits"].sum() + out.values.sum()).backward()
    assert counter.get_total_flops() == 8 * bounds.iteration_flops(work)["learn"]


def test_flops_of_an_lstm_by_hand():
    # four gates of width 2: from one observation 2*1*8 = 16, from the state 2*2*8 = 32, two heads 2*2*2 = 8
    # backward: weights 16 + 32 + 8, inputs 8 of the heads and 32 of the state at one step in two
    work = bounds.Work(obs=1, outputs=1, lstm=2, seq_len=2, horizon=4, passes=1)
    assert bounds.iteration_flops(work) == {"act": 56, "values": 14, "learn": 56 + 80}


def test_bytes_by_hand():
    # forward: layers read and write 2+3 and 3+1, the activation 3+3; backward: weight gradients 5 + 4, the input
    # gradient of the second layer 4, the activation 9
    assert bounds.forward_elements((2, 3, 1)) == 15
    assert bounds.backward_elements((2, 3, 1)) == 22
    assert bounds.layered_bytes(SMALL) == {"act": 60, "values": 90, "learn": 4 * 2 * 37}
    assert bounds.layered_bytes(SMALL, number_bytes=2)["learn"] == 2 * 2 * 37
    # act: state 4+4, observations 8+8, action 4, logp and reward 8; values: 12 * 3/2; a pass: 8 + 4 + 12
    assert bounds.fused_bytes(SMALL) == {"act": 36, "values": 18, "advantages": 24, "learn": 24}


def test_bounds_follow_the_peaks():
    measured = {"gflops": 100.0, "bf16_gflops": 400.0, "triad_gb_s": 20.0}
    found = bounds.bounds(bounds.work_of("cartpole"), measured)
    assert found["arithmetic"] == pytest.approx(100e9 / 3484768)
    assert found["arithmetic_bf16"] == pytest.approx(4 * found["arithmetic"])
    assert found["fused"] == pytest.approx(20e9 / 296.75)
    assert found["layered_bf16"] == pytest.approx(2 * found["layered"])
    assert "layered" not in bounds.bounds(bounds.work_of("cartpole", model="lstm", width=8), measured)


def test_peaks_are_rates():
    found = peaks.measure("cpu", 1, 0.001)
    assert found["gflops"] == max(found["gflops_by_rows"].values()) > 0
    assert found["copy_gb_s"] > 0
    assert found["triad_gb_s"] > 0


# ------------------------------------------------------------------------------------------------ programs of the study


def test_the_programs_cartpole_is_rl8s():
    torch.manual_seed(1)
    ours, theirs = CartPole(64), cartpole.CartPole(64)
    ours.reset()
    ours.state = torch.randn(4, 64)
    theirs.state = ours.state.clone()
    for _ in range(20):
        actions = torch.randint(3, (64,))
        out = ours.step(actions)
        obs, rewards = theirs.step(actions)
        torch.testing.assert_close(obs, out["obs"])
        torch.testing.assert_close(rewards, out["rewards"].reshape(-1))


def test_the_check_tells_environments_apart(monkeypatch):
    env = cartpole.CartPole(contract.CHECK_ENVS)
    found = contract.play_check(env.check_states, env.check_step)
    assert found == pytest.approx(contract.expected_check(), rel=1e-5)
    programs.check({"check": found})
    monkeypatch.setattr(cartpole, "FORCE", 10.0)
    with pytest.raises(programs.ProgramError, match="another one"):
        programs.check({"check": contract.play_check(env.check_states, env.check_step)})


def test_timed_counts_what_it_was_told():
    calls = []
    args = contract.parser("").parse_args(["--warmup", "2", "--iterations", "3", "--block", "4", "--seconds", "9"])
    rows = contract.timed(args, lambda: calls.append("c"), lambda: calls.append("u"), lambda: calls.append("s"))
    assert [set(row) for row in rows] == [{"collect_s", "update_s", "total_s"}] * 3
    assert "".join(calls) == "cucus" + "csuscucucucus" * 3
    args = contract.parser("").parse_args(["--seconds", "0", "--iterations", "9", "--min-iterations", "2"])
    assert len(contract.timed(args, contract.nothing, contract.nothing)) == 2


def test_memory_is_at_least_what_is_held():
    # In a process of its own: a peak only rises once this one's earlier tests are surpassed.
    code = (
        "import contract; before = contract.memory_mb(); held = bytearray(b'x') * (64 * 2**20); "
        "assert contract.memory_mb() > before + 32; assert len(held) == 64 * 2**20"
    )
    folder = Path(contract.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_operations_and_reads_are_counted():
    a = torch.ones(3, 2)

    def work():
        b = (a + a).t()  # one operation, one view
        b.sum().item()  # one operation, one read
        a.tolist()  # one read

    assert counts.operations(work) == {"operations": 2, "views": 1, "host_reads": 2}


def test_operations_of_all_threads_are_counted():
    a = torch.ones(3, 2)
    torch.set_num_threads(2)
    try:
        found = counts.operations(lambda: threads.side_by_side([lambda: a + a, lambda: a * a]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert found["operations"] == 2


def test_a_program_is_run_in_a_process():
    code = "print('noise'); print('{\"a\": 1}')"
    assert programs.run([sys.executable, "-c", code], timeout_s=60) == [{"a": 1}]
    with pytest.raises(programs.ProgramError, match="exit code 3"):
        programs.run([sys.executable, "-c", "raise SystemExit(3)"], timeout_s=60)
    with pytest.raises(programs.ProgramError, match="no result"):
        programs.run([sys.executable, "-c", ""], timeout_s=60)
    with pytest.raises(programs.ProgramError, match="longer than"):
        programs.run([sys.executable, "-c", "import threading; threading.Event().wait()"], timeout_s=0.01)
    with pytest.raises(programs.ProgramError, match="No such file"):
        programs.run(["/nowhere/python"], timeout_s=60)


def test_every_program_has_a_script():
    assert all(program.script.exists() for program in programs.PROGRAMS.values())
    assert {programs.PROGRAMS[name].home for name in programs.CPU_PROGRAMS} == {"rl8", *venvs.NAMES}
    assert all((venvs.HERE / "requirements" / f"{name}.txt").exists() for name in venvs.NAMES)


def test_a_missing_virtual_environment_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(venvs, "VENVS", tmp_path)
    assert venvs.missing() == list(venvs.NAMES)
    assert programs.interpreter("sb3") is None
    (tmp_path / "sb3").mkdir()
    (tmp_path / "sb3" / "complete").touch()
    assert programs.interpreter("sb3") == str(tmp_path / "sb3" / "bin" / "python")
    assert programs.interpreter("rl8") == sys.executable
    assert programs.interpreter("upstream-fp16", {"upstream": "python9"}) == "python9"


# ------------------------------------------------------------------------------------------------------- made-up data


def made_up(name, per_s, *, num_envs=1024, horizon=32, **other):
    """Return a program's line with a speed, a quarter of whose time is spent collecting."""
    seconds = num_envs * horizon / per_s
    row = {"collect_s": seconds / 4, "update_s": 3 * seconds / 4, "total_s": seconds}
    line = {"program": name, "num_envs": num_envs, "horizon": horizon, "transitions": num_envs * horizon, "width": 256}
    line |= {"passes": 4, "amp": False, "timings": [row] * 3, "peak_mb": 500.0, "base_mb": 300.0}
    return line | other


def point_line(point, per_s):
    """Return rl8's line for a point, with counts."""
    counted = {phase: {"operations": 100, "views": 5, "host_reads": 1} for phase in ("collect", "update")}
    return made_up("rl8", per_s, **{**vars(point), "counts": counted})


def made_up_study(device="cpu"):
    speeds = {"rl8": (30e3, 33e3, 40e3), "upstream": (10e3, 10e3, 16e3), "jax": (30e3, 30e3, 30e3)}
    lines = [
        made_up(name, value, size="1024 x 32", round=number, **({"compile_s": 4.0} if name == "jax" else {}))
        for name, values in speeds.items()
        for number, value in enumerate(values)
    ]
    points = [*plan.grid(), *plan.others(), *plan.scaling(), *plan.small_work()]
    own = {"eval_s": 0.0101, "background_s": 0.0059}
    results = {
        "peaks": {"gflops": 175.0, "bf16_gflops": 900.0, "copy_gb_s": 20.0, "triad_gb_s": 19.0},
        "compare": {
            "sizes": ["1024 x 32"],
            "lines": lines,
            "failed": {"skrl": "failed at 1024 x 32: broke"},
            "cut": {},
        },
        "later": {
            "sizes": ["1024 x 32, after 20 iterations"],
            "lines": [{**line, "size": "1024 x 32, after 20 iterations"} for line in lines],
            "failed": {"upstream": "failed later: broke"},
            "cut": {},
        },
        "grid": {
            "lines": [point_line(point, 40e3 * 256 / point.width) for point in points if point.num_envs <= 16384],
            "skipped": [{"point": "cartpole at 1048576 x 128", "reason": "predicted to take an hour"}],
        },
        "overhead": {
            "num_envs": 1024,
            "horizon": 32,
            "iterations": 10,
            "rounds": [
                {"on": {"wall_s": 1.02, "cpu_s": 2.0, **own}, "off": {"wall_s": 1.0, "cpu_s": 2.0}},
                {"on": {"wall_s": 1.0, "cpu_s": 2.1, **own}, "off": {"wall_s": 1.0, "cpu_s": 2.0}},
            ],
        },
        "startup": {"new store": [9.0], "warm": [7.0, 6.0, 8.0], "help": []},
        "tests": {"files": 2, "summary": "9 passed"},
        "solve": {"command": "python -m rl8", "runs": [{"seconds": 9.1, "exit_code": 0, "end": ["  ended  target"]}]},
    }
    facts = {
        "date": "2026-01-01 12:00",
        "commit": "0123456789abcdef",
        "dirty": "false",
        "versions": {"torch": "2.13.0"},
    }
    parts = {name: {"provenance": facts, "seconds": 12.0, "result": result} for name, result in results.items()}
    return {"study": "throughput", "device": device, "hardware": "a CPU, 2 cores", "parts": parts}


# ---------------------------------------------------------------------------------------------------------- comparison


def test_ratios_are_taken_within_a_round():
    found = made_up_study()["parts"]["compare"]["result"]
    assert compare.ratios(found, "1024 x 32", "upstream") == pytest.approx([3.0, 3.3, 2.5])
    summary = compare.summary(found, "1024 x 32", "upstream")
    assert summary["ratio"] == pytest.approx(3.0)
    assert (summary["ratio_min"], summary["ratio_max"]) == pytest.approx((2.5, 3.3))
    assert summary["transitions_per_s"] == pytest.approx(10e3)
    assert compare.summary(found, "1024 x 32", "skrl") is None


def test_programs_take_turns_and_a_failing_one_drops_out(monkeypatch):
    ran = []

    def fake(name, options, **_):
        ran.append((name, options[options.index("--num-envs") + 1], options[options.index("--warmup") + 1]))
        if name == "jax":
            raise programs.ProgramError("broke")
        return made_up(name, 1e4)

    monkeypatch.setattr(compare, "run_program", fake)
    sizes = [compare.Size(8, 4, 1.0), compare.Size(16, 4, 1.0, warmup=7)]
    said = []
    setting = compare.Setting(pythons={"jax": "python"}, common=("--x",))
    found = compare.compare(sizes, setting, rounds=2, names=("rl8", "jax", "sb3"), say=said.append)
    small, large = ("rl8", "8", "1"), ("rl8", "16", "7")
    assert ran == [small, ("jax", "8", "1"), small, large, large]
    assert found["failed"]["jax"] == "failed at 8 x 4: broke"
    assert "no virtual environment" in found["failed"]["sb3"]
    assert [(line["size"], line["round"]) for line in found["lines"]] == [
        ("8 x 4", 0), ("8 x 4", 1), ("16 x 4, after 7 iterations", 0), ("16 x 4, after 7 iterations", 1)
    ]  # fmt: skip
    assert any("10,000/s" in text for text in said)


def test_no_round_begins_without_time_for_it(monkeypatch):
    monkeypatch.setattr(compare, "run_program", lambda name, options, **_: made_up(name, 1e4))
    size, setting = compare.Size(8, 4, 1.0), compare.Setting()
    found = compare.compare([size], setting, names=("rl8",), left_s=lambda: 0.0, say=lambda _: None)
    assert len(found["lines"]) == 1
    assert found["cut"]["8 x 4"].startswith("1 of 3 rounds")


# ---------------------------------------------------------------------------------------------------------------- plan


def test_points_are_measured_once_and_the_base_first():
    points = plan.cpu_points()
    assert points[0] == plan.Point()
    assert len(points) == len(set(points))
    for size in ((256, 16), (8192, 32), (1048576, 128)):
        assert any((point.num_envs, point.horizon) == size for point in points)
    assert {point.env for point in points} == set(bounds.ENVS)
    assert any(point.model == "lstm" for point in points)
    small = list(plan.small_work())
    assert {point.transitions / point.minibatches for point in small} == {256}
    assert set(small) < set(points)


def test_dear_points_are_left_out_with_a_reason():
    limits = plan.Limits(flops_per_s=1e11, memory_mb=4000.0)
    assert plan.objection(plan.Point(), limits, 600.0) is None
    assert "s left" in plan.objection(plan.Point(), limits, 5.0)
    assert "than the 40 s" in plan.objection(plan.Point(num_envs=262144), limits, 1e6)
    assert "GB" in plan.objection(plan.Point(num_envs=1048576, horizon=128), limits, 1e6)
    assert plan.warmup(plan.Point(), limits) == 1
    assert plan.warmup(plan.Point(num_envs=65536), limits) == 0


def test_predicted_time_is_arithmetic_and_steps():
    # 32768 transitions of 3.484768 MFLOP at 100 GFLOP/s, and 32 steps of 1 ms
    limits = plan.Limits(flops_per_s=1e11, memory_mb=4000.0, step_s=1e-3)
    assert plan.iteration_s(plan.Point(), limits) == pytest.approx(1.14188 + 0.032, abs=1e-5)


def test_a_point_is_predicted_from_the_largest_of_its_kind():
    limits = plan.Limits(flops_per_s=5e10, memory_mb=4000.0)

    def measured(seconds, **options):
        point = plan.Point(**options)
        return {**vars(point), "transitions": point.transitions, "timings": [{"total_s": seconds}]}

    lines = [measured(4.0), measured(8.0, num_envs=8192), measured(2.0, model="lstm", width=128)]
    mlp = plan.Point(num_envs=16384)
    assert plan.iteration_s(mlp, bench.calibrated(limits, mlp, lines)) == pytest.approx(16.0, rel=0.01)
    lstm = plan.Point(model="lstm", width=128, num_envs=2048)
    assert plan.iteration_s(lstm, bench.calibrated(limits, lstm, lines)) == pytest.approx(4.0, rel=0.01)
    assert bench.calibrated(limits, plan.Point(env="pendulum"), lines) == limits


def test_counting_is_part_of_a_point():
    limits = plan.Limits(flops_per_s=1e11, memory_mb=4000.0, start_s=5.0)
    large = plan.Point(num_envs=65536)
    assert plan.point_s(large, limits) == pytest.approx(5.0 + (1 + plan.COUNTING) * plan.iteration_s(large, limits))


# --------------------------------------------------------------------------------------------------- logging, start-up


def test_a_block_counts_every_iteration_but_the_first_ones(workdir):
    from rl8.ppo.algorithm import Algorithm

    algorithm = Algorithm(CartPole, num_envs=4, horizon=4, model_config={"hiddens": (8,)})
    found = overhead.block(algorithm, ("eval",), 3)
    assert algorithm.iterations == overhead.LEAD + 3
    assert found["eval_s"] == 0
    assert found["wall_s"] > 0
    assert found["cpu_s"] > 0


def test_other_threads_time_is_counted():
    worked, over = threading.Barrier(3), threading.Event()

    def work():
        while time.thread_time() < 0.02:
            pass
        worked.wait()
        over.wait()

    workers = [threading.Thread(target=work, name=name) for name in ("sends", "rl8_0")]
    for thread in workers:
        thread.start()
    worked.wait()
    found = overhead.background_s()
    over.set()
    assert found[workers[0].ident] >= 0.02
    assert workers[1].ident not in found
    assert threading.main_thread().ident not in found


def test_overhead_is_the_extra_share():
    found = overhead.summary(made_up_study()["parts"]["overhead"]["result"])
    assert found["wall_s"] == pytest.approx(0.01)
    assert (found["wall_s_min"], found["wall_s_max"]) == pytest.approx((0.0, 0.02))
    assert found["cpu_s"] == pytest.approx(0.025)
    assert (found["eval_s_max"], found["own_s_max"]) == pytest.approx((0.0101, 0.016))


def test_the_first_iteration_is_recognised():
    readings = Readings(lambda: 0.0)
    readings.add({"returns/mean": -12.1, "env/steps": 8192.0}, 0.1)
    assert startup.FIRST_LINE.search(line(readings))


def test_a_command_that_never_trains_is_an_error(tmp_path):
    assert startup.seconds_to(["-c", "pass"], tmp_path) > 0
    with pytest.raises(RuntimeError, match="showed no iteration: hello"):
        startup.seconds_to(["-c", "print('hello')", "trainer.view=plain"], tmp_path)


# ------------------------------------------------------------------------------------------------------------- results


def test_the_page_quotes_the_figures():
    page = report.markdown(made_up_study())
    assert "| rl8 1.0.0 from PyPI | 10 k | 40 k | 13.3 k | 3.00 (2.50 to 3.30) | 500 | 200 |" in page
    assert "skrl failed at 1024 x 32: broke" in page
    assert "### 1024 x 32, after 20 iterations, 3 rounds" in page
    assert "upstream failed later: broke" in page
    assert "3.48 MFLOP; 297 bytes" in page
    # 175e9 / 3484768 = 50.2 k; 33 k of it are 66%
    assert "| arithmetic, float32 | 50.2 k/s |" in page
    assert "| rl8, this repository | 33 k | 132 k | 44 k | 1 | 500 | 200 | 66% |" in page
    assert "+1.0% wall time" in page
    assert "| warm | 7.0 | 6.0 | 8.0 |" in page
    assert "predicted to take an hour" in page
    assert "JAX compiles for 4.0 s" in page
    assert "| cartpole lstm | 1,024 | 32 | 128 |" in page
    assert "- 9.1 s, exit code 0; ended target" in page
    assert "9 passed (2 files" in page


def test_an_empty_study_has_a_page():
    study = {"device": "cpu", "hardware": "a CPU", "parts": {}}
    assert report.markdown(study).startswith("# Throughput on a CPU")


def test_pictures_are_drawn(tmp_path):
    files = report.write(made_up_study(), tmp_path)
    assert [file.name for file in files] == [
        f"throughput-cpu{end}" for end in (".md", "-speed.png", "-scaling.png", "-peers.png")
    ]
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in files[1:])
    assert [file.name for file in report.write({"device": "cpu", "hardware": "-", "parts": {}}, tmp_path)] == [
        "throughput-cpu.md"
    ]


def test_a_part_that_fails_leaves_the_old_result(tmp_path):
    path = tmp_path / "throughput-cpu.json"
    said = []
    bench.Results(path, "cpu").run("peaks", lambda: {"gflops": 1.0}, said.append)

    def broken():
        raise programs.ProgramError("broke")

    results = bench.Results(path, "cpu")
    results.run("peaks", broken, said.append)
    assert said == ["peaks failed: broke"]
    assert figures.result(json.loads(path.read_text()), "peaks") == {"gflops": 1.0}
    assert {"commit", "dirty", "date", "hardware", "versions"} <= set(results.study["parts"]["peaks"]["provenance"])


def test_bench_measures_a_point_in_a_fresh_process(tmp_path):
    bench.main(["--tiny", "--only", "grid", "--out", str(tmp_path)])
    study = json.loads((tmp_path / "throughput-cpu.json").read_text())
    (found,) = figures.result(study, "grid")["lines"]
    assert (found["num_envs"], found["horizon"], found["check"] < 0) == (16, 8, True)
    assert found["counts"]["update"]["operations"] > 0
    assert found["peak_mb"] > found["base_mb"] > 50
    assert "16" in (tmp_path / "throughput-cpu.md").read_text()


def test_bench_compares_a_few_programs_later_in_training(tmp_path):
    options = ["--tiny", "--only", "later", "--programs", "rl8", "sb3", "--rounds", "1", "--minutes", "30"]
    bench.main([*options, "--out", str(tmp_path)])
    found = figures.result(json.loads((tmp_path / "throughput-cpu.json").read_text()), "later")
    assert found["sizes"] == ["16 x 8, after 2 iterations"]
    assert [(line["program"], line["warmup"]) for line in found["lines"]] == [("rl8", 2)]


# -------------------------------------------------------------------------------------------------------------- wheels


def wheel(folder, name, needs):
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        lines = [f"Requires-Dist: {need}" for need in needs]
        distribution, version = name.split("-")[:2]
        archive.writestr(f"{distribution}-{version}.dist-info/METADATA", "\n".join(["Metadata-Version: 2.1", *lines]))
    return path


def test_pins_are_those_of_the_constraints(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text('# tested\nFoo_Bar==1.2\nbaz==3.0 ; python_version >= "3.11"\nbaz==2.0 ; python_version < "3.11"\n')
    assert wheels.pins(["foo-bar", "baz"], file) == ["foo-bar==1.2", "baz==3.0"]
    with pytest.raises(ValueError, match="no version of nothing"):
        wheels.pins(["nothing"], file)
    assert len(wheels.pins(wheels.NEEDS)) == len(wheels.NEEDS)


def test_a_need_that_nobody_brings_is_found(tmp_path):
    needs = ["torch", "other>=1; python_version >= '3.10'", "old; python_version < '3.9'", "more; extra == 'all'"]
    one = wheel(tmp_path, "one-1.0-py3-none-any.whl", needs)
    assert wheels.needs_of(one) == ["torch", "other"]
    assert wheels.lacking([tmp_path]) == {"one-1.0-py3-none-any.whl": ["other"]}
    wheel(tmp_path, "other-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", [])
    assert wheels.lacking([tmp_path]) == {}


def test_wheels_for_other_machines_are_found(tmp_path):
    good = ("a-1-py2.py3-none-any", "b-1-cp39-abi3-manylinux_2_28_x86_64", "c-1-1-cp312-cp312-manylinux2014_x86_64")
    bad = ("d-1-cp311-cp311-manylinux2014_x86_64", "e-1-cp313-abi3-manylinux2014_x86_64", "f-1-cp312-cp312-win_amd64")
    for name in good + bad:
        wheel(tmp_path, f"{name}.whl", [])
    assert wheels.unfit([tmp_path]) == [f"{name}.whl" for name in bad]
