"""From the command line's words to a composed config.

Hydra composes; this module finds mistakes before Hydra meets them, because here the whole config is known and a
message can name the nearest key. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from rl8 import names
from rl8.checks import check_path, first_line
from rl8.config.catalog import CONF, check_ambiguity, folders, unknown_option
from rl8.config.keys import paths
from rl8.config.overrides import check_choice, check_single, is_group, parse, text_of
from rl8.guest import root_logging


@contextmanager
def composer() -> Iterator[None]:
    """Make `checked` and `expand` usable in the block."""
    _from_files.cache_clear()
    with undisturbed(), initialize_config_dir(config_dir=str(CONF), job_name="rl8", version_base="1.3"):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Hydra be used in the block though the process uses it already, as a notebook may, and put that back."""
    before, settings = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with root_logging():  # Hydra's go to the run's folder
            yield
    finally:  # Hydra may have put another instance in its place
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = before, settings


@contextmanager
def resolvable(cfg: DictConfig, folder: str = "run.dir") -> Iterator[None]:
    """Let `${hydra:...}` be resolved in the block; what only a job that runs would know is that of a first job.

    Args:
        cfg: A config with Hydra's own node; nothing is done for one without, as a run's folder keeps it.
        folder: Where that node says which folder the job has.
    """
    instance = HydraConfig.instance()
    if instance.cfg is not None or "hydra" not in cfg:
        yield
        return
    settings: Any = cfg.hydra
    job, runtime = settings.job, settings.runtime
    unknown = [(job, "num", 0), (job, "id", "0"), (runtime, "output_dir", MISSING)]
    unknown = [(node, key, value) for node, key, value in unknown if OmegaConf.is_missing(node, key)]
    instance.cfg = cfg  # type: ignore[assignment]  # not a copy: that takes longer than all that is resolved
    try:
        with read_write(settings):
            for node, key, value in unknown:
                node[key] = value
            if OmegaConf.is_missing(runtime, "output_dir"):
                with contextlib.suppress(OmegaConfBaseException):
                    runtime.output_dir = str(OmegaConf.select(cfg, f"hydra.{folder}"))
        yield
    finally:
        instance.cfg = None
        with read_write(settings):
            for node, key, _ in unknown:
                node[key] = MISSING


def expand(overrides: Sequence[str], config_name: str, multirun: bool) -> tuple[DictConfig, list[list[str]]]:
    """Return Hydra's own settings, and the overrides of each job: one in all, or one per combination of swept values.

    For sweepers that search, jobs that have each value once stand for all. Of a continuous range (`interval(0.9, 1)`)
    the two ends stand for the rest.

    Args:
        overrides: Words of the command line.
        config_name: The root file.
        multirun: Whether a sweep was asked for; the config may ask for one too (`hydra.mode=MULTIRUN`).

    Raises:
        ValueError: If an override can't be read, or several values are given without a sweep.
    """
    parsed = [parse(line) for line in overrides]
    for override in parsed:
        if is_group(override) and not override.is_sweep_override():
            check_choice(override)
    swept = [override for override in parsed if override.is_sweep_override()]
    for override in swept:
        if override.is_hydra_override():
            raise ValueError(
                f"{override.input_line!r} gives several values to Hydra itself. Accepted: one value; the keys of rl8 "
                f"may have several. Try {override.get_key_element()}={text_of(override).split(',')[0]}."
            )
    plain = [override for override in parsed if override not in swept]
    choices_made = tuple(str(override.input_line) for override in plain if is_group(override))
    own = [override for override in plain if override.is_hydra_override() and not is_group(override)]
    root = _from_files(config_name, choices_made)
    for override in own:
        check_single(override, root)
    steering = [*(str(override.input_line) for override in own), *(["hydra.mode=MULTIRUN"] if multirun else [])]
    if steering:
        root = _composed(config_name, [*choices_made, *steering])
    settings: DictConfig = root.hydra
    if settings.mode != RunMode.MULTIRUN:
        if swept:
            raise ValueError(_several(swept[0], root))
        return settings, [list(overrides)]
    params = settings.sweeper.get("params") or {}
    choices: dict[str, list[str]] = {}
    for override in (*(parse(f"{key}={value}") for key, value in params.items()), *parsed):
        key, value = override.get_key_element(), override.value()
        if override.is_discrete_sweep():
            choices[key] = [f"{key}={choice}" for choice in override.sweep_string_iterator()]
            twice = next((word for word in choices[key] if choices[key].count(word) > 1), None)
            if twice is not None:
                once = ",".join(word.partition("=")[2] for word in dict.fromkeys(choices[key]))
                raise ValueError(
                    f"{override.input_line!r} gives {twice} twice, which would train the same twice. Accepted: each "
                    f"value once. Try {key}={once}."
                )
            if not choices[key]:
                raise ValueError(f"{override.input_line!r} gives no values. Accepted: at least one. Try {key}=1,2.")
        elif isinstance(value, IntervalSweep):
            choices[key] = [f"{key}={value.start}", f"{key}={value.end}"]
        else:
            choices[key] = [str(override.input_line)]
    if str(settings.sweeper._target_).endswith("BasicSweeper"):
        return settings, [list(job) for job in itertools.product(*choices.values())]
    # a search takes few of the combinations: each value is tried once
    first = [values[0] for values in choices.values()]
    others = [(place, value) for place, values in enumerate(choices.values()) for value in values[1:]]
    return settings, [first, *([*first[:place], value, *first[place + 1 :]] for place, value in others)]


def _several(override: Override, root: DictConfig) -> str:
    """Return the message for several values without a sweep; a list is advised where the key's value is one."""
    key, line, values = override.get_key_element(), str(override.input_line), text_of(override)
    usual: Any = ""
    with contextlib.suppress(OmegaConfBaseException):  # it refers to what only a job knows
        usual = "" if is_group(override) else OmegaConf.select(root, key, throw_on_missing=False)
    if OmegaConf.is_list(usual) and "[" not in values:
        return f"{line!r} gives several values. Accepted: a list. Try {key}=[{values}]."
    # constants of an environment may be one per environment
    lists = "[" not in values and (usual is None or (key.startswith("env.") and usual != ""))
    either = f", {key}=[{values}] for a list" if lists else ""
    return (
        f"{line!r} gives several values. Accepted: one value{either}, or -m to train once with each. Try rl8 -m {line}."
    )


def checked(overrides: Sequence[str], config_name: str = "config") -> tuple[DictConfig, DictConfig]:
    """Compose a config, refusing overrides that name no key or option.

    Args:
        overrides: Words of the command line, without sweeps.
        config_name: The root file.

    Returns:
        The config, and the same config without the changes of single values: what its files say. Both have the
        node `hydra`.

    Raises:
        ValueError: If an override cannot be read, names no key or option, or a file is wrong.
    """
    parsed = [parse(line) for line in overrides]
    groups = [override for override in parsed if is_group(override)]
    for override in groups:
        check_choice(override)
    reference = _from_files(config_name, tuple(str(override.input_line) for override in groups))
    named = copy.deepcopy(reference)  # with the classes that are typed: it is them that take the other keys
    for override in parsed:
        if override.key_or_group.endswith("._target_") and not override.is_delete():
            with contextlib.suppress(OmegaConfBaseException):
                OmegaConf.update(named, override.key_or_group, override.value())
    for override in parsed:
        if override not in groups:
            check_single(override, named)
    # `_from_files` keeps what it returns
    return copy.deepcopy(reference) if len(groups) == len(parsed) else _composed(config_name, overrides), reference


def from_files(words: Sequence[str]) -> DictConfig:
    """Return what the files of the chosen options say, whatever else is typed; of a sweep's options the first ones.

    Options that do not exist are passed over.

    Raises:
        ValueError: If a file is wrong.
    """
    chosen = []
    for word in words:
        with contextlib.suppress(ValueError):
            override = parse(word)
            if is_group(override):
                if override.is_discrete_sweep():
                    override = parse(f"{override.get_key_element()}={next(override.sweep_string_iterator(), '')}")
                check_choice(override)  # Hydra meets the odd ones with errors of any kind
                chosen.append(str(override.input_line))
    return _from_files("config", tuple(chosen))


def namesake(name: str) -> str | None:
    """Return the key that is called so, or that another library calls so; None if there is none."""
    with composer():
        found = [path for path in paths(from_files([])) if path.rpartition(".")[2] == name]
    return found[0] if found else names.ours(name)


def folder_of(settings: DictConfig, key: str) -> Path:
    """Return the folder that Hydra's settings name under `key`, e.g. `run.dir`, relative to the working directory.

    Raises:
        ValueError: If it can't be resolved, or Hydra would write its own files among those of the run.
    """
    root = settings._get_parent()
    assert isinstance(root, DictConfig)
    try:
        inner = settings.output_subdir
        if inner is not None and os.path.normpath(inner) in (".", ".."):
            raise ValueError(
                f"hydra.output_subdir={inner} is no folder of its own: Hydra's config.yaml would take the place of the "
                "run's. Accepted: a name, or null. Try hydra.output_subdir=.hydra."
            )
        with resolvable(root):
            check_path("hydra.job.name", f"{settings.job.name}.log")
            check_path("hydra.output_subdir", str(inner))
            check_path("hydra.sweep.subdir", str(settings.sweep._get_node("subdir")))
            return check_path(f"hydra.{key}", str(OmegaConf.select(settings, key)))
    except OmegaConfBaseException as error:
        raise ValueError(f"hydra.{key} can't be resolved: {explain(error)}") from error


def explain(error: BaseException) -> str:
    """Return one line for an error that Hydra, OmegaConf or the YAML reader raised about the user's input."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" {error.context}" if error.context else ""
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}{context}. Mend the YAML."
    text = first_line(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{unknown_option(group, option, error.options)} It is named in the defaults list of a chosen file."
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text}"
    cause = error.__cause__
    return f"{text} {explain(cause)}".strip() if cause is not None else text


@functools.lru_cache(maxsize=256)
def _from_files(config_name: str, choices: tuple[str, ...]) -> DictConfig:
    """Return what the files of a choice of options say; the jobs of a sweep mostly choose the same."""
    cfg = _composed(config_name, choices)
    check_ambiguity(cfg.hydra.runtime.choices)
    return cfg


def _composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    check_path("--config-name", f"{config_name}.yaml")
    if not any((folder / f"{config_name}.yaml").is_file() for folder in folders()):
        names = [path.stem for folder in folders() for path in sorted(folder.glob("*.yaml"))]
        raise ValueError(unknown_option("--config-name", config_name, names))
    try:
        return compose(config_name, overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ValueError(explain(error)) from error
