"""The command line: `rl8 [overrides]`, `rl8 -m ...` for sweeps, `rl8 train -f file`.

Everything up to the start of training works without torch and MLflow, so that help, completion and the message about
a mistake come at once. Exit codes: 0 for a finished run, 1 for one that failed, 2 for a mistake in what was typed,
130 after Ctrl-C and 143 after SIGTERM (the run is saved all the same).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from rl8 import __version__, names
from rl8.checks import is_mistake, own_traceback, unknown
from rl8.config import catalog, compose, overrides
from rl8.config.keys import check_key
from rl8.guest import command_line
from rl8.parallel import launched, launcher
from rl8.tracking.secrets import redacted

if TYPE_CHECKING:
    from rl8.config.schema import Plan
    from rl8.launch import Outcome
    from rl8.sweeps.folder import Result

EXAMPLES = {
    "rl8 env=pendulum algo.gamma=0.9": "another environment, another discount",
    "rl8 goal.env_steps=500_000 seed=2 trainer.steps_per_eval=5": "shorter, with evaluations on the way",
    "rl8 algo=recurrent model=gru device=cuda": "a policy with memory, on a GPU",
    "rl8 -m algo.gamma=0.9,0.95,0.99 seed=1,2,3": "a sweep: nine runs under one MLflow parent run",
    "rl8 device=cuda device.processes=4": "four GPUs; num_envs and minibatches are per process",
    "rl8 stop=plateau model.hiddens=[64,64] algo.optimizer.lr=3e-4": "until the return settles, smaller networks",
}

# What there is besides training: each command's module has DESCRIPTION, add_arguments(parser) and run(args).
MODULES = {"resume": "rl8.resume", "eval": "rl8.use.evaluate", "play": "rl8.use.play", "export": "rl8.use.export"}

WIDTH = 120  # of the help, in characters

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

FLAGS = """\
  -h, --help                 this text
  --version                  rl8's version
  -m, --multirun             one run per combination of values given as key=a,b
  -j, --jobs K               with -m: K runs at once, each a process; several GPUs are dealt out
  --retry                    with -m: a sweep that goes on tries failed runs again
  -c, --cfg job|hydra|all    print the composed config and stop; add overrides to see what they change
  --resolve                  with --cfg: replace ${...} by values
  -p, --package KEY          with --cfg: only the part under KEY, e.g. algo
  -cd, --config-dir DIR      look for options in DIR too; conf/ in the working directory needs no flag
  -cn, --config-name NAME    another root file than config.yaml
  -i, --info                 where Hydra found what
  -sc, --shell-completion    install=bash|fish|zsh: completion for the command rl8"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: Words after the program's name; by default the process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    with command_line(alone=argv is None):
        if launched.is_worker():
            # a store that has gone with its process is no news: the error that ended it is
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if launched.rank() > 0:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (process 0 shows)
        try:
            code = _dispatch(words)
            if launched.is_worker():
                from rl8.parallel import world

                world.leave()
            return code
        except KeyboardInterrupt as stop:
            name = str(stop.args[0]) if stop.args else "SIGINT"
            print(f"rl8: stopped by {name}", file=sys.stderr)
            return 128 + signal.Signals[name]
        except Exception as error:
            code = report(error, words)
            if launched.is_worker():
                # at once: what ends in order waits for the others, and they for the word that this one has ended
                sys.stderr.flush()
                os._exit(code)
            return code


def report(error: Exception, words: Sequence[str] = ()) -> int:
    """Say what went wrong, in one message if the user can mend it, and return the exit code.

    Args:
        error: What was raised.
        words: What was typed.
    """
    if launched.is_worker():
        from rl8.launch import summary
        from rl8.parallel import world
        from rl8.parallel.failure import PeerError, keep_mistake

        world.failed(error)
        if is_mistake(error):
            keep_mistake(2)
        said = isinstance(error, PeerError) and error.said
        if said or not world.may_speak():
            return 2 if is_mistake(error) else 1
        launcher.leave(error=summary(error))
        if isinstance(error, PeerError):
            print(f"rl8: {redacted(str(error))}", file=sys.stderr)
            return 1
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        _show(error, error.__traceback__)
    elif is_mistake(error):
        from rl8.config.advice import typeable

        print(f"rl8: {redacted(typeable(str(error), words))}", file=sys.stderr)
        return 2
    elif (own := own_traceback(error)) is not None:
        print(redacted(own), end="", file=sys.stderr)
    else:
        # how the run was started is of no interest
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None and _is_launcher(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        _show(error, trace)
    return 2 if is_mistake(error) else 1


def _show(error: Exception, trace: TracebackType | None) -> None:
    """Print a traceback without the passwords that a driver's message may repeat."""
    print(redacted("".join(traceback.format_exception(type(error), error, trace))), end="", file=sys.stderr)


def _is_launcher(file: str) -> bool:
    return Path(file).parent == Path(__file__).parent and Path(file).stem in (
        "cli",
        "jobs",
        "fileconfig",
        "launch",
        "resume",
    )


def _dispatch(words: list[str]) -> int:
    overrides.check_once(launcher.typed(words))
    if words[:1] == ["train"]:
        words = words[1:]
        if any(word.split("=")[0] in ("-f", "--file", "-h", "--help") for word in words):
            return _train_from_file(words)
    if words and words[0] in MODULES:
        return _command(*words)
    args = parser().parse(words)
    args.typed = words
    catalog.prepare(args.config_dir)
    if args.help:
        print(help_text())
        return 0
    return _train(args)


def _command(name: str, *words: str) -> int:
    module = importlib.import_module(MODULES[name])
    made = Parser(prog=f"rl8 {name}", description=module.DESCRIPTION, allow_abbrev=False)
    module.add_arguments(made)
    outcome = module.run(made.parse(words))
    if isinstance(outcome, list):  # a sweep goes on by the command that began it
        return _dispatch(outcome)
    return outcome if isinstance(outcome, int) else exit_code(outcome)


def _train_from_file(words: Sequence[str]) -> int:
    from rl8 import fileconfig

    made = Parser(prog="rl8 train", description="Train as one file says.", allow_abbrev=False)
    fileconfig.add_arguments(made)
    catalog.prepare()
    return exit_code(fileconfig.train_from_file(made.parse(words)))


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are ordinary errors, with the nearest flag that exists."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print with its usage.

        Raises:
            ValueError: Always.
        """
        if message.startswith("the following arguments are required: RUN"):
            raise ValueError(
                f"{self.prog} needs a run. Accepted: its folder, its checkpoint.pt, its MLflow id, or latest. "
                f"Try {self.prog} latest."
            )
        raise ValueError(f"{message[:1].upper()}{message[1:]}. `{self.prog} --help` lists what is accepted.")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the flags and the other words, in any order.

        Raises:
            ValueError: If a flag does not exist, or one that takes a value is typed twice.
        """
        taken = [self._option_string_actions.get(word.partition("=")[0]) for word in words]
        twice = next((one for one in taken if one and one.nargs is None and taken.count(one) > 1), None)
        if twice is not None and not isinstance(twice, argparse._AppendAction):
            raise ValueError(f"{twice.option_strings[-1]} is typed twice. Type it once.")
        known, others = self.parse_known_intermixed_args(words)
        if others:
            flags = [flag for action in self._actions for flag in action.option_strings]
            name, _, value = others[0].partition("=")
            group = name.lstrip("-")
            if group in catalog.GROUPS:  # --env lander
                value = value or next((word for word in known.overrides if "=" not in word), "<option>")
                raise ValueError(f"{name} is no flag: groups are written without dashes. Try {group}={value}.")
            key = group if "." in group else compose.namesake(group.replace("-", "_"))
            if self.prog == "rl8" and name in ("-f", "--file"):
                value = value or next((word for word in known.overrides if "=" not in word), "config.yaml")
                raise ValueError(f"{name} is a flag of `rl8 train`. Try rl8 train -f {value}.")
            if self.prog == "rl8" and key is not None:
                value = value or next((word for word in known.overrides if "=" not in word), "<value>")
                form = names.form(group)
                advice = key if "=" in key else f"{key}=<value>: {form}" if form else f"{key}={value}"
                raise ValueError(f"{name} is no flag: keys are written without dashes. Try {advice}.")
            raise ValueError(unknown("flag", name, flags))
        return known


def parser() -> Parser:
    """Return the parser of Hydra's flags, as far as rl8 has a use for them."""
    made = Parser(prog="rl8", add_help=False, allow_abbrev=False)
    made.add_argument("overrides", nargs="*")
    made.add_argument("-h", "--help", action="store_true")
    made.add_argument("--version", action="version", version=f"rl8 {__version__}")
    made.add_argument("-m", "--multirun", action="store_true")
    made.add_argument("-j", "--jobs", type=int)
    made.add_argument("--retry", action="store_true")
    made.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    made.add_argument("--resolve", action="store_true")
    made.add_argument("-p", "--package")
    made.add_argument("-cd", "--config-dir", action="append", default=[])
    made.add_argument("-cn", "--config-name", default="config")
    made.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    made.add_argument("-sc", "--shell-completion", action="store_true")
    return made


def help_text() -> str:
    """Return the help, with every group's options as they are found now."""
    lines = [
        f"rl8 {__version__}: train a policy with PPO, end to end on one device.",
        "",
        "Usage (`python -m rl8` is the same program)",
        "  rl8 [group=option ...] [key.name=value ...]   train",
        "  rl8 -m key=a,b ...                            sweep: train once per combination of values; what was",
        "                                                interrupted goes on by the same command",
        "  rl8 train -f config.yaml                      train from one file; see `rl8 train --help`",
        "  rl8 eval RUN ... [key.name=value ...]         evaluate policies; see `rl8 eval --help`",
        "  rl8 play RUN [key.name=value ...]             film a policy; see `rl8 play --help`",
        "  rl8 export RUN --format torch|onnx|mlflow     take a policy elsewhere; see `rl8 export --help`",
        "  rl8 resume RUN [key.name=value ...]           go on with a run; see `rl8 resume --help`",
        "",
        "Groups and their options, * the default",
    ]
    chosen = catalog.defaults()
    for group in catalog.GROUPS:
        found = catalog.options(group) or {"(none)": f"your own go into conf/{group}"}
        width = max(17, *(len(name) + 1 for name in found))
        for number, (name, text) in enumerate(found.items()):
            mark = f"{name}*" if chosen.get(group) == name else name
            begin = f"  {group if number == 0 else '':<14}{mark:<{width}} "
            lines.append(f"{begin}{_short(text, WIDTH - len(begin))}".rstrip())
    lines += [
        "  Your own: conf/env/my_env.yaml and my_env.py in the working directory are chosen by env=my_env.",
        "",
        "Keys: `rl8 --cfg job` prints them all with their values.",
        "",
    ]
    width = max(map(len, EXAMPLES))
    lines += ["Flags", FLAGS, "", "Examples"]
    lines += [f"  {command:<{width}}  # {text}" for command, text in EXAMPLES.items()]
    return "\n".join(lines)


def _short(text: str, room: int) -> str:
    return textwrap.shorten(text.split(": ")[0].removesuffix("."), room, placeholder=" ...")


def _train(args: argparse.Namespace) -> int:
    from hydra.types import RunMode

    from rl8 import jobs, runs

    words = [*args.overrides, *_launcher(args)]
    if args.shell_completion or args.info:
        flags = ["--shell-completion"] if args.shell_completion else ["--info", args.info]
        try:
            jobs.call_hydra(_nothing, [*flags, *words], args.config_name)
        except ValueError as error:
            raise ValueError(f"{' '.join([*flags, *words])}: {error}") from error
        return 0
    for flag, given in (("--package", args.package), ("--resolve", args.resolve)):
        if given and not args.cfg:
            value = f" {given}" if isinstance(given, str) else ""
            raise ValueError(f"{flag} is for --cfg, which prints the config. Try rl8 --cfg job {flag}{value}.")
    if args.cfg and args.multirun:
        raise ValueError("--cfg prints one config, -m makes many. Accepted: one of the two. Try it without -m.")
    with compose.composer():
        if args.package:
            check_key(args.package, None, compose.checked(words, args.config_name)[0])
        settings, plans = _check_jobs(words, args.config_name, args.multirun)
        is_sweep = settings.mode == RunMode.MULTIRUN
        folder = compose.folder_of(settings, "sweep.dir" if is_sweep else "run.dir")
    if args.cfg:
        flags = ["--cfg", args.cfg, *(["--resolve"] if args.resolve else [])]
        flags += ["--package", args.package] if args.package else []
        jobs.call_hydra(_nothing, [*flags, *words], args.config_name)
        return 0
    if is_sweep and launched.is_worker():
        raise ValueError(
            "-m starts many runs, and a launcher started this process for one. Accepted: one of the two. Try it "
            "without torchrun: rl8 -m device.processes=4 ... gives each run its processes."
        )
    if not is_sweep and launcher.is_wanted(plans[0].device):
        return launcher.launch(args.typed, plans[0].device)
    if launched.is_worker():
        return _train_together(plans[0], words, args.config_name, folder)
    jobs.rehearse(plans, folder, "hydra.sweep.dir" if is_sweep else "hydra.run.dir")
    if is_sweep:
        return _sweep(args, words, settings, plans, folder)
    if not any(word.startswith("hydra.run.dir=") for word in words):
        folder = runs.own_folder(plans[0].trainer.resume) or runs.claim(folder)
    return exit_code(jobs.run(plans[0], words, args.config_name, folder))


def _launcher(args: argparse.Namespace) -> list[str]:
    """Return the overrides that flags of sweeps stand for.

    Raises:
        ValueError: If there is no sweep, or another launcher.
    """
    for flag, given in (("--jobs", args.jobs is not None), ("--retry", args.retry)):
        if given and not args.multirun:
            raise ValueError(f"{flag} is for sweeps. Accepted: with -m, and in rl8 resume SWEEP. Try it without.")
    if args.jobs is None:
        return []
    if args.jobs < 1:
        raise ValueError(f"--jobs={args.jobs} is too small. Accepted: an integer >= 1. Try --jobs 2.")
    chosen = [word for word in args.overrides if word.startswith("hydra/launcher=")]
    if chosen:
        raise ValueError(f"--jobs and {chosen[0]} both say how jobs are run. Accepted: one of them. Drop --jobs.")
    return ["hydra/launcher=workers", f"hydra.launcher.jobs={args.jobs}"] if args.jobs > 1 else []


def _sweep(args: argparse.Namespace, words: list[str], settings: Any, plans: Sequence[Plan], folder: Path) -> int:
    """Run a sweep, or go on with one that was interrupted, and say what became of it."""
    from rl8 import runs
    from rl8.sweeps import folder as kept
    from rl8.sweeps.sweep import sweep

    own = "hydra.sweep.dir="
    typed = tuple(word for word in args.overrides if not word.startswith(own))
    command = kept.Command(typed, args.config_name, tuple(args.config_dir))
    if typed != tuple(args.overrides):
        goes_on = kept.check_own(folder, command)
    else:
        begun = kept.begun(command, retry=args.retry)
        goes_on, folder = begun is not None, begun or runs.claim(folder)
    if goes_on:
        done = sum(not one.error and one.stopped_by is None for one in kept.results(folder))
        print(f"Going on with the sweep in {folder}: {done} of its runs are finished. {own}{folder}-2 begins another.")
    flags = ["--multirun"] if args.multirun else []
    count = len(plans) if str(settings.sweeper._target_).endswith("BasicSweeper") else None
    results = sweep(plans, command, [*flags, *words], folder, count=count, retry=args.retry)
    return _summarise(results, count, folder)


def _train_together(plan: Plan, words: Sequence[str], config_name: str, folder: Path) -> int:
    """Train as one of the processes that a launcher started; go on with the run of an attempt that failed."""
    from rl8 import jobs, launch, runs
    from rl8.parallel import world
    from rl8.parallel.failure import folder_before, keep_folder, mistake_before

    if code := mistake_before():
        return code
    before = folder_before()
    if before is not None:
        plan = launch.after_failure(plan, before)
    jobs.rehearse([plan], folder, "hydra.run.dir")  # here the processes meet

    def claimed() -> Path:
        typed = any(word.startswith("hydra.run.dir=") for word in words)
        own = runs.own_folder(plan.trainer.resume) or (folder if typed else runs.claim(folder))
        keep_folder(Path(plan.trainer.output_dir or own))
        return own

    folder = world.from_first(claimed)
    if not world.first():
        return exit_code(launch.train(plan, folder, launcher.typed(words)))
    outcome = jobs.run(plan, words, config_name, folder)
    launcher.leave(**asdict(outcome))
    return exit_code(outcome)


def exit_code(outcome: Outcome) -> int:
    """Return what a shell expects of a process that a signal ended, and else 0."""
    return 0 if outcome.stopped_by is None else 128 + signal.Signals[outcome.stopped_by]


def _check_jobs(words: Sequence[str], config_name: str, multirun: bool) -> tuple[Any, list[Plan]]:
    """Return Hydra's settings and the plan of every job; a mistake in any of them is found before the first begins."""
    from hydra.types import RunMode

    from rl8.config.schema import check
    from rl8.jobs import of_sweep
    from rl8.launch import verify
    from rl8.sweeps import search
    from rl8.sweeps.job import SEARCH

    settings, jobs = compose.expand(words, config_name, multirun)
    searches = settings.mode == RunMode.MULTIRUN and settings.sweeper._target_ == SEARCH
    if searches:
        search.check_options(settings.sweeper, words)
    plans = []
    for number, job in enumerate(jobs):
        try:
            plans.append(check(*compose.checked(job, config_name), overrides.typed(job)))
            verify(plans[-1])
            if searches:
                search.check_plan(settings.sweeper, plans[-1])
        except (TypeError, ValueError) as error:
            if len(jobs) == 1:
                raise
            raise ValueError(f"{error} ({of_sweep(number, len(jobs))})") from error
    return settings, plans


def _summarise(results: Sequence[Result], count: int | None, folder: Path) -> int:
    """Say what became of a sweep's jobs, and return the exit code."""
    failed = [result for result in results if result.error]
    pruned, count = sum(result.pruned for result in results), count or len(results)
    finished = len(results) - len(failed) - pruned
    beside = f", {pruned} {'was' if pruned == 1 else 'were'} pruned" if pruned else ""
    print(f"{finished} of {count} runs finished{beside}; files in {folder}", flush=True)
    for result in failed:
        words = redacted(" ".join(result.overrides))
        print(f"rl8: job {result.number} ({words}) failed: {result.error}", file=sys.stderr)
    return 0 if finished + pruned == count else 1


def _nothing(cfg: Any) -> None:
    """Stand in for a job where Hydra only prints."""
