"""Tables of option names for people who come from other libraries."""

from __future__ import annotations

from typing import Final

import configuration

from rl8.names import THEIRS

#: Our key: name and default in SB3's PPO, CleanRL's ppo.py and rsl_rl's PPO; None where there is no such option.
DEFAULTS: Final[dict[str, tuple[str | None, str | None, str | None]]] = {
    "algo.num_envs": ("n_envs 1", "num_envs 4", None),
    "algo.horizon": ("n_steps 2048", "num_steps 128", "num_steps_per_env"),
    "algo.num_sgd_iters": ("n_epochs 10", "update_epochs 4", "num_learning_epochs 5"),
    "algo.sgd_minibatch_size": ("batch_size 64", "num_minibatches 4", "num_mini_batches 4"),
    "algo.gamma": ("gamma 0.99", "gamma 0.99", "gamma 0.99"),
    "algo.gae_lambda": ("gae_lambda 0.95", "gae_lambda 0.95", "lam 0.95"),
    "algo.clip_param": ("clip_range 0.2", "clip_coef 0.2", "clip_param 0.2"),
    "algo.vf_clip_param": ("clip_range_vf None", "clip_vloss True", "use_clipped_value_loss True"),
    "algo.vf_coeff": ("vf_coef 0.5", "vf_coef 0.5", "value_loss_coef 1.0"),
    "algo.entropy_coeff": ("ent_coef 0.0", "ent_coef 0.01", "entropy_coef 0.01"),
    "algo.max_grad_norm": ("max_grad_norm 0.5", "max_grad_norm 0.5", "max_grad_norm 1.0"),
    "algo.optimizer.lr": ("learning_rate 3e-4", "learning_rate 2.5e-4", "learning_rate 1e-3"),
    "algo.lr_schedule": (None, "anneal_lr True", "schedule adaptive"),
    "algo.desired_kl": (None, None, "desired_kl 0.01"),
    "algo.target_kl_div": ("target_kl None", "target_kl None", None),
    "algo.normalize_advantages": ("normalize_advantage True", "norm_adv True", None),
    "algo.normalize_advantages_per_minibatch": (None, None, "normalize_advantage_per_mini_batch False"),
    "goal.env_steps": ("total_timesteps", "total_timesteps 500000", "max_iterations"),
}


def defaults() -> str:
    """Return the table of the common options: what they are called, and their defaults."""
    ours = {row.key: row for name in ("config", "algo/ppo") for row in configuration.rows(_file(name))}
    lines = ["| rl8 | default | SB3 | CleanRL | rsl_rl |", "|---|---|---|---|---|"]
    for key, theirs in DEFAULTS.items():
        cells = ["-" if one is None else "`{}` {}".format(*f"{one} ".split(" ", 1)).strip() for one in theirs]
        lines.append(" | ".join([f"| `{key}`", f"`{ours[key].value}`", *cells]) + " |")
    return "\n".join(lines)


def names() -> str:
    """Return the table of all names that rl8 answers with its own."""
    lines = ["| rl8 | names elsewhere |", "|---|---|"]
    lines += [f"| `{key}` | {', '.join(f'`{name}`' for name in names.split())} |" for key, names in THEIRS.items()]
    return "\n".join(lines)


def filled(text: str) -> str:
    """Return a page with its tables where it names them, `<!-- table: defaults -->`."""
    for table in (defaults, names):
        text = text.replace(f"<!-- table: {table.__name__} -->", table())
    return text


def _file(name: str) -> configuration.Path:
    return configuration.CONF / f"{name}.yaml"
