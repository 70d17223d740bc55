"""Commands of README and docs, taken as far as they go before a run."""

import importlib
import re
from pathlib import Path

import pytest

from rl8 import fileconfig
from rl8.cli import MODULES, Parser, _check_jobs, _launcher, parser
from rl8.config import catalog, compose


def plans_of(words):
    """Return the runs that a command asks for, none of another command."""
    if words[:2] == ["train", "-f"]:
        return [fileconfig.plan_of(fileconfig.read(Path(words[2])), max_steps=1)]
    if words[0] in MODULES:
        made = Parser(prog="rl8")
        importlib.import_module(MODULES[words[0]]).add_arguments(made)
        made.parse(words[1:])
        return []
    args = parser().parse(words)
    catalog.prepare()
    try:
        with compose.composer():
            plans = _check_jobs([*args.overrides, *_launcher(args)], args.config_name, args.multirun)[1]
    except ValueError as error:
        if re.search(r"pip install 'rl8\[(optuna|ray|submitit)\]'", str(error)):
            pytest.skip(str(error))
        raise
    assert (len(plans) > 1) == args.multirun
    return plans
