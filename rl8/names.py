"""What other libraries call rl8's options: names that people bring along are answered with ours.

Sources: the documented options of Stable-Baselines3's PPO, CleanRL's ppo.py, rsl_rl's and rl_games' configurations and
skrl's PPO_CFG.
"""

from __future__ import annotations

from typing import Any, Final

_ENV: Final = "env=<option>, or for Gymnasium's tasks env=gymnasium env.id=<name>"

# Our key: their names. A value may need another form; the comment of the key in conf/ says which.
THEIRS: Final = {
    "algo.optimizer.lr": "lr learning_rate learning_rate_init actor_lr",
    "algo.lr_schedule": "anneal_lr learning_rate_schedule learning_rate_scheduler lr_decay schedule",
    "algo.horizon": "n_steps num_steps num_steps_per_env horizon_length rollouts rollout_length rollout_steps "
    "steps_per_rollout unroll_length",
    "algo.num_envs": "n_envs nenvs num_actors num_environments n_environments",
    "algo.num_sgd_iters": "n_epochs update_epochs num_learning_epochs mini_epochs learning_epochs num_epochs epochs "
    "ppo_epochs",
    "algo.sgd_minibatch_size": "batch_size minibatch_size mini_batch_size num_minibatches num_mini_batches "
    "mini_batches n_minibatches",
    "algo.gamma": "discount discount_factor",
    "algo.gae_lambda": "lam lambda lambda_ tau gae gae_lam",
    "algo.clip_param": "clip_range clip_coef e_clip ratio_clip clip_ratio clip_eps clip epsilon",
    "algo.vf_clip_param": "clip_range_vf clip_vloss use_clipped_value_loss clip_value value_clip clip_predicted_values",
    "algo.vf_coeff": "vf_coef value_loss_coef critic_coef value_loss_scale value_coef",
    "algo.entropy_coeff": "ent_coef entropy_coef entropy_loss_scale entropy_loss_coef entropy_beta",
    "algo.target_kl_div": "target_kl kl_target",
    "algo.desired_kl": "kl_threshold adaptive_kl",
    "algo.max_grad_norm": "grad_norm grad_norm_clip gradient_clip max_gradient_norm truncate_grads",
    "algo.normalize_advantages": "normalize_advantage norm_adv",
    "algo.normalize_advantages_per_minibatch": "normalize_advantage_per_mini_batch",
    "algo.clip_rewards": "clip_reward reward_clip",
    "algo.clip_obs": "clip_observations obs_clip",
    "algo.critic_lr": "value_lr vf_lr critic_learning_rate",
    "algo.normalize_obs": "norm_obs normalize_input empirical_normalization obs_normalization state_preprocessor "
    "normalize_observations actor_obs_normalization",
    "algo.normalize_rewards": "norm_reward normalize_reward rewards_shaper normalize_value reward_scaling",
    "algo.enable_amp": "mixed_precision amp bf16 fp16",
    "algo.seq_len": "seq_length sequence_length bptt bptt_len bptt_horizon",
    "algo.optimizer._target_": "optimizer_class optimizer",
    "network.hiddens": "net_arch hidden_dims hidden_sizes hidden_size hidden_layers actor_hidden_dims "
    "critic_hidden_dims units hidden_units",
    "model.activation": "activation_fn activation_function",
    "network.log_std": "log_std_init init_noise_std initial_log_std init_std",
    "goal.env_steps": "total_timesteps timesteps max_timesteps num_timesteps total_steps max_steps num_env_steps "
    "num_iterations max_iterations max_epochs num_frames max_frames",
    "trainer.steps_per_eval": "eval_freq eval_interval evaluate_every eval_every",
    "trainer.eval_num_envs": "n_eval_episodes eval_episodes num_eval_envs",
    "trainer.steps_per_checkpoint": "save_interval save_freq checkpoint_interval save_frequency save_every",
    "trainer.output_dir": "logdir log_dir tensorboard_log output save_dir train_dir",
    "trainer.experiment_name": "exp_name experiment project wandb_project_name",
    "trainer.view": "verbose progress_bar",
    "trainer.resume": "load_checkpoint load_run resume_path checkpoint",
    "trainer.render": "capture_video record_video video",
    "device.num_threads": "torch_threads n_cpu",
    "device.compile": "torch_compile compile_mode",
    "stop=wall_time stop.seconds=<seconds>": "hours minutes seconds max_time time_limit timeout wall_time max_hours",
    _ENV: "env_id gym_id env_name",
    "env=<option>": "task",
    "device=cuda": "gpu use_gpu use_cuda",
}

# Their names whose values have another unit or form than ours, and what ours has.
FORMS: Final = {
    "num_iterations max_iterations max_epochs": "it counts env steps, algo.num_envs * algo.horizon an iteration",
    "num_minibatches num_mini_batches mini_batches n_minibatches": "it is the size of a minibatch, not how many there "
    "are",
    "n_eval_episodes eval_episodes": "it counts environments, each for algo.horizon steps",
    "eval_freq eval_interval evaluate_every eval_every save_interval save_freq checkpoint_interval save_frequency "
    "save_every": "it counts iterations",
    "anneal_lr lr_decay learning_rate_scheduler schedule": "it lists env steps and values; algo.schedules.lr=linear "
    "falls to 0",
    "clip_vloss use_clipped_value_loss clip_predicted_values truncate_grads": "it is a limit, and null for none",
    "init_noise_std init_std": "it is the logarithm",
    "hidden_size hidden_units": "it is a list, [64, 64] for two layers",
    "verbose progress_bar": "it is auto, live, plain or none",
    "reward_scaling rewards_shaper": "it is true or false",
}

_FORM_OF: Final = {name: form for names, form in FORMS.items() for name in names.split()}

_OURS: Final = {name: ours for ours, names in THEIRS.items() for name in names.split()}

# Options of `Trainer` and `Algorithm` that are not named like the last part of the key: what to write, and a value.
_IN_PYTHON: Final[dict[str, tuple[str, Any]]] = {
    "algo.optimizer.lr": ('optimizer_config={{"lr": {}}}', 1e-3),
    "algo.optimizer._target_": ("optimizer_cls=torch.optim.Adam", None),
    "network.hiddens": ('model_config={{"hiddens": {}}}', [64, 64]),
    "model.activation": ('model_config={{"activation": {}}}', "tanh"),
    "network.log_std": ('model_config={{"log_std": {}}}', 0.0),
    "goal.env_steps": ("run(stop_conditions=[rl8.conditions.EnvSteps({})])", 1_000_000),
    "device.num_threads": ("device=rl8.DeviceSettings(num_threads={})", 1),
    "device.compile": ("device=rl8.DeviceSettings(compile={})", True),
    "device=cuda": ('device="cuda"', None),
    "stop=wall_time stop.seconds=<seconds>": ("run(stop_conditions=[rl8.conditions.WallTime(600)])", None),
    _ENV: (
        "the environment's class as the first argument, or rl8.env.adapters.wrap(a vector environment)",
        None,
    ),
    "env=<option>": ("the environment's class as the first argument", None),
}


def ours(name: str) -> str | None:
    """Return our key for an option that another library calls `name`, None if none does."""
    return _OURS.get(_plain(name))


def form(name: str) -> str | None:
    """Return what our key's values are where those of another library's `name` are something else; else None."""
    return _FORM_OF.get(_plain(name))


def _plain(name: str) -> str:
    return name.rpartition(".")[2].lower().replace("-", "_")


def ours_in_python(name: str, value: Any = None) -> str | None:
    """Return what to write in Python for an option that another library calls `name`, None if none does.

    Args:
        name: Their name.
        value: What they gave; an example stands for one of another kind than ours takes.
    """
    key = ours(name)
    if key is None or key not in _IN_PYTHON:
        return None if key is None else key.rpartition(".")[2]
    text, example = _IN_PYTHON[key]
    kind = (int, float) if isinstance(example, float) else type(example)
    fits = form(name) is None and isinstance(value, kind) and isinstance(value, bool) == isinstance(example, bool)
    return text.format(repr(value if fits else example))
