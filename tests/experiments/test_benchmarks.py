"""The benchmarks: their statistics, the translation of settings, the report, and one small run of each kind."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rl8.config.catalog import CONF

STUDIES = str(Path(__file__).parents[2] / "experiments")
sys.path.insert(0, STUDIES)  # no package that is installed
try:
    from benchmarks import play, report, run, same_update, sb3_ppo, statistics
    from benchmarks.tasks import TASKS, Published
finally:
    sys.path.remove(STUDIES)


def scores(*rows):
    return np.array(rows, dtype=float)


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert statistics.iqm(scores([9], [1], [2], [4], [100])) == 5.0  # 5 runs: one is cut from each end
    assert statistics.iqm(scores([1], [2], [6])) == 3.0  # a quarter of three is less than one
    assert statistics.iqm(scores([0, 10], [1, 20], [2, 30], [3, 40])) == 8.75  # of 0 1 2 3 10 20 30 40: 2 3 10 20


def test_the_median_is_that_of_tasks():
    assert statistics.median(scores([1, 10, 0], [3, 30, 0])) == 2.0  # means 2, 20, 0
    assert statistics.median(scores([1], [9], [2])) == 2.0


def test_the_interval_is_that_of_runs_drawn_anew():
    assert statistics.interval(scores([3], [3], [3]), statistics.iqm) == (3.0, 3.0)
    assert statistics.interval(scores([3]), statistics.iqm) is None
    # Two runs of 0 and 1 give means of 0, 0.5, 0.5, 1 equally often, so 95% go from the least to the largest.
    assert statistics.interval(scores([0], [1]), statistics.iqm) == (0.0, 1.0)
    # The mean of n runs has a standard deviation of theirs by sqrt(n).
    drawn = np.random.default_rng(0).normal(size=(400, 1))
    low, high = statistics.interval(drawn, lambda these: float(these.mean()))
    assert high - low == pytest.approx(2 * 1.96 * drawn.std() / 20, rel=0.1)


def test_intervals_overlap_where_they_touch():
    assert statistics.overlap((0, 1), (1, 2))
    assert not statistics.overlap((0, 1), (1.5, 2))


def test_every_task_has_its_file():
    assert set(TASKS) | {"cartpole_cuda"} == {path.stem for path in (CONF / "experiment").glob("*.yaml")}


@pytest.mark.parametrize("name", ["pendulum_v1_memory", "lunarlander_v3", "walker2d_v4"])
def test_a_task_composes_for_both(name):
    config = run.composed(run.Cell(name, "rl8", 3))
    assert config["seed"] == 3
    assert config["trainer"]["experiment_name"] == "benchmarks"
    assert sb3_ppo.translated(config)["ppo"]["n_steps"] == config["algo"]["horizon"]


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (["env.id=MinAtar/Asterix-v1", "model.window=2"], "CNNModel"),
        (["model=impala", "~model.filters", "model.channels=[16]"], "ImpalaModel"),
    ],
)
def test_the_visual_task_is_another_by_some_words(words, model):
    cell = run.Cell("minatar_breakout", "rl8", 1)
    assert run.composed(cell, words)["model"]["_target_"] == f"rl8.models.{model}"
    assert cell in set(run.cells(TASKS, run.PROGRAMS, [1]))
    assert cell._replace(program="sb3") not in set(run.cells(TASKS, run.PROGRAMS, [1]))


def test_settings_are_translated():
    found = sb3_ppo.translated(run.composed(run.Cell("halfcheetah_v4", "sb3", 1)))
    assert found["ppo"] == {
        "n_steps": 2048, "batch_size": 64, "n_epochs": 10, "gamma": 0.99, "gae_lambda": 0.95,
        "learning_rate": ("linear", 3e-4), "clip_range": (None, 0.2), "clip_range_vf": 0.2, "ent_coef": 0.0,
        "vf_coef": 0.25, "max_grad_norm": 0.5, "target_kl": None,
    }  # fmt: skip
    assert found["normalize"]["norm_reward"]
    assert sb3_ppo.scheduled("linear", 0.4)(0.25) == pytest.approx(0.1)
    assert sb3_ppo.translated(run.composed(run.Cell("acrobot_v1", "sb3", 1)))["ppo"]["learning_rate"] == (None, 3e-4)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("algo.desired_kl=0.01", "no counterpart of desired_kl"),
        ("algo.schedules.vf_coeff=[[1000,0.1]]", "no counterpart of {'clip_param': 'linear', 'vf_coeff'"),
        ("algo.lr_schedule=[[0,0.001],[50000,0]]", "neither null nor linear"),
        ("model=gru", "GRUModel has no counterpart"),
    ],
)
def test_what_the_other_program_has_not_is_refused(word, message):
    name = "cartpole_v1_memory" if word == "model=gru" else "cartpole_v1"
    with pytest.raises(ValueError, match=message):
        sb3_ppo.translated(run.composed(run.Cell(name, "sb3", 1), [word]))


class Vector:
    """Two environments: rewards of 1 and 10 a step; episodes of two steps and of three."""

    num_envs = 2

    def reset(self, seed):
        self.age = np.zeros(2, dtype=int)
        return self.age.copy(), {}

    def step(self, actions):
        self.age += 1
        over = self.age == np.array([2, 3])
        self.age[over] = 0
        return self.age.copy(), np.array([1.0, 10.0]), over, np.zeros(2, dtype=bool), {}


def test_every_environment_plays_equally_many_episodes():
    begun = []
    returns, lengths = play.episodes(Vector(), lambda obs, begins: begun.append(begins.tolist()) or obs, 4)
    assert sorted(zip(returns, lengths, strict=True)) == [(2.0, 2), (2.0, 2), (30.0, 3), (30.0, 3)]
    assert begun == [[True, True], [False, False], [True, False], [False, True], [True, False], [False, False]]


def test_a_curve_is_thinned_to_its_end():
    curve = [(step, float(step)) for step in range(1001)]
    assert len(play.thinned(curve)) <= play.POINTS
    assert play.thinned(curve)[-1] == (1000, 1000.0)
    assert play.thinned([]) == []


def write(folder, task, program, seed, mean, seconds, machine="a machine, 2 processors"):
    known = {"task": task, "program": program, "seed": seed, "env_steps": 100, "clock_s": seconds}
    known |= {"processor_s": seconds, "commit": "abc", "versions": {"torch": "2"}, "machine": machine}
    known |= {"returns": [mean - 1, mean + 1], "curve": [[10, 0.0], [100, mean]]}
    (folder / f"{task}-{program}-{seed}.json").write_text(json.dumps(known))


def test_the_report_tells_what_is_done_and_what_is_not(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    for seed, mean in enumerate((480, 490, 500), 1):
        write(folder, "cartpole_v1", "rl8", seed, mean, 10 * seed)
    write(folder, "cartpole_v1", "sb3", 2, 500, 50)
    write(folder, "walker2d_v4", "rl8", 1, 2300, 300)
    write(folder, "walker2d_v4", "rl8", 2, 2300, 300)
    for program, seconds in (("rl8", 100), ("sb3", 250)):
        write(folder, "walker2d_v4", program, 3, 2300, seconds, "a faster machine, 2 processors")
    write(folder, "hopper_v4", "rl8", 1, 2300, 600)
    report.write(folder)
    page = (tmp_path / "README.md").read_text()
    assert "| CartPole-v1 | 100 | rl8 | 3 of 5 | 490.0 | 490.0 | 480.0 to 500.0 | 490.0 |" in page
    assert "| 100 | Stable-Baselines3 | 1 of 5 | 500.0 | 500.0 | one run | 500.0 |" in page
    assert "| Acrobot-v1 |  | rl8 | not run |" in page
    assert "| CartPole-v1 | 100 | 20 | 50 | 2.50 | 20 | 50 | 2.50 | a machine |" in page
    assert "| Walker2d-v4 | 100 | 100 | 250 | 2.50 | 100 | 250 | 2.50 | a faster machine |" in page
    assert "| Hopper-v4 | 100 | 600 | not run |  | 600 | not run |  | a machine |" in page
    assert "within CleanRL's spread" in page
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_verdicts_go_by_intervals():
    published = Published(100.0, 5.0, 1, "CleanRL, 3 seeds", "")
    high, low, one = (statistics.summary(means) for means in ([120, 121, 122], [90, 91, 92], [99]))
    assert report.verdict(high, low, published) == "above SB3's; above CleanRL's"
    assert report.verdict(low, high, published) == "below SB3's; below CleanRL's"
    assert report.verdict(high, high, None) == "overlaps SB3's"
    assert report.verdict(one, None, published) == "within CleanRL's spread"
    assert report.verdict(statistics.summary([98, 99, 101]), one, None) == "SB3's one run lies within"
    assert report.verdict(low, one, None) == "below SB3's, one run"


def test_the_curve_between_seeds():
    steps, middle, low, high = report.band([{"curve": [[0, 0.0], [100, value]]} for value in (10.0, 20.0, 30.0)])
    assert (steps[0], steps[-1]) == (0, 100)
    assert (middle[-1], low[-1], high[-1]) == (20.0, 15.0, 25.0)


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    trained = []

    def train(cell, folder, settings):
        trained.append(cell.name)
        (folder / "played.json").write_text(json.dumps({"returns": [1.0, 3.0], "curve": []}))
        if cell.seed == 2:
            raise RuntimeError("it failed")
        return {**cell._asdict(), "clock_s": 1.0}

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(run.Trained, "job", lambda self: {})
    monkeypatch.setattr(run, "timed", lambda words, folder: (1.0, 1.0))
    settings = run.Settings(runs=tmp_path)
    wanted = list(run.cells(["cartpole_v1"], ["rl8", "sb3"], [1]))
    assert run.run(wanted, settings) == 0
    assert run.run([*wanted, run.Cell("cartpole_v1", "rl8", 2)], settings) == 1
    assert trained == ["cartpole_v1-rl8-1", "cartpole_v1-sb3-1", "cartpole_v1-rl8-2"]
    assert json.loads((tmp_path / "cartpole_v1-rl8-1.json").read_text())["returns"] == [1.0, 3.0]
    told = capsys.readouterr()
    assert "cartpole_v1-rl8-1: 2.0 per episode, 1 s" in told.out
    assert "cartpole_v1-rl8-2: it failed" in told.err


def test_a_run_of_rl8_is_played_and_its_curve_read(tmp_path, monkeypatch):
    from rl8.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    cell, words = (
        run.Cell("cartpole_v1", "rl8", 1),
        ["goal.env_steps=512", "algo.num_sgd_iters=1", "device.compile=false"],
    )
    Path("config.json").write_text(json.dumps(run.composed(cell, words)))
    assert main([*run.command(cell, tmp_path, words)[3:], "trainer.view=none", "trainer.eval_num_envs=1"]) == 0
    (place,) = tmp_path.glob("outputs/*/*")
    play.judge({"program": "rl8", "config": "config.json", "folder": str(place), "out": "played.json"}, 4)
    found = json.loads(Path("played.json").read_text())
    assert len(found["returns"]) == 4
    assert found["returns"] == found["lengths"]  # CartPole pays 1 a step
    assert [step for step, _ in found["curve"]] == [256, 512]


def test_both_programs_compute_the_same_update():
    pytest.importorskip("stable_baselines3", reason="what experiments/benchmarks needs is not installed")
    found = list(same_update.differences("cartpole_v1", 2))
    assert all(each.moved > 0.1 and each.apart < same_update.SAME * each.moved for each in found)
    assert len(found) == 2
