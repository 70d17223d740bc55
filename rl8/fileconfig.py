"""`rl8 train -f config.yaml`: one file that names an environment class and any option of PPO.

The file's names are those of `Trainer(env_cls, **options)` in Python; it becomes the same `Plan` that a composed config
does, and is launched in the same way.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from omegaconf import OmegaConf

from rl8 import jobs, launch, runs, seeds
from rl8.checks import MAX_SEED, check_path, check_range, is_mistake
from rl8.config.compose import explain
from rl8.config.keys import unknown_key
from rl8.config.schema import Goal, Part, Plan
from rl8.config.targets import check_target
from rl8.config.values import options
from rl8.data import EVAL_RETURNS_MEAN
from rl8.kinds import as_text, convert
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.settings import DeviceSettings, TrainerSettings

MAX_STEPS = 100
_PPO = tuple(field.name for field in fields(Hyperparameters))
_RUN = tuple(field.name for field in fields(TrainerSettings))
_PARTS = ("model_cls", "model_config", "distribution_cls", "optimizer_cls", "optimizer_config")
_NULLABLE = tuple(
    name
    for schema in (Hyperparameters, TrainerSettings)
    for name, hint in get_type_hints(schema).items()
    if hint is Any or type(None) in get_args(hint)
)
_KNOWN = ("env_cls", "recurrent", "seed", "algorithm_config", "device", *_PARTS, *_PPO, *_RUN)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `rl8 train`."""
    parser.add_argument("-f", "--file", type=Path, required=True, help="YAML or JSON file with env_cls and options")
    parser.add_argument("--experiment-name", help="MLflow experiment; by default the environment's dotted name")
    parser.add_argument(
        "--max-steps", type=int, default=MAX_STEPS, help="iterations to train for (default: %(default)s)"
    )
    parser.add_argument("--save", type=Path, help="folder for policy.pt and the run's other files")
    parser.add_argument("--steps-per-eval", type=int, help="iterations between evaluations (default: one at the end)")


def train_from_file(args: argparse.Namespace) -> launch.Outcome:
    """Train as a file says.

    Args:
        args: What `add_arguments` declared.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If the file can't be read, or a name or value in it does not exist or is out of range.
    """
    check_range("--max-steps", args.max_steps, 1, integer=True, hint="--max-steps=100")
    given = {"experiment_name": args.experiment_name, "steps_per_eval": args.steps_per_eval, "output_dir": args.save}
    settings = {
        name: value if name != "output_dir" else str(value) for name, value in given.items() if value is not None
    }
    content = {**read(args.file), **settings}
    folder = str(args.file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        plan = plan_of(content, args.max_steps)
        launch.verify(plan)
        place = Path(plan.trainer.output_dir or time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))
        jobs.rehearse([plan], place, "output_dir")
    except (TypeError, ValueError) as error:
        if not is_mistake(error):
            raise
        # the file has no groups: its gamma is what the command line calls algo.gamma
        text = re.sub(r"\balgo\.optimizer\b", "optimizer_config", str(error))
        text = re.sub(r"\b(algo|trainer)\.(?=\w)", "", text)
        raise type(error)(f"{args.file}: {text}") from error
    from rl8.parallel import world

    return launch.train(plan, place if plan.trainer.output_dir else world.from_first(lambda: runs.claim(place)))


def read(path: Path) -> dict[str, Any]:
    """Return the options in a file, those under `algorithm_config` beside the others.

    Raises:
        ValueError: If it is missing, no YAML or JSON, holds no mapping, or gives an option twice.
    """
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"-f {path} is neither YAML nor JSON. Accepted: a file that ends in .yaml, .yml or .json.")
    if not check_path("-f", path).is_file():
        near = sorted(str(other) for other in path.parent.glob("*") if other.suffix in (".yaml", ".yml", ".json"))
        there = f"there: {', '.join(near)}" if near else f"in {path.parent.resolve()} there is none"
        raise ValueError(f"-f {path} does not exist. Accepted: a YAML or JSON file; {there}.")
    try:
        content = (
            json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _once(path, pairs))
            if path.suffix == ".json"
            else OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}. Mend the JSON.") from error
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise ValueError(explain(error)) from error
    nested = content.pop("algorithm_config", None) or {} if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(nested, dict):
        raise ValueError(f"{path} holds no options. Accepted: lines like `env_cls: rl8.env.CartPole` and `gamma: 0.9`.")
    twice = sorted(content.keys() & nested.keys())
    if twice:
        raise ValueError(f"{path} gives {twice[0]} at the top and in algorithm_config. Accepted: one of the two.")
    return {str(name): value for name, value in {**content, **nested}.items()}


def _once(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of a JSON file, whose reader would take the last of two values."""
    found = dict(pairs)
    for name in found:
        given = [as_text(value) for key, value in pairs if key == name]
        if len(given) > 1:
            raise ValueError(f"{path} gives {name} twice: {given[0]} and {given[1]}. Give it once.")
    return found


def plan_of(content: Mapping[str, Any], max_steps: int) -> Plan:
    """Return the plan that a file's options describe; null, where it is no value of the option, means its default.

    Args:
        content: Names and values.
        max_steps: Iterations to train for.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a name does not exist, a value is out of range or a class can't be found.
    """
    for name in content:
        if name not in _KNOWN:
            raise ValueError(unknown_key(name, "", _KNOWN, where="as keywords of rl8.Trainer"))
    content = {name: value for name, value in content.items() if value is not None or name in _NULLABLE}
    if "env_cls" not in content:
        raise ValueError("env_cls is missing. Accepted: a class's dotted name. Add env_cls: rl8.env.CartPole.")
    env_cls = check_target("env_cls", content["env_cls"])
    recurrent = convert("recurrent", content.get("recurrent", False), bool, False)
    given = convert("seed", content.get("seed"), int | None, 1)
    check_range("seed", given, 0, integer=True, optional=True, most=MAX_SEED, hint="seed=1")
    ppo = {name: content[name] for name in _PPO if name in content}
    checked = options("algo", ppo, Hyperparameters)
    run = {"experiment_name": env_cls} | {name: content[name] for name in _RUN if name in content}
    trainer = options("trainer", run, TrainerSettings)
    own = seeds.settled(trainer, given)
    seed = 1 if own is None else own
    algorithm = "rl8.ppo.algorithm.RecurrentAlgorithm" if recurrent else "rl8.ppo.algorithm.Algorithm"
    optimizer = _part("optimizer", content, "torch.optim.Adam")
    assert optimizer is not None
    stop = {"_target_": "rl8.conditions.HitsUpperBound", "key": "algorithm/steps", "upper_bound": max_steps}
    return Plan(
        env=Part("env_cls", env_cls, "env", {}),
        # only what the file says: the class itself has defaults for the rest
        algorithm=Part("recurrent", algorithm, "algo", {name: getattr(checked, name) for name in ppo}),
        optimizer=optimizer,
        model=_part("model", content, "rl8.models.LSTMModel" if recurrent else "rl8.models.MLPModel"),
        distribution=_part("distribution", content, None),
        stop=stop,
        trainer=trainer,
        device=options("device", {"device": content.get("device", "cpu")}, DeviceSettings),
        goal=Goal(env_steps=None, metric=EVAL_RETURNS_MEAN),
        seed=seed,
        config={**content, "seed": seed, "recurrent": recurrent, "max_steps": max_steps},
        reseeds=given is not None,
    )


def _part(kind: str, content: Mapping[str, Any], default: str | None) -> Part | None:
    """Return the class and options that `<kind>_cls` and `<kind>_config` name."""
    settings = content.get(f"{kind}_config", {})
    if not isinstance(settings, Mapping):
        raise TypeError(
            f"{kind}_config={as_text(settings)} is of the wrong kind. Accepted: keywords for {kind}_cls. "
            f"Try {kind}_config: {{name: value}}."
        )
    name = content.get(f"{kind}_cls", default)
    if name is None:
        return None
    return Part(f"{kind}_cls", check_target(f"{kind}_cls", name), f"{kind}_config", dict(settings))
