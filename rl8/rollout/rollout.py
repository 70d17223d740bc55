"""One horizon of experience: time-major storage that an update reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from rl8.data import BOOTSTRAP_FINAL_OBS, FILLER, FINAL_OBS, OBS, REWARDS, TERMINATED, TRUNCATED
from rl8.parallel import world
from rl8.policy.policy import Act, Policy, reset_where
from rl8.rollout.bootstrap import FinalRows, next_values
from rl8.rollout.containers import named, plain, restored
from rl8.rollout.env_metrics import EnvMetrics
from rl8.specs import Nested

ENDS: Final = {TERMINATED, TRUNCATED, FILLER}


class Minibatch(NamedTuple):
    """Sequences of a rollout, `[L, B, ...]` each; `state` is `[B, ...]`, `is_last` None if no episode ends.

    `weights` are None where every step counts the same.
    """

    seen: Nested
    state: Nested | None
    is_last: Tensor | None
    actions: Nested
    logp: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None


class Rows:
    """Views of a rollout's storage, one per step or row: taken once, because a small step takes less time than a view.

    Attributes:
        seen: `[1, N, ...]` observations as a model without windows sees them; None if they are no tensor.
        obs: `[N, ...]` each; None if they are no tensor.
        actions: `[N, ...]` each; None if they are no tensor.
        ages, logp, rewards: `[N]` each.
    """

    def __init__(self, obs: Nested, ages: Tensor, actions: Nested, logp: Tensor, rewards: Tensor) -> None:
        self.seen = obs.split(1) if isinstance(obs, Tensor) else None
        self.obs: Sequence[Tensor] | None = obs.unbind(0) if isinstance(obs, Tensor) else None
        self.actions: Sequence[Tensor] | None = actions.unbind(0) if isinstance(actions, Tensor) else None
        self.ages, self.logp, self.rewards = ages.unbind(), logp.unbind(), rewards.unbind()


class Rollout:
    """Time-major storage that one horizon fills and an update reads.

    Args:
        policy: Decides how many earlier observations and which state are kept.
        num_envs: Environments, N.
        horizon: Steps, T.
        seq_len: Steps per sequence, L; the recurrent state is kept at the start of each.
        seqs_per_state_reset: Sequences between resets of the state to zero; negative for never.
        ends: Whether episodes end; else that is found out when one does.
        bootstrap: What truncated episodes bootstrap from; see `rl8.rollout.bootstrap.next_values`.

    Attributes:
        obs: `[history + T + 1, N, ...]`; the horizon's first observation is row `history`.
        ages: `[history + T + 1, N]` observations since the reset; not counted where the model has no window.
        actions: `[T, N, ...]` as sampled.
        logp, rewards: `[T, N]`.
        values: `[T + 1, N]`.
        is_last, terminated, truncated: `[T, N]` bool, or None while no environment has ever ended an episode. What
            terminates and is truncated at once counts as terminated.
        finals: What the model sees of the final observations of truncated episodes, until `final_values` are known.
        final_values: `[T, N]` their values where an episode was truncated, or None.
        weights: `[T, N]` how much a step counts: 0 where the environment only began anew (`"filler"`), 1 elsewhere, or
            None while there was no such step.
        states: `[T / L, N, ...]` recurrent state at sequence starts, or None.
        state: `[N, ...]` recurrent state after the last step, or None.
        advantages, returns: `[T, N]`, written by the algorithm.
        env_metrics: What the environment reported of the horizon's steps.
        rows: Views of the storage.
    """

    def __init__(
        self,
        policy: Policy,
        num_envs: int,
        horizon: int,
        *,
        seq_len: int = 1,
        seqs_per_state_reset: int = -1,
        bootstrap: str = BOOTSTRAP_FINAL_OBS,
        ends: bool = False,
    ) -> None:
        self.num_envs, self.horizon, self.seq_len, self.bootstrap = num_envs, horizon, seq_len, bootstrap
        self.seqs_per_state_reset = seqs_per_state_reset
        self.views = policy.views
        self.history = policy.views.history
        device = policy.device
        rows = self.history + horizon + 1
        self.obs = _storage(policy.observation_spec.to(device).zeros(1), rows, num_envs)
        self.ages = torch.zeros(rows, num_envs, dtype=torch.int32, device=device)
        self.actions = _storage(_stored_action(policy), horizon, num_envs)
        self.logp = torch.zeros(horizon, num_envs, device=device)
        self.rewards = torch.zeros(horizon, num_envs, device=device)
        self.values = torch.zeros(horizon + 1, num_envs, device=device)
        self.advantages = torch.zeros(horizon, num_envs, device=device)
        self.returns = torch.zeros(horizon, num_envs, device=device)
        self.state = policy.initial_state(num_envs)
        self.states = None if self.state is None else _storage(self.state[:1], -(-horizon // seq_len), num_envs)
        self.num_seqs = torch.zeros((), dtype=torch.int64, device=device)  # since the state's last reset
        self.is_last: Tensor | None = None
        self.terminated: Tensor | None = None
        self.truncated: Tensor | None = None
        self.finals = FinalRows()
        self.final_values: Tensor | None = None
        self.weights: Tensor | None = None
        self.env_metrics = EnvMetrics()
        self.rows = Rows(self.obs, self.ages, self.actions, self.logp, self.rewards)
        if ends:
            self._allocate_ends()

    def megabytes(self) -> float:
        """Return how much memory the storage takes, in MB."""
        return sum(tensor.nbytes for tensor in named(vars(self)).values()) / 1e6

    def start(self, obs: Nested) -> None:
        """Begin at observations `[N, ...]` that environments gave at their reset."""
        self.obs[self.history] = obs
        self.ages[self.history] = 0
        self.num_seqs.zero_()
        if self.state is not None:
            self.state.zero_()

    def begin(self) -> None:
        """Forget what was said of the last horizon's steps; those that say nothing end nothing, and count."""
        self.finals.begin()
        for flags in (self.is_last, self.terminated, self.truncated):
            if flags is not None:
                flags.zero_()
        if self.weights is not None:
            self.weights.fill_(1.0)

    def resume(self) -> None:
        """Begin where the last horizon ended: its last observations become this one's history."""
        kept = self.history + 1
        self.obs[:kept] = self.obs[-kept:].clone()
        self.ages[:kept] = self.ages[-kept:].clone()

    def state_dict(self) -> dict[str, Any]:
        """Return what the next horizon begins with, in plain containers."""
        kept = self.history + 1
        return {
            "obs": plain(self.obs[-kept:]),
            "ages": self.ages[-kept:].clone(),
            "state": None if self.state is None else plain(self.state),
            "num_seqs": self.num_seqs.clone(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Let the next horizon begin with what `state_dict` returned."""
        kept = self.history + 1
        self.obs[-kept:] = restored(saved["obs"], self.obs[-kept:])
        self.ages[-kept:] = saved["ages"].to(self.ages.device)
        self.num_seqs.copy_(saved["num_seqs"])
        if self.state is not None:
            self.state.copy_(restored(saved["state"], self.state))

    def env_steps(self) -> int:
        """Return how many env steps the horizon took in all processes, without those in which one only began anew."""
        steps = self.horizon * self.num_envs * world.size()
        if self.weights is not None:
            left_out = (self.weights == 0).sum()
            world.sum_([left_out])
            steps -= int(left_out)  # host sync: where a library's resets take steps of their own
        return steps

    def scale_weights(self) -> None:
        """Let steps count 1 on average over all processes."""
        if self.weights is not None:
            share = self.weights.mean()
            world.mean_([share])
            self.weights.div_(share.clamp(min=1e-8))

    def align(self) -> None:
        """Let all processes have what one of them has met: steps that do not count, numbers that were reported."""
        found = world.every((self.weights is not None, list(self.env_metrics.sums)))
        if self.weights is None and any(weighed for weighed, _ in found):
            self.weights = torch.ones_like(self.rewards)
        for name in {name for _, names in found for name in names} - set(self.env_metrics.sums):
            self.env_metrics.sums[name] = torch.zeros(2, device=self.rewards.device)

    def seen(self, t: int) -> Nested:
        """Return what the model sees at step t, `[1, N, ...]`."""
        if self.rows.seen is not None and not self.views.windows:
            return self.rows.seen[self.history + t]
        return self.views.step(self.obs, self.ages, self.history + t)

    def minibatches(self, count: int, *, shuffle: bool) -> Iterator[Tensor | slice]:
        """Yield the places of so many minibatches' sequences, `[L, B]` each; a slice where they are consecutive steps.

        Args:
            count: Minibatches of equal size; divides the number of sequences.
            shuffle: Whether sequences are dealt out at random. The steps inside them are never shuffled.
        """
        steps = self.horizon * self.num_envs
        shuffle = shuffle and count > 1
        if not shuffle and self.states is None:
            size = steps // count
            for start in range(0, steps, size):
                yield slice(start, start + size)
            return
        sequences = steps // self.seq_len
        order = (torch.randperm if shuffle else torch.arange)(sequences, device=self.rewards.device)
        for some in order.split(sequences // count):
            yield self.places(some)

    def places(self, sequences: Tensor) -> Tensor:
        """Return the places `[L, B]` of sequences `[B]`, counted `t * N + n` as sequences are `t // L * N + n`."""
        firsts = sequences // self.num_envs * (self.num_envs * self.seq_len) + sequences % self.num_envs
        steps = torch.arange(self.seq_len, device=sequences.device).unsqueeze(1) * self.num_envs
        return firsts + steps

    def block(self, start: int, stop: int) -> Nested:
        """Return what the model sees at places `start ... stop - 1`, counted `t * N + n`, `[1, stop - start, ...]`."""
        if self.views.windows:
            rows = torch.arange(start, stop, device=self.ages.device).unsqueeze(0)
            return self.views.rows(self.obs, self.ages, rows)
        return self.obs.flatten(0, 1)[start:stop].unsqueeze(0)

    def minibatch(self, rows: Tensor | slice) -> Minibatch:
        """Return the sequences at places `[L, B]`, counted `t * N + n`; a slice takes consecutive steps as L = 1."""
        if isinstance(rows, slice):
            seen, state = self.block(rows.start, rows.stop), None
        else:
            seen = self.views.rows(self.obs, self.ages, rows)
            state = self._state_at(rows[0])

        def take(series: Nested) -> Nested:
            flat = series.flatten(0, 1)[rows]
            return flat.unsqueeze(0) if isinstance(rows, slice) else flat

        return Minibatch(
            seen=seen,
            state=state,
            is_last=None if self.is_last is None or state is None else take(self.is_last),
            actions=take(self.actions),
            logp=take(self.logp),
            values=take(self.values[:-1]),
            advantages=take(self.advantages),
            returns=take(self.returns),
            weights=None if self.weights is None else take(self.weights),
        )

    def next_values(self) -> Tensor:
        """Return `[T, N]` value of the state that each action led to, before any reset; 0 where it terminated."""
        if self.terminated is None or self.truncated is None:
            return self.values[1:]
        return next_values(self.values, self.terminated, self.truncated, self.final_values, bootstrap=self.bootstrap)

    def begin_sequence(self, index: int, state: Nested | None) -> Nested | None:
        """Store the state at the start of a sequence, reset if its turn has come."""
        if state is None or self.states is None:
            return None
        if self.seqs_per_state_reset > 0:
            # Counted on the device: a captured graph has no Python counter.
            due = (self.num_seqs % self.seqs_per_state_reset == 0).expand(self.num_envs)
            state = reset_where(due, state)
            self.num_seqs += 1
        self.states[index] = state
        return state

    def store_act(self, t: int, chosen: Act) -> None:
        """Store action t, unless it was written there."""
        actions = chosen.actions
        if self.rows.actions is None or not isinstance(actions, Tensor):
            self.actions[t] = actions
        elif actions is not self.rows.actions[t]:
            self.rows.actions[t].copy_(actions)
        if chosen.logp is not self.rows.logp[t]:
            self.rows.logp[t].copy_(chosen.logp)
        if chosen.values is not None:
            self.values[t] = chosen.values

    def store_step(self, t: int, out: TensorDict, state: Nested | None, *, learns: bool = True) -> Nested | None:
        """Store what followed action t, for learning with final observations too; return the state to go on with."""
        row, rows, keys = self.history + t + 1, self.rows, set(out.keys())
        rows.rewards[t].copy_(out[REWARDS].reshape(self.num_envs))
        if self.views.windows:
            torch.add(rows.ages[row - 1], 1, out=rows.ages[row])
        if given := keys & ENDS:
            flags = {str(key): out[key].reshape(self.num_envs).bool() for key in given}
            state = self._store_ends(t, flags, out, state, learns=learns)
        self._store_obs(row, out[OBS])
        return state

    def _store_ends(
        self, t: int, flags: dict[str, Tensor], out: TensorDict, state: Nested | None, *, learns: bool
    ) -> Nested | None:
        """Store what ended at step t; return the state to go on with."""
        self._allocate_ends()
        assert self.is_last is not None
        assert self.terminated is not None
        assert self.truncated is not None
        row = self.history + t + 1
        if (terminated := flags.get(TERMINATED)) is not None:
            self.terminated[t] = terminated
        if (truncated := flags.get(TRUNCATED)) is not None:
            self.truncated[t] = truncated = truncated if terminated is None else truncated & ~terminated
            if learns and self.bootstrap == BOOTSTRAP_FINAL_OBS:
                # The final observation takes the next one's place for a moment: windows need no case of their own.
                self._store_obs(row, out[FINAL_OBS])
                self.finals.add(t, truncated, self.seen(t + 1), state)
        if (filler := flags.get(FILLER)) is not None:
            # It cuts like an end: what follows is an episode's first observation. Nothing of it is a reward.
            self.weights = torch.ones_like(self.rewards) if self.weights is None else self.weights
            self.weights[t] = (~filler).to(self.weights.dtype)
            self.rewards[t].masked_fill_(filler, 0.0)
        ended = functools.reduce(torch.logical_or, flags.values())
        self.is_last[t] = ended
        self.ages[row].masked_fill_(ended, 0)
        return None if state is None else reset_where(ended, state)

    def _store_obs(self, row: int, obs: Nested) -> None:
        if self.rows.obs is None or not isinstance(obs, Tensor):
            self.obs[row] = obs
        else:
            self.rows.obs[row].copy_(obs)

    def _allocate_ends(self) -> None:
        if self.is_last is None:
            self.is_last = torch.zeros_like(self.rewards, dtype=torch.bool)
            self.terminated = torch.zeros_like(self.is_last)
            self.truncated = torch.zeros_like(self.is_last)
            self.final_values = torch.zeros_like(self.rewards)

    def _state_at(self, first: Tensor) -> Nested | None:
        """Return the state `[B, ...]` at sequences that start at places `first` `[B]`."""
        if self.states is None:
            return None
        sequence = first // (self.num_envs * self.seq_len) * self.num_envs + first % self.num_envs
        return self.states.flatten(0, 1)[sequence]


def _stored_action(policy: Policy) -> Nested:
    """Return one zero action `[1, ...]` of the type in which the distribution stores them."""
    spec = policy.action_spec.to(policy.device)
    return spec.zeros(1)


def _storage(sample: Nested, rows: int, num_envs: int) -> Nested:
    """Return zeros `[rows, num_envs, ...]` for samples like `[1, ...]`."""
    if isinstance(sample, TensorDict):
        entries: dict[str, Any] = {str(key): _storage(sample[key], rows, num_envs) for key in sample.keys()}  # noqa: SIM118
        return TensorDict(entries, batch_size=[rows, num_envs], device=sample.device)
    return torch.zeros(rows, num_envs, *sample.shape[1:], dtype=sample.dtype, device=sample.device)
