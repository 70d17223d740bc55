import pytest
import torch

from rl8 import Trainer
from rl8.callbacks import Callback
from rl8.env import CartPole
from rl8.env.adapters.gymnasium import GymnasiumEnv
from rl8.parts.constants import Curriculum, Randomize, ScheduledConstants

from .running import QUIET, run


class Watching(Callback):
    """Notes a constant at each horizon, after what is called before it."""

    def __init__(self, part):
        self.part, self.seen, self.metric_names = part, [], part.metric_names

    def on_start(self, trainer, metrics):
        self.part.on_start(trainer, metrics)

    def on_collect(self, trainer, metrics):
        self.seen.append(torch.as_tensor(trainer.algorithm.env.gravity).tolist())

    def on_iteration(self, trainer, metrics):
        self.part.on_iteration(trainer, metrics)

    def state_dict(self):
        return self.part.state_dict()

    def load_state_dict(self, state):
        self.part.load_state_dict(state)


def test_constants_are_drawn_at_the_start_and_every_few_iterations(tmp_path):
    watching = Watching(Randomize({"gravity": {"low": 5.0, "high": 15.0}}, every=2))
    run(tmp_path, CartPole, watching, steps=64)
    first, second, third, fourth = watching.seen
    assert first == second != third == fourth
    assert len(set(first)) == 4
    assert all(5 <= value <= 15 for value in first + third)


def test_a_resumed_run_has_what_was_drawn_last(tmp_path):
    before = Watching(Randomize({"gravity": {"low": 5.0, "high": 15.0}}, every=5))
    run(tmp_path / "one", CartPole, before, steps=32)
    after = Watching(Randomize({"gravity": {"low": 5.0, "high": 15.0}}, every=5))
    run(tmp_path / "other", CartPole, after, steps=48, resume=str(tmp_path / "one"))
    assert after.seen == before.seen[-1:]


def test_a_schedule_of_a_constant_is_read_where_a_horizon_begins(tmp_path):
    watching = Watching(ScheduledConstants({"gravity": [[0, 2.0], [32, 10.0]]}))
    run(tmp_path, CartPole, watching, steps=64)
    assert watching.seen == pytest.approx([2.0, 6.0, 10.0, 10.0])


class Metrics:
    """Stands for a trainer whose metric is given."""

    metric_names = ("returns/mean",)

    def __init__(self):
        self.algorithm = self
        self.env = self
        self.set = []

    def configure(self, constants):
        self.set.append(constants["gravity"])


def test_a_level_is_left_where_the_metric_says_so():
    trainer = Metrics()
    curriculum = Curriculum([{"gravity": g} for g in (1.0, 2.0, 3.0)], up=10.0, down=0.0, wait=2)
    curriculum.on_start(trainer, {})
    levels = []
    for value in (20.0, 20.0, 20.0, 20.0, 20.0, -1.0, -1.0, 5.0, None):
        metrics = {} if value is None else {"returns/mean": value}
        curriculum.on_iteration(trainer, metrics)
        levels.append(metrics["curriculum/level"])
    assert levels == [0, 1, 1, 2, 2, 1, 1, 1, 1]
    assert trainer.set == [1.0, 2.0, 3.0, 2.0]
    again = Curriculum([{"gravity": 1.0}, {"gravity": 2.0}])
    again.load_state_dict(curriculum.state_dict())
    assert (again.level, again.since) == (1, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curriculum([{"gravity": 1.0}]), "too few"),
        (lambda: Curriculum([{}, {}], up=1.0, down=1.0), r"down=1\.0 is out of range"),
        (lambda: Randomize({}, every=0), "every=0 is out of range"),
        (lambda: ScheduledConstants({"gravity": [[9, 1.0], [3, 2.0]]}), "is not sorted"),
    ],
)
def test_what_says_nothing_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


LEVELS = [{"gravity": 1.0}, {"gravity": 2.0}]


@pytest.mark.parametrize(
    ("env_cls", "part", "message"),
    [
        (CartPole, Curriculum(LEVELS, metric="return"), "Curriculum: metric=return: Unknown metric 'return'"),
        (CartPole, Curriculum(LEVELS, metric="eval/returns/mean"), "with steps_per_eval=None there is none but"),
        (CartPole, Curriculum([{}, {"grvity": 2.0}]), "Curriculum: .*'grvity'. Did you mean 'gravity'"),
        (CartPole, Randomize({"gravity": {"low": 9.0, "high": 1.0}}), "Randomize: .*gravity"),
        (CartPole, ScheduledConstants({"length": [[0, 1.0], [9, -1.0]]}), "ScheduledConstants: .*length"),
        (GymnasiumEnv, Randomize({"gravity": 1.0}), "GymnasiumEnv has no constants that can be set while it runs"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_it_is_created(tmp_path, env_cls, part, message):
    trainer = Trainer(env_cls, callbacks=[part], output_dir=str(tmp_path / "run"), steps_per_eval=None, **QUIET)
    gravity = getattr(trainer.algorithm.env, "gravity", None)
    for refused in (trainer.check, trainer.run):
        with pytest.raises(ValueError, match=message):
            refused()
    assert not (tmp_path / "run").exists()
    assert getattr(trainer.algorithm.env, "gravity", None) == gravity
    trainer.close()


def test_an_environment_with_a_way_of_its_own_is_not_tried(tmp_path):
    given = []

    class Own(CartPole):
        def configure(self, config):
            given.extend(config or ())

    trainer = Trainer(Own, callbacks=[Randomize({"wind": 3.0})], output_dir=str(tmp_path / "run"), **QUIET)
    trainer.check()
    assert given == []


def test_a_metric_of_evaluations_changes_the_level(tmp_path):
    watching = Curriculum([{"gravity": g} for g in (1.0, 2.0, 3.0)], metric="eval/returns/mean", up=-1e9, wait=2)
    trainer = run(tmp_path, CartPole, watching, steps=64, steps_per_eval=2)
    assert watching.level == 2
    assert float(trainer.algorithm.env.gravity) == 3.0
