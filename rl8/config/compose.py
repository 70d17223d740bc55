"""From the command line's words to a composed config: where the YAML files are, what each override may be.

Hydra composes; this module finds mistakes before Hydra meets them, because here the whole config is known and a
message can name the nearest key. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from rl8 import names
from rl8.checks import check_path, closest
from rl8.config.files import check_endings, check_file
from rl8.config.keys import check_key, paths
from rl8.guest import root_logging
from rl8.kinds import as_text

COMMANDS = ("train", "resume", "eval", "play", "export")
GROUPS = ("env", "model", "distribution", "algo", "trainer", "device", "stop", "callbacks", "experiment")

# The extras of rl8 that bring Hydra's launchers.
EXTRAS: Final = {"joblib": "joblib", "ray": "ray", "submitit_local": "submitit", "submitit_slurm": "submitit"}

_HERE = Path(__file__).resolve().parents[1]
# a wheel carries the files inside the package, a clone beside it
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"

# `--config-dir`, which Hydra's plugin class cannot be handed when it builds the plugin
_extra_folders: list[Path] = []


def folders() -> list[Path]:
    """Return where options are looked for: rl8's own folder, the user's `conf/`, those of `--config-dir`."""
    found = [CONF]
    for folder in (Path.cwd() / "conf", *_extra_folders):
        if folder.is_dir() and folder.resolve() not in [known.resolve() for known in found]:
            found.append(folder)
    return found


class UserFolder(SearchPathPlugin):
    """Lets Hydra find the options in the user's own folders, after rl8's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the user's folders that exist; Hydra warns about any that do not. Other programs have their own."""
        if not any(Path(str(part.path).removeprefix("file://")) == CONF for part in search_path.get_path()):
            return
        for folder in folders()[1:]:
            search_path.append("user", f"file://{folder}")


def prepare(extra: Sequence[str] = ()) -> None:
    """Make the user's own files findable: YAML under `conf/` and `extra`, modules in the working directory.

    Raises:
        ValueError: If a folder in `extra` does not exist.
    """
    for folder in extra:
        if not check_path("--config-dir", folder).is_dir():
            raise ValueError(f"--config-dir={folder} is no folder. Accepted: a folder with files like env/my_env.yaml.")
    _extra_folders[:] = [Path(folder).resolve() for folder in extra]
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    Plugins.instance().register(UserFolder)


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


def options(group: str) -> dict[str, str]:
    """Return a group's options and what each is for: the comment that its file starts with."""
    found: dict[str, str] = {}
    for folder in folders():
        for path in sorted((folder / group).glob("*.yaml")):
            with path.open(encoding="utf-8", errors="replace") as file:
                comments = itertools.takewhile(lambda line: line.startswith("#"), file)
                text = [line[1:].strip() for line in comments if "@package" not in line]
            found.setdefault(path.stem, text[0] if text else "")
    return found


def option_with(group: str, target: str) -> str | None:
    """Return the option of a group whose file names a class: the one called like it, else the only one; or None."""
    found = []
    parts = target.split(".")
    # a package's own name for it, which files have, and where it is defined
    known = (target, ".".join([*parts[:2], parts[-1]]) if parts[0] == "rl8" else target)
    for folder in folders():
        for path in sorted((folder / group).glob("*.yaml")):
            with contextlib.suppress(Exception):  # a file of the user's that is not chosen may be anything
                content: Any = OmegaConf.to_container(OmegaConf.load(path))
                if (content.get(group) or content).get("_target_") in known:
                    found.append(path.stem)
    called = {part.replace("_", "").lower() for part in parts[-2:]}
    named = [option for option in found if option.replace("_", "").lower() in called]
    return named[0] if named else found[0] if len(found) == 1 else None


@functools.lru_cache(maxsize=1)
def root_file() -> dict[str, Any]:
    """Return the contents of rl8's own config.yaml, nothing resolved."""
    content = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def defaults() -> dict[str, str]:
    """Return the option that each group has if none is chosen."""
    chosen: dict[str, str] = {}
    for entry in root_file()["defaults"]:
        if isinstance(entry, dict):
            chosen |= {name.split()[-1]: option for name, option in entry.items()}
    return {group: chosen[group] for group in GROUPS if group in chosen}


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
        if _is_group(override) and not override.is_sweep_override():
            _check_choice(override)
    swept = [override for override in parsed if override.is_sweep_override()]
    for override in swept:
        if override.is_hydra_override():
            raise ValueError(
                f"{override.input_line!r} gives several values to Hydra itself. Accepted: one value; the keys of rl8 "
                f"may have several. Try {override.get_key_element()}={_as_text(override).split(',')[0]}."
            )
    plain = [override for override in parsed if override not in swept]
    choices_made = tuple(str(override.input_line) for override in plain if _is_group(override))
    own = [override for override in plain if override.is_hydra_override() and not _is_group(override)]
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
    key, line, values = override.get_key_element(), str(override.input_line), _as_text(override)
    usual: Any = ""
    with contextlib.suppress(OmegaConfBaseException):  # it refers to what only a job knows
        usual = "" if _is_group(override) else OmegaConf.select(root, key, throw_on_missing=False)
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
    groups = [override for override in parsed if _is_group(override)]
    for override in groups:
        _check_choice(override)
    reference = _from_files(config_name, tuple(str(override.input_line) for override in groups))
    for override in parsed:
        if override not in groups:
            check_single(override, reference)
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
            if _is_group(override):
                if override.is_discrete_sweep():
                    override = parse(f"{override.get_key_element()}={next(override.sweep_string_iterator(), '')}")
                _check_choice(override)  # Hydra meets the odd ones with errors of any kind
                chosen.append(str(override.input_line))
    return _from_files("config", tuple(chosen))


def namesake(name: str) -> str | None:
    """Return the key that is called so, or that another library calls so; None if there is none."""
    with composer():
        found = [path for path in paths(from_files([])) if path.rpartition(".")[2] == name]
    return found[0] if found else names.ours(name)


def typed(overrides: Sequence[str]) -> list[str]:
    """Return the keys of single values that overrides set or remove, Hydra's own left out."""
    parsed = [parse(line) for line in overrides]
    return [item.key_or_group for item in parsed if not _is_group(item) and not item.is_hydra_override()]


def check_single(override: Override, reference: DictConfig) -> None:
    """Refuse what adds a key that is there, or changes or removes one that is not.

    Args:
        override: What was typed.
        reference: What there is: the config that the chosen files make, or a run's.

    Raises:
        ValueError: If it is one of these.
    """
    key, line = override.key_or_group, override.input_line
    if override.is_delete() and override.is_hydra_override():
        raise ValueError(f"{line!r}: Hydra's own keys can't be removed. Accepted: a value. Try {key}=<value>.")
    if override.is_force_add():
        return  # what is added may be anywhere: the whole config is checked afterwards, wherever its keys come from
    parent = ""
    with contextlib.suppress(OmegaConfBaseException):  # as below
        parent = OmegaConf.select(reference, key.rpartition(".")[0] or "seed")
    if override.is_delete() and OmegaConf.is_list(parent):
        raise ValueError(
            f"{line!r} removes an entry of a list. Accepted: another list. "
            f"Try {key.rpartition('.')[0]}={shlex.quote(as_text(parent))}."
        )
    there, value = True, None
    try:
        check_key(
            key, None if override.is_delete() else _as_text(override), reference, "~" if override.is_delete() else ""
        )
        value = OmegaConf.select(reference, key, throw_on_missing=False)
    except OmegaConfBaseException:
        pass  # it refers to what only a job knows
    except ValueError:
        if not override.is_add():
            raise
        there = False
    if override.is_add() and there and not OmegaConf.is_dict(value):
        raise ValueError(
            f"{line!r} adds {key}, which is there already. Accepted: {key}=<value> to change it. "
            f"Try {key}={shlex.quote(_as_text(override))}."
        )
    if override.is_delete() and value is None:
        raise ValueError(f"{line!r} has nothing to remove: {key} is null. Accepted: {key}=<value>, or nothing.")
    if override.is_delete() and override.value() not in (None, "", value):
        raise ValueError(
            f"{line!r} removes nothing: {key} is {as_text(value)}. Accepted: that value, or none. Try ~{key}."
        )


def parse(line: str) -> Override:
    """Return one word of the command line as Hydra understands it.

    Raises:
        ValueError: If it is no override.
    """
    key, equals, value = line.partition("=")
    if key.strip() and key != key.strip():
        raise ValueError(
            f"{line!r} has spaces around the =. Accepted: key=value in one word. "
            f"Try {key.strip()}={shlex.quote(value.strip())}."
        )
    if not key or not (equals or key.startswith("~")):
        near = closest(key, [*GROUPS, *COMMANDS]) if key.isidentifier() else None
        if key in COMMANDS:
            raise ValueError(f"{line!r} is a command. Accepted: it as the first word. Try rl8 {key} ...")
        guess = f" Did you mean {f'{near}=<option>' if near in GROUPS else near!r}?" if near else ""
        name, _, text = key.partition(":")
        advice = f"{near}=<option>" if near in GROUPS else f"{name or 'key'}={text or '<value>'}"
        advice = f"it first: rl8 {near} ..." if near in COMMANDS else f"{advice}, in one word"
        raise ValueError(
            f"{line!r} is no override.{guess} Accepted: group=option, key.name=value, +key=value to add, ~key to "
            f"remove. Try {advice}; `rl8 --help` lists groups and commands."
        )
    try:
        return _read(line)
    except (OverrideParseException, HydraException, ValueError) as error:
        if not _readable(f"{key}=1"):
            near = closest(key.lstrip("+~"), [*GROUPS, *root_file()])
            guess = f" Did you mean {near!r}?" if near else ""
            raise ValueError(
                f"Unknown key {key!r}.{guess} Accepted: letters a to z, digits and _, with dots between names."
            ) from error
        if (group := key.lstrip("+~")) in GROUPS:
            raise ValueError(unknown_option(group, value, list(options(group)))) from error
        if value[:1] in ("[", "{") and value[-1:] not in ("]", "}") and not key.startswith("~"):
            raise ValueError(
                f"{line} can't be read: {value[0]} is not closed. Accepted: [a, b] or {{key: value}}, and "
                f"where there are spaces quotes around the whole word, where a shell splits: '{key}={value[0]}...'."
            ) from error
        name, quoted = key.lstrip("+"), value.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
        advice = f" Try '{name}=\"{quoted}\"'." if "'" not in value and _readable(f'{name}="{quoted}"') else ""
        if key.startswith("~"):
            advice = f" Try {key}."
        reason = _first_line(error)
        reason = "it has a character that needs quotes" if "Exception" in reason else reason  # the grammar's own words
        raise ValueError(
            f"{key}={value} can't be read: {reason}. Accepted: a number, a word, [a, b], {{key: value}}, "
            f"or text in quotes.{advice}"
        ) from error


def _read(line: str) -> Override:
    return OverridesParser.create(_loader()).parse_overrides([line])[0]


def _readable(line: str) -> bool:
    try:
        _read(line)
    except (OverrideParseException, HydraException, ValueError):
        return False
    return True


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
    text = _first_line(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{unknown_option(group, option, error.options)} It is named in the defaults list of a chosen file."
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {text}"
    cause = error.__cause__
    return f"{text} {explain(cause)}".strip() if cause is not None else text


def unknown_option(group: str, value: str, known: Sequence[str]) -> str:
    """Return the message for an option that a group does not have."""
    if group == "device" and value.startswith("cuda:"):
        return f"device={value} is unknown. Accepted: {', '.join(known)}. Try device=cuda device.device={value}."
    near = {"gpu": "cuda"}.get(value) if group == "device" else closest(value, known)
    guess = f" Did you mean {group}={near}?" if near else ""
    return f"{group}={value} is unknown.{guess} Accepted: {', '.join(known)}."


def _loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


@functools.lru_cache(maxsize=256)
def _from_files(config_name: str, choices: tuple[str, ...]) -> DictConfig:
    """Return what the files of a choice of options say; the jobs of a sweep mostly choose the same."""
    cfg = _composed(config_name, choices)
    _check_ambiguity(cfg.hydra.runtime.choices)
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


def _is_group(override: Override) -> bool:
    key = override.key_or_group
    if key in GROUPS or "/" in key or override.package is not None:
        return True
    return "." not in key and bool(_loader().get_group_options(key))


def _check_choice(override: Override) -> None:
    """Refuse an override of a group that leaves the run without a part, or names an option that does not exist."""
    group, value = override.key_or_group, override.value()
    if "/" in group and group.split("/")[0] in GROUPS and not _loader().get_group_options(group):
        key = group.replace("/", ".")
        raise ValueError(
            f"Unknown key {group!r}. Accepted: names with dots. Try {key}={shlex.quote(_as_text(override))}."
        )
    if group.startswith("hydra/"):
        known = _loader().get_group_options(group)
        if known and isinstance(value, str) and value not in known:
            extra = EXTRAS.get(value) if group == "hydra/launcher" else None
            raise ValueError(
                unknown_option(group, value, known)
                if extra is None
                else f"{group}={value} needs a plugin of Hydra's. Type: pip install 'rl8[{extra}]'."
            )
    if group not in GROUPS:
        return  # the rest of Hydra's, and groups of the user's own: Hydra lists their options
    known = list(options(group))
    if override.is_delete() and group == "experiment":
        return
    if override.is_delete() or value is None:
        none = " Try ~experiment to have none." if group == "experiment" else ""
        raise ValueError(
            f"{override.input_line!r} leaves no {group}. Accepted: {group}=<option>, one of {', '.join(known)}.{none}"
        )
    if not isinstance(value, str) or value not in known:
        text = _as_text(override)
        if text in known:
            raise ValueError(
                f"{group}={text} is read as a number or a truth, not as the option of that name. Accepted: the name in "
                f"quotes that reach rl8. Try {group}=\\'{text}\\'."
            )
        for folder in folders()[1:]:
            check_endings(folder, group, str(value))
        raise ValueError(unknown_option(group, _as_text(override), known))
    if override.is_add() or override.is_force_add():
        raise ValueError(f"{override.input_line!r}: {group} is chosen already. Try {group}={value}.")
    for folder in folders()[1:]:
        if (folder / group / f"{value}.yaml").is_file():
            check_file(folder / group / f"{value}.yaml", group)


def _check_ambiguity(choices: Mapping[str, Any]) -> None:
    """Refuse an option whose name a file of rl8's own and a different one of the user's share: rl8's would win."""
    for group in GROUPS:
        places = [folder / group / f"{choices.get(group)}.yaml" for folder in folders()]
        files = [path for path in places if path.is_file()]
        if len({path.read_bytes() for path in files}) > 1:
            name = files[-1].stem
            raise ValueError(
                f"{group}={name} is ambiguous: {files[-1]} has the name of an option of rl8's own. Accepted: names "
                f"that rl8 does not have. Rename it, e.g. my_{name}.yaml, and type {group}=my_{name}."
            )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _as_text(override: Override) -> str:
    line = str(override.input_line)
    return line.partition("=")[2] or "null"
