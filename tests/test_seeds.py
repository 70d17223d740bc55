"""The Python examples of the two documents that the project grew from, run as they are written.

Only the names of the older package are changed (`rlstack` to `rl8`), and the size of what they start is bounded from
outside: fewer environments, shorter horizons, and an end where none is given.
"""

import re
import textwrap
from pathlib import Path

import pytest
import torch

from rl8.conditions import Never, Plateaus
from rl8.env import ContinuousDummyEnv, DiscreteDummyEnv
from rl8.ppo.algorithm import Algorithm
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.trainer import Trainer

FOLDER = Path(__file__).parents[2] / "shared" / "seeds"
CALLS = [
    """
    from rl8 import Trainer
    from rl8.env import DiscreteDummyEnv
    trainer = Trainer(DiscreteDummyEnv)
    trainer.run()
    """,
    """
    from rl8 import Algorithm
    from rl8.env import DiscreteDummyEnv
    algo = Algorithm(DiscreteDummyEnv)
    algo.collect()
    algo.step()
    """,
    """
    from rl8 import SquashedNormal, Trainer
    from rl8.env import ContinuousDummyEnv
    trainer = Trainer(ContinuousDummyEnv, distribution_cls=SquashedNormal, gae_lambda=0.99, gamma=0.99)
    trainer.run()
    """,
    """
    from rl8 import RecurrentTrainer
    from rl8.env import DiscreteDummyEnv
    trainer = RecurrentTrainer(DiscreteDummyEnv)
    trainer.run()
    """,
    """
    from rl8 import Trainer
    from rl8.env import DiscreteDummyEnv
    trainer = Trainer(DiscreteDummyEnv, device="cuda")
    trainer.run()
    """,
    """
    import torch.optim as optim
    from rl8 import Trainer
    from rl8.env import DiscreteDummyEnv
    trainer = Trainer(
        DiscreteDummyEnv,
        optimizer_cls=optim.SGD,
        accumulate_grads=True,
        enable_amp=True,
        sgd_minibatch_size=8192,
        device="cuda",
    )
    trainer.run()
    """,
    """
    from rl8 import Trainer
    from rl8.conditions import Plateaus
    from rl8.env import DiscreteDummyEnv
    trainer = Trainer(DiscreteDummyEnv)
    trainer.run(stop_conditions=[Plateaus("returns/mean", rtol=0.05)])
    """,
]


def blocks(text):
    """Return the Python examples in a document, fenced or plain (imports, then statements, to the next sentence)."""
    fenced = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    if fenced:
        return fenced
    code = re.compile(r"^(?:(?:from \w[\w.]* )?import [\w., ]+|\w+ = \w+\(.*|\w+(?:\.\w+)*\(.*\)|\w+(?:=.*)?,|\))$")
    found, lines = [], []
    for line in [*text.splitlines(), ""]:
        if code.match(line):
            lines.append(line)
        else:
            found += ["\n".join(lines)] if len(lines) > 1 else []
            lines = []
    return found


def squeezed(code):
    """Return code without white space and trailing commas: the second document has lost its indentation."""
    return re.sub(r",\)", ")", re.sub(r"\s", "", code))


def documents():
    """Return the examples of each document, the first as it is and the second with its imports renamed."""
    return [
        [block.replace("rlstack", "rl8") for block in blocks(file.read_text())] for file in sorted(FOLDER.glob("*.txt"))
    ]


EXAMPLES = documents()[0] if FOLDER.is_dir() else [textwrap.dedent(call) for call in CALLS]


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the documents are not here")
def test_both_documents_have_the_examples_that_are_copied_here():
    assert len(documents()) == 2
    for document in documents():
        assert [squeezed(block) for block in document] == [squeezed(call) for call in CALLS]


@pytest.mark.usefixtures("store_dir")
@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_runs_as_written(code, workdir, monkeypatch):
    for env_cls in (DiscreteDummyEnv, ContinuousDummyEnv):  # small, but room for a minibatch where one is given
        monkeypatch.setattr(env_cls, "max_num_envs", 4096 if "sgd_minibatch_size" in code else 512)
        monkeypatch.setattr(env_cls, "max_horizon", 4)
    monkeypatch.setattr(Never, "__call__", lambda self, metrics: metrics["algorithm/steps"] >= 2)
    scope = {}
    if 'device="cuda"' in code and not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device=cuda but torch .* sees no CUDA device. Try device='cpu'"):
            exec(code, scope)
        return
    exec(code, scope)
    if "algo" in scope:
        algorithm = scope["algo"]
        assert isinstance(algorithm, Algorithm)
        assert algorithm.iterations == 1
        return
    trainer = scope["trainer"]
    assert isinstance(trainer, Trainer)
    algorithm = trainer.algorithm
    if "Plateaus" in scope:
        assert 2 <= algorithm.iterations < 30
        assert scope["Plateaus"] is Plateaus
    else:
        assert algorithm.iterations == 2
    assert "eval/returns/mean" in trainer.history[-1]
    assert (trainer.output_dir / "policy.pt").is_file()
    assert (workdir / "mlflow.db").is_file()
    assert algorithm.policy.recurrent == ("RecurrentTrainer" in code)


def test_the_examples_defaults_are_the_documented_ones():
    """What they would run with, were they not bounded here."""
    hparams = Hyperparameters()
    assert (hparams.num_envs, hparams.horizon, hparams.num_sgd_iters) == (8192, 32, 4)
