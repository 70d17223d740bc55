"""Train every built-in environment with its own YAML's settings over several seeds, and judge the policies.

    python experiments/learning/study.py [--seeds 1 2 3] [--envs cartpole pendulum ...]

Writes results/results.json, results/table.md and results/curves.png beside this file. Every judgement is of a
deterministic evaluation in 256 fresh environments; the criteria are in `CRITERIA`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rl8 import launch
from rl8.config.catalog import prepare
from rl8.config.compose import checked, composer
from rl8.config.schema import check
from rl8.rollout.evaluation import Evaluator
from rl8.tracking.provenance import hardware
from rl8.trainer import Trainer

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def play(trainer: Trainer, horizon: int) -> Evaluator:
    """Return an evaluator whose environments have just run the policy for `horizon` steps."""
    hparams = trainer.algorithm.hparams
    evaluator = Evaluator(
        trainer.algorithm.env_cls,
        trainer.algorithm.policy,
        num_envs=256,
        horizon=horizon,
        seq_len=hparams.seq_len,
        seqs_per_state_reset=hparams.seqs_per_state_reset,
    )
    evaluator.run()
    return evaluator


def balanced(trainer: Trainer) -> tuple[float, bool]:
    """CartPole: the mean return of 64 steps is better than -7."""
    value = play(trainer, 64).rollout.rewards.sum(0).mean().item()
    return value, value > -7


def upright(trainer: Trainer) -> tuple[float, bool]:
    """Pendulum: over the last 64 of 256 steps, 95% of environments average better than -0.1 per step."""
    share = (play(trainer, 256).rollout.rewards[-64:].mean(0) > -0.1).float().mean().item()
    return share, share >= 0.95


def escaped(trainer: Trainer) -> tuple[float, bool]:
    """MountainCar: 95% of cars have reached the goal within 200 steps."""
    share = (play(trainer, 200).rollout.rewards >= 1).any(0).float().mean().item()
    return share, share >= 0.95


def shortest_walk(starts: torch.Tensor, steps: int) -> torch.Tensor:
    """Return the best return of the discrete dummy: walk to the origin, then step back and forth across it."""
    distance, total = starts.abs().clone(), torch.zeros_like(starts)
    for _ in range(steps):
        distance = (distance - 1).abs()  # towards the origin, or past it once it is nearer than a step
        total -= distance
    return total


def walked(trainer: Trainer) -> tuple[float, bool]:
    """Discrete dummy: the mean return of 32 steps is within 2% of the optimum for the same starts."""
    evaluator = play(trainer, 32)
    starts = evaluator.rollout.obs[0].flatten()
    optimum = shortest_walk(starts, 32).mean().item()
    value = evaluator.rollout.rewards.sum(0).mean().item()
    return value / optimum - 1, value / optimum - 1 <= 0.02


def jumped(trainer: Trainer) -> tuple[float, bool]:
    """Continuous dummy: after 32 steps 95% of environments are within 2 units of the origin."""
    share = (play(trainer, 32).rollout.rewards[-1] >= -2).float().mean().item()
    return share, share >= 0.95


def recalled(trainer: Trainer) -> tuple[float, bool]:
    """CueRecall: more than 99% of the questions are answered rightly."""
    horizon = 36
    value = play(trainer, horizon).rollout.rewards.sum(0).mean().item() / (horizon // 9)
    return value, value > 0.99


Criterion = Callable[[Trainer], tuple[float, bool]]
CRITERIA: dict[str, tuple[list[str], str, Criterion]] = {
    "cartpole": (["env=cartpole"], "return per 64 steps > -7", balanced),
    "pendulum": (["env=pendulum"], "share held upright >= 95%", upright),
    "mountain_car": (["env=mountain_car"], "share at the goal in 200 steps >= 95%", escaped),
    "discrete_dummy": (["env=discrete_dummy"], "loss against the optimum <= 2%", walked),
    "continuous_dummy": (["env=continuous_dummy"], "share within 2 units >= 95%", jumped),
    "cue_recall": (["env=cue_recall", "algo=recurrent"], "share of right answers > 99%", recalled),
}


def train(words: list[str], folder: Path) -> tuple[Trainer, float]:
    """Train as the command line would; return the trainer and the seconds that its iterations took."""
    with composer():
        plan = check(*checked([*words, "trainer.track=false", "trainer.view=none", "trainer.render=false"]))
    trainer = launch.build(plan, folder)
    begin = time.perf_counter()
    trainer.run()
    return trainer, time.perf_counter() - begin


def study(envs: list[str], seeds: list[int]) -> dict[str, Any]:
    """Return the results of every run."""
    runs = []
    for env in envs:
        words, _, criterion = CRITERIA[env]
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                trainer, seconds = train([*words, f"seed={seed}"], Path(folder))
            value, passed = criterion(trainer)
            history = [
                (metrics["env/steps"], metrics["eval/returns/mean"])
                for metrics in trainer.history
                if "eval/returns/mean" in metrics
            ]
            runs.append(
                {
                    "env": env,
                    "seed": seed,
                    "env_steps": trainer.algorithm.env_steps,
                    "seconds": round(seconds, 1),
                    "value": value,
                    "passed": passed,
                    "curve": history,
                }
            )
            print(f"{env} seed {seed}: {value:.4g} {'passed' if passed else 'FAILED'} in {seconds:.1f} s", flush=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=HERE
    )
    return {
        "hardware": hardware("cpu"),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
        "runs": runs,
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"{results['hardware']}, {results['threads']} threads, torch {results['torch']}, commit {results['commit']}",
        "",
        "| environment | criterion | " + "seeds: value (seconds) | passed |",
        "|---|---|---|---|",
    ]
    for env in dict.fromkeys(run["env"] for run in results["runs"]):
        runs = [run for run in results["runs"] if run["env"] == env]
        values = ", ".join(f"{run['value']:.4g} ({run['seconds']:.0f} s)" for run in runs)
        passed = sum(run["passed"] for run in runs)
        lines.append(f"| {env} | {CRITERIA[env][1]} | {values} | {passed} of {len(runs)} |")
    return "\n".join(lines) + "\n"


def curves(results: dict[str, Any], path: Path) -> None:
    """Draw evaluation returns against env steps, one panel per environment, one line per seed."""
    from matplotlib.figure import Figure

    envs = list(dict.fromkeys(run["env"] for run in results["runs"]))
    figure = Figure(figsize=(4 * min(len(envs), 3), 3 * -(-len(envs) // 3)), dpi=130, layout="constrained")
    for axes, env in zip(
        figure.subplots(-(-len(envs) // 3), min(len(envs), 3), squeeze=False).flat, envs, strict=False
    ):
        for run in results["runs"]:
            if run["env"] == env:
                steps, values = zip(*run["curve"], strict=True)
                axes.plot([step / 1e3 for step in steps], values, "o-", markersize=3, label=f"seed {run['seed']}")
        axes.set_title(env)
        axes.set_xlabel("thousand env steps")
        axes.set_ylabel("evaluation return")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path)


def main() -> None:
    """Run the study and write its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--envs", nargs="+", default=list(CRITERIA), choices=list(CRITERIA))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    prepare()
    results = study(arguments.envs, arguments.seeds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (arguments.out / "table.md").write_text(table(results), encoding="utf-8")
    curves(results, arguments.out / "curves.png")
    print("\n" + table(results))


if __name__ == "__main__":
    main()
