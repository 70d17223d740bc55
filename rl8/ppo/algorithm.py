"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), for feedforward and recurrent policies alike.

One iteration is `collect` (fill the rollout) and `step` (advantages, then passes of minibatch updates). This file says
what is computed; `rl8.execution` says how, on a CPU or in CUDA graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from rl8.calls import in_python
from rl8.data import BOOTSTRAP_FINAL_OBS
from rl8.distributions import Distribution
from rl8.env import Env
from rl8.env.making import make_env
from rl8.execution.eager import Eager, as_set
from rl8.execution.kinds import execution_for
from rl8.execution.pieces import Rows
from rl8.kinds import plain
from rl8.models import Model
from rl8.policy.policy import Policy
from rl8.ppo import processes, resume
from rl8.ppo.adaptive import AdaptiveRate
from rl8.ppo.advantages import advantages_of, normalize_minibatch, std_mean
from rl8.ppo.changes import change
from rl8.ppo.coefficients import Coefficients
from rl8.ppo.critic import give_critic_its_rate
from rl8.ppo.effects import check_given
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.losses import ExtraLoss, PPOLoss, check_extra_losses, ppo_loss, with_extra
from rl8.ppo.metrics import KL_DIV, UpdateMetrics
from rl8.ppo.optim import build_optimizer, clip_gradient, host_rate, set_learning_rate
from rl8.ppo.options import check_kind, check_options, check_parts, fitting_defaults, learning_rate, validated
from rl8.ppo.reward_scaling import RewardScaler
from rl8.ppo.works import Works
from rl8.rollout.episodes import Episodes
from rl8.rollout.metrics import Metrics, reward_metrics
from rl8.rollout.nonfinite import leave_out_nonfinite
from rl8.rollout.rollout import Minibatch, Rollout
from rl8.settings import DeviceSettings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from rl8.ppo.typed import HyperparameterOptions


class Algorithm:
    """PPO on one environment class.

    Args:
        env_cls: Class (or function with the same arguments) that makes the environments.
        model: A ready model, instead of `model_cls`.
        model_cls: Class of the model; by default an MLP, or an LSTM for `RecurrentAlgorithm`.
        model_config: Keywords for `model_cls`.
        distribution_cls: Class of the action distribution; by default the one for the environment's action spec.
        optimizer_cls: Class of the optimizer.
        optimizer_config: Keywords for `optimizer_cls`; by default a learning rate of 1e-3.
        extra_losses: Further terms of the loss by name, each a weight and a function that takes the policy and a
            `Minibatch` and returns a 0-d tensor; see `rl8.ppo.losses.ExtraLoss`. They are logged as `losses/<name>`.
        device: `"cpu"`, `"cuda"`, `"cuda:<index>"`, or `DeviceSettings` for more.
        **options: Fields of `Hyperparameters`.

    Attributes:
        hparams: All numbers, frozen.
        env_cls: What made the environments.
        env: The environments.
        episodes: What came of the episodes that ended; None where none do.
        policy: What is trained.
        rollout: The last horizon.
        env_steps: Env steps collected so far.
        horizon_begin: Those before the last horizon, at which schedules are read.
        iterations: Calls of `step` so far.
        resets: Resets of the environment so far.
        known_resets: Those that the environment had counted at the last of them: evaluation may share it.
        metrics: Of the last update.
        execution: How all of it is computed.
        skips_nonfinite: Whether environments and minibatches with numbers that are infinite or NaN are left out.

    Raises:
        TypeError: If an option does not exist or has the wrong type.
        ValueError: If an option is out of range, or environment, model and distribution do not fit together.
    """

    recurrent = False
    skips_nonfinite = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    @in_python()
    def __init__(
        self,
        env_cls: Callable[..., Env],
        /,
        *,
        model: Model | None = None,
        model_cls: type[Model] | None = None,
        model_config: Mapping[str, Any] | None = None,
        distribution_cls: type[Distribution] | None = None,
        optimizer_cls: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_config: Mapping[str, Any] | None = None,
        extra_losses: Mapping[str, ExtraLoss] | None = None,
        device: str | torch.device | DeviceSettings = "cpu",
        **options: Unpack[HyperparameterOptions],
    ) -> None:
        check_options(Algorithm, options)
        model_config, optimizer_config = check_parts(plain(model_config), plain(optimizer_config))
        settings = device if isinstance(device, DeviceSettings) else DeviceSettings(device=str(device))
        settings = processes.joined(settings)
        fitting = fitting_defaults(env_cls, settings.device, options)
        hparams = Hyperparameters.build({**fitting, **self.defaults, **options})
        execution = execution_for(settings, enable_amp=hparams.enable_amp, amp_dtype=hparams.amp_dtype)
        self.execution: Eager = execution
        self.device = execution.device
        self.lr = learning_rate(hparams, optimizer_config)
        self.coefficients = Coefficients(hparams, self.device)
        self.env_cls = env_cls
        self.env = make_env(env_cls, hparams.num_envs, hparams.horizon, self.device)
        self.hparams = hparams = validated(hparams, self.env)
        self.built = resume.as_built(self.env)
        self.policy = Policy(
            self.env.observation_spec,
            self.env.action_spec,
            model=model,
            model_cls=model_cls,
            model_config=model_config,
            distribution_cls=distribution_cls,
            recurrent=self.recurrent,
            normalize_obs=hparams.normalize_obs,
            clip_obs=hparams.clip_obs,
            device=self.device,
            autocast=execution.autocast,
        )
        check_kind(self.policy, hparams, recurrent=self.recurrent)
        check_given({"model_config": model_config, **options}, self)
        processes.begin_equal(self, {"_target_": optimizer_cls, **optimizer_config})
        self.rollout = Rollout(
            self.policy,
            hparams.num_envs,
            hparams.horizon,
            seq_len=hparams.seq_len,
            seqs_per_state_reset=hparams.seqs_per_state_reset,
            bootstrap=hparams.bootstrap or BOOTSTRAP_FINAL_OBS,
            ends=self.env.has_ends,
        )
        self.episodes: Episodes | None = Episodes(hparams.num_envs, self.device) if self.env.has_ends else None
        execution.attach(self.env, self.policy, self.rollout, minibatches=hparams.num_minibatches)
        self.reward_scaler = RewardScaler(hparams.num_envs, hparams.gamma, hparams.clip_rewards).to(self.device)
        self.parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        optimizer_config = {**optimizer_config, "lr": self.lr(0)}
        self.optimizer = build_optimizer(
            optimizer_cls, self.parameters, optimizer_config, graphs=execution.live_optimizer
        )
        give_critic_its_rate(self.optimizer, self.policy, self.lr(0), hparams.critic_lr)
        self.rate = AdaptiveRate(self.optimizer, hparams, self.device)
        self.env_steps = self.iterations = self.resets = self.horizons = 0
        self.known_resets = 0
        self.horizon_begin = 0
        self._buffered = self._reset_wanted = False
        self._extra_losses = MappingProxyType(check_extra_losses(extra_losses or {}))
        self.metrics = UpdateMetrics(self.device, tuple(self.extra_losses))
        self._loss = execution.compiled(self._loss_of)
        self.works = Works(self)

    @property
    def extra_losses(self) -> Mapping[str, ExtraLoss]:
        """Further terms of the loss, as they were given: what computes them is chosen then, so none can come later."""
        return self._extra_losses

    # ------------------------------------------------------------------------------------------------- collect

    @as_set
    def collect(self, *, env_config: dict[str, Any] | None = None, deterministic: bool = False) -> Metrics:
        """Collect one horizon in every environment.

        Args:
            env_config: Settings for the environment's reset, if this call resets it; see `horizons_per_env_reset`.
            deterministic: Whether actions are the distribution's mode rather than a sample.

        Returns:
            Metrics of raw rewards; of returns, which are sums over the horizon, or those of the last episodes where
            episodes end; of these, `episodes/...`; and `env/...` as the environment reports them. 0-d tensors on the
            device, NaN where nothing is known yet.
        """
        if self._reset_due():
            if env_config:
                self.start(env_config)
            else:
                self.works.restart()
            self.resets += 1
            self.known_resets = self.env.resets
        else:
            self.works.resume()
        if deterministic:
            self.execution.collect(deterministic=True)
        else:
            self.works.collect()
        self.horizons += 1
        if self.env.opaque:
            self.rollout.align()
        self.horizon_begin = self.env_steps
        self.env_steps += self.rollout.env_steps()
        self._buffered = True
        if self.skips_nonfinite:
            self.metrics.nonfinite_envs.copy_(leave_out_nonfinite(self.rollout))
            self.execution.forget()
        if self.episodes is not None:
            self.works.count()
        return self.works.rewards(*self.rollout.env_metrics.sums)

    def start(self, env_config: dict[str, Any] | None = None) -> None:
        """Begin a horizon with a reset."""
        self.rollout.start(self.execution.reset(env_config, random_ages=self.hparams.random_initial_ages))
        if self.episodes is not None:
            self.episodes.begin(random_ages=self.hparams.random_initial_ages)
        self.reward_scaler.reset()

    def reward_metrics(self) -> Metrics:
        """Return metrics of the last horizon; see `collect`."""
        metrics = reward_metrics(self.rollout.rewards, self.rollout.weights, together=True)
        metrics |= self.rollout.env_metrics.means(together=True)
        return metrics if self.episodes is None else metrics | self.episodes.metrics()

    def reset_next(self) -> None:
        """Let the next horizon begin with a reset of the environment, whether one is due or not."""
        self._reset_wanted = True

    def _reset_due(self) -> bool:
        wanted, self._reset_wanted = self._reset_wanted, False
        if wanted:
            return True
        every = self.hparams.horizons_per_env_reset or 1
        begun = self.horizons > 0 and self.env.resets == self.known_resets
        return not begun or (every > 0 and self.horizons % every == 0)

    # --------------------------------------------------------------------------------------------------- update

    @as_set
    def step(self) -> Metrics:
        """Update the policy from what was collected.

        Returns:
            Metrics averaged over the update's minibatches, 0-d tensors on the device.

        Raises:
            RuntimeError: If nothing was collected since the last update.
        """
        if not self._buffered:
            raise RuntimeError("There is nothing to learn from. Call collect() before each step().")
        self._buffered = False
        self.works.prepare()
        if self.lr.moves:
            set_learning_rate(self.optimizer, self.lr(self.horizon_begin))
        self.coefficients.read(self.horizon_begin)
        self.rate.begin()
        self.metrics.totals.zero_()
        whole = self.hparams.whole_steps and self.works.steps_at_once and not self.skips_nonfinite
        self.execution.begin_update(self.optimizer if whole else None, self.hparams.max_grad_norm)
        minibatches = self._passes()
        self._update_normalizers()
        self.iterations += 1
        return self.works.learned(minibatches, host_rate(self.optimizer), self.hparams.vf_coeff, self.skips_nonfinite)

    @torch.no_grad()
    def compute_advantages(self) -> None:
        """Scale rewards, compute advantages and returns, and which share of the returns' variance values explain."""
        hparams, rollout = self.hparams, self.rollout
        rewards = rollout.rewards
        if hparams.normalize_rewards:
            counted = None if rollout.weights is None else rollout.weights > 0
            rewards = self.reward_scaler(rewards, rollout.is_last, counted)
        elif hparams.clip_rewards is not None:
            rewards = rewards.clamp(-hparams.clip_rewards, hparams.clip_rewards)
        factors = {"gamma": hparams.gamma, "gae_lambda": hparams.gae_lambda}
        advantages = self.execution.advantages(advantages_of, rewards, **factors)
        torch.add(advantages, rollout.values[:-1], out=rollout.returns)
        rollout.scale_weights()
        variance = std_mean(rollout.returns, rollout.weights)[0].square().clamp(min=1e-8)
        std, mean = std_mean(advantages, rollout.weights)
        self.metrics.explained_variance.copy_(1 - std.square() / variance)
        if hparams.normalize_advantages:
            # Over the whole batch, not each minibatch: accumulated gradients then equal one batch's.
            advantages = (advantages - mean) / (std + 1e-8)
        rollout.advantages.copy_(advantages)

    def _passes(self) -> int:
        """Go over the data `num_sgd_iters` times; return the number of minibatches used."""
        hparams, updates = self.hparams, 0
        for _ in range(hparams.num_sgd_iters):
            if hparams.accumulate_grads:
                self.metrics.begin_step()
            for rows in self.rollout.minibatches(hparams.num_minibatches, shuffle=hparams.shuffle_minibatches):
                self.works.learn_from(self.execution.arranged(rows))
                updates += 1
                if not hparams.accumulate_grads and self._too_far(self.metrics.latest[KL_DIV]):
                    return updates
            if hparams.accumulate_grads:
                self.works.take_step()
                if self._too_far(self.metrics.latest[KL_DIV] / hparams.num_minibatches):
                    return updates
        return updates

    def _too_far(self, kl_div: Tensor) -> bool:
        target = self.hparams.target_kl_div
        return target is not None and float(kl_div) > target  # host sync: decides whether the next minibatch runs

    def learn_minibatch(self, rows: Rows) -> None:
        """Add one minibatch's gradient; take an optimizer step if neither the pass nor other processes add to it."""
        hparams, execution = self.hparams, self.execution
        if hparams.normalize_advantages and hparams.normalize_advantages_per_minibatch:
            normalize_minibatch(self.rollout, rows)
        if (found := execution.whole_step(rows)) is not None:
            self.metrics.add_step(found)
            return
        weight = 1.0
        if hparams.accumulate_grads:
            weight /= hparams.num_minibatches
        else:
            execution.zero_grad(self.optimizer)
            self.metrics.begin_step()
        losses = execution.backward(self.parameters, self._loss_at, rows, weight=weight)
        with execution.apart(rows):
            self.metrics.add(losses)
            if self.works.steps_at_once:
                self.step_optimizer()

    def _loss_at(self, rows: Rows, outputs: tuple[Mapping[str, Any], Tensor] | None = None) -> Sequence[Tensor]:
        """Return the loss of the sequences at some places, whose features and values may be known already."""
        batch = self.rollout.minibatch(rows)
        return with_extra(self._loss(batch, outputs), self.extra_losses, self.policy, batch)

    def _loss_of(self, batch: Minibatch, outputs: tuple[Mapping[str, Any], Tensor] | None = None) -> PPOLoss:
        """Return the loss of some sequences."""
        if outputs is None:
            logp, entropy, values = self.policy.evaluate(batch.seen, batch.actions, batch.state, batch.is_last)
        else:
            logp, entropy, values = self.policy.judge(*outputs, batch.seen, batch.actions)
        return ppo_loss(
            logp,
            entropy,
            values,
            old_logp=batch.logp,
            old_values=batch.values,
            advantages=batch.advantages,
            returns=batch.returns,
            **self.coefficients.of_loss(),
            vf_huber_delta=self.hparams.vf_huber_delta,
            weights=batch.weights,
        )

    def step_optimizer(self) -> None:
        """Clip the gradient and take an optimizer step. With a member axis, norms and clipping are per member."""
        scaler = self.execution.scaler
        scaler.unscale_(self.optimizer)
        norm = clip_gradient(self.parameters, self.hparams.max_grad_norm, skip_nonfinite=self.skips_nonfinite)
        # With accumulated gradients a pass has one step but `num_minibatches` shares of the mean.
        minibatches = self.hparams.num_minibatches if self.hparams.accumulate_grads else 1
        self.metrics.end_step(norm * minibatches)
        self.rate.adapt(self.metrics.latest[KL_DIV] / minibatches)
        scaler.step(self.optimizer)
        scaler.update()
        if self.hparams.accumulate_grads:
            self.execution.zero_grad(self.optimizer)

    def _update_normalizers(self) -> None:
        """Merge this horizon's observations, after the update: collect and update saw the same statistics."""
        rollout = self.rollout
        if self.policy.batch_norms:
            self.policy.update_batch_norms(rollout.block(0, self.hparams.batch_size))
        if self.policy.normalizers:
            obs, weights = rollout.obs[rollout.history : -1].flatten(0, 1), rollout.weights
            self.policy.update_normalizers(obs if weights is None else obs[weights.flatten() > 0])

    def change(self, *, lr: float | None = None, **coefficients: Any) -> None:
        """Give numbers other values from now on, in place of their schedules; see `rl8.ppo.changes.change`."""
        change(self, lr=lr, **coefficients)

    # --------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later run needs to go on as if it had never stopped, in plain containers."""
        return resume.state_of(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`'s result.

        Raises:
            ValueError: If shapes of the run differ; the message names the option.
        """
        resume.go_on(self, saved)
        self._buffered = False


class RecurrentAlgorithm(Algorithm):
    """PPO with an LSTM by default, gradients through 4 steps, and the state reset every 8 sequences."""

    recurrent = True
    defaults: ClassVar[Mapping[str, Any]] = {"seq_len": 4, "seqs_per_state_reset": 8}
