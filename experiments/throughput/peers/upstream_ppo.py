"""The `rl8` of PyPI, version 1.0.0, in a virtual environment of its own: both packages have the same name."""

from __future__ import annotations

import time

import contract
import torch
from cartpole import CartPole
from contract import CHECK_ENVS
from tensordict import TensorDict
from torchrl.data import Categorical, Unbounded

from rl8 import AlgorithmConfig, Env
from rl8.data import DataKeys


class UpstreamCartPole(Env):
    """The study's CartPole behind this library's interface."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Unbounded(5, device=device, dtype=torch.float32)
        self.action_spec = Categorical(3, shape=torch.Size([1]), device=device)
        self.inner = CartPole(num_envs, device)

    def reset(self, *, config=None):
        return self.inner.reset()

    def step(self, action):
        obs, rewards = self.inner.step(action.view(-1))
        batch = {DataKeys.OBS: obs, DataKeys.REWARDS: rewards.unsqueeze(-1)}
        return TensorDict(batch, batch_size=self.num_envs, device=self.device)


def main() -> None:
    options = contract.parser(__doc__)
    options.add_argument("--shuffle", action="store_true", help="permute the one full batch before each pass")
    args = options.parse_args()
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    base, begin = contract.memory_mb(), time.perf_counter()
    algorithm = AlgorithmConfig(
        num_envs=args.num_envs,
        horizon=args.horizon,
        num_sgd_iters=args.passes,
        # Its default permutes the batch, which changes nothing when one minibatch holds all of it.
        shuffle_minibatches=args.shuffle,
        model_config={"hiddens": (args.width, args.width)},
        optimizer_config={"lr": contract.LEARNING_RATE},
        enable_amp=args.amp,
        device=args.device,
    ).build(UpstreamCartPole)
    setup = time.perf_counter() - begin
    rows = contract.timed(args, algorithm.collect, algorithm.step, torch.cuda.synchronize if cuda else contract.nothing)
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else contract.memory_mb()
    probe = CartPole(CHECK_ENVS, args.device)
    contract.emit(
        args,
        "upstream",
        rows,
        check=contract.play_check(probe.check_states, probe.check_step),
        base_mb=0.0 if cuda else base,
        peak_mb=peak,
        setup_s=setup,
        versions=contract.versions("rl8", "torch", "tensordict", "torchrl"),
    )


if __name__ == "__main__":
    main()
