"""Every number that steers PPO: its default, its range, and the combinations that make no sense.

This file imports no torch, so that a config is checked before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

from rl8.checks import MAX_COUNT, check_choice, check_range, largest_divisor, unknown
from rl8.data import BOOTSTRAPS
from rl8.kinds import convert_fields
from rl8.ppo.schedule_options import check_scheduled, check_schedules, rates

# Environments if none are asked for on a CPU, where 8192 would make a first run wait; conf/device/cpu.yaml repeats it.
CPU_NUM_ENVS: Final = 256

# What `Algorithm.change` may change while a policy is trained: no size and no structure.
CHANGEABLE: Final = (
    "gamma",
    "gae_lambda",
    "clip_param",
    "vf_clip_param",
    "dual_clip_param",
    "vf_coeff",
    "entropy_coeff",
    "target_kl_div",
    "max_grad_norm",
)


@dataclass(frozen=True)
class Hyperparameters:
    """PPO's options, checked when built and frozen afterwards.

    Attributes:
        num_envs: Environments that run in parallel, N. One iteration collects `num_envs * horizon` env steps. An
            `Algorithm` on a CPU takes `CPU_NUM_ENVS` if none is given.
        horizon: Env steps per environment and iteration, T.
        horizons_per_env_reset: Horizons between resets of the environment; 1 resets before each, negative only once.
            None is -1 where episodes end by themselves, which a reset would cut off, and 1 elsewhere.
        random_initial_ages: Whether a reset begins episodes at random ages, so that time limits don't end all of them
            together; where the environment can.
        bootstrap: What an episode that a time limit cut off bootstraps from: `"final_obs"` the value of its last
            observation, `"last_value"` the value before its last step (what rsl_rl does, for simulators that return the
            observation after the reset only), `"none"` nothing, as if it had terminated. None takes `"final_obs"`
            where the environment gives that observation, else `"last_value"`.
        gamma: Discount factor, in [0, 1].
        gae_lambda: Lambda of generalized advantage estimation, in [0, 1]: 0 is low variance, 1 is low bias.
        num_sgd_iters: Passes over the collected data per iteration.
        sgd_minibatch_size: Env steps per minibatch, a divisor of `num_envs * horizon`; None takes all in one.
        shuffle_minibatches: Whether each pass visits the data in a new random order.
        clip_param: Distance that the probability ratio may move from 1 before its gradient stops, > 0.
        vf_clip_param: Distance that a value may move from its old one before its gradient stops, in units of the
            (scaled) return; None does not clip.
        dual_clip_param: Bound, > 1, on ratio times a negative advantage (arXiv:1912.09729); None does not clip.
        vf_coeff: Weight of the value loss.
        vf_huber_delta: Error beyond which the value loss grows linearly (Huber), in units of the (scaled) return, > 0;
            None squares every error.
        critic_lr: Learning rate of the parameters that only the value depends on, > 0; None is that of all others.
            Schedules and `desired_kl` move both by one factor.
        entropy_coeff: Weight of the entropy bonus, unless `entropy_coeff_schedule` is given.
        entropy_coeff_schedule: Pairs of (env steps, weight), or None.
        entropy_coeff_schedule_kind: `"step"` holds each weight until the next, `"interp"` moves linearly.
        lr_schedule: Pairs of (env steps, learning rate), or None for the optimizer's own.
        lr_schedule_kind: As `entropy_coeff_schedule_kind`.
        schedules: Points (env steps, value) by the name of a number, which moves linearly from point to point, from
            its own value at env step 0 unless a point is there: `{"clip_param": [[1_000_000, 0.0]]}`. Numbers are
            those of `rl8.ppo.schedule_options.SCHEDULED`; each is read where a horizon begins.
        desired_kl: KL divergence per update that the learning rate is adapted to; None leaves it to schedules. See
            `rl8.ppo.adaptive`.
        min_lr: Least rate that `desired_kl` may lead to.
        max_lr: Largest rate that it may lead to.
        target_kl_div: KL divergence from the collecting policy after which the iteration's remaining minibatches
            are skipped; None never skips.
        max_grad_norm: Gradients are scaled down to this norm; None does not scale.
        normalize_advantages: Whether advantages are shifted and scaled to mean 0, std 1 over the whole batch.
        normalize_advantages_per_minibatch: Whether that is done over each minibatch instead, as CleanRL and SB3 do.
        normalize_rewards: Whether rewards are divided by the running std of discounted returns.
        normalize_obs: Whether observations are shifted and scaled by their running mean and std.
        clip_rewards: Limit of a reward's size that is learned from, after scaling, > 0; None is 10 where
            `normalize_rewards`, and none elsewhere.
        clip_obs: Limit of a normalised observation's size, in stds, > 0.
        accumulate_grads: Whether one pass takes one optimizer step, summing its minibatches' gradients.
        enable_amp: Whether networks compute in `amp_dtype` (master weights stay float32).
        amp_dtype: `"bf16"`, or `"fp16"` with a loss scaler.
        seq_len: Env steps through which a gradient flows back in time, L; a divisor of `horizon`. 1 for feedforward.
        seqs_per_state_reset: Sequences between resets of the recurrent state to zero; negative resets it only where
            the environment is reset.
    """

    num_envs: int = 8192
    horizon: int = 32
    horizons_per_env_reset: int | None = None
    random_initial_ages: bool = False
    bootstrap: str | None = None
    gamma: float = 0.95
    gae_lambda: float = 0.95
    num_sgd_iters: int = 4
    sgd_minibatch_size: int | None = None
    shuffle_minibatches: bool = True
    clip_param: float = 0.2
    vf_clip_param: float | None = None
    dual_clip_param: float | None = None
    vf_coeff: float = 1.0
    vf_huber_delta: float | None = None
    critic_lr: float | None = None
    entropy_coeff: float = 0.0
    entropy_coeff_schedule: Any = None
    entropy_coeff_schedule_kind: str = "step"
    lr_schedule: Any = None
    lr_schedule_kind: str = "step"
    schedules: Any = None
    desired_kl: float | None = None
    min_lr: float = 1e-5
    max_lr: float = 1e-2
    target_kl_div: float | None = None
    max_grad_norm: float | None = 5.0
    normalize_advantages: bool = True
    normalize_advantages_per_minibatch: bool = False
    normalize_rewards: bool = True
    normalize_obs: bool = False
    clip_rewards: float | None = None
    clip_obs: float = 10.0
    accumulate_grads: bool = False
    enable_amp: bool = False
    amp_dtype: str = "bf16"
    seq_len: int = 1
    seqs_per_state_reset: int = -1

    def __post_init__(self) -> None:
        """Check every range, then the combinations.

        Raises:
            TypeError: If a value is of the wrong kind.
            ValueError: If a value is out of range or two contradict each other.
        """
        self._check_ranges()
        self._check_combinations()

    @classmethod
    def build(cls, options: dict[str, Any]) -> Hyperparameters:
        """Return the hyperparameters with `options` set, refusing unknown names.

        Raises:
            TypeError: If an option does not exist; the message has the nearest match.
        """
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise TypeError(unknown("option", name, names))
        return cls(**options)

    @property
    def batch_size(self) -> int:
        """Env steps per iteration."""
        return self.num_envs * self.horizon

    @property
    def minibatch_size(self) -> int:
        """Env steps per minibatch."""
        return self.sgd_minibatch_size or self.batch_size

    @property
    def num_minibatches(self) -> int:
        """Minibatches per pass."""
        return self.batch_size // self.minibatch_size

    @property
    def whole_steps(self) -> bool:
        """Whether a minibatch is an optimizer step by itself, of the gradient of the loss alone."""
        return not (self.accumulate_grads or self.desired_kl is not None)

    def _check_ranges(self) -> None:
        convert_fields(self, "algo")
        object.__setattr__(self, "schedules", check_schedules(self.schedules))
        for name in ("num_envs", "horizon", "num_sgd_iters", "seq_len"):
            check_range(f"algo.{name}", getattr(self, name), 1, integer=True)
        check_range("algo.sgd_minibatch_size", self.sgd_minibatch_size, 1, integer=True, optional=True)
        for name in ("horizons_per_env_reset", "seqs_per_state_reset"):
            check_range(f"algo.{name}", getattr(self, name), integer=True, optional=name == "horizons_per_env_reset")
            if getattr(self, name) == 0:
                raise ValueError(
                    f"algo.{name}=0 means nothing. Accepted: an integer >= 1, or negative for never. "
                    f"Try algo.{name}=1 or algo.{name}=-1."
                )
        for name in ("gamma", "gae_lambda"):
            check_range(f"algo.{name}", getattr(self, name), 0, 1, hint=f"algo.{name}=0.95")
        check_range("algo.clip_param", self.clip_param, 0, low_open=True, hint="algo.clip_param=0.2")
        check_range("algo.vf_clip_param", self.vf_clip_param, 0, low_open=True, optional=True)
        check_range(
            "algo.dual_clip_param", self.dual_clip_param, 1, low_open=True, optional=True, hint="algo.dual_clip_param=5"
        )
        for name in ("vf_coeff", "entropy_coeff"):
            check_range(f"algo.{name}", getattr(self, name), 0)
        for name in ("min_lr", "max_lr"):
            check_range(f"algo.{name}", getattr(self, name), 0, low_open=True)
        check_range("algo.clip_obs", self.clip_obs, 0, low_open=True)
        optional = ("desired_kl", "target_kl_div", "max_grad_norm", "vf_huber_delta", "critic_lr", "clip_rewards")
        for name in optional:
            check_range(f"algo.{name}", getattr(self, name), 0, low_open=True, optional=True)
        if self.bootstrap is not None:
            check_choice("algo.bootstrap", self.bootstrap, BOOTSTRAPS)
        check_choice("algo.amp_dtype", self.amp_dtype, ("bf16", "fp16"))
        for name in ("lr_schedule_kind", "entropy_coeff_schedule_kind"):
            check_choice(f"algo.{name}", getattr(self, name), ("step", "interp"))
        check_scheduled(self)

    def _check_combinations(self) -> None:
        batch, size = self.batch_size, self.minibatch_size
        if batch > MAX_COUNT:
            good = max(1, min(1024, MAX_COUNT // self.horizon))
            raise ValueError(
                f"algo.num_envs={self.num_envs} times algo.horizon={self.horizon} is too large. Accepted: up to "
                f"{MAX_COUNT:,} env steps per iteration. Try algo.num_envs={good}."
            )
        if self.horizon % self.seq_len:
            good = largest_divisor(self.horizon, self.seq_len)
            raise ValueError(
                f"algo.seq_len={self.seq_len} does not divide algo.horizon={self.horizon}. "
                f"Use a divisor, e.g. algo.seq_len={good}."
            )
        if batch % size:
            raise ValueError(
                f"algo.sgd_minibatch_size={size} does not divide num_envs * horizon = {batch}. "
                f"Use a divisor, e.g. algo.sgd_minibatch_size={self._accepted_minibatch(size)}."
            )
        if size % self.seq_len:
            raise ValueError(
                f"algo.sgd_minibatch_size={size} is no multiple of algo.seq_len={self.seq_len}: no sequence is cut. "
                f"Try algo.sgd_minibatch_size={self._accepted_minibatch(size)}."
            )
        if self.accumulate_grads and self.num_minibatches == 1:
            raise ValueError(
                f"algo.accumulate_grads=true has nothing to accumulate: one minibatch holds all {batch} env steps. "
                "Try algo.accumulate_grads=false, or a smaller minibatch, e.g. "
                f"algo.sgd_minibatch_size={self._accepted_minibatch(batch // 4)}."
            )
        if self.min_lr > self.max_lr:
            raise ValueError(
                f"algo.min_lr={self.min_lr:g} is above algo.max_lr={self.max_lr:g}. Accepted: min_lr <= max_lr. "
                f"Try algo.max_lr={self.min_lr:g}."
            )
        if self.desired_kl is not None and rates(self)[0] is not None:
            raise ValueError(
                f"algo.desired_kl={self.desired_kl:g} and algo.{rates(self)[1]} both say the learning rate. "
                f"Accepted: one of them. Try algo.{rates(self)[1]}=null, or algo.desired_kl=null."
            )
        if self.normalize_advantages and batch == 1:
            raise ValueError(
                "algo.normalize_advantages=true needs more than one env step per iteration: one sample has no std. "
                "Try algo.normalize_advantages=false."
            )

    def _accepted_minibatch(self, limit: int) -> int:
        """Return the largest size up to `limit` that holds whole sequences and divides the batch, or one sequence."""
        return self.seq_len * largest_divisor(self.batch_size // self.seq_len, max(1, limit // self.seq_len))
