"""How a run's policy is evaluated, what its returns are sums over, and how it is filmed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rl8 import data
from rl8.checks import is_mistake
from rl8.kinds import as_text
from rl8.ppo.algorithm import Algorithm
from rl8.reported import to_host
from rl8.rollout.evaluation import MAX_EPISODE_STEPS, Evaluator, FirstEpisodes, Picture
from rl8.settings import TrainerSettings
from rl8.tracking.store import first_line
from rl8.training.messages import Messages
from rl8.view import films, movies

# Seconds after which an evaluation of whole episodes says what it waits for.
SLOW_S: Final = 10.0


class Evaluation:
    """Evaluates and films the policy of an algorithm as the settings say, in environments of its own.

    Args:
        algorithm: Its policy acts.
        settings: Of the run.
        messages: Gets what is to be said.
    """

    def __init__(self, algorithm: Algorithm, settings: TrainerSettings, messages: Messages) -> None:
        self._algorithm, self._settings, self._messages = algorithm, settings, messages
        self._evaluator: Evaluator | None = None
        self._films = films.Films()

    @property
    def evaluator(self) -> Evaluator:
        """What evaluates; its environment is built and reset once when this is first looked at.

        Raises:
            ValueError: If the environment refuses it, in terms of the settings.
        """
        if self._evaluator is None:
            self._evaluator = self._build()
        return self._evaluator

    def check(self, config: dict[str, Any] | None = None) -> None:
        """Build the environment, unless it is there, and check settings for its reset.

        Raises:
            ValueError: If it refuses them.
        """
        evaluator = self.evaluator
        if config is not None and not self._algorithm.env.shared:
            evaluator.check(config)

    def run(self, config: dict[str, Any] | None, deterministic: bool | None) -> dict[str, float]:
        """Return `eval/returns/mean` and so on; None stands for what the settings say."""
        begin = time.perf_counter()
        with self._algorithm.execution.applied():
            deterministic = self._settings.eval_deterministic if deterministic is None else deterministic
            found = self.evaluator.run(
                config=self._config(config), deterministic=deterministic, on_pause=self._said_once(begin)
            )
            metrics = to_host(found)
        values = {f"eval/{name}": value for name, value in metrics.items()}
        values[data.EVAL_MS] = (time.perf_counter() - begin) * 1e3
        if not math.isfinite(values[data.EVAL_RETURNS_MEAN]):
            self._messages.warn(
                f"The evaluation after {self._algorithm.env_steps:,} env steps has the return "
                f"{values[data.EVAL_RETURNS_MEAN]}: the environment gave such a reward. It is no best checkpoint."
            )
        return values

    def _said_once(self, begin: float) -> Callable[[FirstEpisodes], None]:
        """Return what says, of an evaluation that began then, what takes so long."""

        def say(played: FirstEpisodes) -> None:
            nonlocal begin
            if time.perf_counter() - begin > SLOW_S:
                begin = math.inf
                n, left = len(played.going), int(played.going.sum())
                self._messages.say(
                    f"Evaluation goes on: of {n} environments, each of which plays one whole episode, {n - left} have "
                    f"ended after {played.steps:,} steps. trainer.eval_horizon={played.steps} would end all there, "
                    f"trainer.eval_num_envs={max(1, n // 4)} would play fewer."
                )

        return say

    def close(self) -> None:
        """Let the environment go, unless it is training's."""
        if self._evaluator is not None and self._evaluator.env is not self._algorithm.env:
            self._evaluator.env.close()

    # -------------------------------------------------------------------------------------------------- returns

    @property
    def return_per(self) -> str:
        """What a return is a sum over: an episode where episodes end, else some steps."""
        return "episode" if self._algorithm.episodes is not None else f"{self._return_steps} steps"

    @property
    def return_scale(self) -> float:
        """What training's returns, sums over a horizon, are shown times: sums of other lengths can't be compared."""
        return 1.0 if self._algorithm.episodes is not None else self._return_steps / self._algorithm.hparams.horizon

    @property
    def return_label(self) -> str:
        """What an axis of returns is called, training's and the evaluation's."""
        label = f"return per {self.return_per}"
        if self._algorithm.episodes is not None:
            return f"{label} (training: the last {data.WINDOW} episodes)"
        return label if self.return_scale == 1.0 else f"{label}, training's in proportion"

    @property
    def _return_steps(self) -> int:
        """Steps that an evaluation sums rewards over."""
        return self._settings.eval_horizon or self._algorithm.hparams.horizon

    def summary(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Return a line on an evaluation, if there was one."""
        if data.EVAL_RETURNS_MEAN not in metrics:
            return {}
        text = f"return {metrics[data.EVAL_RETURNS_MEAN]:.4g} per {self.return_per}"
        if share := metrics.get(f"eval/{data.EPISODES_UNFINISHED}"):
            text += f", of which {share:.0%} had not ended after {self.evaluator.max_episode_steps:,} steps"
        return {"evaluation": text}

    # ---------------------------------------------------------------------------------------------------- films

    def film(self, folder: Path, config: dict[str, Any] | None) -> list[Path]:
        """Write a GIF and a strip of pictures of the policy at work, where the environment can draw."""
        if not self._settings.render or not self._algorithm.env.has_pictures:
            return []
        film = self._pictures(config)
        pictures = [picture for picture, _ in film]
        return [films.write(film, folder / "policy.gif"), movies.film_strip(pictures, folder / "policy.png")]

    def film_if_due(self, folder: Path, config: dict[str, Any] | None, keep: Callable[[Path, str], None]) -> None:
        """Film the policy if it is time, and let the film be written while training goes on.

        Args:
            folder: Of the run.
            config: Settings for the environment's reset; by default the settings'.
            keep: Called with the file and the name of its folder once it is written.
        """
        every = self._settings.steps_per_video
        if every is None or self._algorithm.iterations % every or not self._algorithm.env.has_pictures:
            return
        with self._messages.optional("A film", "Training goes on."):
            self._films.add(self._pictures(config), folder / "films" / f"{self._algorithm.env_steps:012d}.gif", keep)

    def finish_films(self) -> None:
        """Wait for films that are being written."""
        for problem in self._films.close():
            self._messages.warn(f"A film could not be written: {problem}")

    def _pictures(self, config: dict[str, Any] | None) -> list[Picture]:
        """Let the policy act as in an evaluation; return pictures of it."""
        return self.evaluator.film(config=self._config(config), deterministic=self._settings.eval_deterministic)

    # --------------------------------------------------------------------------------------------------- set-up

    def _config(self, config: dict[str, Any] | None) -> dict[str, Any] | None:
        return config if config is not None else self._settings.eval_env_config

    def _build(self) -> Evaluator:
        settings, hparams = self._settings, self._algorithm.hparams
        errors: list[TypeError | ValueError] = []
        for num_envs in dict.fromkeys((settings.eval_num_envs, hparams.num_envs)):
            try:
                evaluator = self._make(num_envs)
                if not self._algorithm.env.shared:
                    evaluator.check(settings.eval_env_config)
            except (TypeError, ValueError) as error:
                if isinstance(error, TypeError) and not is_mistake(error):
                    raise
                errors.append(error)
                continue
            if errors:
                self._messages.note(
                    f"Evaluation takes place in {num_envs} environments, as many as training, rather than "
                    f"{settings.eval_num_envs}: {first_line(errors[0])}"
                )
            return evaluator
        text = re.sub(r"\bhorizon=", "trainer.eval_horizon=", str(errors[0]))
        text = re.sub(r"\bnum_envs=", "trainer.eval_num_envs=", text)
        text = re.sub(r"\benv_config\b", "trainer.eval_env_config", text)
        config = settings.eval_env_config
        named = config is None or text.startswith("trainer.eval_env_config=")
        given = "" if named else f" with trainer.eval_env_config={as_text(config)}"
        raise ValueError(f"The evaluation's environment is refused{given}: {text}") from errors[0]

    def _make(self, num_envs: int) -> Evaluator:
        algorithm, hparams = self._algorithm, self._algorithm.hparams
        return Evaluator(
            (lambda *_, **__: algorithm.env) if algorithm.env.shared else algorithm.env_cls,
            algorithm.policy,
            num_envs=num_envs,
            horizon=self._return_steps,
            seq_len=hparams.seq_len,
            seqs_per_state_reset=hparams.seqs_per_state_reset,
            episodes=algorithm.env.has_ends,
            max_episode_steps=self._settings.eval_horizon or MAX_EPISODE_STEPS,
            work=algorithm.execution.work,
        )
