"""Reads a finished sweep of the study from MLflow, and plays its policies on assets that none of them has seen."""

from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory

from algotrading import AlgoTrading
from mlflow import MlflowClient, get_tracking_uri
from mlflow.entities import Run
from torch import Tensor
from trading_bounds import price_changes

from rl8.checkpoint import load_policy
from rl8.policy.policy import Policy
from rl8.rollout.evaluation import Evaluator

EXPERIMENT = "algotrading"
MODELS = {
    "trading_models.WindowedMLP": "MLP over a window",
    "trading_models.TradingLSTM": "LSTM",
    "trading_models.TradingTransformer": "transformer over a window",
}
FRESH_SEED = 2026  # assets of the final comparison

Draws = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Setting:
    """What all runs of a sweep share.

    Attributes:
        draws: Ranges that assets are drawn from.
        horizon: Env steps between resets in training.
        eval_num_envs: Assets of an evaluation during training.
        eval_seed: Which ones these are.
    """

    draws: Draws
    horizon: int
    eval_num_envs: int
    eval_seed: int


@dataclass(frozen=True)
class TrainedRun:
    """One run of the sweep.

    Attributes:
        model: What to call its model.
        seed: Of its random numbers.
        setting: What it shares with the others.
        curve: (env steps, mean return of an evaluation), in order.
        seconds: From the run's start to its end.
        policy: The final one.
        tags: Versions, hardware and command of the run.
    """

    model: str
    seed: int
    setting: Setting
    curve: list[tuple[int, float]]
    seconds: float
    policy: Policy
    tags: dict[str, str]


@dataclass(frozen=True)
class Play:
    """What a policy did with fresh assets.

    Attributes:
        changes: `[T, N]` log price changes.
        rewards: `[T, N]` what the policy earned.
        invested: `[T, N]` bool, whether it was invested after action k.
    """

    changes: Tensor
    rewards: Tensor
    invested: Tensor


def read_sweep(parent_id: str | None = None) -> list[TrainedRun]:
    """Return the runs of a sweep, by default of the newest one in the store that training in this folder uses.

    Raises:
        ValueError: If there is none, one of its runs has not finished, or they traded different assets.
    """
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    parents = [run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags]
    if not parents:
        raise ValueError(
            f"{get_tracking_uri()} has no sweep of the experiment {EXPERIMENT!r}. Type the README's first command."
        )
    parent_id = parent_id or parents[0]  # MLflow lists the newest run first
    chosen = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent_id]
    open_ones = [run.info.run_name for run in chosen if run.info.status != "FINISHED"]
    if open_ones or not chosen:
        raise ValueError(f"Of the sweep {parent_id}, {', '.join(open_ones) or 'nothing'} has finished. Run it again.")
    read = [_read(client, run) for run in chosen]
    if any(run.setting != read[0].setting for run in read):
        raise ValueError(f"The runs of the sweep {parent_id} can't be compared: they traded different assets.")
    order = list(MODELS.values())
    return sorted(read, key=lambda run: (order.index(run.model), run.seed))


def play(policy: Policy, draws: Draws, *, num_envs: int, steps: int) -> Play:
    """Let a policy trade the assets of `FRESH_SEED`, taking the action that it finds best."""
    evaluator = Evaluator(partial(AlgoTrading, **draws), policy, num_envs=num_envs, horizon=steps)
    evaluator.run(config={"seed": FRESH_SEED})
    rollout = evaluator.rollout
    invested = rollout.obs["invested"][rollout.history + 1 :].squeeze(-1) > 0
    return Play(price_changes(evaluator.env, steps), rollout.rewards, invested)


def assets(draws: Draws, num_envs: int, seed: int) -> AlgoTrading:
    """Return environments reset with the assets that belong to a seed."""
    env = AlgoTrading(num_envs, **draws)
    env.reset(config={"seed": seed})
    return env


def weights(policy: Policy) -> int:
    """Return the number of trained weights."""
    return sum(parameter.numel() for parameter in policy.model.parameters())


def _read(client: MlflowClient, run: Run) -> TrainedRun:
    info, data = run.info, run.data
    with TemporaryDirectory() as folder:
        policy = load_policy(client.download_artifacts(info.run_id, "policy.pt", folder))
    return TrainedRun(
        model=MODELS[data.params["model._target_"]],
        seed=int(data.params["seed"]),
        setting=_setting(data.params),
        curve=[(point.step, point.value) for point in client.get_metric_history(info.run_id, "eval/returns/mean")],
        seconds=(info.end_time - info.start_time) / 1000,
        policy=policy,
        tags=dict(data.tags),
    )


def _setting(params: dict[str, str]) -> Setting:
    """Return what MLflow's parameters, dotted names of the config, say about the assets."""
    draws = {}
    for name in ("km", "kc", "f", "y0"):
        limits = [params.get(f"env.{name}.{end}") or params[f"env.{name}"] for end in ("low", "high")]
        draws[name] = {"low": float(limits[0]), "high": float(limits[1])}
    return Setting(
        draws=draws,
        horizon=int(params["algo.horizon"]),
        eval_num_envs=int(params["trainer.eval_num_envs"]),
        eval_seed=int(params["trainer.eval_env_config.seed"]),
    )
