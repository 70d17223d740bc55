"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), for feedforward and recurrent policies alike.

One iteration is `collect` (fill the rollout) and `step` (advantages, then passes of minibatch updates).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields
from functools import partial
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.checks import unknown
from rl8.distributions import Distribution
from rl8.env import Env
from rl8.execution.execution import Execution
from rl8.execution.forward import ForwardPass, shares_to_keep
from rl8.execution.graphs import Tensors, Work
from rl8.execution.perceptron.similarity import CELL, MIN_CELLS
from rl8.execution.pieces import Gradient, Piece, add, gradient, split
from rl8.execution.threads import alone, side_by_side
from rl8.models import Model
from rl8.policy.policy import Policy
from rl8.ppo.advantages import gae, gae_endless
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.losses import PPOLoss, ppo_loss
from rl8.ppo.optim import build_optimizer, load_optimizer, set_learning_rate
from rl8.ppo.reward_scaling import RewardScaler
from rl8.ppo.schedules import Schedule
from rl8.rollout.metrics import Metrics, reward_metrics
from rl8.rollout.rollout import Minibatch, Rollout, collect
from rl8.settings import DeviceSettings
from rl8.specs import Nested

UPDATE_METRICS = (
    "losses/total",
    "losses/policy",
    "losses/vf",
    "losses/entropy",
    "monitors/kl_div",
    "monitors/clip_fraction",
    "monitors/grad_norm",
)
KL_DIV, GRAD_NORM = UPDATE_METRICS.index("monitors/kl_div"), UPDATE_METRICS.index("monitors/grad_norm")


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
        device: `"cpu"`, `"cuda"`, `"cuda:<index>"`, or `DeviceSettings` for more.
        **options: Fields of `Hyperparameters`.

    Attributes:
        hparams: All numbers, frozen.
        env_cls: What made the environments.
        env: The environments.
        policy: What is trained.
        rollout: The last horizon.
        env_steps: Env steps collected so far.
        iterations: Calls of `step` so far.
        resets: Resets of the environment so far.
        sorted: Whether the last update took env steps in the model's order; see `Model.order`.
        piece_size: Env steps per forward and backward pass of a thread; None for whole minibatches.

    Raises:
        TypeError: If an option does not exist or has the wrong type.
        ValueError: If an option is out of range, or environment, model and distribution do not fit together.
    """

    recurrent = False
    defaults: ClassVar[Mapping[str, Any]] = {}

    _forward: ForwardPass | None  # of the present horizon, for the first pass of its update
    _env_state: Nested | None  # where a captured graph reads and writes the environment's state
    _rows: Tensor | slice  # places of the present minibatch
    _collect: Work
    _prepare: Work
    _learn: Work
    _apply: Work

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
        device: str | torch.device | DeviceSettings = "cpu",
        **options: Any,
    ) -> None:
        check_options(options)
        self.hparams = hparams = Hyperparameters.build({**self.defaults, **_within_limits(env_cls, options), **options})
        settings = device if isinstance(device, DeviceSettings) else DeviceSettings(device=str(device))
        self.execution = Execution(settings, enable_amp=hparams.enable_amp, amp_dtype=hparams.amp_dtype)
        self.device = self.execution.device
        self.lr = Schedule(
            float((optimizer_config or {}).get("lr", 1e-3)),
            hparams.lr_schedule,
            hparams.lr_schedule_kind,
            name="algo.lr_schedule",
        )
        self.entropy = Schedule(
            hparams.entropy_coeff,
            hparams.entropy_coeff_schedule,
            hparams.entropy_coeff_schedule_kind,
            name="algo.entropy_coeff_schedule",
        )
        self.env_cls = env_cls
        self.env = env_cls(hparams.num_envs, hparams.horizon, device=self.device)
        if not isinstance(self.env, Env):
            made = type(self.env).__name__
            raise TypeError(f"{env_cls!r} made a {made}, which is no rl8.env.Env. Derive it from Env.")
        self.env.validate()
        self.policy = Policy(
            self.env.observation_spec,
            self.env.action_spec,
            model=model,
            model_cls=model_cls,
            model_config=model_config,
            distribution_cls=distribution_cls,
            recurrent=self.recurrent,
            normalize_obs=hparams.normalize_obs,
            device=self.device,
            autocast=self.execution.autocast,
        )
        self._check_kind()
        self.piece_size = self.execution.piece_size(self.policy.model.piece_size)
        threads = self.execution.threads
        self._threads = threads if threads > 1 and self.policy.pure else 1
        self.rollout = Rollout(
            self.policy,
            hparams.num_envs,
            hparams.horizon,
            seq_len=hparams.seq_len,
            seqs_per_state_reset=hparams.seqs_per_state_reset,
        )
        self.reward_scaler = RewardScaler(hparams.num_envs, hparams.gamma).to(self.device)
        self.parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(
            optimizer_cls, self.parameters, {"lr": 1e-3, **(optimizer_config or {})}, graphs=self.execution.graphs
        )
        self.env_steps = self.iterations = self.resets = self.horizons = 0
        self._buffered = False
        self.sorted = False
        self._ranks: Tensor | None = None  # place of each env step `[T * N]` in the order of the present update
        self._forward, self._forward_shares = None, self._kept_shares()
        self._entropy_coeff = torch.zeros((), device=self.device)
        self._totals = torch.zeros(len(UPDATE_METRICS), device=self.device)
        self._minibatch_totals = torch.zeros_like(self._totals)
        self._explained_variance = torch.zeros((), device=self.device)
        self._set_up_work()

    # ------------------------------------------------------------------------------------------------- collect

    def collect(self, *, env_config: dict[str, Any] | None = None, deterministic: bool = False) -> Metrics:
        """Collect one horizon in every environment.

        Args:
            env_config: Settings for the environment's reset, if this call resets it; see `horizons_per_env_reset`.
            deterministic: Whether actions are the distribution's mode rather than a sample.

        Returns:
            Metrics of raw rewards and returns (sums over the horizon), 0-d tensors on the device.
        """
        if self._reset_due():
            self._reset(env_config)
        else:
            self.rollout.resume()
        self._forward = None
        ended = self.rollout.is_last is not None
        if deterministic:
            collect(self.env, self.policy, self.rollout, deterministic=True, piece_size=self.piece_size)
            self._pin_env_state()
        else:
            self._collect()
        if ended != (self.rollout.is_last is not None):  # the first end of an episode: there is more to read
            self._prepare.invalidate()
            self._learn.invalidate()
        self.horizons += 1
        self.env_steps += self.hparams.batch_size
        self._buffered = True
        return reward_metrics(self.rollout.rewards)

    def _reset_due(self) -> bool:
        every = self.hparams.horizons_per_env_reset
        return self.horizons == 0 or (every > 0 and self.horizons % every == 0)

    def _reset(self, env_config: dict[str, Any] | None) -> None:
        before = _addresses(self.env)
        self.rollout.start(self.env.reset(config=env_config))
        self.reward_scaler.reset()
        self.resets += 1
        if _addresses(self.env) != before:
            self._collect.invalidate()
        self._pin_env_state()

    def _collect_eagerly(self) -> None:
        if self._forward_shares and not self.sorted and not torch.is_inference_mode_enabled():
            self._forward = ForwardPass(self.policy, self.hparams.num_envs, self._forward_shares)
        collect(
            self.env,
            self.policy,
            self.rollout,
            piece_size=self.piece_size,
            forward=self._forward,
            act=self._act,
            step=self._env_step,
        )
        self._pin_env_state()

    def _kept_shares(self) -> list[slice]:
        """Return each thread's share of the batch if its forward pass is kept from collect on, else none."""
        hparams = self.hparams
        if self.device.type != "cpu" or self.execution.settings.compile or hparams.num_minibatches > 1:
            return []
        return shares_to_keep(
            self.policy, hparams.num_envs, hparams.horizon, piece_size=self.piece_size, threads=self._threads
        )

    def _pin_env_state(self) -> None:
        """Keep the environment's state where a captured graph reads it."""
        if not self.execution.graphs:
            return
        if self._env_state is None or not _alike(self._env_state, self.env.state):
            self._env_state = self.env.state.clone()
            self._collect.invalidate()
        else:
            state: Any = self.env.state
            self._env_state.copy_(state)
        self.env.state = self._env_state

    # --------------------------------------------------------------------------------------------------- update

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
        self._prepare()
        if self.hparams.lr_schedule:
            set_learning_rate(self.optimizer, self.lr(self.env_steps))
        self._entropy_coeff.fill_(self.entropy(self.env_steps))
        self._totals.zero_()
        self._ranks = self._ranked()
        self.sorted = self._ranks is not None
        updates = self._passes()
        self._ranks = None
        self._update_normalizers()
        self.iterations += 1
        means = self._totals / updates
        metrics = {name: means[index] for index, name in enumerate(UPDATE_METRICS)}
        metrics["monitors/explained_variance"] = self._explained_variance.clone()
        metrics["coefficients/entropy"] = self._entropy_coeff.clone()
        metrics["coefficients/vf"] = torch.full_like(self._entropy_coeff, self.hparams.vf_coeff)
        lr = self.optimizer.param_groups[0]["lr"]
        metrics["coefficients/lr"] = lr.clone() if isinstance(lr, Tensor) else torch.full_like(self._entropy_coeff, lr)
        return metrics

    @torch.no_grad()
    def _prepare_eagerly(self) -> None:
        """Scale rewards, compute advantages and returns, and which share of the returns' variance values explain."""
        hparams, rollout = self.hparams, self.rollout
        rewards = rollout.rewards
        if hparams.normalize_rewards:
            rewards = self.reward_scaler(rewards, rollout.is_last)
        discount = {"gamma": hparams.gamma, "gae_lambda": hparams.gae_lambda}
        if rollout.is_last is None:
            advantages = gae_endless(rewards, rollout.values, **discount)
        else:
            advantages = gae(rewards, rollout.values[:-1], rollout.next_values(), rollout.is_last, **discount)
        torch.add(advantages, rollout.values[:-1], out=rollout.returns)
        variance = rollout.returns.var(correction=0).clamp(min=1e-8)
        self._explained_variance.copy_(1 - advantages.var(correction=0) / variance)
        if hparams.normalize_advantages:
            # Over the whole batch, not each minibatch: accumulated gradients then equal one batch's.
            std, mean = torch.std_mean(advantages, correction=0)
            advantages = (advantages - mean) / (std + 1e-8)
        rollout.advantages.copy_(advantages)

    @torch.no_grad()
    def _ranked(self) -> Tensor | None:
        """Return the place of each env step `[T * N]` in an order in which they are computed faster, None if in any."""
        settings, hparams = self.execution.settings, self.hparams
        enough = hparams.minibatch_size >= MIN_CELLS * CELL * self._threads
        plain = self.device.type == "cpu" and not settings.compile and not hparams.enable_amp
        if not (enough and plain and self.policy.model.has_order):
            return None
        order = self.policy.order(self.rollout.block(0, hparams.batch_size), self._threads)
        return None if order is None else order.argsort()

    def _passes(self) -> int:
        """Go over the data `num_sgd_iters` times; return the number of minibatches used."""
        hparams, updates = self.hparams, 0
        for _ in range(hparams.num_sgd_iters):
            before = self._totals[KL_DIV].clone()
            for rows in self._minibatches():
                self._load(rows)
                self._learn()
                updates += 1
                if not hparams.accumulate_grads and self._too_far(self._minibatch_totals[KL_DIV]):
                    return updates
            if hparams.accumulate_grads:
                self._apply()
                if self._too_far((self._totals[KL_DIV] - before) / hparams.num_minibatches):
                    return updates
        return updates

    def _too_far(self, kl_div: Tensor) -> bool:
        target = self.hparams.target_kl_div
        return target is not None and float(kl_div) > target  # host sync: decides whether the next minibatch runs

    def _minibatches(self) -> Iterator[Tensor | slice]:
        """Yield the places of each minibatch's sequences, `[L, B]`, counted `t * N + n`; a slice where consecutive."""
        hparams = self.hparams
        length, num_envs = hparams.seq_len, hparams.num_envs
        shuffle = hparams.shuffle_minibatches and hparams.num_minibatches > 1
        # A captured graph reads one place: the whole batch, or indices that change under it.
        same_place = not self.execution.graphs or hparams.num_minibatches == 1
        if not shuffle and not self.policy.recurrent and same_place and self._ranks is None:
            for start in range(0, hparams.batch_size, hparams.minibatch_size):
                yield slice(start, start + hparams.minibatch_size)
            return
        count = hparams.batch_size // length
        order = (torch.randperm if shuffle else torch.arange)(count, device=self.device)
        firsts = order // num_envs * (num_envs * length) + order % num_envs
        steps = torch.arange(length, device=self.device).unsqueeze(1) * num_envs
        for chunk in firsts.split(hparams.minibatch_size // length):
            # The order within a minibatch does not matter to its gradient.
            yield (chunk if self._ranks is None else chunk[self._ranks[chunk].argsort()]) + steps

    def _load(self, rows: Tensor | slice) -> None:
        """Hand the next minibatch to the work, at the address that a captured graph reads."""
        if self.execution.graphs and isinstance(self._rows, Tensor) and isinstance(rows, Tensor):
            self._rows.copy_(rows)
        else:
            self._rows = rows

    def _learn_eagerly(self) -> None:
        """Add one minibatch's gradient and, unless gradients accumulate over the pass, take an optimizer step."""
        if self._forward is not None and not self._forward.current:
            self._forward = None
        tasks = [partial(self._gradient, pieces) for pieces in self._shares()]
        gradients = side_by_side(tasks)
        self._forward = None
        # An operation shared by OpenMP's threads would leave one spinning on the core of a thread with the next task.
        with alone() if len(tasks) > 1 else nullcontext():
            if not self.hparams.accumulate_grads:
                self.optimizer.zero_grad(set_to_none=not self.execution.graphs)
            self._minibatch_totals.zero_()
            for tensors, losses in gradients:
                sums = add([parameter.grad for parameter in self.parameters], tensors)
                for parameter, total in zip(self.parameters, sums, strict=True):
                    parameter.grad = total
                self._minibatch_totals[:GRAD_NORM].add_(losses)
            self._totals.add_(self._minibatch_totals)
            if not self.hparams.accumulate_grads:
                self._apply_eagerly()

    def _shares(self) -> list[list[Piece]]:
        """Return which pieces of the present minibatch each thread computes."""
        length = self.hparams.seq_len
        num_seqs = self.hparams.minibatch_size // length
        return split(self._rows, seq_len=length, num_seqs=num_seqs, piece_size=self.piece_size, threads=self._threads)

    def _gradient(self, pieces: Sequence[Piece]) -> Gradient:
        """Return the gradient of some pieces of a minibatch, and what is logged with it."""
        share = 1 / self.hparams.num_minibatches if self.hparams.accumulate_grads else 1.0
        return gradient(
            self.parameters,
            loss=lambda rows: self._loss(self.rollout.minibatch(rows), self._known_outputs(rows)),
            scale=lambda total: self.execution.scaler.scale(total * share),
            pieces=pieces,
        )

    def _known_outputs(self, rows: Tensor | slice) -> tuple[Mapping[str, Any], Tensor] | None:
        """Return features and values of a share as they were computed in collect, or None."""
        return self._forward.outputs(rows) if self._forward is not None and isinstance(rows, slice) else None

    def _loss_eagerly(self, batch: Minibatch, outputs: tuple[Mapping[str, Any], Tensor] | None = None) -> PPOLoss:
        """Return the loss of one piece, whose features and values may be known already."""
        hparams = self.hparams
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
            clip_param=hparams.clip_param,
            vf_clip_param=hparams.vf_clip_param,
            dual_clip_param=hparams.dual_clip_param,
            vf_coeff=hparams.vf_coeff,
            entropy_coeff=self._entropy_coeff,
        )

    def _apply_eagerly(self) -> None:
        """Clip the gradient and take an optimizer step."""
        scaler = self.execution.scaler
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.hparams.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.hparams.max_grad_norm, norm)
        # With accumulated gradients a pass has one step but `num_minibatches` shares of the mean.
        self._totals[GRAD_NORM] += norm * (self.hparams.num_minibatches if self.hparams.accumulate_grads else 1)
        scaler.step(self.optimizer)
        scaler.update()
        if self.hparams.accumulate_grads:
            self.optimizer.zero_grad(set_to_none=not self.execution.graphs)

    def _update_normalizers(self) -> None:
        """Merge this horizon's observations, after the update: collect and update saw the same statistics."""
        if self.policy.normalizers:
            self.policy.update_normalizers(self.rollout.obs[self.rollout.history : -1].flatten(0, 1))

    def _set_up_work(self) -> None:
        """Make the pieces of work that Inductor can fuse and CUDA can replay."""
        compiled = self.execution.compiled
        self._loss = compiled(self._loss_eagerly)
        self._act = compiled(self.policy.act)
        self._env_step = compiled(self.env.step)
        self._env_state = None
        self._rows = slice(0, 0)
        self._collect = self.execution.replayed(self._collect_eagerly, "rollout", self._collect_tensors)
        self._prepare = self.execution.replayed(self._prepare_eagerly, "advantages", self._prepare_tensors)
        # A learning rate that is a number would be frozen into a graph; a loss scaler asks the device for overflows.
        live = all(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups)
        if live and not self.execution.scaler.is_enabled():
            self._learn = self.execution.replayed(self._learn_eagerly, "update", self._learn_tensors)
            self._apply = self.execution.replayed(self._apply_eagerly, "optimizer step", self._learn_tensors)
        else:
            self._learn, self._apply = Work(self._learn_eagerly), Work(self._apply_eagerly)

    def _collect_tensors(self) -> Tensors:
        return _named({"rollout": vars(self.rollout), "env": {"state": self.env.state}})

    def _prepare_tensors(self) -> Tensors:
        scaler = dict(self.reward_scaler.named_buffers())
        return _named({"rollout": vars(self.rollout), "scaler": scaler, "explained": self._explained_variance})

    def _learn_tensors(self) -> Tensors:
        weights = {name: weight for name, weight in self.policy.named_parameters() if weight.requires_grad}
        scaler = self.execution.scaler
        return _named(
            {
                "weights": weights,
                "gradient": {name: weight.grad for name, weight in weights.items()},
                "optimizer": list(self.optimizer.state.values()),
                "scaler": {name: vars(scaler).get(name) for name in ("_scale", "_growth_tracker")},
                "totals": [self._totals, self._minibatch_totals],
            }
        )

    def _check_kind(self) -> None:
        """Raise ValueError where a recurrent algorithm has no recurrent model, or the other way round."""
        name, recurrent = type(self.policy.model).__name__, self.policy.recurrent
        if self.recurrent and not recurrent:
            raise ValueError(
                f"algo=recurrent needs a model with memory, but {name} has no state_spec. Try model=lstm or model=gru, "
                "or algo=ppo to train this one."
            )
        if recurrent and not self.recurrent:
            raise ValueError(
                f"algo=ppo trains feedforward models, but {name} carries a recurrent state. Try algo=recurrent "
                "(RecurrentAlgorithm, RecurrentTrainer), or model=mlp."
            )
        if not recurrent and self.hparams.seq_len > 1:
            raise ValueError(
                f"algo.seq_len={self.hparams.seq_len} needs a model with memory, {name} has none. Try algo.seq_len=1."
            )

    # --------------------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        """Return all that a later run needs to go on as if it had never stopped, in plain containers."""
        rollout, kept = self.rollout, self.rollout.history + 1
        started = self.horizons > 0
        return {
            "hparams": asdict(self.hparams),
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.execution.scaler.state_dict(),
            "reward_scaler": self.reward_scaler.state_dict(),
            "obs": _plain(rollout.obs[-kept:]),
            "ages": rollout.ages[-kept:].clone(),
            "state": None if rollout.state is None else _plain(rollout.state),
            "num_seqs": rollout.num_seqs.clone(),
            "env_state": _plain(self.env.state) if started else None,
            # not its physical constants alone: what a reset draws for a whole episode may lie beside the state
            "env_tensors": {name: _plain(value) for name, value in _env_tensors(self.env).items()},
            "counters": {
                name: getattr(self, name) for name in ("env_steps", "iterations", "resets", "horizons", "sorted")
            },
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`'s result.

        Raises:
            ValueError: If shapes of the run differ; the message names the option.
        """
        for name in ("num_envs", "horizon", "seq_len"):
            if saved["hparams"][name] != getattr(self.hparams, name):
                raise ValueError(
                    f"algo.{name}={getattr(self.hparams, name)} differs from the checkpoint's. "
                    f"Try algo.{name}={saved['hparams'][name]}."
                )
        self.policy.load_state_dict(saved["policy"])
        load_optimizer(self.optimizer, saved["optimizer"])
        self.execution.scaler.load_state_dict(saved["scaler"])
        self.reward_scaler.load_state_dict(saved["reward_scaler"])
        rollout, kept = self.rollout, self.rollout.history + 1
        rollout.obs[-kept:] = _restored(saved["obs"], rollout.obs[-kept:])
        rollout.ages[-kept:] = saved["ages"].to(self.device)
        rollout.num_seqs.copy_(saved["num_seqs"])
        if rollout.state is not None:
            rollout.state.copy_(_restored(saved["state"], rollout.state))
        self.env.reset()
        for name, value in _env_tensors(self.env).items():
            if name in saved["env_tensors"]:
                setattr(self.env, name, _restored(saved["env_tensors"][name], value))
        if saved["env_state"] is not None:
            self.env.state = _restored(saved["env_state"], self.env.state)
        for work in (self._collect, self._prepare, self._learn, self._apply):
            work.invalidate()
        self._pin_env_state()
        self._buffered = False
        for name, value in saved["counters"].items():
            setattr(self, name, value)
        torch.set_rng_state(saved["rng"].cpu())  # host sync: generators take their state from there
        if saved["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_rng"].cpu(), self.device)  # host sync: as above


class RecurrentAlgorithm(Algorithm):
    """PPO with an LSTM by default, gradients through 4 steps, and the state reset every 8 sequences."""

    recurrent = True
    defaults: ClassVar[Mapping[str, Any]] = {"seq_len": 4, "seqs_per_state_reset": 8}


def check_options(options: Iterable[str], others: Sequence[str] = ()) -> None:
    """Raise TypeError for an option that is none of `Algorithm`'s; the message has the nearest of them and `others`."""
    parameters = inspect.signature(Algorithm).parameters.values()
    parts = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    names = [*parts, *(field.name for field in fields(Hyperparameters)), *others]
    for name in options:
        if name not in names:
            raise TypeError(unknown("option", name, names))


def _within_limits(env_cls: Any, options: Mapping[str, Any]) -> dict[str, int]:
    """Return defaults lowered to the class's limits, for options that the user left alone."""
    limits = {"num_envs": getattr(env_cls, "max_num_envs", None), "horizon": getattr(env_cls, "max_horizon", None)}
    return {
        name: min(getattr(Hyperparameters, name), limit)
        for name, limit in limits.items()
        if limit is not None and name not in options
    }


def _addresses(env: Env) -> list[tuple[str, int]]:
    """Return where the environment's tensors lie, its state left out."""
    return [(name, tensor.data_ptr()) for name, tensor in _named(_env_tensors(env)).items()]


def _env_tensors(env: Env) -> dict[str, Nested]:
    """Return the environment's tensors and TensorDicts by name, its state left out."""
    return {name: v for name, v in vars(env).items() if name != "state" and isinstance(v, (Tensor, TensorDict))}


def _named(tree: Any, path: str = "") -> Tensors:
    """Return all tensors in nested containers by their paths, in order."""
    if isinstance(tree, Tensor):
        return {path: tree}
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    if not isinstance(tree, (Mapping, TensorDict)):
        return {}
    branches = (_named(branch, f"{path}.{key}" if path else str(key)) for key, branch in tree.items())
    return {name: tensor for branch in branches for name, tensor in branch.items()}


def _alike(one: Any, other: Any) -> bool:
    ours, theirs = ({name: (t.shape, t.dtype) for name, t in _named(tree).items()} for tree in (one, other))
    return ours == theirs


def _plain(nested: Any) -> Any:
    """Return a copy with TensorDicts as plain dictionaries, which load without pickle."""
    return nested.clone() if isinstance(nested, Tensor) else nested.clone().to_dict()


def _restored(saved: Any, like: Any) -> Any:
    """Return what `_plain` saved, of the type and on the device of `like`."""
    if isinstance(like, Tensor):
        return saved.to(like.device, copy=True)
    return TensorDict(saved, batch_size=like.batch_size, device=like.device).clone()
