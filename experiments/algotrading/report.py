"""Makes the study's table and pictures from the newest sweep: `python report.py`, in this folder after training."""

import argparse
import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trading_bounds as bounds
import trading_plots as plots
from torch import Tensor
from trading_runs import (
    FRESH_SEED,
    MODELS,
    Draws,
    Play,
    Setting,
    TrainedRun,
    assets,
    play,
    read_sweep,
    weights,
)

HERE = Path(__file__).resolve().parent
NUM_ENVS, LONG_NUM_ENVS = 4096, 1024
LONG = 4  # the longer comparison, in units of training's horizon
STEPS_SHOWN = 20
CAUSAL = "best without hindsight"
LINES = ("follow the last change", "extrapolate the last two changes", CAUSAL)  # of the learning curves' picture
MARKS = ("<!-- results -->", "<!-- end of results -->")

Strategy = Callable[[Tensor], Tensor]
Row = dict[str, Any]


def rules(draws: Draws) -> dict[str, Strategy]:
    """Return the strategies that need no training, the best last."""
    return {
        "random (allowed actions)": bounds.random,
        "buy and hold": bounds.buy_and_hold,
        "follow the last change": bounds.follow,
        "extrapolate the last two changes": bounds.extrapolate,
        CAUSAL: lambda changes: bounds.causal(changes, draws),
        "best possible (hindsight)": bounds.hindsight,
    }


def share(rewards: Tensor, changes: Tensor) -> float:
    """Return the mean return in units of the mean best possible one."""
    return float(rewards.sum() / bounds.best_return(changes).sum())


def best_evaluation(setting: Setting) -> float:
    """Return the mean best possible return of the assets that evaluations during training trade."""
    env = assets(setting.draws, setting.eval_num_envs, setting.eval_seed)
    return float(bounds.best_return(bounds.price_changes(env, setting.horizon)).mean())


def rule_rows(setting: Setting) -> list[Row]:
    """Return the table's rows of the strategies that need no training."""
    rows = []
    short = bounds.price_changes(assets(setting.draws, NUM_ENVS, FRESH_SEED), setting.horizon)
    long = bounds.price_changes(assets(setting.draws, LONG_NUM_ENVS, FRESH_SEED), LONG * setting.horizon)
    for name, rule in rules(setting.draws).items():
        earned = short * rule(short)
        row = {"strategy": name, "seed": "", "share": share(earned, short), "return": float(earned.sum(0).mean())}
        rows.append({**row, "share_long": share(long * rule(long), long)})
    return rows


def run_row(run: TrainedRun, played: Play) -> Row:
    """Return the table's row of one run."""
    setting = run.setting
    longer = play(run.policy, setting.draws, num_envs=LONG_NUM_ENVS, steps=LONG * setting.horizon)
    best = best_evaluation(setting)
    return {
        "strategy": run.model,
        "seed": run.seed,
        "share": share(played.rewards, played.changes),
        "return": float(played.rewards.sum(0).mean()),
        "share_long": share(longer.rewards, longer.changes),
        "weights": weights(run.policy),
        "env_steps": run.curve[-1][0],
        "env_steps_to_90": next((steps for steps, value in run.curve if value >= 0.9 * best), None),
        "seconds": round(run.seconds, 1),
    }


def table(rows: Sequence[Row], horizon: int) -> str:
    """Return the rows as a Markdown table, one line per model and rule."""
    head = f"strategy, share of the best possible return, lowest seed, return per {horizon} steps, share over "
    head += f"{LONG * horizon} steps, weights, env steps to 90%, seconds per run"
    names = head.split(", ")
    lines = [names, ["---", *["---:"] * (len(names) - 1)]]
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        group = [row for row in rows if row["strategy"] == strategy]
        column = {key: [row.get(key) for row in group] for key in rows[-1]}
        cells = [
            strategy,
            _percent(column["share"]),
            "",
            _mean(column["return"], ".3f"),
            _percent(column["share_long"]),
        ]
        if strategy in MODELS.values():
            reached = column["env_steps_to_90"]
            cells[2] = _percent([min(column["share"])])
            cells += [_mean(column["weights"], ",.0f"), "never" if None in reached else f"{max(reached):,}"]
            cells += [_mean(column["seconds"], ".0f")]
        lines.append(cells + [""] * (len(names) - len(cells)))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def described(runs: Sequence[TrainedRun], rows: Sequence[Row]) -> str:
    """Return the table with what it was made by and from."""
    tags, horizon = runs[0].tags, runs[0].setting.horizon
    seeds = {run.seed for run in runs}
    return (
        f"{table(rows, horizon)}\n\n"
        f"Made by `{tags['command']}` and `python report.py`: {len(seeds)} seeds per model (mean ± standard "
        f"deviation), {runs[0].curve[-1][0]:,} env steps each, one thread on {tags['hardware']}, "
        f"torch {tags['version.torch']}. Final policies act deterministically on {NUM_ENVS:,} fresh assets for "
        f"{horizon} steps ({LONG_NUM_ENVS:,} for {LONG * horizon}), the same for every row. Env steps to 90%: until "
        "an evaluation of the slowest seed got there. Seconds include evaluations."
    )


def draw(plays: Mapping[str, Sequence[tuple[TrainedRun, Play]]], rows: Sequence[Row], folder: Path) -> None:
    """Write the three pictures.

    Args:
        plays: Runs and what their policies did, by model.
        rows: Of the table.
        folder: Where the pictures go.
    """
    run, played = next(iter(plays.values()))[0]
    setting, changes = run.setting, played.changes
    best = best_evaluation(setting)
    curves = {
        model: [[(steps, value / best) for steps, value in run.curve] for run, _ in group]
        for model, group in plays.items()
    }
    limits = {row["strategy"]: row["share"] for row in rows if row["strategy"] in LINES}
    plots.learning_curves(curves, limits, folder / "learning_curves.png")

    earned = {model: sum(play.rewards for _, play in group) / len(group) for model, group in plays.items()}
    earned[CAUSAL] = changes * bounds.causal(changes, setting.draws)
    best_at = (changes * bounds.hindsight(changes)).mean(1)
    by_step = {name: (rewards.mean(1) / best_at)[:STEPS_SHOWN] for name, rewards in earned.items()}
    plots.shares_by_step(by_step, folder / "share_by_step.png")

    invested = {model: group[0][1].invested for model, group in plays.items()}
    invested["best possible"] = bounds.hindsight(changes)
    log_price = torch.cat([torch.zeros(1), changes[:, 0].cumsum(0)])
    price = assets(setting.draws, NUM_ENVS, FRESH_SEED).y0[0] * log_price.exp()
    plots.trades(price, {name: held[:, 0] for name, held in invested.items()}, folder / "trades.png")


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write rows with the union of their keys as columns, fractions rounded."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: round(v, 5) if isinstance(v, float) else v for name, v in row.items()})


def put_into_readme(text: str, readme: Path) -> None:
    """Replace what stands between the two marks."""
    before, rest = readme.read_text(encoding="utf-8").split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    """Read the sweep, play its policies, write `results/` and the README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep", help="MLflow id of the sweep's parent run; by default the newest")
    parser.add_argument("--folder", type=Path, default=HERE / "results", help="where the files go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(FRESH_SEED)  # of the random rule
    args.folder.mkdir(parents=True, exist_ok=True)
    runs = read_sweep(args.sweep)
    setting = runs[0].setting
    plays: dict[str, list[tuple[TrainedRun, Play]]] = {}
    rows = rule_rows(setting)
    for run in runs:
        played = play(run.policy, setting.draws, num_envs=NUM_ENVS, steps=setting.horizon)
        plays.setdefault(run.model, []).append((run, played))
        rows.append(run_row(run, played))
    text = described(runs, rows)
    (args.folder / "table.md").write_text(f"{text}\n", encoding="utf-8")
    write_csv(rows, args.folder / "table.csv")
    points = [
        {"strategy": run.model, "seed": run.seed, "env_steps": steps, "return": value}
        for run in runs
        for steps, value in run.curve
    ]
    write_csv(points, args.folder / "curves.csv")
    draw(plays, rows, args.folder)
    if args.folder == HERE / "results":
        put_into_readme(text, HERE / "README.md")
    print(text)


def _percent(shares: Sequence[float]) -> str:
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.1f}{spread}%"


def _mean(values: Sequence[float], form: str) -> str:
    return format(statistics.mean(values), form)


if __name__ == "__main__":
    main()
