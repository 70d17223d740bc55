"""Settings of the training environment's resets: tried before training, and changed where a run goes on."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from rl8.checkpoint import Saved
from rl8.checks import is_mistake
from rl8.kinds import as_text
from rl8.ppo.algorithm import Algorithm
from rl8.rng import forked
from rl8.tracking.secrets import redacted


def check_env_config(config: dict[str, Any] | None, algorithm: Algorithm) -> None:
    """Try settings on a copy of the training environment; random numbers stay as they are.

    Raises:
        ValueError: If it refuses them.
    """
    if config is None:
        return
    try:
        with forked(algorithm.device):
            env = algorithm.env_cls(algorithm.hparams.num_envs, algorithm.hparams.horizon, device=algorithm.device)
            try:
                env.reset(config=copy.deepcopy(config))
            finally:
                env.close()
    except (TypeError, ValueError) as error:
        if not is_mistake(error):
            raise
        text = re.sub(r"\benv_config\b", "trainer.env_config", str(error))
        raise ValueError(f"trainer.env_config={as_text(config)} is refused: {text}") from error


def configure_anew(config: dict[str, Any] | None, algorithm: Algorithm, saved: Saved) -> Iterator[str]:
    """Let settings that are others than a checkpoint's act now, where they are constants that the environment declares.

    Yields:
        What is to be said, where they never act.
    """
    env, text = algorithm.env, redacted(repr(config))
    if config and text != saved.extra.get("env_config", text):
        if set(config) <= set(env.parameters):
            env.configure(copy.deepcopy(config))
        elif (algorithm.hparams.horizons_per_env_reset or 0) < 0:
            yield "trainer.env_config has changed, and acts at the next reset only, which never comes."
