import importlib.util
import math
from importlib.machinery import ModuleSpec

import pytest
import yaml

from rl8 import Trainer, cli
from rl8.conditions import EnvSteps
from rl8.env import CartPole, DiscreteDummyEnv
from rl8.settings import TrainerSettings
from rl8.tracking import writers
from rl8.tracking.records import Records
from rl8.tracking.run import NOTE
from rl8.tracking.writers import Recorded, TensorBoard, Writer

QUIET = {"num_envs": 4, "horizon": 4, "track": False, "view": "none", "render": False, "eval_num_envs": 4}
SMALL = [
    "algo.num_envs=4",
    "algo.horizon=4",
    "algo.sgd_minibatch_size=null",
    "trainer.view=none",
    "trainer.track=false",
]


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"the extra rl8[{package}] is not installed"
    )


def train(env=DiscreteDummyEnv, **options):
    trainer = Trainer(env, **{**QUIET, "seconds_per_log": 0.0, "output_dir": "run", **options}, seed=1)
    trainer.run(stop_conditions=[EnvSteps(48)])
    return trainer


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0, "scalars": 0}).Reload()


@needs("tensorboard")
def test_tensorboard_has_metrics_texts_and_pictures(workdir):
    trainer = train(CartPole, tensorboard=True, render=True, steps_per_video=2)
    found = events("run/tensorboard")
    points = [(event.step, event.value) for event in found.Scalars("returns/mean")]
    assert points == [(m["env/steps"], pytest.approx(m["returns/mean"])) for m in trainer.history]
    assert [event.step for event in found.Scalars("eval/returns/mean")] == [48]
    (config,) = found.Tensors("config")
    assert b"    seed: 1" in config.tensor_proto.string_val[0]
    assert b"- **env steps**: 48" in found.Tensors("description")[0].tensor_proto.string_val[0]
    assert set(found.Tags()["images"]) == {"films", "policy.gif", "policy.png", "learning_curve.png"}
    assert found.Images("policy.gif")[0].encoded_image_string.startswith(b"GIF8")
    assert [event.step for event in found.Images("films")] == [32]


@needs("tensorboard")
def test_what_came_after_the_checkpoint_of_a_run_that_goes_on_is_void_in_tensorboard(workdir):
    for before, values in ((None, {16: 1.0, 32: 2.0, 48: 9.0}), (32, {48: 3.0})):
        writer = TensorBoard(Recorded(workdir, "x", "rl8", {}, before))
        for step, value in values.items():
            writer.log_metrics({"return": value, "nothing": math.nan}, step)
        writer.finish("FINISHED")
    found = events(workdir / "tensorboard")
    assert [(event.step, event.value) for event in found.Scalars("return")] == [(16, 1.0), (32, 2.0), (48, 3.0)]


@pytest.fixture
def wandb(monkeypatch, workdir):
    """Let Weights & Biases know nobody, and end its process."""
    module = pytest.importorskip("wandb", reason="the extra rl8[wandb] is not installed")
    monkeypatch.setenv("HOME", str(workdir / "home"))
    monkeypatch.setenv("NETRC", str(workdir / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    module.teardown()
    yield module
    module.teardown()


def read(file):
    """Yield the records of a `.wandb` file, which is a log of LevelDB's after a header."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:  # the rest of a block
            place += 2**15 - place % 2**15
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # all of it, or its last part
            yield Record.FromString(whole)
            whole = b""


def recorded(file):
    """Return a run's settings, its configuration and a list of its values by step."""
    records = list(read(file))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    config = {item.key: yaml.safe_load(item.value_json) for item in run.config.update}
    history = [
        {(item.key or ".".join(item.nested_key)): yaml.safe_load(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    return run, config, history


def test_weights_and_biases_offline(workdir, wandb, monkeypatch):
    monkeypatch.setenv("RL8_SWEEP_JOB", "0")
    config = {"seed": 1, "env": {"api_key": "abc"}}
    trainer = train(CartPole, wandb="offline", render=True, config=config, run_name="mine", experiment_name="a/b")
    wandb.teardown()  # its own process may still write when a run has ended
    (folder,) = (workdir / "run/wandb").glob("offline-run-*")
    run, config, history = recorded(next(folder.glob("*.wandb")))
    assert (run.display_name, run.project, run.run_group) == ("mine", "a-b", ".")
    assert config["env"] == {"api_key": "***"}
    assert [(line["_step"], line["returns/mean"]) for line in history] == [
        (m["env/steps"], pytest.approx(m["returns/mean"])) for m in trainer.history
    ]
    assert "eval/returns/mean" in history[-1]
    assert {path.name for path in (folder / "files").glob("*.pt")} == {"checkpoint.pt", "policy.pt"}
    assert len(list((folder / "files/media").rglob("*.*g*"))) == 3  # curve, strip and film

    trainer = Trainer(CartPole, **{**QUIET, "wandb": "offline", "resume": "run"}, seed=1)
    trainer.run(stop_conditions=[EnvSteps(64)])
    names = [path.name.rpartition("-")[2] for path in (workdir / "run/wandb").glob("offline-run-*")]
    assert names == [run.run_id] * 2


def test_weights_and_biases_without_an_answer_goes_on_offline(workdir, wandb, monkeypatch):
    monkeypatch.setattr(writers, "_ANSWER_S", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    wandb.teardown()
    said = []
    (writer,) = writers.start(TrainerSettings(wandb="online"), Recorded(workdir, "x", "rl8", {}), said.append)
    writer.finish("FINISHED")
    assert len(said) == 1
    assert said[0].startswith("Weights & Biases does not answer: ")
    assert writer.where.startswith(f"wandb sync {workdir}/wandb/offline-run-")


@pytest.mark.usefixtures("program")
def test_nobody_who_is_logged_in(wandb, capfd, workdir):
    assert cli.main([*SMALL, "env=discrete_dummy", "trainer.wandb=online"]) == 2
    assert (
        "trainer.wandb=online: nobody is logged in to Weights & Biases. Type: wandb login. Or try trainer.wandb="
        in (capfd.readouterr().err)
    )
    assert not (workdir / "outputs").exists()


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)])  # a folder that is called so has no origin
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "trainer.tensorboard=true",
            "trainer.tensorboard=true needs tensorboard. Type: pip install 'rl8[tensorboard]'",
        ),
        ("trainer.wandb=offline", "trainer.wandb=offline needs wandb. Type: pip install 'rl8[wandb]'"),
        (
            "trainer.wandb=on",
            "trainer.wandb='on' is unknown. Accepted: online, offline or null. Try trainer.wandb=online",
        ),
    ],
)
def test_what_can_not_be_written_is_refused_before_anything_exists(words, message, found, program, monkeypatch, capfd):
    real = importlib.util.find_spec
    names = ("tensorboard", "wandb")
    monkeypatch.setattr(writers.importlib.util, "find_spec", lambda name: found if name in names else real(name))
    assert cli.main([*SMALL, "env=discrete_dummy", words]) == 2
    assert message in capfd.readouterr().err
    assert not (program / "outputs").exists()


class Notes(Writer):
    """Keeps what it is told, and may fail."""

    title, where = "Notes", "here"

    def __init__(self, fails=()):
        self.seen, self.fails = [], fails

    def note(self, *said):
        self.seen.append(said)
        if said[0] in self.fails:
            raise OSError("no room\nat all.")

    def log_metrics(self, metrics, step):
        self.note("metrics", dict(metrics), step)

    def log_artifact(self, path, folder):
        self.note("file", path.name, folder)

    def describe(self, text):
        self.note("text", text)

    def flush(self):
        self.note("flush")

    def finish(self, status):
        self.note("finish", status)


def test_a_writer_that_fails_is_named_once_and_gets_nothing_more(tmp_path):
    good, bad, said = Notes(), Notes(fails=["metrics"]), []
    records = Records(None, [bad, good])
    records.tell(said.append)
    assert records.where == {"Notes": "here"}
    for step in (1, 2):
        records.log_metrics({"return": 1.0}, step)
    records.set_tag("other", "is MLflow's alone")
    records.set_tag(NOTE, "what it is")
    records.log_artifact(tmp_path / "film.gif", "films")
    assert records.unsent() == []
    records.finish("FAILED")
    metrics = [("metrics", {"return": 1.0}, step) for step in (1, 2)]
    assert good.seen == [
        *metrics,
        ("text", "what it is"),
        ("file", "film.gif", "films"),
        ("flush",),
        ("finish", "FAILED"),
    ]
    assert bad.seen == metrics[:1]
    assert said == ["Notes failed: OSError: no room. Training goes on; it gets nothing more."]


def test_a_writer_that_can_not_begin_is_left_out(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(writers, "TensorBoard", lambda run: Notes(fails=["flush"]).flush())
    assert writers.start(TrainerSettings(tensorboard=True), Recorded(tmp_path, "x", "rl8", {}), said.append) == []
    assert said == ["TensorBoard can't begin: no room. Training goes on without it."]
