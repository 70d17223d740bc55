"""PPO end to end in plain JAX: rollout, advantages and all passes are `lax.scan`s inside one compiled function.

Written for this comparison, float32, no libraries besides JAX. It does what rl8's default iteration does: reset, T
steps, rewards scaled by the spread of discounted sums, advantages normalised over the batch, four full-batch passes
with Adam and a clipped gradient norm. The gradient of a pass is accumulated over pieces of `--piece` rows, which is
faster on a CPU than the whole batch at once. Compilation is timed apart.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else peak memory is whatever XLA reserved

import contract
import jax
import jax.numpy as jnp
from jax import lax

FORCE, GRAVITY, CART, POLE, HALF_LENGTH, TAU, START_STD = 5.0, 9.8, 1.0, 0.1, 0.5, 0.02, 0.01
MASS = CART + POLE
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


# ------------------------------------------------------------------------------------------------------ environment


def observe(state):
    x, x_dot, theta, theta_dot = state
    return jnp.stack((x, x_dot, jnp.cos(theta), jnp.sin(theta), theta_dot), axis=-1)


def env_step(state, actions):
    """Return the next state (four rows), its observations `[N, 5]` and rewards `[N]`."""
    x, x_dot, theta, theta_dot = state
    sin, cos = jnp.sin(theta), jnp.cos(theta)
    drive = ((actions - 1) * FORCE + POLE * HALF_LENGTH * theta_dot**2 * sin) / MASS
    theta_acc = (GRAVITY * sin - cos * drive) / (HALF_LENGTH * (4 / 3 - POLE / MASS * cos**2))
    x_acc = drive - POLE * HALF_LENGTH / MASS * theta_acc * cos
    state = (x + TAU * x_dot, x_dot + TAU * x_acc, theta + TAU * theta_dot, theta_dot + TAU * theta_acc)
    obs = observe(state)
    return state, obs, -jnp.abs(obs - jnp.array([0.0, 0.0, 1.0, 0.0, 0.0])).sum(-1)


# ---------------------------------------------------------------------------------------------------------- networks


def perceptron(key, sizes, gain):
    """Return weights and biases, the last layer's scaled by `gain`."""
    layers = []
    for index, (a, b) in enumerate(pairwise(sizes)):
        key, part = jax.random.split(key)
        scale = gain if index == len(sizes) - 2 else 2**0.5
        layers.append((scale * jax.random.orthogonal(part, max(a, b))[:a, :b], jnp.zeros(b)))
    return layers


def apply(layers, inputs):
    for weight, bias in layers[:-1]:
        inputs = jax.nn.relu(inputs @ weight + bias)
    weight, bias = layers[-1]
    return inputs @ weight + bias


# --------------------------------------------------------------------------------------------------------------- PPO


def collect(params, key, num_envs, horizon):
    """Return what one horizon gave, `[T, N, ...]` each, and the value of the last observation."""
    key, start = jax.random.split(key)
    state = tuple(START_STD * jax.random.normal(start, (4, num_envs)))

    def step(carry, key):
        state, obs = carry
        logits = jax.nn.log_softmax(apply(params["policy"], obs))
        actions = jax.random.categorical(key, logits)
        logp = jnp.take_along_axis(logits, actions[:, None], axis=1)[:, 0]
        value = apply(params["value"], obs)[:, 0]
        state, following, rewards = env_step(state, actions)
        return (state, following), (obs, actions, logp, value, rewards)

    (_, last), rollout = lax.scan(step, (state, observe(state)), jax.random.split(key, horizon))
    return rollout, apply(params["value"], last)[:, 0]


def advantages_of(rewards, values, last_value):
    """Return normalised advantages and returns `[T, N]`."""

    def discounted(total, reward):
        total = contract.GAMMA * total + reward
        return total, total

    _, totals = lax.scan(discounted, jnp.zeros_like(last_value), rewards)
    rewards = rewards / (totals.std() + 1e-8)
    following = jnp.concatenate((values[1:], last_value[None]))
    deltas = rewards + contract.GAMMA * following - values

    def backwards(advantage, delta):
        advantage = delta + contract.GAMMA * contract.GAE_LAMBDA * advantage
        return advantage, advantage

    _, advantages = lax.scan(backwards, jnp.zeros_like(last_value), deltas, reverse=True)
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8), advantages + values


def loss_of(params, obs, actions, old_logp, advantages, returns):
    logits = jax.nn.log_softmax(apply(params["policy"], obs))
    logp = jnp.take_along_axis(logits, actions[:, None], axis=1)[:, 0]
    ratio = jnp.exp(logp - old_logp)
    clipped = jnp.clip(ratio, 1 - contract.CLIP, 1 + contract.CLIP)
    policy = -jnp.minimum(ratio * advantages, clipped * advantages).mean()
    value = jnp.square(apply(params["value"], obs)[:, 0] - returns).mean()
    return policy + value


def gradient(params, batch, piece):
    """Return loss and gradient of the whole batch, summed over pieces of rows."""
    rows = batch[0].shape[0]
    if not piece or piece >= rows:
        return jax.value_and_grad(loss_of)(params, *batch)
    assert rows % piece == 0, f"--piece {piece} does not divide {rows} rows"
    pieces = jax.tree.map(lambda leaf: leaf.reshape(rows // piece, piece, *leaf.shape[1:]), batch)

    def add(total, part):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss_of)(params, *part)), None

    zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = lax.scan(add, zero, pieces)
    return jax.tree.map(lambda leaf: leaf * (piece / rows), total)


def adam(params, moments, grads):
    """Return parameters and moments after a step with a clipped gradient."""
    norm = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(grads)))
    scale = jnp.minimum(1.0, contract.MAX_GRAD_NORM / (norm + 1e-6))
    grads = jax.tree.map(lambda leaf: leaf * scale, grads)
    count, first, second = moments
    count = count + 1
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grads)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, grads)
    rate, denominator = contract.LEARNING_RATE / (1 - BETA1**count), 1 - BETA2**count
    params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v / denominator) + EPSILON), params, first, second)
    return params, (count, first, second)


def update(params, moments, rollout, last_value, passes, piece):
    obs, actions, logp, values, rewards = rollout
    advantages, returns = advantages_of(rewards, values, last_value)
    batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (obs, actions, logp, advantages, returns))

    def one_pass(carry, _):
        params, moments = carry
        loss, grads = gradient(params, batch, piece)
        return adam(params, moments, grads), loss

    (params, moments), losses = lax.scan(one_pass, (params, moments), None, length=passes)
    return params, moments, losses[-1]


# ------------------------------------------------------------------------------------------------------------ program


def play_check():
    now = {}

    def states(states):
        now["state"] = tuple(jnp.array(row) for row in zip(*states, strict=True))

    def step(actions):
        now["state"], _, rewards = env_step(now["state"], jnp.array(actions))
        return rewards.tolist()

    return contract.play_check(states, step)


def start(args):
    """Return parameters, Adam's moments and a key, as one tree that every iteration carries on."""
    policy, value, key = jax.random.split(jax.random.key(args.seed), 3)
    widths = (5, args.width, args.width)
    params = {"policy": perceptron(policy, (*widths, 3), 0.01), "value": perceptron(value, (*widths, 1), 0.1)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    return params, (jnp.zeros(()), zeros, jax.tree.map(jnp.zeros_like, params)), key


def iteration_of(args):
    def iteration(carry, _):
        params, moments, key = carry
        key, part = jax.random.split(key)
        rollout, last_value = collect(params, part, args.num_envs, args.horizon)
        params, moments, loss = update(params, moments, rollout, last_value, args.passes, args.piece)
        return (params, moments, key), (loss, rollout[4].sum(0).mean())

    return iteration


def run(args):
    """Return timings and the seconds of compilation; the collect is timed on its own, the update is the difference."""
    carry = start(args)
    iteration = iteration_of(args)
    begin = time.perf_counter()
    whole = (
        jax.jit(lambda carry: lax.scan(iteration, carry, None, length=args.block), donate_argnums=0)
        .lower(carry)
        .compile()
    )
    compile_s = time.perf_counter() - begin
    alone = jax.jit(lambda params, key: collect(params, key, args.num_envs, args.horizon))
    alone_rows, rows = [], []
    jax.block_until_ready(alone(carry[0], carry[2]))
    for _ in range(3):
        begin = time.perf_counter()
        jax.block_until_ready(alone(carry[0], carry[2]))
        alone_rows.append(time.perf_counter() - begin)
    collect_s = sorted(alone_rows)[1]
    for _ in range(args.warmup):
        carry, out = whole(carry)
    jax.block_until_ready(carry)
    end = time.perf_counter() + args.seconds
    while len(rows) < args.iterations and (len(rows) < args.min_iterations or time.perf_counter() < end):
        begin = time.perf_counter()
        carry, out = whole(carry)
        jax.block_until_ready((carry, out))
        total = (time.perf_counter() - begin) / args.block
        rows.append({"collect_s": collect_s, "update_s": total - collect_s, "total_s": total})
    return rows, compile_s, float(out[1][-1])


def main() -> None:
    options = contract.parser(__doc__)
    options.add_argument("--piece", type=int, default=0, help="rows per backward pass; 0 takes the whole batch")
    args = options.parse_args()
    jax.config.update("jax_platforms", "cpu" if args.device == "cpu" else "cuda,cpu")
    base, begin = contract.memory_mb(), time.perf_counter()
    rows, compile_s, returns = run(args)
    cuda = args.device != "cpu"
    peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20 if cuda else contract.memory_mb()
    contract.emit(
        args,
        "jax",
        rows,
        check=play_check(),
        base_mb=0.0 if cuda else base,
        peak_mb=peak,
        setup_s=time.perf_counter() - begin,
        compile_s=compile_s,
        returns=returns,
        versions=contract.versions("jax", "jaxlib"),
    )


if __name__ == "__main__":
    main()
