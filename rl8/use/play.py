"""`rl8 play`: a film of a policy at work, time and return written on it, or the same live in a terminal."""

from __future__ import annotations

import argparse
import copy
import itertools
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from rl8.checks import check_path, check_range
from rl8.launch import check_folder
from rl8.use.evaluate import ended, has_ends, split
from rl8.use.task import check_flags, horizon_of, task
from rl8.view import movies, terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rl8.env import Env
    from rl8.policy.policy import Policy

DESCRIPTION = "Film a policy at work, in one environment or a grid of them."
KINDS: Final = (".gif", ".mp4")
# Pictures per second where the environment does not say how much time a step takes.
FPS: Final = 30.0
# Steps of a film of whole episodes at most.
LONGEST: Final = 2_000


def shots(
    policy: Policy,
    env: Env,
    *,
    steps: int | None,
    deterministic: bool = True,
    config: dict[str, Any] | None = None,
    seed: int = 1,
) -> Iterator[tuple[list[NDArray[np.uint8]], list[str]]]:
    """Yield pictures `[height, width, 3]` of all environments at the reset and after each step, a text with each.

    Args:
        policy: What is filmed, in evaluation mode.
        env: Environments that can draw.
        steps: How many; None films until the first episode of every environment has ended, `LONGEST` at most.
        deterministic: Whether actions are the distribution's mode rather than a sample.
        config: Settings of the reset.
        seed: Of all random numbers.
    """
    import numpy as np
    import torch

    from rl8.data import OBS, REWARDS
    from rl8.rng import forked
    from rl8.rollout.evaluation import caption
    from rl8.use.memory import Memory

    with torch.no_grad(), forked(policy.device):
        torch.manual_seed(seed)
        obs, memory = env.reset(config=copy.deepcopy(config)), Memory(policy, env.num_envs)
        total = torch.zeros(env.num_envs, device=policy.device)
        times = torch.zeros_like(total)
        going = torch.ones_like(total, dtype=torch.bool)
        most = LONGEST if steps is None else steps
        for step in range(most + 1):
            if steps is None and not bool(going.any()):
                return
            pictures = [np.asarray(torch.as_tensor(env.render(index)).cpu()) for index in range(env.num_envs)]
            texts = [
                caption(env, index, int(time), reward)
                for index, (time, reward) in enumerate(zip(times.tolist(), total.tolist(), strict=True))
            ]
            yield pictures, texts
            if step == most:
                return
            result = env.step(memory.act(obs, deterministic=deterministic))
            total += result[REWARDS].reshape(env.num_envs)
            times += 1
            over, obs = ended(result, env.num_envs), result[OBS]
            going &= ~over
            # What is drawn next is the beginning of another episode.
            memory.forget(over)
            total.masked_fill_(over, 0.0)
            times.masked_fill_(over, 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `rl8 play` takes."""
    parser.add_argument(
        "words", nargs="*", metavar="RUN | key=value", help="a run, and overrides such as env.gravity=12"
    )
    parser.add_argument("-o", "--out", help="the film, .gif or .mp4; by default play.gif in the run's folder")
    parser.add_argument("--grid", default="1x1", help="rows x columns of environments, e.g. 3x3; by default one")
    parser.add_argument(
        "--steps", type=int, help="steps to film; by default as an evaluation: an episode, if these end"
    )
    parser.add_argument("--fps", type=float, help="pictures per second; by default as fast as in the simulation")
    parser.add_argument("--width", type=int, help="pixels of each environment; by default 480, in a grid less")
    parser.add_argument("--live", action="store_true", help="show it in this terminal, and write no film")
    parser.add_argument("--sample", action="store_true", help="draw actions rather than take the most probable")


def run(args: argparse.Namespace) -> int:
    """Film as the command line says, and return the exit code.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a run or key does not exist, does not fit, or the environment draws nothing.
    """
    runs, overrides = split(args.words, "play")
    if len(runs) > 1:
        raise ValueError(f"rl8 play films one policy, not {', '.join(runs)}. Try rl8 play {runs[0]}.")
    check_range("--steps", args.steps, 1, integer=True, optional=True, hint="--steps=200")
    check_range("--fps", args.fps, 0, low_open=True, optional=True, hint="--fps=30")
    check_range("--width", args.width, 16, 4096, integer=True, optional=True, hint="--width=480")
    rows, columns = _grid(args.grid)
    if args.live:
        _check_live(args)
    check_flags(args, overrides)
    each = task(runs[0], overrides)
    path = check_path("--out", args.out) if args.out else each.found.folder / "play.gif"
    if path.suffix.lower() not in KINDS:
        raise ValueError(
            f"--out={path} is no film. Accepted: a name that ends in {' or '.join(KINDS)}. Try -o play.gif."
        )
    check_folder("--out", path.parent, "a film's folder", "play.gif")
    if path.suffix.lower() == ".mp4":
        movies.load_av()
    if each.num_envs is not None:
        raise ValueError("trainer.eval_num_envs has no effect on a film. Accepted: --grid. Try --grid=3x3.")
    policy = each.policy()
    steps = args.steps or horizon_of(each.plan)
    env = each.env(policy, rows * columns, steps, drawing=True)
    _check_drawing(env)
    whole = args.steps is None and each.plan.trainer.eval_horizon is None and has_ends(env)
    settings = each.plan.trainer
    seen = shots(
        policy, env, steps=None if whole else steps, config=settings.eval_env_config, seed=each.seed,
        deterministic=settings.eval_deterministic and not args.sample,
    )  # fmt: skip
    fps = args.fps or (1 / env.number("tau", 0) if "tau" in env.parameters else FPS)
    if args.live:
        singles = ((pictures[0], texts[0]) for pictures, texts in seen)
        shown = terminal.show(singles, sys.stdout, fps=fps)
        print(f"{shown} pictures shown", flush=True)
        return 0
    width = args.width or max(160, 480 * 2 // (columns + 1))
    frames = (movies.mosaic(pictures, texts, columns=columns, width=width) for pictures, texts in seen)
    count = itertools.count()
    frames = (frame for frame, _ in zip(frames, count, strict=False))
    if path.suffix.lower() == ".mp4":
        movies.mp4(frames, path, fps=fps)
    else:
        movies.gif(list(frames), path, fps=fps)
    print(f"{path}: {next(count)} pictures of {env.num_envs} environment(s), {fps:.3g} per second", flush=True)
    return 0


def _check_live(args: argparse.Namespace) -> None:
    """Check that a terminal can show what is asked for.

    Raises:
        ValueError: If it can't.
    """
    for flag, given in (("--out", args.out), ("--width", args.width), ("--grid", args.grid != "1x1")):
        if given:
            raise ValueError(
                f"{flag} is for films, and --live shows one environment in this terminal. Drop one of the two."
            )
    terminal.check(sys.stdout)


def _grid(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2})x(\d{1,2})", text)
    rows, columns = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= rows * columns <= 100:
        raise ValueError(f"--grid={text!r} is no grid. Accepted: ROWSxCOLUMNS, up to 100 environments. Try --grid=3x3.")
    return rows, columns


def _check_drawing(env: Env) -> None:
    if env.opaque and not env.has_pictures:
        raise ValueError(
            f"{type(env).__name__} draws no pictures of this task. Accepted: one of whose library it can ask for them."
        )
    if not env.has_pictures:
        raise ValueError(
            f"{type(env).__name__} draws no pictures. Accepted: an environment that defines render(self, index=0) and "
            "returns uint8 RGB [height, width, 3]; rl8.env.drawing.Canvas has lines, circles and rectangles."
        )
