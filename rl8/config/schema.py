"""What a composed config may hold: every key, its type and its range, checked before torch is imported.

`check` turns a composed config into a `Plan`. Options of the algorithm, the trainer and the device have dataclasses
that know their types and ranges. Parts that are classes (`_target_`) may have any options; a changed one must keep
the type that its YAML file gives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rl8 import seeds
from rl8.checks import MAX_SEED, MAX_STEPS, check_range, closest
from rl8.config.catalog import root_file
from rl8.config.compose import explain, resolvable
from rl8.config.effects import idle, unrecorded
from rl8.config.files import HYDRA_KEYS, no_callback, no_class
from rl8.config.keys import unknown_key
from rl8.config.targets import check_target
from rl8.config.values import like, options
from rl8.kinds import as_text, convert, convert_fields
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.schedule_options import check_numbers, ended, rates
from rl8.ppo.schedules import starting_rate
from rl8.settings import DeviceSettings, TrainerSettings

# Those that take what the file of algo sets, the rate alone.
_OPTIMIZERS = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD")


@dataclass(frozen=True)
class Goal:
    """What a run is for; `stop` refers to it.

    Attributes:
        env_steps: Env steps that are enough, whatever the stop condition; None sets no bound.
        metric: Name of the metric that tells how good a policy is.
        target: Value of `metric` that counts as solved, or None.
    """

    env_steps: int | None = 1_000_000
    metric: str = "eval/returns/mean"
    target: float | None = None

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            TypeError: If a value is of the wrong kind.
            ValueError: If a value is out of range.
        """
        convert_fields(self, "goal")
        check_range(
            "goal.env_steps",
            self.env_steps,
            1,
            integer=True,
            optional=True,
            most=MAX_STEPS,
            hint="goal.env_steps=1000000",
        )
        check_range("goal.target", self.target, optional=True)


@dataclass(frozen=True)
class Part:
    """A class and the options that it is built with.

    Attributes:
        name_key: Where the config names it, e.g. `"env._target_"`.
        target: Dotted name of the class.
        key: Where the config has its options, e.g. `"env"`.
        options: Keywords for its constructor.
        inherited: Those of them that the chosen file has for another class.
    """

    name_key: str
    target: str
    key: str
    options: dict[str, Any]
    inherited: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A checked run: what is built, and with which options.

    Attributes:
        env: The environment.
        algorithm: The algorithm, its options being fields of `Hyperparameters`; those left out have its defaults.
        optimizer: The optimizer.
        model: The model; None takes the algorithm's default.
        distribution: The action distribution; None takes the default for the environment's actions.
        callbacks: The user's own code in the loop.
        stop: Stop condition, nested mappings with `_target_`; None never stops.
        trainer: What a run does besides PPO.
        device: Where it computes.
        goal: What the run is for.
        seed: Of all random numbers.
        config: All of it as plain values, to be recorded.
        typed: Keys whose values the command line changed.
        idle: Those of them that have no effect, with the reason, as far as it is known before anything is built.
        notes: What is worth a line before training.
        source: All of it as YAML, interpolations as they were written, to go on from.
        reseeds: Whether the seed was given, so that a branch draws from it rather than from where its checkpoint was.
    """

    env: Part
    algorithm: Part
    optimizer: Part
    model: Part | None
    distribution: Part | None
    stop: dict[str, Any] | None
    trainer: TrainerSettings
    device: DeviceSettings
    goal: Goal
    seed: int
    config: dict[str, Any]
    typed: tuple[str, ...] = ()
    idle: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    callbacks: tuple[Part, ...] = ()
    source: str | None = None
    reseeds: bool = False


def check(cfg: DictConfig, reference: DictConfig, typed: Sequence[str] = ()) -> Plan:
    """Return the plan that a composed config describes.

    Args:
        cfg: The composed config.
        reference: What the chosen files say, without the command line's changes of single values: where a part's
            options get their types from.
        typed: Keys of single values that the command line sets or removes (`~key`).

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a key does not exist, a value is out of range, or a class can't be found.
    """
    known = ["env", "model", "distribution", "algo", "trainer", "device", "stop", "goal", "network", "seed"]
    for key in map(str, cfg):
        if key not in (*known, "callbacks", "hydra"):
            whole = next((path for path in typed if path.startswith(f"{key}.")), key)
            guess = closest(key, known)
            guess = guess and whole.replace(key, guess, 1)
            raise ValueError(unknown_key(whole, "", [*known, "callbacks"], guess))
    for key in known:
        if key != "seed" and not OmegaConf.is_dict(cfg.get(key)):
            raise ValueError(f"{key}={as_text(cfg.get(key))} is no group of options. Accepted: values of {key}'s keys.")
    if OmegaConf.select(cfg, "algo.optimizer") is None:  # a schedule may refer to its rate
        raise ValueError(no_class("algo.optimizer"))
    if not OmegaConf.is_dict(cfg.algo.optimizer):
        raise ValueError(_no_optimizer(as_text(cfg.algo.optimizer)))
    own_keys = _without_hydra(cfg)
    config, before = _plain(own_keys, cfg), _plain(_without_hydra(reference), reference, lenient=True)
    trainer = options("trainer", config["trainer"], TrainerSettings, before=before.get("trainer"))
    seed = convert("seed", config.get("seed"), int, 1)
    check_range("seed", seed, 0, integer=True, most=MAX_SEED, hint="seed=1")
    own = seeds.settled(trainer, seed if "seed" in typed else None)
    if own is not None and own != seed:  # that of the run that this one begins from
        for each in (cfg, own_keys):
            OmegaConf.update(each, "seed", own)
        config, seed = _plain(own_keys, cfg), own
    algo = dict(config["algo"])
    optimizer, target = algo.pop("optimizer", None), algo.pop("_target_", None)
    goal = options("goal", config["goal"], Goal, before=before.get("goal"))
    network = _network(config["network"])
    check_numbers(algo, optimizer)
    algo["schedules"] = ended(algo.get("schedules"), goal.env_steps)
    hparams = asdict(options("algo", algo, Hyperparameters, extra=("optimizer",), before=before.get("algo")))
    device = options("device", config["device"], DeviceSettings, before=before.get("device"))
    parts = {key: part(key, config[key], before.get(key)) for key in ("env", "model", "distribution")}
    parts["algo.optimizer"] = part("algo.optimizer", optimizer, before.get("algo", {}).get("optimizer"))
    for key in ("env", "algo.optimizer"):
        if parts[key] is None:
            raise ValueError(no_class(key))
    _start_rate(cast(Part, parts["algo.optimizer"]), before, *rates(Hyperparameters(**hparams)))
    stop = _stop(config["stop"], before.get("stop"))
    callbacks = _callbacks(config.get("callbacks"), before.get("callbacks"))
    config |= {key: {"_target_": found.target, **found.options} for key, found in parts.items() if found is not None}
    config["algo"] = {"_target_": target, **hparams, "optimizer": config.pop("algo.optimizer")}
    config |= {"trainer": asdict(trainer), "device": asdict(device), "goal": asdict(goal), "network": network}
    config |= {"stop": stop, "seed": seed}
    config["callbacks"] = {each.key.partition(".")[2]: {"_target_": each.target, **each.options} for each in callbacks}
    changed = tuple(key for key in typed if _selected(config, *key.split(".")) != _selected(before, *key.split(".")))
    return Plan(
        env=cast(Part, parts["env"]),
        algorithm=Part("algo._target_", check_target("algo._target_", target), "algo", hparams),
        optimizer=cast(Part, parts["algo.optimizer"]),
        model=parts["model"],
        distribution=parts["distribution"],
        callbacks=callbacks,
        stop=stop,
        trainer=trainer,
        device=device,
        goal=goal,
        seed=seed,
        config=config,
        typed=changed,
        idle=idle(changed, Hyperparameters(**hparams), config, cfg),
        notes=tuple(_notes(cfg, changed, config, device)),
        source=OmegaConf.to_yaml(own_keys),
        reseeds="seed" in typed,
    )


def part(key: str, values: Any, before: Any) -> Part | None:
    """Return the class and options under `key`, or None where no class is named.

    Args:
        key: Where the part stands in the config.
        values: `_target_` and options.
        before: The same as its file says; types are taken from there.

    Raises:
        TypeError: If an option has another type than in the file.
        ValueError: If there is no such class.
    """
    if not isinstance(values, Mapping) or values.get("_target_") is None:
        if isinstance(values, Mapping) and set(values) - set(HYDRA_KEYS):
            raise ValueError(no_class(key))
        return None
    target = check_target(f"{key}._target_", values["_target_"])
    kept = {str(name): value for name, value in values.items() if name not in HYDRA_KEYS}
    before = before if isinstance(before, Mapping) else {}
    inherited = [name for name in kept if name in before] if before.get("_target_") not in (None, target) else []
    return Part(f"{key}._target_", target, key, like(key, kept, before), tuple(inherited))


def _start_rate(optimizer: Part, before: Mapping[str, Any], schedule: Any, name: str) -> None:
    """Let the optimizer start with the rate of the schedule, unless the command line gives it another.

    Raises:
        ValueError: If both were given and differ.
    """
    rate = optimizer.options.get("lr")
    if isinstance(rate, (int, float)):
        check_range("algo.optimizer.lr", rate, 0, low_open=True, hint="algo.optimizer.lr=1e-3")
        typed = rate != _selected(before, "algo", "optimizer", "lr")
        optimizer.options["lr"] = starting_rate(rate, schedule, typed=typed, name=name)


def _notes(cfg: DictConfig, typed: Sequence[str], config: Mapping[str, Any], device: DeviceSettings) -> Iterator[str]:
    """Yield what is worth a line: defaults that stand in for removed keys, settings made for another device."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    for key in typed:
        if _selected(raw, *key.split(".")) is None and (value := _selected(config, *key.split("."))) is not None:
            yield f"{key} is removed, so {key}={as_text(value)} acts, the default of the class."
    if keys := unrecorded(tuple(typed), config):
        yield f"Without effect: {', '.join(keys)}. Nothing records the run: trainer.track is false."
    experiment = str(cfg.hydra.runtime.choices.get("experiment")) if "hydra" in cfg else ""
    made_for = experiment.rpartition("_")[2]
    if made_for in ("cpu", "cuda") and not device.device.startswith(made_for):
        yield f"experiment={experiment} has settings made for {made_for}, but device={device.device}."


def _selected(tree: Any, *keys: str) -> Any:
    """Return what nested mappings hold under some keys, None where there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _network(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `network`, whose keys and types are those of the root file."""
    known = root_file()["network"]
    for name in values:
        if name not in known:
            raise ValueError(unknown_key(f"network.{name}", "network", list(known)))
    return like("network", values, known)


def _stop(values: Mapping[str, Any], before: Any) -> dict[str, Any] | None:
    """Return the stop condition with converted values, the names of its classes checked."""
    if part("stop", values, before) is None:
        return None
    _check_targets("stop", values)
    return like("stop", values, before if isinstance(before, Mapping) else {})


def _callbacks(values: Any, before: Any) -> tuple[Part, ...]:
    """Return the callbacks, each under a name of its own.

    Raises:
        TypeError: If an option has another type than in the file.
        ValueError: If one has no class, or is none.
    """
    found = []
    for name, callback in (values or {}).items():  # runs of earlier versions have none
        key = f"callbacks.{name}"
        if not isinstance(callback, Mapping):
            raise ValueError(no_callback(str(name), callback))
        made = part(key, callback, (before or {}).get(name))
        if made is None:
            raise ValueError(no_class(key))
        found.append(made)
    return tuple(found)


def _no_optimizer(value: str) -> str:
    near = value if "." in value else f"torch.optim.{closest(value, _OPTIMIZERS) or 'Adam'}"
    return (
        f"algo.optimizer={value} is no group of options. Accepted: its class as algo.optimizer._target_, the class's "
        f"options beside it. Try algo.optimizer._target_={near}."
    )


def _check_targets(key: str, node: Any) -> None:
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "_target_":
                check_target(f"{key}._target_", value)
            _check_targets(f"{key}.{name}", value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _check_targets(f"{key}.{index}", value)


def _without_hydra(cfg: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def _plain(kept: DictConfig, cfg: DictConfig, lenient: bool = False) -> dict[str, Any]:
    """Return a config without Hydra's own node as plain values, interpolations resolved and nothing missing.

    Args:
        kept: The config without that node.
        cfg: The config with it.
        lenient: Whether what can't be resolved may stay as it was written.
    """
    try:
        with resolvable(cfg):
            plain = OmegaConf.to_container(kept, resolve=True, throw_on_missing=not lenient)
    except OmegaConfBaseException as error:
        if lenient:  # the command line may mend what the files leave open
            plain = OmegaConf.to_container(kept, resolve=False)
        else:
            raise ValueError(f"{explain(error)}. Try {error.full_key}=<value>.") from error
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]
