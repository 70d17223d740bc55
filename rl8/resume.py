"""`rl8 resume RUN [overrides]`: go on with a run as it was composed, in its folder and its MLflow run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from rl8 import launch, runs
from rl8.config import catalog, compose
from rl8.config.effects import refusal
from rl8.config.overrides import check_single, parse
from rl8.config.schema import Plan, check
from rl8.guest import torch_settings
from rl8.parallel import launcher
from rl8.sweeps import folder as sweeps

DESCRIPTION = (
    "Go on with a run from its last checkpoint, with the configuration that it was composed to, in the same folder and "
    "the same MLflow run. What is typed besides acts from here on: a later goal, another stop condition, the learning "
    "rate, constants of the environment. A run whose stop condition is met only finishes what is missing. A sweep goes "
    "on by the command that began it: finished jobs are left out, interrupted ones go on from their checkpoints."
)
# What may be another option; the other groups say what the run is.
GROUPS = ("stop", "callbacks", "trainer", "device")
# What going on itself says.
SET = ("trainer.resume", "trainer.branch", "trainer.init_from", "trainer.output_dir")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `rl8 resume` takes."""
    parser.add_argument(
        "run", metavar="RUN", help="the run's folder, checkpoint.pt or MLflow id, or latest; or a sweep's folder or id"
    )
    parser.add_argument("overrides", nargs="*", help="key.name=value, stop=<option>, device=<option>")
    parser.add_argument("--jobs", type=int, help="of a sweep: how many jobs at once")
    parser.add_argument("--retry", action="store_true", help="of a sweep: try failed jobs again")


def run(args: argparse.Namespace) -> launch.Outcome | int | list[str]:
    """Go on with a run; return its outcome, the exit code of processes that did, or the command line of a sweep.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If there is no such run, or it can't be gone on with as typed.
    """
    flags = [*(["--jobs", str(args.jobs)] if args.jobs is not None else []), *(["--retry"] if args.retry else [])]
    again = sweeps.again(args.run, args.overrides, flags)
    if again is not None:
        return again
    catalog.prepare()
    found = runs.find(args.run, "checkpoint")
    if flags:
        raise ValueError(
            f"{flags[0]} is for sweeps, and RUN={args.run} is none. Accepted: the folder of a sweep, or its MLflow id. "
            f"Try rl8 resume {args.run}."
        )
    plan, changed = plan_of(found, args.run, args.overrides)
    launch.verify(plan)
    if plan.idle:
        raise ValueError(refusal(plan.idle))
    if launcher.is_wanted(plan.device):
        return launcher.launch(["resume", args.run, *args.overrides], plan.device)
    with torch_settings():
        trainer = launch.build(plan, found.folder, args.overrides)
        if changed and (reason := trainer.end_reached()) is not None:
            done = trainer.algorithm.env_steps
            raise ValueError(
                f"RUN={args.run} has {done:,} env steps and is at its end ({reason}), so {' '.join(args.overrides)} "
                "would have no effect. Accepted: a goal beyond that, or no word, which finishes what is missing. Try "
                f"rl8 resume {args.run} goal.env_steps={2 * done}."
            )
        return launch.run(trainer, plan)


def plan_of(found: runs.Found, name: str, words: Sequence[str]) -> tuple[Plan, bool]:
    """Return the plan of a run that goes on, and whether it is another than the run's so far.

    Args:
        found: Its checkpoint.
        name: The run, as typed.
        words: Overrides, as typed.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If nobody kept how the run was composed, or an override is none, names no key, or changes what the
            run is.
    """
    config = found.config()
    if config is None or not isinstance(config.get("network"), dict):
        raise ValueError(
            f"RUN={name}: no {runs.CONFIG} beside {found.file} says how the run was composed. Accepted: a run that the "
            f"command line started with options. In Python, go on with Trainer(..., resume={str(found.file)!r})."
        )
    with compose.composer():
        overrides = [parse(word) for word in words]
        base: Any = OmegaConf.create(config)
        for override in overrides:
            line, group = str(override.input_line), override.key_or_group
            if override.is_sweep_override():
                raise ValueError(f"{line!r} gives several values. Accepted: one value; a run goes on once.")
            if group in GROUPS:
                base[group] = compose.checked([line])[0][group]
            elif group in catalog.GROUPS:
                raise ValueError(
                    f"{line!r} would make it another run. Accepted: {', '.join(GROUPS)} and single keys. For a new run "
                    f"that starts from this one's policy, try rl8 {line} trainer.init_from={name}."
                )
        cfg = base.copy()
        for override in overrides:
            key = override.key_or_group
            if key in GROUPS:
                continue
            if override.is_delete():
                raise ValueError(f"{override.input_line!r} removes a key. Accepted: {key}=<value>.")
            if key in SET:
                raise ValueError(
                    f"{override.input_line!r} has no effect on a run that goes on: it does so from its own checkpoint, "
                    f"in its own folder. Accepted: other keys. Try without it; trainer.branch={name} begins a new run."
                )
            check_single(override, base)
            OmegaConf.update(cfg, key, override.value(), merge=False, force_add=True)
        changed = cfg != OmegaConf.create(config)
        for key in SET:
            OmegaConf.update(cfg, key, None)
        cfg.trainer.resume = str(found.file)
        typed = [each.key_or_group for each in overrides if each.key_or_group not in GROUPS]
        return check(cfg, base, typed), changed
