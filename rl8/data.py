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
RETURNS_MEAN: Final = "returns/mean"
EVAL_RETURNS_MEAN: Final = "eval/returns/mean"
KL_DIV: Final = "monitors/kl_div"
COLLECT_MS: Final = "profiling/collect_ms"
STEP_MS: Final = "profiling/step_ms"
EVAL_MS: Final = "profiling/eval_ms"
TRANSITIONS_PER_S: Final = "profiling/transitions_per_s"
MEMORY_MB: Final = "memory/peak_mb"
# Names that an environment's own metrics can't have.
RESERVED_METRICS: Final = (ENV_STEPS, ENV_RESETS)
