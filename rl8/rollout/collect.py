"""The loop that collects one horizon: act, step, store."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict

from rl8.env import Env
from rl8.env.results import check_result
from rl8.policy.policy import Act, Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Nested

OnStep = Callable[[int], None]


@torch.no_grad()
def collect(
    env: Env,
    policy: Policy,
    rollout: Rollout,
    *,
    deterministic: bool = False,
    learns: bool = True,
    on_step: OnStep | None = None,
    act: Callable[..., Act] | None = None,
    step: Callable[[Nested], TensorDict] | None = None,
    values: Callable[[], None] | None = None,
) -> None:
    """Fill a rollout from where it stands: act, step, store; then the values of everything seen.

    Args:
        env: Environments, reset or left where the rollout's last horizon ended.
        policy: Chooses the actions.
        rollout: Written in place.
        deterministic: Whether actions are the distribution's mode rather than a sample.
        learns: Whether values are computed too, which only learning needs.
        on_step: Called with t after each step, e.g. to render.
        act: What stands for the policy's `act`, with the same arguments and result.
        step: What stands for the environment's `step`.
        values: What stands for `store_values`.
    """
    act, step = act or policy.act, step or env.step
    state: Nested | None = rollout.state
    rollout.begin()
    for t in range(rollout.horizon):
        if t % rollout.seq_len == 0:
            state = rollout.begin_sequence(t // rollout.seq_len, state)
        chosen = act(rollout.seen(t), state, deterministic=deterministic)
        rollout.store_act(t, chosen)
        out = step(chosen.env_actions)
        if t == rollout.horizon - 1:
            check_result(env, out, values=False)
        try:
            rollout.env_metrics.add(out, first=t == 0)
            state = rollout.store_step(t, out, chosen.state, learns=learns)
        except Exception:
            check_result(env, out, values=False)  # if the environment is at fault, this says how
            raise
        if on_step is not None:
            on_step(t)
    if rollout.state is not None:
        assert isinstance(state, TensorDict)
        rollout.state.copy_(state)
    if learns:
        if values is None:
            store_values(policy, rollout)
        else:
            values()


def store_values(policy: Policy, rollout: Rollout, *, piece_size: int | None = None, done: int = 0) -> None:
    """Store the values of all T + 1 observations, or of the last one if the others came with the features.

    Those of the final observations of truncated episodes are stored too.

    Args:
        policy: Computes them.
        rollout: Written in place.
        piece_size: Observations per forward pass; None takes all at once.
        done: Observations whose values are stored already, counted `t * N + n`.
    """
    if rollout.truncated is not None and rollout.final_values is not None:
        rollout.finals.store(rollout.final_values, rollout.truncated, policy, piece_size)
    if not policy.model.has_value_pass:
        rollout.values[rollout.horizon] = policy.values(rollout.seen(rollout.horizon), rollout.state)[0]
        return
    values = rollout.values.view(-1)
    size = piece_size or values.shape[0]
    for start in range(done, values.shape[0], size):
        stop = min(start + size, values.shape[0])
        values[start:stop] = policy.values(rollout.block(start, stop))[0]
