import json
from pathlib import Path

import pytest
import torch

from rl8.cli import main
from rl8.config import catalog
from rl8.runs import RECORD

SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.eval_num_envs=4"]
QUIET = ["trainer.view=none", "trainer.render=false", "goal.env_steps=32", "trainer.eval_horizon=8"]


@pytest.fixture
def train(program):
    """Return a function that trains a few steps as the command line does, into a folder."""

    def run(folder, *words, track=False):
        words = [*SMALL, *QUIET, f"trainer.track={str(track).lower()}", f"hydra.run.dir={folder}", *words]
        assert main(words) == 0
        if track and not (record := Path(folder) / RECORD).exists():
            run_id = torch.load(Path(folder) / "checkpoint.pt", weights_only=True)["extra"]["run_id"]
            record.write_text(json.dumps({"run_id": run_id}))
        return folder

    yield run
    catalog.prepare()
