import numpy as np
import pytest
from PIL import Image

from rl8 import Trainer
from rl8.conditions import EnvSteps
from rl8.env import CartPole
from rl8.view.films import Films

PICTURE = np.zeros((40, 60, 3), dtype=np.uint8)


def test_films_are_written_one_after_another_and_kept(tmp_path):
    films, kept = Films(), []
    for name in ("1.gif", "2.gif"):
        films.add([(PICTURE, "a"), (PICTURE, "b")], tmp_path / "films" / name, lambda *what: kept.append(what))
    films.add([], tmp_path / "films" / "3.gif", None)
    assert films.close() == ["ValueError: frames is empty. Accepted: at least one frame, e.g. [env.render()]."]
    assert kept == [(tmp_path / "films" / name, "films") for name in ("1.gif", "2.gif")]
    with Image.open(tmp_path / "films" / "2.gif") as film:
        assert film.size[0] == 60
        assert np.asarray(film.convert("RGB")).any()  # something is written on it
    assert films.close() == []


@pytest.mark.parametrize("every", [2, None])
def test_a_run_is_filmed_on_the_way(workdir, every):
    trainer = Trainer(
        CartPole, num_envs=4, horizon=4, sgd_minibatch_size=None, track=False, view="none", render=False,
        eval_num_envs=1, output_dir="run", steps_per_video=every,
    )  # fmt: skip
    trainer.run(stop_conditions=[EnvSteps(4 * 16)])
    found = sorted(path.name for path in (workdir / "run").glob("films/*"))
    assert found == (["000000000032.gif", "000000000064.gif"] if every else [])
    assert trainer.warnings == []
