"""A sweep in MLflow: one parent run, a nested child per job, and at the end a table and a chart of all of them.

The launching process calls `start_sweep`, which also tells the jobs through two environment variables, and in the end
`finish_sweep`. A job's `Tracker` finds its parent by itself.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rl8.data import RETURNS_MEAN
from rl8.tracking import provenance
from rl8.tracking import run as tracking
from rl8.tracking.outbox import PARAMS_PER_BATCH
from rl8.tracking.store import (
    FIXED_VARIABLE,
    STORE_VARIABLE,
    SWEEP_VARIABLE,
    Store,
    StoreUnreachableError,
    experiment_id,
    first_line,
    is_final,
    open_store,
    public_uri,
    store_uri,
)
from rl8.view.overview import overview
from rl8.view.plots import sweep_chart, sweep_csv

if TYPE_CHECKING:
    from mlflow.entities import Run

_logger = logging.getLogger(__name__)

#: The setting that repeats a run rather than making it another.
SEED: Final = "seed"
#: What became of a run that a search ended because others did better.
PRUNED: Final = "PRUNED"
#: Of the intervals in the table.
LEVEL: Final = 0.95
# Student's t for a two-sided interval of that level, by degrees of freedom from 1.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class SweepRun:
    """One job of a sweep.

    Attributes:
        run_id: Its MLflow run.
        name: The run's name.
        status: `"FINISHED"`, `"FAILED"`, `"KILLED"`, or `"PRUNED"` by a search.
        seconds: How long it ran; NaN if it was killed before it could say.
        settings: The swept settings, by name.
        result: The sweep's metric at the end; None if the run has none.
        params: All of its parameters.
        metrics: The last value of each of its metrics.
        error: What went wrong, in a line.
    """

    run_id: str
    name: str
    status: str
    seconds: float
    settings: dict[str, str]
    result: float | None
    params: dict[str, str] = field(repr=False)
    metrics: dict[str, float] = field(repr=False)
    error: str = ""


@dataclass(frozen=True)
class Combination:
    """The runs of a sweep that differ in their seeds alone.

    Attributes:
        settings: What was swept besides, by name.
        runs: Its runs.
    """

    settings: dict[str, str]
    runs: tuple[SweepRun, ...]

    @property
    def is_pruned(self) -> bool:
        """Whether a search pruned one of the runs: it is neither a result nor a failure."""
        return any(run.status == PRUNED for run in self.runs)

    @property
    def results(self) -> list[float]:
        """The results of the runs that have one; none where a search pruned one of them."""
        if self.is_pruned:
            return []
        found = [run.result for run in self.runs if run.status == "FINISHED" and run.result is not None]
        return [value for value in found if math.isfinite(value)]

    @property
    def mean(self) -> float | None:
        """Mean of the results; None without any."""
        return statistics.fmean(self.results) if self.results else None

    @property
    def interval(self) -> tuple[float, float]:
        """Student's interval for the mean over all seeds; NaN with fewer than two results."""
        count = len(self.results)
        if count < 2:
            return math.nan, math.nan
        mean = statistics.fmean(self.results)
        width = _quantile(count - 1) * statistics.stdev(self.results) / math.sqrt(count)
        return mean - width, mean + width


@dataclass(frozen=True)
class SweepSummary:
    """What came of a sweep.

    Attributes:
        run_id: The parent run; None if the store was absent when the sweep began.
        metric: Name of the metric that the runs are compared by.
        runs: The jobs that got as far as having a run, in the order of their start.
        failed: How many did not finish, those included that never had a run.
        where: How to look at it.
        side_by_side: Address of all runs of the experiment in one table.
    """

    run_id: str | None
    metric: str
    runs: tuple[SweepRun, ...] = ()
    failed: int = 0
    where: str = ""
    side_by_side: str = ""

    @property
    def best(self) -> SweepRun | None:
        """The run with the highest result."""
        ended = [run for run in self.runs if run.status != PRUNED]
        found = [run for run in ended if run.result is not None and math.isfinite(run.result)]
        return max(found, key=lambda run: run.result or 0.0, default=None)

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """The combinations of settings, seeds apart, the best mean first."""
        groups: dict[tuple[tuple[str, str], ...], list[SweepRun]] = {}
        for run in self.runs:
            groups.setdefault(tuple((name, run.settings[name]) for name in run.settings if name != SEED), []).append(
                run
            )
        found = [Combination(dict(names), tuple(runs)) for names, runs in groups.items()]
        return tuple(sorted(found, key=lambda one: _rank(one.mean), reverse=True))

    def table(self) -> str:
        """Return the sweep as lines of text, the best first: a line per run, or per combination of several seeds."""
        names = list(dict.fromkeys(name for run in self.runs for name in run.settings))
        if SEED in names and len(self.combinations) < len(self.runs):
            names.remove(SEED)
            rows = [[*names, self.metric, f"{LEVEL:.0%} interval", "seeds", "unfinished"]]
            for one in self.combinations:
                low, high = one.interval
                between = f"{low:.4g} to {high:.4g}" if math.isfinite(low) else ""
                mean = "pruned" if one.is_pruned else "" if one.mean is None else f"{one.mean:.4g}"
                missing = 0 if one.is_pruned else len(one.runs) - len(one.results)
                numbers = [mean, between, str(len(one.results)), str(missing or "")]
                rows.append([*(one.settings.get(name, "") for name in names), *numbers])
            if not any(row[-1] for row in rows[1:]):
                rows = [row[:-1] for row in rows]  # every run has finished
        else:
            rows = [[*names, self.metric, "status", "run"]]
            for run in sorted(self.runs, key=lambda run: _rank(run.result), reverse=True):
                result = "" if run.result is None else f"{run.result:.4g}"
                rows.append([*(run.settings.get(name, "") for name in names), result, run.status.lower(), run.name])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def start_sweep(
    experiment_name: str,
    overrides: Sequence[str],
    *,
    run_name: str | None = None,
    device: str | None = None,
    notify: Callable[[str], None] | None = None,
    run_id: str | None = None,
) -> str | None:
    """Create the parent run, or go on with it, and tell the jobs that this process starts from now on.

    Args:
        experiment_name: MLflow experiment of the parent.
        overrides: The sweep as typed, e.g. `["algo.gamma=0.9,0.99", "seed=1,2"]`.
        run_name: Name of the parent; None makes one of what is swept.
        device: Where the jobs compute.
        notify: Called with each message to the user; a warning in the log by default.
        run_id: The parent of a sweep that goes on; where the store does not know it, there is a new one.

    Returns:
        The parent's id; None if the store does not answer: the jobs then become runs of their own.

    Raises:
        ValueError: If the store or the experiment can't be used, with what to do about it.
    """
    from mlflow.entities import Param

    settings = dict(_split(override) for override in overrides)
    swept = [_split(override)[0] for override in overrides if _has_choices(override)]
    tags = provenance.provenance(device) | {"overrides": provenance.cut("\n".join(overrides), provenance.TAG_LIMIT)}
    try:
        store = open_store()
        number = experiment_id(store, experiment_name)
    except StoreUnreachableError as error:
        (notify if notify is not None else _logger.warning)(
            f"{error} The sweep's jobs will be runs of their own, without a table."
        )
        return None
    if run_id is None or not _take_up(store, run_id):
        name = run_name or f"sweep of {', '.join(swept) or 'one job'}"
        run_id = str(store.client.create_run(number, tags=tags, run_name=name).info.run_id)
        params = [Param(name, value) for name, value in provenance.flatten(settings).items()]
        for start in range(0, len(params), PARAMS_PER_BATCH):
            store.client.log_batch(run_id, params=params[start : start + PARAMS_PER_BATCH])
    os.environ[SWEEP_VARIABLE] = run_id
    os.environ[FIXED_VARIABLE] = "\n".join(name for name in settings if name not in swept)
    os.environ[STORE_VARIABLE] = store.uri
    return run_id


def _take_up(store: Store, run_id: str) -> bool:
    """Let the parent of a sweep run again; return whether the store knows it."""
    from mlflow.exceptions import MlflowException

    try:
        store.client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if not is_final(error):
            raise
        return False
    return True


def parent_from_environment() -> str | None:
    """Return the id of the sweep's run that this process is a job of, or None. `Tracker.start` asks by itself."""
    return os.environ.get(SWEEP_VARIABLE)


def finish_sweep(
    run_id: str | None,
    metric: str,
    *,
    jobs: int | None = None,
    folder: str | Path | None = None,
    notify: Callable[[str], None] | None = None,
    interrupted: bool = False,
) -> SweepSummary:
    """Gather the jobs' runs into a table and pictures on the parent, and end it.

    The files are `sweep.csv`, `sweep.png` (the result against each setting), and with two settings or more
    `sweep-overview.png` (every combination).

    The parent ends FAILED if any job did not finish. A job whose run is still RUNNING was killed too fast to say so:
    it is marked KILLED. What the parent's store does not take is said, and never raised.

    Args:
        run_id: What `start_sweep` returned.
        metric: The metric to compare by, e.g. `"eval/returns/mean"`; `returns/mean` where no run has it.
        jobs: How many jobs were started, so that those without a run are counted; None counts the runs.
        folder: Where the files are kept as well; None keeps them in MLflow only.
        notify: Called with each message to the user; a warning in the log by default.
        interrupted: Whether the sweep was stopped from outside, and may go on: the parent ends KILLED.

    Returns:
        What came of it.
    """
    tell = notify if notify is not None else _logger.warning
    uri = os.environ.get(STORE_VARIABLE) or store_uri()
    os.environ.pop(SWEEP_VARIABLE, None)
    os.environ.pop(FIXED_VARIABLE, None)
    summary = SweepSummary(run_id, metric)
    try:
        if run_id is None:
            return summary
        summary = _gather(_open_patiently(uri), run_id, metric, jobs or 0)
        with tempfile.TemporaryDirectory() as scratch:
            return _record(summary, Path(folder or scratch), tell, interrupted)
    except Exception as error:
        tell(f"The sweep's table can't be made from {public_uri(uri)}: {first_line(error)}")
        return summary
    finally:
        os.environ.pop(STORE_VARIABLE, None)


def _open_patiently(uri: str) -> Store:
    """Open the store, waiting a while for a server that is just being restarted."""
    give_up = time.monotonic() + tracking.PATIENCE_S
    while True:
        try:
            return open_store(uri)
        except StoreUnreachableError:
            if time.monotonic() >= give_up:
                raise
        time.sleep(min(0.5, tracking.PATIENCE_S))


def _gather(store: Store, run_id: str, metric: str, jobs: int) -> SweepSummary:
    """Read the jobs' runs, in the order in which they began; of a job that was begun anew the last one."""
    parent = store.client.get_run(run_id)
    every = _children(store, run_id)
    for child in every:
        if child.info.status == "RUNNING":
            store.client.set_terminated(child.info.run_id, "KILLED")
    children = list({child.data.tags.get(tracking.JOB, child.info.run_id): child for child in every}.values())
    if not any(metric in child.data.metrics for child in children):
        metric = RETURNS_MEAN
    swept = _swept(parent, children)
    runs = []
    for child in children:
        info, data = child.info, child.data
        runs.append(
            SweepRun(
                run_id=info.run_id,
                name=info.run_name,
                status=_status(child),
                seconds=(info.end_time - info.start_time) / 1000 if info.end_time else math.nan,
                settings={name: _setting(child, name) for name in swept},
                result=data.metrics.get(metric),
                params=dict(data.params),
                metrics=dict(data.metrics),
                error=_last_line(data.tags.get("error", "")),
            )
        )
    failed = sum(run.status not in ("FINISHED", PRUNED) for run in runs) + max(jobs - len(runs), 0)
    return SweepSummary(run_id, metric, tuple(runs), failed)


def _status(run: Run) -> str:
    if run.data.tags.get("stop_reason", "").startswith(PRUNED.lower()):
        return PRUNED
    return "KILLED" if run.info.status == "RUNNING" else str(run.info.status)


def _children(store: Store, run_id: str) -> list[Run]:
    """Return the runs nested under `run_id`, of all experiments: a sweep may be over their name."""
    numbers = [experiment.experiment_id for experiment in _pages(store.client.search_experiments)]
    condition = f"tags.`mlflow.parentRunId` = '{run_id}'"
    runs = list(_pages(store.client.search_runs, experiment_ids=numbers, filter_string=condition))
    return sorted(runs, key=lambda run: run.info.start_time)


def _pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(**arguments, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _swept(parent: Run, children: Sequence[Run]) -> list[str]:
    """Return the names of what differs between the jobs, as typed; any parameter if nothing typed differs."""
    typed = dict.fromkeys(parent.data.params)
    for child in children:
        typed |= dict.fromkeys(_typed(child))
    every = dict.fromkeys(name for child in children for name in sorted(child.data.params))
    for names in (typed, every):
        differing = [name for name in names if len({_setting(child, name) for child in children}) > 1]
        if differing:
            return differing
    return []


def _setting(run: Run, name: str) -> str:
    """Return a setting of a job: the parameter, or for a config group (`env=pendulum`) the option that was typed."""
    params = run.data.params
    found = params.get(name) or _typed(run).get(name) or params.get(f"{name}._target_") or ""
    return str(found)


def _typed(run: Run) -> dict[str, str]:
    return dict(_split(line) for line in run.data.tags.get("overrides", "").splitlines())


def _split(override: str) -> tuple[str, str]:
    """Return name and value of an override such as `+algo.gamma=0.9`."""
    name, _, value = override.partition("=")
    return name.lstrip("+~"), value


def _has_choices(override: str) -> bool:
    """Return whether an override stands for several, as Hydra reads it: `0.9,0.99` or `range(1,4)`, not `[64,64]`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return bool(OverridesParser.create().parse_overrides([override])[0].is_sweep_override())
    except HydraException:
        return False


def _rank(result: float | None) -> tuple[bool, float]:
    """Return what results are ranked by: NaN and infinity, and no result at all, come last."""
    return (True, result) if result is not None and result < math.inf else (False, 0.0)


def _quantile(degrees: int) -> float:
    """Return Student's t of `LEVEL`; beyond the table by its expansion in 1 / degrees, exact to 0.001."""
    if degrees <= len(_T):
        return _T[degrees - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def _last_line(text: str) -> str:
    """Return the last line of a traceback, which names the error."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _record(summary: SweepSummary, folder: Path, tell: Callable[[str], None], interrupted: bool) -> SweepSummary:
    """Write table and chart, store them with the parent, and end it."""
    parent = tracking.Tracker.start(experiment_name="", run_id=summary.run_id, notify=tell)
    runs = summary.runs
    try:
        for name, write in FILES.items():
            try:
                if (file := write(summary, folder / name)) is not None:
                    parent.log_artifact(file)
            except Exception as error:
                tell(f"{name} can't be made: {first_line(error).rstrip('.')}. The sweep is recorded without it.")
        for file in sorted(folder.glob("study-*.png")):  # pictures of a search
            parent.log_artifact(file)
        counts = {"sweep/runs": float(len(runs)), "sweep/failed": float(summary.failed)}
        if summary.best is not None and summary.best.result is not None:
            counts["sweep/best"] = summary.best.result
            parent.set_tag("best_run", f"{summary.best.name} ({summary.best.run_id})")
        parent.log_metrics(counts, step=len(parent.metric_history("sweep/runs")))  # once each time that it goes on
        parent.set_tag(tracking.NOTE, f"```\n{summary.table()}\n```")
    finally:
        parent.finish("KILLED" if interrupted else "FAILED" if summary.failed else "FINISHED")
    return replace(summary, where=parent.where, side_by_side=parent.table_url)


def _write_table(summary: SweepSummary, path: Path) -> Path:
    return sweep_csv(_rows(summary.runs, summary.metric), path)


def _draw(draw: Callable[..., Path | None], summary: SweepSummary, path: Path) -> Path | None:
    pruned = {run.run_id for one in summary.combinations if one.is_pruned for run in one.runs}
    runs = [run for run in summary.runs if run.run_id not in pruned]
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    return draw(
        [run.settings for run in runs],
        [run.result if run.status == "FINISHED" else None for run in runs],
        path,
        metric=summary.metric,
        title=f"Sweep of {', '.join(names)}",
    )


#: What a sweep leaves with its parent, and how it is made.
FILES: Final[dict[str, Callable[[SweepSummary, Path], Path | None]]] = {
    "sweep.csv": _write_table,
    "sweep.png": functools.partial(_draw, sweep_chart),
    "sweep-overview.png": functools.partial(_draw, overview),
}


def _rows(runs: Sequence[SweepRun], metric: str) -> list[dict[str, object]]:
    """Return the table: what each run is, what was swept, how it ended, then all else that differs."""
    names = dict.fromkeys(name for run in runs for name in sorted(run.params))
    others = [name for name in names if len({run.params.get(name) for run in runs}) > 1]
    measured = dict.fromkeys(name for run in runs for name in sorted(run.metrics))
    return [
        {
            "run": run.name,
            "status": run.status,
            **run.settings,
            metric: "" if run.result is None else run.result,
            "seconds": round(run.seconds, 1),
            **{name: run.metrics.get(name, "") for name in measured if name != metric},
            **{name: run.params.get(name, "") for name in others if name not in run.settings},
            "error": run.error,
            "run_id": run.run_id,
        }
        for run in runs
    ]
