"""Runs of a few iterations, and what they leave."""

from pathlib import Path

from rl8.tracking.store import open_store

SMALL = {"num_envs": 8, "horizon": 8, "model_config": {"hiddens": [16]}, "eval_num_envs": 4}
QUIET = {**SMALL, "track": False, "view": "none", "render": False}
BATCH = 64  # env steps per iteration
MEASURED = ("profiling/", "memory/")  # metrics that no two runs share


def runs_of(folder):
    """Return a client of the store in a folder, and its runs."""
    client = open_store(f"sqlite:///{folder}/mlflow.db").client
    experiment = client.get_experiment_by_name("rl8")
    return client, client.search_runs([experiment.experiment_id])


def artifacts(run):
    """Return the folder of a run's files."""
    return Path(run.info.artifact_uri.removeprefix("file://"))


def comparable(history):
    return [{name: v for name, v in metrics.items() if not name.startswith(MEASURED)} for metrics in history]
