"""Whether rl8 and Stable-Baselines3 compute the same update from the same data.

    python -m experiments.benchmarks.same_update cartpole_v1
    python -m experiments.benchmarks.same_update walker2d_v4 --iterations 10

Stable-Baselines3 collects; rl8 gets its weights, Adam's state and the horizon; both update, and their weights are
compared. What they draw or do otherwise on purpose is left out: minibatches, running statistics, clipped values. What
is left besides rounding: Stable-Baselines3 divides advantages by the std with M - 1, rl8 by that with M.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rl8 import Algorithm, launch
from rl8.config import catalog, compose
from rl8.config.schema import check

from .run import Cell, composed
from .sb3_ppo import build
from .tasks import TASKS

ALIKE = (
    *("algo.sgd_minibatch_size=null", "algo.normalize_advantages_per_minibatch=false", "algo.vf_clip_param=null"),
    *("algo.normalize_obs=false", "algo.normalize_rewards=false", "algo.lr_schedule=null"),
    *("algo.schedules.clip_param=null", "algo.schedules.lr=null"),
)
SAME = 1e-3  # of how far the weights moved: what rounding and the std come to over a horizon's passes
MOMENTS = ("exp_avg", "exp_avg_sq", "step")

Pairs = Sequence[tuple[nn.Parameter, nn.Parameter]]  # rl8's, and the other program's


class Difference(NamedTuple):
    """How two updates differ.

    Attributes:
        moved: Distance that rl8's weights moved.
        apart: Distance between both programs' weights afterwards.
    """

    moved: float
    apart: float


def ours(task: str, words: Sequence[str], folder: Path) -> Algorithm:
    """Return rl8's algorithm for a task, as the command line would build it."""
    catalog.prepare()
    with compose.composer():
        plan = check(*compose.checked([f"experiment={task}", "trainer.track=false", *words]), ())
    return launch.build(plan, folder).algorithm


def pairs(policy: Any, theirs: Any) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    """Yield the parameters of rl8's perceptrons, each with its counterpart in Stable-Baselines3."""
    net, extractor = policy.model, theirs.mlp_extractor
    own = [*net.policy_net.layers, net.policy_head.linear, *net.value_net.layers, net.value_head.linear]
    others = [
        *(layer for layer in extractor.policy_net if isinstance(layer, nn.Linear)),
        theirs.action_net,
        *(layer for layer in extractor.value_net if isinstance(layer, nn.Linear)),
        theirs.value_net,
    ]
    for mine, other in zip(own, others, strict=True):
        yield mine.weight, other.weight
        yield mine.bias, other.bias
    if hasattr(theirs, "log_std"):
        ((_, log_std),) = (named for named in net.policy_head.named_parameters() if "log_std" in named[0])
        yield log_std, theirs.log_std


@torch.no_grad()
def hand_over(model: Any, algorithm: Algorithm, weights: Pairs) -> None:
    """Give rl8 the weights, Adam's state and the horizon of Stable-Baselines3."""
    for mine, other in weights:
        mine.copy_(other.reshape(mine.shape))
        if known := model.policy.optimizer.state.get(other):
            state = algorithm.optimizer.state[mine]
            state.update({name: known[name].clone().reshape(state[name].shape) for name in MOMENTS if name in state})
    buffer, rollout = model.rollout_buffer, algorithm.rollout
    begins = np.concatenate([buffer.episode_starts[1:], np.asarray(model._last_episode_starts)[None]])
    last_obs = torch.as_tensor(model._last_obs).float()
    ends = torch.as_tensor(begins > 0)
    given = {
        "obs": torch.cat([_numbers(buffer.observations), last_obs.unsqueeze(0)]),
        "actions": _numbers(buffer.actions),
        "logp": _numbers(buffer.log_probs),
        "values": torch.cat([_numbers(buffer.values), model.policy.predict_values(last_obs).view(1, -1)]),
        "rewards": _numbers(buffer.rewards),  # with what follows a time limit
        "is_last": ends,
        "terminated": ends,
    }
    for name, value in given.items():
        own: Tensor = getattr(rollout, name)
        own.copy_(value.reshape(own.shape))
    if rollout.truncated is not None:
        rollout.truncated.zero_()


def _numbers(array: Any) -> Tensor:
    return torch.as_tensor(np.asarray(array)).float()


def differences(task: str, iterations: int, words: Sequence[str] = ()) -> Iterator[Difference]:
    """Yield how the updates of some iterations differ."""
    chosen = [*ALIKE, *words]
    model, envs = build(composed(Cell(task, "sb3", 1), chosen))
    _, callback = model._setup_learn(iterations * model.n_steps * model.n_envs)
    with tempfile.TemporaryDirectory() as folder:
        algorithm = ours(task, chosen, Path(folder))
        weights = list(pairs(algorithm.policy, model.policy))
        for _ in range(iterations):
            model.collect_rollouts(envs, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            algorithm.collect()
            hand_over(model, algorithm, weights)
            before = [(mine.detach().clone(), mine) for mine, _ in weights]
            model.train()
            algorithm.step()
            yield Difference(_distance(before), _distance(weights))
        algorithm.env.close()
    envs.close()


@torch.no_grad()
def _distance(weights: Sequence[tuple[Tensor, Tensor]]) -> float:
    return float(sum((one - other.reshape(one.shape)).square().sum() for one, other in weights) ** 0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=[name for name, task in TASKS.items() if "sb3" in task.programs])
    parser.add_argument("--iterations", type=int, default=5)
    arguments = parser.parse_args()
    worst = 0.0
    for found in differences(arguments.task, arguments.iterations):
        worst = max(worst, found.apart / found.moved)
        print(f"moved {found.moved:.4g}, apart {found.apart:.2g}: {found.apart / found.moved:.1e} of it", flush=True)
    print("the same" if worst < SAME else "not the same")
    return int(worst >= SAME)


if __name__ == "__main__":
    raise SystemExit(main())
