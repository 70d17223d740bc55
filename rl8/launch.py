"""From a checked plan to a finished run: the only place where names become classes.

Nothing here imports torch until `parts` is called.
"""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate

from rl8 import runs
from rl8.callbacks import Callback
from rl8.calls import typed
from rl8.checks import check_path, closest, is_mistake, listed, place_of, source_file, unknown_metric
from rl8.conditions import Condition, EnvSteps, Never, Or, as_condition, flat
from rl8.config.catalog import GROUPS, folders, option_with
from rl8.config.files import HYDRA_KEYS
from rl8.config.schema import Part, Plan
from rl8.config.targets import GIVEN
from rl8.guest import torch_settings
from rl8.kinds import as_text, check_list, convert, first_arguments, is_simple
from rl8.parallel import launched
from rl8.ppo import effects
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.schedule_options import check_rate, schedule_of
from rl8.tracking.secrets import redacted

if TYPE_CHECKING:
    from rl8.ppo.algorithm import Algorithm
    from rl8.trainer import Trainer


@dataclass(frozen=True)
class Parts:
    """The classes of a run, checked to be what they stand for.

    Attributes:
        algorithm_cls: Subclass of `Algorithm`.
        env_cls: Makes the environments; called with their number, the horizon and the device.
        model_cls: Subclass of `Model`, or None for the algorithm's default.
        distribution_cls: Subclass of `Distribution`, or None for the action spec's default.
        optimizer_cls: Subclass of torch's `Optimizer`.
        callbacks: Subclasses of `Callback`.
    """

    algorithm_cls: type[Algorithm]
    env_cls: Callable[..., Any]
    model_cls: Any
    distribution_cls: Any
    optimizer_cls: Any
    callbacks: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        objective: Last value of `goal.metric`; NaN if the run has no such metric.
        stopped_by: The signal that ended it early, e.g. `"SIGINT"`, or None.
    """

    objective: float
    stopped_by: str | None


@typed()
def stop_condition(plan: Plan) -> Condition | None:
    """Return the plan's stop condition; None if it never stops.

    Raises:
        TypeError: If an option is of the wrong kind or unknown.
        ValueError: If an option is out of range, or the class is no condition.
    """
    if plan.stop is None:
        return None
    _check_nested("stop", plan.stop, plan.typed)
    try:
        condition = instantiate(plan.stop, _convert_="all")
    except HydraException as error:
        cause = _root_cause(error)
        if isinstance(cause, TypeError) and "abstract" in str(cause):
            cls = get_object(str(plan.stop["_target_"]))
            missing = sorted(name for name in Condition.__abstractmethods__ if name in cls.__abstractmethods__)
            heads = ", ".join(f"def {name}{inspect.signature(getattr(Condition, name))}: ..." for name in missing)
            raise TypeError(
                f"stop._target_={plan.stop['_target_']} in {source_file(cls)} lacks {', '.join(missing)}, "
                f"which every condition defines. Write {heads}".replace("'", "")
            ) from error
        if isinstance(cause, (TypeError, ValueError)):
            raise type(cause)(str(cause)) from error
        raise
    try:
        return as_condition(condition)
    except TypeError as error:
        target = plan.stop["_target_"]
        raise ValueError(
            f"stop._target_={target} makes a {type(condition).__name__}. Accepted: a class derived from "
            "rl8.conditions.Condition. Try stop=env_steps."
        ) from error


def _check_nested(key: str, node: Any, typed: Sequence[str]) -> None:
    """Check that each class named in nested mappings and lists takes the options beside its name."""
    if isinstance(node, dict):
        for name, value in node.items():
            _check_nested(f"{key}.{name}", value, typed)
        if "_target_" in node and not {"_args_", "_partial_"} & node.keys():
            cls: Any = None
            target = str(node["_target_"])
            with suppress(Exception), _unheard("hydra.utils"):  # who makes the object says why it can't
                cls = get_object(target)
            given = {name: value for name, value in node.items() if name not in HYDRA_KEYS}
            other = f"{key}._target_" in typed  # than the file's, which sets the rest
            inherited = tuple(name for name in given if other and f"{key}.{name}" not in typed)
            if not callable(cls):
                return
            try:
                check_options(Part(f"{key}._target_", target, key, given, inherited), cls)
            except TypeError:
                if None not in given.values():  # else the class itself says what would be there
                    raise
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _check_nested(f"{key}.{index}", value, typed)


def bounded(plan: Plan, condition: Condition | None) -> Condition | None:
    """Return a condition of rl8's own with `goal.env_steps` as an upper bound; others say themselves when to stop."""
    own = plan.stop is not None and str(plan.stop["_target_"]).startswith("rl8.conditions.")
    if condition is None or not own or plan.goal.env_steps is None:
        return condition
    if any(isinstance(part, (EnvSteps, Never)) for part in flat([condition])):
        return condition
    return Or([condition, EnvSteps(plan.goal.env_steps)])


@typed()
def verify(plan: Plan) -> None:
    """Check what needs more than one option at a time and yet no torch.

    Raises:
        TypeError: If a stop condition or a schedule is of the wrong kind.
        ValueError: If it is out of range.
    """
    stop_condition(plan)
    hparams, lr = Hyperparameters(**plan.algorithm.options), plan.optimizer.options.get("lr", 1e-3)
    schedule_of(hparams, "lr", lr)
    check_rate(hparams, lr, "algo.optimizer.lr")
    schedule_of(hparams, "entropy_coeff")


def parts(plan: Plan) -> Parts:
    """Import the plan's classes and check that each is what it stands for and takes its options.

    Raises:
        TypeError: If a class is of the wrong kind or does not take an option.
        ValueError: If a class can't be imported.
    """
    from torch.optim import Optimizer

    from rl8.distributions import Distribution
    from rl8.env import Env
    from rl8.models import Model
    from rl8.ppo.algorithm import Algorithm

    env_cls = locate(plan.env, Env, "rl8.env.Env")
    return Parts(
        algorithm_cls=locate(plan.algorithm, Algorithm, "rl8.Algorithm"),
        env_cls=functools.partial(env_cls, **plan.env.options) if plan.env.options else env_cls,
        model_cls=locate(plan.model, Model, "rl8.models.Model"),
        distribution_cls=locate(plan.distribution, Distribution, "rl8.distributions.Distribution"),
        optimizer_cls=locate(plan.optimizer, Optimizer, "torch.optim.Optimizer"),
        callbacks=tuple(locate(each, Callback, "rl8.callbacks.Callback") for each in plan.callbacks),
    )


def locate(part: Part | None, base: type, base_name: str) -> Any:
    """Return the class that a part names, or None without a part.

    Args:
        part: Name and options.
        base: What it must derive from.
        base_name: Dotted name of `base`, as a user would import it.

    Raises:
        TypeError: If it is no subclass of `base`, or its constructor does not take an option.
        ValueError: If it can't be imported.
    """
    if part is None:
        return None
    key = part.name_key
    try:
        with _unheard("hydra.utils"):  # which logs what is said below
            cls = get_object(part.target)
    except Exception as error:
        cause = _root_cause(error)
        where = place_of(cause)
        raise ValueError(
            f"{key}={part.target} can't be imported: {type(cause).__name__}: {cause}{where}. Accepted: a class that "
            f"`python -c 'import {part.target.rpartition('.')[0]}'` finds without an error."
        ) from error
    if isinstance(cls, type) and not issubclass(cls, base):
        raise TypeError(
            f"{key}={part.target} is no {base.__name__}. Accepted: a subclass of {base_name}. "
            f"Write class {cls.__name__}({base.__name__}): ..., or name another class."
        )
    if not callable(cls):
        raise TypeError(f"{key}={part.target} is a {type(cls).__name__}. Accepted: a subclass of {base_name}.")
    by_position, given = GIVEN.get(part.key, (0, ()))
    check_options(part, cls, [*given, *first_arguments(cls, by_position)])
    return cls


def check_options(part: Part, cls: Callable[..., Any], given: Sequence[str] = ()) -> None:
    """Check that a constructor takes a part's options and needs no others.

    Args:
        part: The options.
        cls: The class.
        given: Arguments that the program gives.

    Raises:
        TypeError: If an option is unknown, or one without a default is missing.
    """
    parameters = inspect.signature(cls).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    accepted = [name for name in parameters if name not in given]
    for name in part.options:
        if name not in accepted and name in part.inherited:
            option = option_with(part.key.replace(".", "/"), part.target)
            left = [f"~{part.key}.{other}" for other in part.inherited if other not in accepted]
            advice = f"{part.key}={option}" if option else " ".join([f"{part.name_key}={part.target}", *left])
            raise TypeError(
                f"{part.name_key}={part.target} does not take {part.key}.{name}, which the chosen file sets. Accepted: "
                f"{listed(accepted, name) or 'no option'}. Try {advice}."
            )
        if name not in accepted:
            near = closest(name, accepted)
            advice = f" Did you mean '{part.key}.{near}'?" if near else ""
            raise TypeError(
                f"Unknown key '{part.key}.{name}': {part.target} "
                + (f"does not take it.{advice} Accepted: {listed(accepted, name)}." if accepted else "takes none. ")
                + ("" if accepted else "Leave it out.")
            )
    try:
        hints = get_type_hints(vars(cls).get("__init__", cls.__init__) if inspect.isclass(cls) else cls)
    except (NameError, TypeError):  # annotations for type checkers alone
        hints = {}
    for name, value in part.options.items():
        if name in hints and is_simple(hints[name]):
            part.options[name] = convert(f"{part.key}.{name}", value, hints[name], _default(parameters[name]))
        elif name in hints:
            check_list(f"{part.key}.{name}", value, hints[name])
    for name, parameter in parameters.items():
        is_open = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        if is_open and name in accepted and name not in part.options:
            raise TypeError(
                f"{part.key}.{name} is missing: {part.target} has no default for it. Add {name}: ... to the YAML."
            )


def _default(parameter: inspect.Parameter) -> Any:
    return "<value>" if parameter.default is parameter.empty else parameter.default


@typed()
def build(plan: Plan, folder: Path, overrides: Sequence[str] = ()) -> Trainer:
    """Return the trainer that a plan describes, its random numbers seeded.

    Args:
        plan: What to build.
        folder: Where the run's files go, unless the plan says otherwise.
        overrides: What was typed, to be recorded.

    Raises:
        TypeError: If a class does not take an option.
        ValueError: If parts do not fit together.
    """
    chosen = parts(plan)
    import torch

    from rl8.trainer import Trainer

    torch.manual_seed(plan.seed)
    algorithm = chosen.algorithm_cls(
        chosen.env_cls,
        model_cls=chosen.model_cls,
        model_config=plan.model.options if plan.model is not None else None,
        distribution_cls=chosen.distribution_cls,
        optimizer_cls=chosen.optimizer_cls,
        optimizer_config=plan.optimizer.options,
        device=plan.device,
        **plan.algorithm.options,
    )
    condition = bounded(plan, stop_condition(plan))
    settings = replace(plan.trainer, output_dir=plan.trainer.output_dir or str(folder))
    trainer = Trainer(
        algorithm,
        config=plan.config,
        overrides=overrides,
        stop_conditions=[] if condition is None else [condition],
        callbacks=[_callback(cls, part) for cls, part in zip(chosen.callbacks, plan.callbacks, strict=True)],
        seed=plan.seed if plan.reseeds and plan.trainer.branch is not None else None,
        **asdict(settings),
    )
    if plan.goal.metric not in (known := trainer.metric_names):
        raise ValueError(f"goal.metric={plan.goal.metric}: {unknown_metric(plan.goal.metric, known)}")
    trainer.source = plan.source
    return trainer


def _callback(cls: Callable[..., Callback], part: Part) -> Callback:
    """Return a callback; a message of its own about an option names the key."""
    try:
        return cls(**part.options)
    except (TypeError, ValueError) as error:
        names = "|".join(map(re.escape, part.options))
        if not (is_mistake(error) and names):
            raise
        raise ValueError(re.sub(rf"(?<![\w.])({names})(?=[=\[])", rf"{part.key}.\1", str(error))) from error


@dataclass(frozen=True)
class Rehearsal:
    """What is known of a run once all of it was built.

    Attributes:
        typed: Keys that were typed.
        idle: Those that have no effect, with the reason.
        notes: What is worth a line before training.
    """

    typed: tuple[str, ...]
    idle: dict[str, str]
    notes: tuple[str, ...]


@typed()
def rehearse(plan: Plan, folder: Path) -> Rehearsal:
    """Build all that a plan names, to see whether it can be built.

    Raises:
        TypeError: If a class does not take an option.
        ValueError: If parts do not fit together, the folder can't be written, or memory does not suffice.
    """
    if plan.trainer.output_dir is not None:
        check_folder("trainer.output_dir", Path(plan.trainer.output_dir))
    if not launched.is_worker():  # where several are started later, this is one of them
        plan = replace(plan, device=replace(plan.device, processes=1, max_restarts=0))
    try:
        trainer = build(plan, folder)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        hparams = Hyperparameters(**plan.algorithm.options)
        raise ValueError(
            f"algo.num_envs={hparams.num_envs}, algo.horizon={hparams.horizon} or the model's sizes need more memory "
            f"than there is ({str(error).strip().splitlines()[0]}). Try algo.num_envs={max(1, hparams.num_envs // 16)}."
        ) from error
    trainer.check()
    trainer.close()
    policy, notes = trainer.algorithm.policy, list(plan.notes)
    shapes = policy.distribution_cls.feature_shapes(policy.action_spec)
    found = plan.idle | effects.features(
        plan.typed,
        set(effects.feature_names(shapes)),
        recurrent=policy.recurrent,
        truncates=trainer.algorithm.env.truncates,
    )
    video = "trainer.steps_per_video"
    if video in plan.typed and plan.trainer.steps_per_video and not trainer.algorithm.env.has_pictures:
        asked = trainer.algorithm.env.made_to_draw({})
        how = "".join(f" without 'env.{name}={as_text(option)}'" for name, option in asked.items())
        found[video] = f"the environment draws no pictures{how}"
    batch = trainer.algorithm.hparams.batch_size * launched.size()
    notes += _removed(plan)
    goal = next((stop.env_steps for stop in flat(trainer.stop_conditions) if isinstance(stop, EnvSteps)), None)
    if goal is not None and goal < batch:
        notes.append(f"goal.env_steps={goal:,} is less than one iteration of num_envs * horizon = {batch:,} env steps.")
    return Rehearsal(plan.typed, found, tuple(notes))


def _removed(plan: Plan) -> Iterator[str]:
    """Yield what acts in place of options of classes that were typed away: the class's own default."""
    for part in filter(None, (plan.env, plan.model, plan.distribution, plan.optimizer, *plan.callbacks)):
        parameters = inspect.signature(get_object(part.target)).parameters
        for key in plan.typed:
            name = key.removeprefix(f"{part.key}.")
            if name in parameters and name != key and name not in part.options:
                yield f"{key} is removed, so {key}={as_text(parameters[name].default)} acts, the default of the class."


def check_folder(key: str, folder: Path, what: str = "a run's folder", instead: str = "outputs/mine") -> None:
    """Check that a folder can be made and written to, without making it.

    Args:
        key: What names it, in messages.
        folder: The folder.
        what: What it is for, in messages.
        instead: What could be typed.

    Raises:
        ValueError: If it can't.
    """
    check_path(key, folder)
    try:
        nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
        reason = f"{nearest} is no folder" if not nearest.is_dir() else ""
        options = next((known for known in folders() if _is_among_options(folder, known)), None)
        if options is not None:
            reason = f"options are looked for in {options}"
        if not reason:
            Path(tempfile.mkdtemp(prefix=".rl8-", dir=nearest)).rmdir()  # permissions do not tell all
    except (OSError, ValueError) as error:
        reason = f"{nearest} can't be written to" if isinstance(error, OSError) else str(error)
    if reason:
        raise ValueError(
            f"{key}={folder} can't be {what}: {reason}. Accepted: a folder that can be made and written to. "
            f"Try {key}={instead}."
        )


def _is_among_options(folder: Path, options: Path) -> bool:
    """Return whether a folder is one where options are looked for, or a group in it."""
    place, options = folder.resolve(), options.resolve()
    return place == options or (place.parent == options and place.name in GROUPS)


@typed()
def run(trainer: Trainer, plan: Plan) -> Outcome:
    """Train until the plan's condition is met or a signal arrives."""
    if plan.trainer.track:
        from rl8.tracking.store import load_client

        load_client()
    if not gc.isenabled():
        # The command line keeps the collector off during start-up. What there is now stays: never look at it again.
        gc.freeze()
        gc.enable()
    try:
        metrics = trainer.run()
    finally:
        trainer.close()
    return Outcome(metrics.get(plan.goal.metric, math.nan), trainer.stopped_by)


def after_failure(plan: Plan, folder: Path) -> Plan:
    """Return the plan that goes on with the run in a folder, or begins once more where it has no checkpoint yet."""
    if (folder / runs.CHECKPOINT).is_file():
        trainer = replace(plan.trainer, resume=str(folder), branch=None, init_from=None, output_dir=None)
        return replace(plan, trainer=trainer)
    if launched.rank() == 0:
        (folder / runs.CONFIG).unlink(missing_ok=True)  # the folder is nobody's again
    return plan


def train(plan: Plan, folder: Path, overrides: Sequence[str] = ()) -> Outcome:
    """Build what a plan names and train; see `build`. Torch's settings and random numbers are put back."""
    with torch_settings():
        return run(build(plan, folder, overrides), plan)


def record_failure(plan: Plan, overrides: Sequence[str], error: Exception) -> None:
    """Record a run that could not even be built, so that a sweep's table shows it.

    Args:
        plan: What was to be done.
        overrides: What was typed.
        error: What went wrong.
    """
    if not plan.trainer.track:
        return
    from rl8.tracking.names import run_name
    from rl8.tracking.run import Tracker

    env, algorithm = (part.target.rpartition(".")[2] for part in (plan.env, plan.algorithm))
    tracker = Tracker.start(
        experiment_name=plan.trainer.experiment_name,
        run_name=plan.trainer.run_name or run_name(env, algorithm, plan.config, overrides),
        params=plan.config,
        overrides=overrides,
    )
    tracker.finish("FAILED", summary(error))


def summary(error: BaseException) -> str:
    """Return an error in one line: its message alone if that says all."""
    text = str(error).strip() or "no message"
    return redacted(text if is_mistake(error) else f"{type(error).__name__}: {text.splitlines()[0]}")


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _unheard(logger: str) -> Iterator[None]:
    """Keep a logger silent."""
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
