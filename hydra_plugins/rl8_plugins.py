"""What rl8 adds to Hydra, which looks for plugins here."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
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
