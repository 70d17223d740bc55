"""Where a run computes and what it does besides PPO: evaluation, checkpoints, display, tracking.

This file imports no torch, so that a config is checked before anything heavy is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from rl8.checks import check_choice, check_range
from rl8.kinds import convert_fields

MAX_THREADS: Final = 1024  # OpenMP ends the process where the system has no more
MAX_PROCESSES: Final = 1024  # on one machine

# What a run may go on from, one at most.
ORIGINS: Final = ("resume", "branch", "init_from")


@dataclass(frozen=True)
class DeviceSettings:
    """Where and how tensors are computed.

    Attributes:
        device: `"cpu"`, `"cuda"` or `"cuda:<index>"`.
        graphs: Whether CUDA replays the rollout and each optimizer step as CUDA graphs.
        kernels: Whether rl8's own Triton kernels compute on CUDA: `"auto"`, where one agrees with the plain path and is
            faster, both tried at its first use; `"on"`, wherever there is one; or `"off"`. True and False stand for the
            last two, as YAML reads them so.
        compile: What is compiled: with `"auto"`, on a CPU, small work of the default model (minibatches of some hundred
            env steps, layers of some dozen units), which is computed in C; the system's C compiler makes that once, and
            `~/.cache/rl8` keeps it. With True Inductor also fuses the environment's physics, sampling and the loss,
            which costs start-up time. With False nothing is.
        matmul_precision: float32 matrix products: `"highest"`, `"high"` (TF32 on CUDA) or `"medium"`.
        piece_size: Env steps per forward and backward pass; larger minibatches are computed in such pieces, with
            the same gradient. None takes what suits the model on a CPU, and the whole minibatch on CUDA.
        num_threads: CPU threads, each of which computes pieces of its own; None leaves torch's own choice.
        processes: Processes on this machine that train one policy, each with `algo.num_envs` environments of its own;
            on CUDA each takes a GPU. torchrun starts more, also on several machines.
        max_restarts: How often processes that failed are started again, to go on from the last checkpoint.
        patience_s: Seconds that processes wait for one another in training, before one that does not answer is taken
            to hang and all end.
    """

    device: str = "cpu"
    graphs: bool = True
    kernels: str | bool = "auto"
    compile: str | bool = "auto"
    matmul_precision: str = "high"
    piece_size: int | None = None
    num_threads: int | None = None
    processes: int = 1
    max_restarts: int = 0
    patience_s: float = 20.0

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            TypeError: If a value is of the wrong kind.
            ValueError: If it is out of range.
        """
        convert_fields(self, "device")
        if isinstance(self.kernels, bool):
            object.__setattr__(self, "kernels", "on" if self.kernels else "off")
        if not re.fullmatch(r"cpu|cuda(:\d+)?", str(self.device)):
            raise ValueError(
                f"device.device={self.device!r} is unknown. Accepted: cpu, cuda, cuda:<index>. Try device.device=cpu."
            )
        check_choice("device.kernels", self.kernels, ("auto", "on", "off"))
        if not isinstance(self.compile, bool):
            check_choice("device.compile", self.compile, ("auto", "true", "false"))
            object.__setattr__(self, "compile", {"true": True, "false": False}.get(self.compile, "auto"))
        if self.kernels == "on" and self.device == "cpu":
            raise ValueError(
                "device.kernels=on has no effect with device.device=cpu: the kernels are for CUDA. Accepted there: "
                "auto, off. Try device=cuda, or device.kernels=auto."
            )
        check_choice("device.matmul_precision", self.matmul_precision, ("highest", "high", "medium"))
        check_range("device.piece_size", self.piece_size, 1, integer=True, optional=True)
        check_range("device.num_threads", self.num_threads, 1, integer=True, optional=True, most=MAX_THREADS)
        check_range("device.processes", self.processes, 1, integer=True, most=MAX_PROCESSES)
        check_range("device.max_restarts", self.max_restarts, 0, integer=True)
        check_range("device.patience_s", self.patience_s, 1.0)

    @property
    def inductor(self) -> bool:
        """Whether Inductor compiles."""
        return self.compile is True


@dataclass(frozen=True)
class TrainerSettings:
    """What a run does besides PPO.

    Attributes:
        experiment_name: MLflow experiment that the run is recorded under.
        run_name: Name of the run; None names it for what it is (`cartpole-ppo-seed1`), a sweep's job by what varies.
        track: Whether the run is recorded in MLflow.
        tensorboard: Whether TensorBoard's event files are written too, in `tensorboard/` of the run's folder (extra
            `rl8[tensorboard]`).
        wandb: Whether the run is recorded by Weights & Biases too: `"online"`, `"offline"` (in `wandb/` of the run's
            folder, for `wandb sync`), or None (extra `rl8[wandb]`).
        seconds_per_log: Least seconds between two iterations that are recorded; in a run's first minutes less, a
            fiftieth of its age. Evaluations and the last iteration always are. 0 records every iteration.
        view: `"live"` (rich), `"plain"` (lines), `"none"`, or `"auto"`: live on a terminal, plain elsewhere.
        steps_per_eval: Iterations between evaluations; None evaluates only at the end of the run.
        eval_num_envs: Environments of an evaluation.
        eval_horizon: Env steps per environment of an evaluation; None takes `algo.horizon`. Where episodes end, each
            environment plays one whole episode, and this is the most steps of it; None then is 27,000.
        eval_deterministic: Whether an evaluation takes the distribution's mode rather than a sample.
        env_config: Settings for the training environment's resets, or None.
        eval_env_config: Settings for the evaluation environment's reset, or None.
        minutes_per_checkpoint: Minutes between checkpoints; None saves none by time.
        steps_per_checkpoint: Iterations between checkpoints; None saves none by iterations. One is always saved at the
            end of the run, and when SIGINT or SIGTERM ends it.
        keep_checkpoints: How many of the last checkpoints are kept: `checkpoint.pt`, before it `checkpoint.1.pt`, ...
        steps_per_video: Iterations between films of the policy at work, kept with the run; None makes one at the end.
        best_metric: Metric whose highest value so far is kept as `best.pt`, whenever it is measured; None keeps none.
        resume: RUN to go on with, from its last checkpoint, as the same run: in its folder and its MLflow run.
        branch: RUN or checkpoint from which a new run goes on, in a folder and an MLflow run of its own.
        init_from: RUN whose policy's weights and normalisation a new run starts from; all else may be another.
        on_nonfinite: What happens when a number is infinite or NaN: `"stop"` ends the run with the reason and keeps the
            horizon of the environments concerned as `nonfinite.pt`; `"skip"` learns from the others and resets all.
        render: Whether a GIF of the final policy is made, for environments that can render.
        output_dir: Folder for the run's files; None takes `outputs/<date>/<time>`.
    """

    experiment_name: str = "rl8"
    run_name: str | None = None
    track: bool = True
    tensorboard: bool = False
    wandb: str | None = None
    seconds_per_log: float = 2.0
    view: str = "auto"
    steps_per_eval: int | None = None
    eval_num_envs: int = 256
    eval_horizon: int | None = None
    eval_deterministic: bool = True
    env_config: Any = None
    eval_env_config: Any = None
    minutes_per_checkpoint: float | None = 5.0
    steps_per_checkpoint: int | None = None
    keep_checkpoints: int = 3
    steps_per_video: int | None = None
    best_metric: str | None = "eval/returns/mean"
    resume: str | None = None
    branch: str | None = None
    init_from: str | None = None
    on_nonfinite: str = "stop"
    render: bool = True
    output_dir: str | None = None

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            TypeError: If a value is of the wrong kind.
            ValueError: If it is out of range.
        """
        convert_fields(self, "trainer")
        check_choice("trainer.view", self.view, ("auto", "live", "plain", "none"))
        check_choice("trainer.wandb", self.wandb, ("online", "offline"), optional=True)
        check_choice("trainer.on_nonfinite", self.on_nonfinite, ("stop", "skip"))
        check_range("trainer.seconds_per_log", self.seconds_per_log, 0.0)
        check_range("trainer.eval_num_envs", self.eval_num_envs, 1, integer=True)
        for name in ("steps_per_eval", "eval_horizon", "steps_per_checkpoint", "steps_per_video"):
            check_range(f"trainer.{name}", getattr(self, name), 1, integer=True, optional=True)
        check_range("trainer.keep_checkpoints", self.keep_checkpoints, 1, integer=True)
        check_range("trainer.minutes_per_checkpoint", self.minutes_per_checkpoint, 0.0, low_open=True, optional=True)
        origins = [f"trainer.{name}={getattr(self, name)}" for name in ORIGINS if getattr(self, name) is not None]
        if len(origins) > 1:
            raise ValueError(
                f"{' and '.join(origins)} exclude one another. Accepted: trainer.resume to go on with a run, "
                "trainer.branch for a new run from its checkpoint, or trainer.init_from for a new run from its policy. "
                f"Try {origins[0]} alone."
            )
        for name in ("env_config", "eval_env_config"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, dict):
                raise TypeError(
                    f"trainer.{name}={value!r} is no mapping. Accepted: null, or settings for the environment's reset, "
                    f"e.g. 'trainer.{name}={{gravity: 3.7}}'."
                )
