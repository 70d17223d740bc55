"""Train tasks with published results, by rl8 and by Stable-Baselines3 with the same settings, and judge both alike.

    python -m experiments.benchmarks.run                     # all that is not done yet: every task, program and seed
    python -m experiments.benchmarks.run --only cartpole_v1 hopper_v4 --programs rl8 --seeds 1 2 3
    python -m experiments.benchmarks.run --list              # what is done and what is not
    python -m experiments.benchmarks.run --report            # the table and the curves of what is done

A run is what a user types, `python -m rl8 experiment=cartpole_v1 seed=1`, in an empty folder; the other program gets
the same settings, translated (`sb3_ppo.py`). One run at a time, the programs in turn. Each leaves a file in
`results/runs/`, so that the command may be stopped and typed again; delete a file to have its run anew.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from .tasks import TASKS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUNS = HERE / "results" / "runs"
PROGRAMS = ("rl8", "sb3")
EPISODES = 100
PACKAGES = ("torch", "gymnasium", "mujoco", "box2d", "minatar", "stable-baselines3", "sb3-contrib")


class Cell(NamedTuple):
    """One run."""

    task: str
    program: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.task}-{self.program}-{self.seed}"


class Settings(NamedTuple):
    """How runs are made.

    Attributes:
        runs: Where their files go.
        words: More words of each run, e.g. `goal.env_steps=1000` to try the command.
        prefix: Words before the command of a training, e.g. `taskset -c 0`.
        playing: Words before the command that plays the episodes; where there are any, it plays beside the next run.
        episodes: How many.
    """

    runs: Path = RUNS
    words: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    playing: tuple[str, ...] = ()
    episodes: int = EPISODES


def cells(tasks: Sequence[str], programs: Sequence[str], seeds: Sequence[int]) -> Iterator[Cell]:
    """Yield all runs: first one seed of each task, the programs in turn."""
    for seed in seeds:
        for task in tasks:
            for program in (each for each in programs if each in TASKS[task].programs):
                yield Cell(task, program, seed)


def composed(cell: Cell, words: Sequence[str] = ()) -> dict[str, Any]:
    """Return the configuration of a run, resolved."""
    from omegaconf import OmegaConf

    from rl8.config import catalog, compose

    catalog.prepare()
    with compose.composer():
        cfg, _ = compose.checked([f"experiment={cell.task}", f"seed={cell.seed}", *words])
        found: Any = OmegaConf.to_container(
            OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), resolve=True
        )
    return dict(found)


def command(cell: Cell, folder: Path, words: Sequence[str]) -> list[str]:
    """Return what is typed to train."""
    if cell.program == "sb3":
        return [sys.executable, "-m", "experiments.benchmarks.sb3_ppo", str(folder / "config.json"), str(folder)]
    return [sys.executable, "-m", "rl8", f"experiment={cell.task}", f"seed={cell.seed}", *words]


def environment() -> dict[str, str]:
    """Return the variables of a run: this repository is found from any folder, and no other store is written to."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def timed(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command in a folder; return its seconds by the clock and of the processor.

    Raises:
        RuntimeError: If it fails, with its last lines.
    """
    log = folder / "log.txt"
    begin = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(words, cwd=folder, env=environment(), stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{shlex.join(words)} failed:\n" + "\n".join(log.read_text().splitlines()[-12:]))
    return seconds, used.ru_utime + used.ru_stime


def train(cell: Cell, folder: Path, settings: Settings) -> dict[str, Any]:
    """Train one policy in an empty folder; return what is known of the run."""
    config = composed(cell, settings.words)
    (folder / "config.json").write_text(json.dumps(config))
    clock, processor = timed([*settings.prefix, *command(cell, folder, settings.words)], folder)
    return {
        **cell._asdict(),
        "env_steps": config["goal"]["env_steps"],
        "words": list(settings.words),
        "clock_s": round(clock, 2),
        "processor_s": round(processor, 2),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }


class Trained(NamedTuple):
    """A policy that has not played yet.

    Attributes:
        cell: Which run's.
        known: What is known of it.
        folder: Where it is.
    """

    cell: Cell
    known: dict[str, Any]
    folder: tempfile.TemporaryDirectory[str]

    def job(self) -> dict[str, str]:
        """Return what `play.py` has to know."""
        folder = Path(self.folder.name)
        place = next((folder / "outputs").glob("*/*")) if self.cell.program == "rl8" else folder
        files = {"config": folder / "config.json", "folder": place, "out": folder / "played.json"}
        return {"program": self.cell.program, **{name: str(path) for name, path in files.items()}}

    def finish(self, runs: Path) -> None:
        """Write the run's file, say how it went, and remove the folder."""
        found = {**self.known, **json.loads((Path(self.folder.name) / "played.json").read_text())}
        runs.mkdir(parents=True, exist_ok=True)
        beside = runs / f"{self.cell.name}.part"
        beside.write_text(json.dumps(found) + "\n")
        beside.replace(runs / f"{self.cell.name}.json")
        mean = sum(found["returns"]) / len(found["returns"])
        print(f"{self.cell.name}: {mean:.1f} per episode, {found['clock_s']:.0f} s", flush=True)
        self.folder.cleanup()


def play(waiting: deque[Trained], settings: Settings) -> None:
    """Let all policies play that wait for it, in one process."""
    trained = []
    while waiting:
        trained.append(waiting.popleft())
    if not trained:
        return
    with tempfile.TemporaryDirectory() as folder:
        jobs = Path(folder) / "jobs.json"
        jobs.write_text(json.dumps([each.job() for each in trained]))
        words = [sys.executable, "-m", "experiments.benchmarks.play", str(jobs), str(settings.episodes)]
        timed([*settings.playing, *words], Path(folder))
    for each in trained:
        each.finish(settings.runs)


def run(wanted: Sequence[Cell], settings: Settings) -> int:
    """Make the runs that are not there yet, one at a time; return how many failed."""
    failed = 0
    waiting: deque[Trained] = deque()
    with ThreadPoolExecutor(1) as pool:
        plays: list[Future[None]] = []
        for cell in wanted:
            if (settings.runs / f"{cell.name}.json").exists():
                continue
            folder = tempfile.TemporaryDirectory(prefix=f"{cell.name}-", ignore_cleanup_errors=True)
            try:
                waiting.append(Trained(cell, train(cell, Path(folder.name), settings), folder))
            except RuntimeError as error:
                failed += 1
                print(f"{cell.name}: {error}", file=sys.stderr, flush=True)
                folder.cleanup()
                continue
            plays.append(pool.submit(play, waiting, settings))
            if not settings.playing:
                wait(plays)
        for each in plays:
            try:
                each.result()
            except RuntimeError as error:
                failed += 1
                print(error, file=sys.stderr, flush=True)
    return failed


def commit() -> str:
    """Return the commit, and whether what is measured differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "rl8", "conf")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter and are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the processor's name and how many there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} processors"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help="which tasks"
    )
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--prefix", type=shlex.split, default=[], help="words before a training, e.g. 'taskset -c 0'")
    parser.add_argument("--playing", type=shlex.split, default=[], help="words before the play of the episodes")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="that each policy is judged by")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs' files")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="more words for each run, to try things"
    )
    parser.add_argument("--list", action="store_true", help="say what is done, and train nothing")
    parser.add_argument("--report", action="store_true", help="write the table and the curves, and train nothing")
    arguments = parser.parse_args()
    wanted = list(cells(arguments.only, arguments.programs, arguments.seeds))
    if arguments.list:
        for cell in wanted:
            print(f"{cell.name}: {'done' if (arguments.runs / f'{cell.name}.json').exists() else 'not run'}")
        return 0
    if not arguments.report:
        prefix, playing = tuple(arguments.prefix), tuple(arguments.playing)
        settings = Settings(arguments.runs.resolve(), tuple(arguments.set), prefix, playing, arguments.episodes)
        if run(wanted, settings):
            return 1
    from .report import write

    write(arguments.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
