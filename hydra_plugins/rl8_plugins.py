"""What rl8 adds to Hydra, which looks for plugins here: jobs side by side, and a search by Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Workers(Launcher):
    """Runs the jobs of a sweep in processes of this machine; `hydra/launcher=workers`.

    Args:
        jobs: How many at once.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what a job needs."""
        self.job = (hydra_context, config, task_function)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs; return what became of each."""
        from rl8.sweeps import workers

        return workers.launch(self.jobs, self.job, job_overrides, initial_job_idx)


class Search(Sweeper):
    """Lets Optuna choose the next combinations; `hydra/sweeper=optuna`.

    Args:
        options: Of the search; see `conf/hydra/sweeper/optuna.yaml`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take over what a job needs."""
        from hydra.core.plugins import Plugins

        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until there are as many as asked for."""
        from rl8.sweeps import search

        assert self.config is not None
        assert self.launcher is not None
        search.search(self.options, self.config, self.launcher, arguments)
