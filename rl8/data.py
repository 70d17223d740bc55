"""Keys of step results and names of metrics, each written down once."""

from __future__ import annotations

from typing import Final

# What `Env.step` may return.
OBS: Final = "obs"
REWARDS: Final = "rewards"
TERMINATED: Final = "terminated"
TRUNCATED: Final = "truncated"
FINAL_OBS: Final = "final_obs"
FILLER: Final = "filler"
METRICS: Final = "metrics"
ACTION_MASK: Final = "action_mask"

# What a truncated episode bootstraps from: `algo.bootstrap`.
BOOTSTRAP_FINAL_OBS: Final = "final_obs"
BOOTSTRAP_LAST_VALUE: Final = "last_value"
BOOTSTRAP_NONE: Final = "none"
BOOTSTRAPS: Final = (BOOTSTRAP_FINAL_OBS, BOOTSTRAP_LAST_VALUE, BOOTSTRAP_NONE)

# Metrics. Counts say what they count: env steps are single transitions (num_envs * horizon per iteration).
ENV_STEPS: Final = "env/steps"
ENV_RESETS: Final = "env/resets"
ITERATIONS: Final = "algorithm/steps"
SPREAD: Final = ("mean", "std", "min", "max")
# Of the last `WINDOW` episodes where episodes end, of the horizon's sums of rewards where they don't.
RETURNS: Final = tuple(f"returns/{part}" for part in SPREAD)
RETURNS_MEAN: Final = "returns/mean"
WINDOW: Final = 100
# Of the episodes that ended since the last iteration that was recorded: how many, their returns and lengths, and the
# share that a time limit ended.
EPISODES_COUNT: Final = "episodes/count"
EPISODES_STD: Final = "episodes/return/std"
EPISODES_MEANS: Final = ("episodes/return/mean", "episodes/length/mean", "episodes/truncated")
EPISODE_METRICS: Final = (
    EPISODES_COUNT,
    *(f"episodes/return/{part}" for part in SPREAD),
    "episodes/length/mean",
    "episodes/truncated",
)
# Of an evaluation's episodes: the share that had not ended when there were enough steps counts with what it had.
EPISODES_UNFINISHED: Final = "episodes/unfinished"
EVAL_EPISODES: Final = ("episodes/length/mean", "episodes/truncated", EPISODES_UNFINISHED)
EVAL_RETURNS_MEAN: Final = "eval/returns/mean"
KL_DIV: Final = "monitors/kl_div"
COLLECT_MS: Final = "profiling/collect_ms"
STEP_MS: Final = "profiling/step_ms"
EVAL_MS: Final = "profiling/eval_ms"
TRANSITIONS_PER_S: Final = "profiling/transitions_per_s"
MEMORY_MB: Final = "memory/peak_mb"
# Names that an environment's own metrics can't have.
RESERVED_METRICS: Final = (ENV_STEPS, ENV_RESETS)
