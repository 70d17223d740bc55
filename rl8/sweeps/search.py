"""A search by Optuna: trials are combinations of values, each trained with every seed and judged by the mean.

Trials are kept in the sweep's own database, or in one that several machines share. A trial whose evaluations are worse
than others' at the same time is pruned; each seed is compared with the same seed of the others. Optuna is imported
inside the functions: it is an extra.
"""

from __future__ import annotations

import itertools
import math
import socket
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from rl8.checks import check_choice, check_range
from rl8.conditions import Condition, Metrics
from rl8.config.schema import Plan
from rl8.jobs import say
from rl8.parallel.launcher import is_wanted

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

SAMPLERS: Final = ("tpe", "cmaes", "grid", "random")
PRUNERS: Final = ("median", "none")
SEED: Final = "seed"
DATABASE: Final = "study.db"

# What a trial keeps: which sweep it belongs to, and that it was pruned.
_OWNER: Final = "sweep"
_PRUNED: Final = "pruned"
# Env steps that no run takes: seed k reports its evaluations at k * this + env steps.
_BLOCK: Final = 10**15


def check_options(options: Mapping[str, Any], words: Sequence[str]) -> None:
    """Check the options of a search.

    Args:
        options: As `conf/hydra/sweeper/optuna.yaml` has them.
        words: Overrides, as typed.

    Raises:
        TypeError: If one is of the wrong kind.
        ValueError: If one is out of range, Optuna is not installed, or a grid is asked for and a value is no list.
    """
    key = "hydra.sweeper"
    check_range(f"{key}.trials", options["trials"], 1, integer=True, hint=f"{key}.trials=20")
    check_range(f"{key}.startup", options["startup"], 0, integer=True, hint=f"{key}.startup=5")
    check_range(f"{key}.seed", options["seed"], 0, 2**32 - 1, integer=True, hint=f"{key}.seed=1")
    check_choice(f"{key}.sampler", options["sampler"], SAMPLERS)
    check_choice(f"{key}.pruner", options["pruner"], PRUNERS)
    for override in OverridesParser.create().parse_overrides(list(words)):
        if options["sampler"] == "grid" and isinstance(override.value(), IntervalSweep):
            name = override.get_key_element()
            raise ValueError(f"{key}.sampler=grid needs lists, and {name} is an interval. Try {name}=1,2,3.")
    try:
        import optuna  # noqa: F401

        if options["sampler"] == "cmaes":
            import cmaes  # noqa: F401
    except ImportError as error:
        raise ValueError(f"hydra/sweeper=optuna needs {error.name}. Type: pip install 'rl8[optuna]'.") from error


def check_plan(options: Mapping[str, Any], plan: Plan) -> None:
    """Check that a job can be pruned if it is to be.

    Raises:
        ValueError: If it runs in several processes, which don't ask the study.
    """
    evaluates = plan.trainer.steps_per_eval is not None
    if is_wanted(plan.device) and _prunes(options, plan.goal.metric, evaluates):
        raise ValueError(
            f"hydra.sweeper.pruner={options['pruner']} needs jobs of one process, and device.processes="
            f"{plan.device.processes}. Accepted: none. Try hydra.sweeper.pruner=none."
        )


def search(options: Mapping[str, Any], config: DictConfig, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Run trials until the study has as many as asked for; those that were interrupted first.

    Args:
        options: Of the search, as `conf/hydra/sweeper/optuna.yaml` has them.
        config: Hydra's.
        launcher: Runs the jobs.
        arguments: Overrides, swept or not.
    """
    from optuna.trial import TrialState

    folder = Path(str(config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    params = [f"{key}={value}" for key, value in (options.get("params") or {}).items()]
    fixed, seeds, space = _read(OverridesParser.create().parse_overrides([*params, *arguments]))
    study, trials_wanted = open_study(options, folder), int(options["trials"])
    if options["sampler"] == "grid":
        grid = [dict(zip(space, values, strict=True)) for values in itertools.product(*map(_values, space.values()))]
        trials_wanted = len(grid)
        for combination in grid:
            study.enqueue_trial(combination, skip_if_exists=True)
    owner = f"{socket.gethostname()}:{folder.absolute()}"
    study.set_user_attr("seeds", max(1, len(seeds)))
    at_once = -(-_jobs(launcher) // max(1, len(seeds)))
    try:
        while True:
            running = study.get_trials(states=(TrialState.RUNNING,))
            trials: list[Trial | FrozenTrial] = [one for one in running if one.user_attrs.get(_OWNER) == owner]
            missing = trials_wanted - sum(one.state != TrialState.WAITING for one in study.trials)
            if not trials:
                trials = [study.ask(space) for _ in range(min(at_once, missing))]
                for trial in trials:
                    study._storage.set_trial_user_attr(trial._trial_id, _OWNER, owner)
            if not trials:
                return
            for group in _neighbours(trials):
                _run(study, group, fixed, seeds, launcher)
    finally:
        _draw(study, folder)


def _run(
    study: Study, trials: Sequence[Trial | FrozenTrial], fixed: Sequence[str], seeds: Sequence[str], launcher: Launcher
) -> None:
    """Train what trials with neighbouring numbers ask for, and tell the study what came of it."""
    from optuna.trial import TrialState

    each = max(1, len(seeds))
    jobs = [
        [*fixed, *(f"{key}={_text(value)}" for key, value in trial.params.items()), *([seed] if seed else [])]
        for trial in trials
        for seed in (seeds or [""])
    ]
    returned = launcher.launch(jobs, initial_job_idx=trials[0].number * each)
    for index, trial in enumerate(trials):
        values = [float(one.return_value) for one in returned[index * each : (index + 1) * each]]
        if study._storage.get_trial(trial._trial_id).user_attrs.get(_PRUNED):
            study.tell(trial.number, state=TrialState.PRUNED)
            print(f"trial {trial.number}: pruned", flush=True)
        elif all(math.isfinite(value) for value in values):
            study.tell(trial.number, statistics.fmean(values))
            best = study.best_trial
            print(
                f"trial {trial.number}: {statistics.fmean(values):.4g}, best {best.value:.4g} in trial {best.number}",
                flush=True,
            )
        else:
            study.tell(trial.number, state=TrialState.FAIL)
            print(f"trial {trial.number}: failed", flush=True)


def open_study(options: Mapping[str, Any], folder: Path) -> Study:
    """Return the study, which may be there already.

    Raises:
        ValueError: If the storage can't be used.
    """
    import optuna
    from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = options["seed"]
    samplers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed),
        "cmaes": lambda: CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda: RandomSampler(seed=seed),
        "grid": lambda: RandomSampler(seed=seed),  # its combinations wait in the study
    }
    storage = options["storage"] or f"sqlite:///{(folder / DATABASE).absolute()}"
    try:
        return optuna.create_study(
            storage=storage,
            sampler=samplers[options["sampler"]](),
            pruner=_pruner(options),
            study_name=options["study_name"],
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:
        raise ValueError(
            f"hydra.sweeper.storage={storage} can't be used: {str(error).splitlines()[0]}. Accepted: an address like "
            "sqlite:///study.db. Try hydra.sweeper.storage=null for one in the sweep's folder."
        ) from error


def _pruner(options: Mapping[str, Any]) -> Any:
    from optuna.pruners import MedianPruner, NopPruner

    return MedianPruner(n_startup_trials=options["startup"]) if options["pruner"] == "median" else NopPruner()


class Pruned(Condition):
    """Met once a run's evaluations are worse than half of the others' at the same time.

    Args:
        study: What the run is a trial of.
        trial_id: Of the trial.
        metric: Whose value is compared.
        block: Which seed of the trial this is, from 0.

    Attributes:
        is_met: Whether it was met.
    """

    is_met = False

    def __init__(self, study: Study, trial_id: int, metric: str, block: int) -> None:
        self._study, self._trial_id, self.metric, self._block = study, trial_id, metric, block

    def __call__(self, metrics: Metrics) -> bool:
        """Report an evaluation, and return whether to end."""
        value = metrics.get(self.metric)
        self.is_met = value is not None and self._ends(metrics, value)
        return self.is_met

    def _ends(self, metrics: Metrics, value: float) -> bool:
        storage, first = self._study._storage, self._block * _BLOCK
        storage.set_trial_intermediate_value(self._trial_id, first + int(metrics["env/steps"]), float(value))
        trial = storage.get_trial(self._trial_id)
        if trial.user_attrs.get(_PRUNED):  # by another of its seeds
            return True
        # what is compared is this seed's evaluations with the same seed's of other trials
        trial.intermediate_values = {
            step: one for step, one in trial.intermediate_values.items() if first <= step < first + _BLOCK
        }
        if not self._study.pruner.prune(self._study, trial):
            return False
        storage.set_trial_user_attr(self._trial_id, _PRUNED, True)
        return True

    def describe(self) -> str:
        """Return what it is met by."""
        return f"pruned: {self.metric} is worse than half of the other trials'"


def _prunes(options: Mapping[str, Any], metric: str, evaluates: bool) -> bool:
    return bool(options["pruner"] != "none" and (evaluates or not metric.startswith("eval/")))


def condition(settings: Any, metric: str, evaluates: bool) -> Pruned | None:
    """Return the condition that prunes a job of a search; None if nothing is to be pruned.

    Args:
        settings: Hydra's.
        metric: The sweep's.
        evaluates: Whether the run evaluates on the way.
    """
    options = settings.sweeper
    if not _prunes(options, metric, evaluates):
        if options.pruner != "none" and settings.job.num == 0:
            say("Nothing is pruned: evaluation only happens at the end. trainer.steps_per_eval=10 gives more.")
        return None
    study = open_study(options, Path(str(settings.sweep.dir)))
    number, block = divmod(int(settings.job.num), int(study.user_attrs["seeds"]))
    return Pruned(study, study.trials[number]._trial_id, metric, block)


def _read(overrides: Sequence[Override]) -> tuple[list[str], list[str], dict[str, BaseDistribution]]:
    """Return the overrides of every job, those of each seed, and what is searched."""
    fixed, seeds, space = [], [], {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(f"{key}={override.get_value_element_as_str()}")
        elif key == SEED and override.is_discrete_sweep():
            seeds = [f"{SEED}={value}" for value in override.sweep_string_iterator()]
        else:
            space[key] = _distribution(override)
    return fixed, seeds, space


def _distribution(override: Override) -> BaseDistribution:
    """Return what Optuna calls the values of an override."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    tags: set[str] = getattr(value, "tags", set())
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log="log" in tags)
        return FloatDistribution(float(low), float(high), log="log" in tags)
    if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.step, int):
        values = list(value.range())
        return IntDistribution(int(values[0]), int(values[-1]), step=value.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _values(distribution: BaseDistribution) -> list[Any]:
    """Return the values of a list or range."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution)
    return list(range(distribution.low, distribution.high + 1, distribution.step))


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _jobs(launcher: Any) -> int:
    """Return how many jobs a launcher runs at once."""
    found = getattr(launcher, "jobs", None) or getattr(launcher, "joblib", {}).get("n_jobs", 1)
    return found if isinstance(found, int) and found > 0 else 1


def _neighbours(trials: Sequence[Trial | FrozenTrial]) -> Iterator[list[Trial | FrozenTrial]]:
    """Yield trials in groups whose numbers follow one another: jobs are numbered by them."""
    group: list[Trial | FrozenTrial] = []
    for trial in trials:
        if group and trial.number != group[-1].number + 1:
            yield group
            group = []
        group.append(trial)
    if group:
        yield group


def _draw(study: Study, folder: Path) -> None:
    """Draw the study's history, and what mattered, where there is enough to draw."""
    from optuna.trial import TrialState

    done = study.get_trials(states=(TrialState.COMPLETE,))
    if len(done) < 2:
        return
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    for name, draw in (("history", plots.plot_optimization_history), ("importances", plots.plot_param_importances)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                axes = draw(study)
            except (ImportError, RuntimeError, ValueError, ZeroDivisionError):  # nothing differs
                continue
            figure: Any = axes.figure
            figure.savefig(folder / f"study-{name}.png", dpi=150, bbox_inches="tight")
            pyplot.close(figure)
