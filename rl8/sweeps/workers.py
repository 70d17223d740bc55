"""Jobs side by side: worker processes on this machine, each of which does one job after another.

A worker that dies (out of memory, a crash in a simulator) takes one job with it, and another worker takes its place.
Ctrl-C is the parent's alone: it asks the workers to save and end. Workers whose parent was killed do so too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from rl8.guest import variable
from rl8.jobs import say
from rl8.sweeps import folder as kept
from rl8.sweeps.folder import Result
from rl8.sweeps.job import SLOT

#: What a job needs of Hydra.
Job = tuple[HydraContext, DictConfig, TaskFunction]

# Each process would else take all cores.
_THREADS: Final = "OMP_NUM_THREADS"


class _Worker:
    """A process, and which job it is at."""

    def __init__(self, slot: int, jobs: int, job: bytes) -> None:
        self.slot, self.number = slot, -1
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs, job), daemon=False)
        threads = os.environ.get(_THREADS) or str(max(1, (os.cpu_count() or 1) // jobs))
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None  # a process begins with its parent's
        try:
            with variable(SLOT, str(slot)), variable(_THREADS, threads):
                self.process.start()
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
        theirs.close()

    def begin(self, number: int, overrides: Sequence[str]) -> None:
        self.number = number
        self.connection.send((number, list(overrides)))

    def end(self) -> None:
        self.connection.close()  # which it takes as the end
        self.process.join()


def launch(jobs: int, job: Job, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run jobs in worker processes.

    Args:
        jobs: How many at once.
        job: What a job needs of Hydra.
        job_overrides: What each is told.
        first: Number of the first.

    Returns:
        What became of each, in their order.

    Raises:
        KeyboardInterrupt: If a signal ended a job, or this process.
    """
    import cloudpickle

    setup_globals()
    config = job[1]
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = min(jobs, len(job_overrides))
    content = cloudpickle.dumps((job, Singleton.get_state()))
    waiting = list(enumerate(job_overrides, first))[::-1]
    done: dict[int, JobReturn] = {}
    workers = [_Worker(slot, jobs, content) for slot in range(jobs)]
    try:
        for worker in workers:
            worker.begin(*waiting.pop())
        while len(done) < len(job_overrides):
            busy = {worker.connection: worker for worker in workers if worker.number >= 0}
            for ready in wait(list(busy)):
                worker = busy[ready]  # type: ignore[index]
                done[worker.number] = _answer(worker, job, job_overrides[worker.number - first])
                worker.number = -1
                if not waiting:
                    continue
                if not worker.process.is_alive():
                    workers[worker.slot] = worker = _Worker(worker.slot, jobs, content)
                worker.begin(*waiting.pop())
    except BaseException:
        for worker in workers:
            if worker.number >= 0 and worker.process.is_alive():
                worker.process.terminate()
        raise
    finally:
        try:
            for worker in workers:
                worker.end()
        except KeyboardInterrupt:  # a second time
            for worker in workers:
                worker.process.kill()
            raise
    return [done[number] for number in sorted(done)]


def _answer(worker: _Worker, job: Job, overrides: Sequence[str]) -> JobReturn:
    """Return what a worker says of its job, or that it died."""
    found = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    try:
        kind, content = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode or 0
        reason = f"its process died of {signal.Signals(-code).name}" if code < 0 else f"its process ended with {code}"
        sweep = _composed(job, worker.number, overrides).hydra.sweep
        folder = Path(str(sweep.dir)) / str(sweep.subdir)
        kept.save_result(folder, Result(worker.number, list(overrides), error=reason))
        say(f"job {worker.number} failed: {reason}")
        kind, content = "returned", float("nan")
    if kind == "stopped":
        raise KeyboardInterrupt(content)
    if kind == "raised":
        found.status = JobStatus.FAILED
    found.return_value = content
    return found


def _composed(job: Job, number: int, overrides: Sequence[str]) -> DictConfig:
    """Return the config of a job, as Hydra's own launchers compose it."""
    context, config, _ = job
    composed = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = f"{composed.hydra.job.name}_{number}"
        composed.hydra.job.num = number
    return composed


def _work(connection: Connection, content: bytes) -> None:
    """Do one job after another, in a worker process."""
    import cloudpickle

    threading.Thread(target=_watch_parent, daemon=True).start()
    setup_globals()
    job, singletons = cloudpickle.loads(content)
    Singleton.set_state(singletons)
    while True:
        try:
            number, overrides = connection.recv()
        except (EOFError, OSError):  # the parent has no more, or is gone
            return
        try:
            composed = _composed(job, number, overrides)
            HydraConfig.instance().set_config(composed)
            done = run_job(
                task_function=job[2],
                config=composed,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=job[0],
            )
            answer = ("returned" if done.status == JobStatus.COMPLETED else "raised", done._return_value)
        except KeyboardInterrupt as stop:
            answer = ("stopped", str(stop.args[0]) if stop.args else "SIGINT")
        except Exception as error:
            answer = ("raised", error)
        with suppress(OSError):  # the parent is ending
            connection.send(answer)


def _watch_parent() -> None:
    """Ask this process to save and end once its parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
