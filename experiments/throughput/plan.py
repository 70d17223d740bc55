"""Which points are measured: all of them, and the predictions that decide which ones are left out.

Dear points come last and are dropped when the time or memory they need is predicted to exceed what there is; every one
that is dropped is recorded with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from .bounds import FLOAT, iteration_flops, work_of

NUM_ENVS = (256, 1024, 4096, 8192, 16384, 65536, 262144, 1048576)
HORIZONS = (16, 32, 64, 128)
WIDTHS = (32, 64, 128, 256, 512, 1024)
MINIBATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
LSTM_WIDTH = 128

# Predictions of a process: imports and set-up (s, MB), and what a step costs however few the environments (s).
START_S, START_MB, STEP_S = 7.0, 400.0, 0.6e-3
# One more iteration, in one thread, counts what is dispatched; it takes as long as this many others.
COUNTING = 2.0


@dataclass(frozen=True)
class Point:
    """What is measured once.

    Attributes:
        env, model, num_envs, horizon, width, minibatches, amp, compile: As `peers/rl8_ppo.py` takes them.
    """

    env: str = "cartpole"
    model: str = "mlp"
    num_envs: int = 1024
    horizon: int = 32
    width: int = 256
    minibatches: int = 1
    amp: bool = False
    compile: bool = False

    @property
    def transitions(self) -> int:
        """Transitions per iteration."""
        return self.num_envs * self.horizon

    @property
    def flops(self) -> float:
        """Operations per iteration."""
        work = work_of(self.env, model=self.model, width=self.width, horizon=self.horizon)
        return self.transitions * sum(iteration_flops(work).values())

    def options(self) -> list[str]:
        """Return the command line of this point."""
        found = []
        for name, value in asdict(self).items():
            flag = f"--{name.replace('_', '-')}"
            if value is True:
                found.append(flag)
            elif value is not False:
                found += [flag, str(value)]
        return found

    def __str__(self) -> str:
        extras = [word for word, on in (("amp", self.amp), ("compile", self.compile)) if on]
        size = f"{self.num_envs} x {self.horizon}, width {self.width}, {self.minibatches} minibatches"
        return " ".join([self.env, self.model, size, *extras])


@dataclass(frozen=True)
class Limits:
    """What a machine has, and how fast it is.

    Attributes:
        flops_per_s: Operations per second that an iteration reaches.
        memory_mb: Memory that may be used.
        point_s: Time that one point may take.
        piece: Rows of activations that are alive at once; None for a whole minibatch.
        step_s: What a step of the rollout costs besides arithmetic.
        start_s: What a process costs before it measures.
    """

    flops_per_s: float
    memory_mb: float
    point_s: float = 40.0
    piece: int | None = 16384
    step_s: float = STEP_S
    start_s: float = START_S


def iteration_s(point: Point, limits: Limits) -> float:
    """Return the predicted seconds of an iteration."""
    return point.flops / limits.flops_per_s + point.horizon * limits.step_s


def warmup(point: Point, limits: Limits) -> int:
    """Return how many iterations go before those that are timed: none where one takes long enough by itself."""
    return 1 if iteration_s(point, limits) < 8.0 else 0


def point_s(point: Point, limits: Limits, *, seconds: float = 4.0) -> float:
    """Return the predicted seconds of measuring a point, for timed iterations of about `seconds` in all."""
    one = iteration_s(point, limits)
    return limits.start_s + one * (warmup(point, limits) + COUNTING) + max(one, min(5 * one, seconds + one / 2))


def memory_mb(point: Point, limits: Limits) -> float:
    """Return the predicted peak memory: the rollout, and activations with their gradients of what is alive at once."""
    work = work_of(point.env, model=point.model, width=point.width, horizon=point.horizon)
    stored = FLOAT * work.obs + work.action_bytes + 9 * FLOAT
    rows = point.transitions // point.minibatches
    rows = rows if limits.piece is None else min(rows, limits.piece)
    # two networks of two hidden layers: inputs and outputs of each activation, and their gradients
    alive = 2 * 2 * 3 * point.width * FLOAT * rows
    return START_MB + (1.5 * stored * point.transitions + alive) / 2**20


def objection(point: Point, limits: Limits, left_s: float) -> str | None:
    """Return why a point is not measured, or None."""
    seconds, megabytes = point_s(point, limits), memory_mb(point, limits)
    if megabytes > limits.memory_mb:
        return f"predicted to need {megabytes / 1024:.1f} GB of {limits.memory_mb / 1024:.1f} GB"
    if seconds > limits.point_s:
        return f"predicted to take {seconds:.0f} s, more than the {limits.point_s:.0f} s that a point may take"
    if seconds > left_s:
        return f"predicted to take {seconds:.0f} s of the {max(left_s, 0):.0f} s left"
    return None


def grid(env: str = "cartpole", model: str = "mlp") -> Iterator[Point]:
    """Yield every number of environments with every horizon."""
    width = LSTM_WIDTH if model == "lstm" else 256
    for horizon in HORIZONS:
        for num_envs in NUM_ENVS:
            yield Point(env=env, model=model, num_envs=num_envs, horizon=horizon, width=width)


def others() -> Iterator[Point]:
    """Yield the points of the other environments and of the LSTM at the default horizon."""
    for env, model in (("pendulum", "mlp"), ("dummy", "mlp"), ("cartpole", "lstm")):
        for point in grid(env, model):
            if point.horizon == 32:
                yield point


def scaling() -> Iterator[Point]:
    """Yield the points that vary the width and the number of minibatches."""
    base = Point()
    for width in WIDTHS:
        yield replace(base, width=width)
    for minibatches in MINIBATCHES:
        yield replace(base, minibatches=minibatches)


def small_work() -> Iterator[Point]:
    """Yield what most people begin with: few environments, narrow networks, minibatches of 256 env steps."""
    for num_envs in (8, 128, 1024):
        point = Point(num_envs=num_envs, width=64)
        yield replace(point, minibatches=point.transitions // 256)


def cpu_points() -> list[Point]:
    """Return the points of the study on a CPU, each once, in the order in which they are measured."""
    default = Point(num_envs=8192)
    small = [point for point in grid() if point.transitions <= 131072]
    few = [point for point in others() if point.num_envs in (256, 1024, 8192)]
    rest = sorted([*grid(), *others()], key=lambda point: point.flops)
    return list(dict.fromkeys([Point(), default, *small_work(), *small, *scaling(), *few, *rest]))
