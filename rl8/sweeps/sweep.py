"""A whole sweep: its folder, its parent run in MLflow, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rl8.config.schema import Plan
from rl8.guest import terminable
from rl8.jobs import call_hydra, quoted, say
from rl8.sweeps import folder as kept
from rl8.sweeps import job
from rl8.sweeps.folder import Command, Result
from rl8.tracking.sweeps import finish_sweep, start_sweep


def sweep(
    plans: Sequence[Plan],
    command: Command,
    words: Sequence[str],
    folder: Path,
    *,
    count: int | None = None,
    retry: bool = False,
) -> list[Result]:
    """Train once per combination of the swept values, under one parent run in MLflow.

    Where the folder holds this very sweep, it goes on: finished jobs are left out.

    Args:
        plans: What the jobs were found to mean.
        command: What was typed.
        words: Flags and overrides for Hydra.
        folder: For the runs' folders, the table and the pictures.
        count: Number of jobs; None if the sweeper decides as it goes.
        retry: Whether jobs that failed before are tried again.

    Returns:
        What became of each job, in order of their numbers.

    Raises:
        ValueError: If the MLflow store can't be used, or another process is at this sweep.
    """
    with kept.held(folder):
        before = kept.load(folder)
        kept.clear(folder, goes_on=before is not None, retry=retry)
        parent = None
        if tracked := any(plan.trainer.track for plan in plans):
            parent = start_sweep(
                plans[0].trainer.experiment_name,
                command.words,
                device=plans[0].device.device,
                notify=say,
                run_id=before.run_id if before is not None else None,
            )
        else:
            say("No table and no picture will compare the runs: trainer.track is false.")
        command = replace(command, run_id=parent or (before.run_id if before is not None else None))
        kept.save(folder, command)
        interrupted = True
        try:
            with terminable():
                call_hydra(job.run, [*words, f"hydra.sweep.dir={quoted(folder)}"], command.config_name)
            interrupted = False
            kept.save(folder, replace(command, ended=True))
        finally:
            if tracked:
                summary = finish_sweep(
                    parent, plans[0].goal.metric, jobs=count, folder=folder, notify=say, interrupted=interrupted
                )
                if summary.runs:
                    print(f"\n{summary.table()}\n\nrecorded in   {summary.where}", flush=True)
                    print(f"side by side  {summary.side_by_side}", flush=True)
            if interrupted:
                say(f"The sweep was interrupted. It goes on by the same command, or by rl8 resume {folder}.")
        return kept.results(folder)
