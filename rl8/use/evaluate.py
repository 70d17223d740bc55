"""`rl8 eval`: how good policies are, in environments of their own."""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rl8.checks import check_range
from rl8.config import catalog
from rl8.tracking.secrets import redacted
from rl8.use.recorded import store_of
from rl8.use.task import Task, check_flags, horizon_of, task

if TYPE_CHECKING:
    from rl8.env import Env
    from rl8.policy.policy import Policy

DESCRIPTION = "Evaluate policies: the return of each, per episode or per number of steps, from a reset."
RESULTS = "evaluations.jsonl"
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
RESAMPLES: Final = 2000
# An episode of so many steps is taken for one that has no end.
MAX_STEPS: Final = 1_000_000


@dataclass(frozen=True)
class Sample:
    """What was seen.

    Attributes:
        returns: Sum of rewards, one of each environment or episode.
        lengths: Steps of each.
    """

    returns: list[float]
    lengths: list[int]


def evaluate(
    policy: Policy,
    env: Env,
    *,
    steps: int,
    episodes: int | None = None,
    most: int | None = None,
    deterministic: bool = True,
    config: dict[str, Any] | None = None,
    seed: int = 1,
) -> Sample:
    """Return what a policy reaches from a reset; torch's random numbers go on as if nothing had happened.

    Every environment gives equally many episodes (to one), so that short ones count no more than long ones.

    Args:
        policy: What is evaluated, in evaluation mode.
        env: Environments.
        steps: Steps in each environment, unless `episodes` are counted.
        episodes: How many episodes, over all environments; None counts steps.
        most: Most steps of each environment; an episode that has not ended by then counts with what it has, as in
            training's evaluation. None waits for all to end.
        deterministic: Whether actions are the distribution's mode rather than a sample.
        config: Settings of the reset.
        seed: Of all random numbers.

    Raises:
        ValueError: If episodes are asked for and the environment has no ends, or a reward is infinite or NaN.
    """
    import torch

    from rl8.rng import forked

    with torch.no_grad(), forked(policy.device):
        torch.manual_seed(seed)
        sample = _by_steps(policy, env, steps, deterministic, config) if episodes is None else _by_episodes(
            policy, env, episodes, most, deterministic, config
        )  # fmt: skip
    if not all(map(math.isfinite, sample.returns)):
        raise ValueError(f"{type(env).__name__} gave rewards that are infinite or NaN, so its return has no value.")
    return sample


def _by_steps(policy: Policy, env: Env, steps: int, deterministic: bool, config: dict[str, Any] | None) -> Sample:
    import torch

    from rl8.data import OBS, REWARDS
    from rl8.use.memory import Memory

    obs, memory = env.reset(config=copy.deepcopy(config)), Memory(policy, env.num_envs)
    total = torch.zeros(env.num_envs, device=policy.device)
    for _ in range(steps):
        result = env.step(memory.act(obs, deterministic=deterministic))
        total += result[REWARDS].reshape(env.num_envs)
        memory.forget(ended(result, env.num_envs))
        obs = result[OBS]
    return Sample(total.tolist(), [steps] * env.num_envs)


def _by_episodes(
    policy: Policy, env: Env, episodes: int, most: int | None, deterministic: bool, config: dict[str, Any] | None
) -> Sample:
    import torch

    from rl8.data import FILLER, OBS, REWARDS, TERMINATED, TRUNCATED
    from rl8.use.memory import Memory

    if not has_ends(env):
        raise ValueError(
            f"--episodes={episodes}: {type(env).__name__} reports neither {TERMINATED} nor {TRUNCATED}, so it has no "
            "episodes. Accepted: a number of steps. Try --steps=1000."
        )
    n, device = env.num_envs, policy.device
    due = torch.tensor([(episodes + index) // n for index in range(n)], device=device)
    obs, memory = env.reset(config=copy.deepcopy(config)), Memory(policy, n)
    total, length = torch.zeros(n, device=device), torch.zeros(n, dtype=torch.int64, device=device)
    returns: list[float] = []
    lengths: list[int] = []
    for _ in range(most or MAX_STEPS):
        result = env.step(memory.act(obs, deterministic=deterministic))
        total += result[REWARDS].reshape(n)
        filler = result.get(FILLER, None)  # a step between two episodes
        length += 1 if filler is None else (~filler.reshape(n)).long()
        over = ended(result, n)
        counted = over & (due > 0)
        returns += total[counted].tolist()
        lengths += length[counted].tolist()
        due -= counted.long()
        if len(returns) == episodes:
            return Sample(returns, lengths)
        total.masked_fill_(over, 0.0)
        length.masked_fill_(over, 0)
        memory.forget(over)
        obs = result[OBS]
    if most is not None:
        return Sample(returns + total[due > 0].tolist(), lengths + length[due > 0].tolist())
    raise ValueError(
        f"--episodes={episodes}: an episode of {type(env).__name__} did not end in {MAX_STEPS:,} steps. Accepted: "
        "environments whose episodes do. Try --steps=1000."
    )


def has_ends(env: Env) -> bool:
    """Return whether episodes end, which some environments only show when they are tried."""
    if not env.has_ends:
        env.validate()
    return env.has_ends


def ended(result: Any, n: int) -> Any:
    """Return where a step's result says that an episode ended, `[n]`."""
    import torch

    from rl8.data import REWARDS, TERMINATED, TRUNCATED

    over = torch.zeros(n, dtype=torch.bool, device=result[REWARDS].device)
    for key in (TERMINATED, TRUNCATED):
        if key in result.keys():  # noqa: SIM118 (a TensorDict iterates over rows)
            over = over | result[key].reshape(n).bool()
    return over


def summary(returns: Sequence[float]) -> dict[str, float]:
    """Return mean, standard deviation, quantiles and the 95% bootstrap interval of the mean (`low`, `high`)."""
    import numpy as np

    values = np.asarray(returns, dtype=np.float64)
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    quantiles = {f"q{round(100 * q):02}": float(np.quantile(values, q)) for q in QUANTILES}
    return {
        "mean": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "std": float(values.std()),
        "min": float(values.min()),
        **quantiles,
        "max": float(values.max()),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `rl8 eval` takes."""
    parser.add_argument(
        "words", nargs="*", metavar="RUN | key=value", help="runs, and overrides such as env.gravity=12"
    )
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument(
        "--steps", type=int, help="steps of each environment; by default an episode, or as in training"
    )
    how_long.add_argument("--episodes", type=int, help="episodes in all, for environments that end them")
    parser.add_argument("--sample", action="store_true", help="draw actions rather than take the most probable")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--no-log", action="store_true", help="leave no record in the run's folder and in MLflow")


def run(args: argparse.Namespace) -> int:
    """Evaluate as the command line says, and return the exit code.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a run or key does not exist, or does not fit.
    """
    runs, overrides = split(args.words, "eval")
    for name in ("steps", "episodes"):
        check_range(f"--{name}", getattr(args, name), 1, integer=True, optional=True, hint=f"--{name}=1000")
    check_flags(args, overrides)
    tasks = [task(name, overrides) for name in runs]
    ready = [_ready(each, args) for each in tasks]
    results = []
    for each in ready:  # one that fails costs none before it
        results.append(_evaluated(*each, args, overrides))
        if not args.no_log:
            _record(each[0], results[-1])
    print(json.dumps(results, indent=2) if args.json else _table(results), flush=True)
    return 0


def split(words: Sequence[str], command: str) -> tuple[list[str], list[str]]:
    """Return the runs and the overrides among words.

    Raises:
        ValueError: If there is no run.
    """
    runs = [word for word in words if not ("=" in word or word.startswith("~")) or os.path.exists(word)]  # noqa: PTH110 (pathlib's raises where a word is too long for a name)
    if not runs:
        raise ValueError(
            f"rl8 {command} needs a run. Accepted: its folder, its policy.pt or checkpoint.pt, its MLflow id, or "
            f"latest. Try rl8 {command} latest{' --format torch' if command == 'export' else ''}."
        )
    catalog.prepare()
    return runs, [word for word in words if word not in runs]


def _ready(each: Task, args: argparse.Namespace) -> tuple[Task, Policy, Env]:
    """Return a policy and its environments: what does not fit is said before any policy is evaluated."""
    settings, policy = each.plan.trainer, each.policy()
    num_envs = each.num_envs or min(settings.eval_num_envs, args.episodes or settings.eval_num_envs)
    return each, policy, each.env(policy, num_envs, args.steps or horizon_of(each.plan))


def _evaluated(
    each: Task, policy: Policy, env: Env, args: argparse.Namespace, overrides: Sequence[str]
) -> dict[str, Any]:
    """Return one policy's result."""
    settings, steps = each.plan.trainer, args.steps or horizon_of(each.plan)
    whole = args.steps is None and args.episodes is None and has_ends(env)
    episodes, most = (env.num_envs, settings.eval_horizon) if whole else (args.episodes, None)
    deterministic = settings.eval_deterministic and not args.sample
    sample = evaluate(
        policy, env, steps=steps, episodes=episodes, most=most, deterministic=deterministic,
        config=settings.eval_env_config, seed=each.seed,
    )  # fmt: skip
    return {
        "run": each.name,
        "policy": str(each.found.file),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "env": each.plan.env.target,
        "overrides": list(overrides),
        "per": f"episode{f' of {most} steps at most' if most else ''}" if episodes else f"{steps} steps",
        "deterministic": deterministic,
        "seed": each.seed,
        "num_envs": env.num_envs,
        "count": len(sample.returns),
        "steps": {"mean": sum(sample.lengths) / len(sample.lengths)},
        "returns": summary(sample.returns),
    }


def _record(each: Task, result: dict[str, Any]) -> None:
    """Append a result to the run's file, and record it in the run's MLflow run."""
    line = redacted(json.dumps(result))
    try:
        with (each.found.folder / RESULTS).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:
        print(f"rl8: {each.found.folder / RESULTS} can't be written: {error}", file=sys.stderr)
    run_id = each.found.run_id()
    if run_id is None:
        return
    from rl8.tracking.store import first_line

    try:
        client = store_of(run_id, each.found.folder).client
        for name, value in result["returns"].items():
            client.log_metric(run_id, f"evaluation/returns/{name}", value)
        stamp = result["date"].replace(":", "-")
        client.log_text(run_id, line, f"evaluations/{stamp}.json")
    except Exception as error:  # what was found out is worth showing whatever became of the store
        print(f"rl8: MLflow did not take the evaluation of {each.name}: {first_line(error)}", file=sys.stderr)


def _table(results: Sequence[dict[str, Any]]) -> str:
    """Return results as a table, a line each."""
    titles = ("run", "return", "95% interval", "std", "5%", "median", "95%", "count", "per")
    rows = [titles]
    for result in results:
        found = {name: f"{value:.4g}" for name, value in result["returns"].items()}
        interval = f"{found['low']} to {found['high']}"
        spread = (found[name] for name in ("std", "q05", "q50", "q95"))
        rows.append((result["run"], found["mean"], interval, *spread, str(result["count"]), result["per"]))
    widths = [max(len(row[index]) for row in rows) for index in range(len(titles))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join(lines)
