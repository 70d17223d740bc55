import pytest
import torch
from envs import Episodes, Steering
from short_runs import runs_of

from rl8 import Algorithm, Trainer, cli
from rl8.callbacks import Callback, CallbackError, Callbacks
from rl8.conditions import EnvSteps, HitsUpperBound
from rl8.env import CartPole

QUIET = {"num_envs": 4, "horizon": 4, "track": False, "view": "none", "render": False, "eval_num_envs": 4}


@pytest.mark.parametrize(
    ("name", "meant"),
    [("on_iterations", "on_iteration"), ("on_step", "on_iteration"), ("on_evaluate", "on_evaluation")],
)
def test_a_hook_that_there_is_not_is_refused(name, meant):
    mine = type("Mine", (Callback,), {name: lambda self, trainer, metrics: None})
    with pytest.raises(TypeError, match=rf"^Mine would never.* in {name}. Unknown hook .* Did you mean '{meant}'"):
        Trainer(Steering, **QUIET, callbacks=[mine()])


class Notes(Callback):
    """Writes down what it is called with."""

    def __init__(self):
        self.seen = []

    def on_start(self, trainer, metrics):
        self.seen.append(("start", dict(metrics)))

    def on_collect(self, trainer, metrics):
        self.seen.append(("collect", trainer.algorithm.rollout.rewards.sum().item()))

    def on_iteration(self, trainer, metrics):
        self.seen.append(("iteration", metrics["algorithm/steps"]))

    def on_evaluation(self, trainer, metrics):
        self.seen.append(("evaluation", "eval/returns/mean" in metrics))

    def on_checkpoint(self, trainer, metrics):
        self.seen.append(("checkpoint", (trainer.output_dir / "checkpoint.pt").is_file()))

    def on_end(self, trainer, metrics):
        self.seen.append(("end", metrics["algorithm/steps"]))


def run(tmp_path, callbacks, steps=32, env_cls=Steering, **options):
    trainer = Trainer(env_cls, **{**QUIET, "output_dir": str(tmp_path / "run"), **options}, callbacks=callbacks, seed=1)
    return trainer, trainer.run(stop_conditions=[EnvSteps(steps)])


def test_hooks_are_called_in_their_order(tmp_path):
    notes = Notes()
    run(tmp_path, [notes], steps_per_eval=1, steps_per_checkpoint=2, best_metric=None)
    once = ["collect", "iteration", "evaluation"]
    assert [name for name, _ in notes.seen] == ["start", *once, *once, "checkpoint", "checkpoint", "end"]
    assert notes.seen[0][1] == {}
    assert [told for name, told in notes.seen if name in ("iteration", "end")] == [1, 2, 2]
    assert all(told for name, told in notes.seen if name in ("evaluation", "checkpoint"))


class Doubles(Callback):
    metric_names = ("my/steps",)

    def on_iteration(self, trainer, metrics):
        metrics["my/steps"] = torch.tensor(2 * metrics["env/steps"])


def test_what_a_callback_adds_is_a_metric_like_others(tmp_path):
    trainer = Trainer(Steering, **QUIET, output_dir=str(tmp_path / "run"), callbacks=[Doubles()])
    metrics = trainer.run(stop_conditions=[HitsUpperBound("my/steps", 100)])
    assert metrics["my/steps"] == 128  # 16 env steps an iteration
    assert [each["my/steps"] for each in trainer.history] == [32, 64, 96, 128]
    with pytest.raises(ValueError, match=r"Unknown metric 'my/step'. Did you mean 'my/steps'\?"):
        trainer.run(stop_conditions=[HitsUpperBound("my/step", 100)])


class Changes(Callback):
    def on_start(self, trainer, metrics):
        trainer.algorithm.change(lr=1e-5, entropy_coeff=0.25, vf_coeff=0.5, clip_param=0.1)
        trainer.algorithm.env.configure({"gravity": 3.0})

    def on_iteration(self, trainer, metrics):
        if metrics["env/steps"] >= 32:
            trainer.stop("enough")


def test_a_callback_changes_coefficients_and_constants_and_ends_training(tmp_path):
    trainer, metrics = run(tmp_path, [Changes()], steps=10_000, env_cls=CartPole)
    assert metrics["env/steps"] == 32
    assert metrics["coefficients/lr"] == pytest.approx(1e-5)
    assert metrics["coefficients/entropy"] == 0.25
    assert metrics["coefficients/vf"] == 0.5
    assert trainer.algorithm.hparams.clip_param == 0.1
    assert trainer.algorithm.env.gravity == 3.0
    assert trainer._reason(EnvSteps(1)) == "enough"


@pytest.mark.usefixtures("device")
def test_a_changed_coefficient_acts_in_a_graph():
    def weights(change):
        torch.manual_seed(1)
        algorithm = Algorithm(
            Episodes, num_envs=6, horizon=4, num_sgd_iters=2, model_config={"hiddens": [16]}, device="cuda"
        )
        for iteration in range(5):
            if iteration == 4 and change:
                algorithm.change(**change)
            algorithm.collect()
            algorithm.step()
        return torch.cat([each.detach().cpu().flatten() for each in algorithm.parameters])

    same = weights({})
    for change in ({"lr": 1e-2}, {"entropy_coeff": 1.0}, {"clip_param": 1e-3}, {"gamma": 0.5}):
        assert not torch.allclose(weights(change), same, rtol=1e-4, atol=1e-5), change


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"clip_parm": 0.1}, TypeError, "Unknown number that can be changed 'clip_parm'. Did you mean 'clip_param'"),
        ({"num_envs": 8}, TypeError, "Unknown number that can be changed 'num_envs'"),
        ({"clip_param": -1.0}, ValueError, "algo.clip_param=-1.0 is out of range"),
        ({"lr": 0.0}, ValueError, "lr=0.0 is out of range"),
    ],
)
def test_changes_are_checked(change, error, match):
    algorithm = Algorithm(Steering, num_envs=4, horizon=4)
    with pytest.raises(error, match=match):
        algorithm.change(**change)


class Bonus(Callback):
    def on_collect(self, trainer, metrics):
        trainer.algorithm.rollout.rewards += 1.0


def test_a_callback_may_add_a_reward_of_its_own():
    options = {**QUIET, "normalize_rewards": False, "gamma": 0.0, "gae_lambda": 0.0, "seed": 1}
    found = []
    for callbacks in ([], [Bonus()]):
        trainer = Trainer(Steering, **options, callbacks=callbacks)
        found.append((trainer.step()["returns/mean"], trainer.algorithm.rollout.returns))
    assert found[0][0] == found[1][0]  # the environment's
    torch.testing.assert_close(found[0][1] + 1.0, found[1][1])


class Fails(Callback):
    def __init__(self, hook):
        setattr(type(self), hook, self.fail)

    def fail(self, trainer, metrics):
        raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize("hook", ["on_start", "on_collect", "on_iteration", "on_evaluation", "on_checkpoint"])
def test_an_error_names_the_callback(hook, tmp_path):
    failing = type("Failing", (Fails,), {})(hook)
    with pytest.raises(CallbackError, match=f"The callback Failing failed in {hook}: ZeroDivisionError: division by"):
        run(tmp_path, [failing], steps_per_eval=1, steps_per_checkpoint=1)
    assert (tmp_path / "run" / "policy.pt").exists() == (hook != "on_start")


@pytest.mark.parametrize("hook", ["on_checkpoint", "on_evaluation", "on_end"])
def test_after_an_error_at_the_end_the_run_is_finished_and_has_failed(hook, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    others = Notes()
    with pytest.raises(CallbackError, match=f"The callback Failing failed in {hook}: ZeroDivisionError"):
        run(tmp_path, [others, type("Failing", (Fails,), {})(hook)], track=True, best_metric=None)
    assert {"checkpoint.pt", "policy.pt", "learning_curve.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    recorded = runs_of(tmp_path)[1][0]
    assert (recorded.info.status, recorded.data.metrics["algorithm/steps"]) == ("FAILED", 2)
    assert f"failed in {hook}" in recorded.data.tags["error"]
    assert recorded.data.tags["stop_reason"] == "env/steps >= 32"
    assert ("end" in [name for name, _ in others.seen]) == (hook == "on_end")


class Words(Callback):
    def on_iteration(self, trainer, metrics):
        metrics["mood"] = "good"


def test_what_is_no_number_or_no_callback_is_refused(tmp_path):
    with pytest.raises(
        CallbackError, match=r"The callback Words failed in on_iteration: TypeError: metrics\[.* is no number"
    ):
        run(tmp_path, [Words()])
    with pytest.raises(TypeError, match=r"callbacks\[1\]=.*Words.* is no callback.* Try callbacks=\[Words\(\)\]."):
        Trainer(Steering, **QUIET, callbacks=[Words(), Words])
    with pytest.raises(TypeError, match=r"is no list. Accepted: a list of callbacks. Try callbacks=\[Words\(\)\]."):
        Trainer(Steering, **QUIET, callbacks=Words())


class Counts(Callback):
    def __init__(self, count=0):
        self.count = count

    def on_iteration(self, trainer, metrics):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_resumed_run_gives_a_callback_its_state(tmp_path):
    run(tmp_path, [Words.__base__(), Counts()])
    counts = Counts()
    run(tmp_path, [counts], steps=64, resume=str(tmp_path / "run"), output_dir=None)
    assert counts.count == 4


MINE = """
from rl8.callbacks import Callback
from rl8.checks import check_range

class Mine(Callback):
    metric_names = ("my/number",)

    def __init__(self, number: int = 1):
        check_range("number", number, 0, hint="number=3")
        self.number = number

    def on_iteration(self, trainer, metrics):
        metrics["my/number"] = self.number
        if self.number == 3:
            trainer.stop(f"at {metrics['env/steps']:.0f}")
"""


def test_the_command_line_takes_callbacks_from_a_file(program, capsys):
    (program / "mine.py").write_text(MINE, encoding="utf-8")
    (program / "conf" / "callbacks").mkdir(parents=True)
    text = "# Numbers.\none: {_target_: mine.Mine, number: 2}\n"
    (program / "conf" / "callbacks" / "mine.yaml").write_text(text, encoding="utf-8")
    base = ["callbacks=mine", "algo.num_envs=4", "algo.horizon=4", "network.hiddens=[4]",
            "algo.sgd_minibatch_size=null", "trainer.track=false",
            "goal.env_steps=32", "trainer.view=plain"]  # fmt: skip
    words = ["callbacks.one.number=3", "stop=target", "goal.metric=my/number", "goal.target=9"]
    assert cli.main([*base, *words]) == 0
    assert "at 16" in capsys.readouterr().out
    for word, match in (
        ("callbacks.one.nummer=3", "callbacks.one.number"),
        ("callbacks.one.number=x", "callbacks.one.number=x is of the wrong kind"),
        (
            "callbacks.one.number=-1",
            "callbacks.one.number=-1 is out of range. Accepted: a number >= 0. Try callbacks.one.number=3",
        ),
        ("callbacks.one._target_=rl8.Trainer", "callbacks.one._target_=rl8.Trainer is no Callback"),
        ("callbacks=others", "callbacks=others"),
    ):
        assert cli.main([*(base if "=mine" in word or "." in word else base[1:]), word]) == 2
        assert match in capsys.readouterr().err


class Short(Callback):
    def on_iteration(self, trainer):
        pass


class Stateless(Callback):
    def load_state_dict(self):
        pass


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            Short(),
            r"^Short\.on_iteration\(self, trainer\) in .*test_callbacks\.py .* on_iteration\(self, trainer, metrics\)",
        ),
        (Stateless(), r"^Stateless\.load_state_dict\(self\) in .* Write def load_state_dict\(self, state\)"),
    ],
)
def test_a_hook_that_does_not_take_what_it_is_given_is_refused_at_once(callback, message):
    with pytest.raises(TypeError, match=message):
        Callbacks([callback], None)


def test_a_hook_may_name_its_arguments_as_it_likes():
    class Loose(Callback):
        def on_iteration(self, *given):
            pass

        def on_start(self, run, numbers, extra=None):
            pass

    Callbacks([Loose()], None)
