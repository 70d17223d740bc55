import pytest

from rl8.config.advice import typeable
from rl8.config.catalog import prepare


@pytest.mark.parametrize(
    ("message", "words", "expected"),
    [
        ("Try algo.optimizer.eps=1.", [], "Try +algo.optimizer.eps=1."),
        ("Try algo.optimizer.lr=1.", [], "Try algo.optimizer.lr=1."),
        ("Try +algo.optimizer.eps=1.", [], "Try +algo.optimizer.eps=1."),
        ("Try 'algo.optimizer.betas=[0.9, 0.99]'.", [], "Try '+algo.optimizer.betas=[0.9, 0.99]'."),
        ("algo.foo=1 is wrong. Accepted: algo.foo=2.", [], "algo.foo=1 is wrong. Accepted: algo.foo=2."),
        ("Try env.force_mag=1, or env.drag=2.", [], "Try env.force_mag=1, or +env.drag=2."),
        ("Try env.force_mag=1.", ["env=pendulum"], "Try +env.force_mag=1."),
        ("Try env.force_mag=1.", ["env=cartpole,pendulum", "seed=1"], "Try env.force_mag=1."),
        ("Try env.force_mag=1.", ["env=nope", "device=[[]]", "algo/gamma=1"], "Try env.force_mag=1."),
        ("Try env.force_mag=1.", ["algo.gamma=[", "env=pendulum"], "Try +env.force_mag=1."),
        ("Try MLFLOW_TRACKING_URI=http://a.b=c.", [], "Try MLFLOW_TRACKING_URI=http://a.b=c."),
        ("Try trainer.env_config.gravity=9.8.", [], "Try +trainer.env_config.gravity=9.8."),
        ("Try it. Then algo.foo=1 is another matter.", [], "Try it. Then algo.foo=1 is another matter."),
        ("No advice.", ["env=nope"], "No advice."),
        ("""Try 'algo.gamma="é"'.""", [], "Try algo.gamma=0.97."),
        ("""Try 'hydra.job.chdir="é"'.""", [], "Try hydra.job.chdir=false."),
        ("""Try 'trainer.run_name="é"'.""", [], """Try 'trainer.run_name="é"'."""),
        ("Try env._target_=rl8.env.pendulum.Pendulum.", [], "Try env=pendulum."),
        ("Try env._target_=my.Wall.", [], "Try env._target_=my.Wall."),
        ("env._target_='x' is no class. Try env._target_=rl8.env.CartPole.", [], None),
        ("x. Try trainer.resume=null.", ["resume", "x"], "x. Try rl8 resume latest."),
        (
            "trainer.resume=a/checkpoint.1.pt is old. Try trainer.resume=a, or trainer.branch=a/checkpoint.1.pt.",
            ["resume", "a/checkpoint.1.pt"],
            "RUN=a/checkpoint.1.pt is old. Try rl8 resume a, or rl8 env=<option> trainer.branch=a/checkpoint.1.pt.",
        ),
        ("Try stop=wall_time stop.seconds=<s>.", ["stop=plateau"], "Try stop=wall_time stop.seconds=<s>."),
        ("""Try 'env.push="é"'.""", [], """Try '+env.push="é"'."""),
    ],
)
def test_advice_has_a_plus_sign_where_no_file_has_the_key(program, message, words, expected):
    assert typeable(message, words) == (expected or message)


@pytest.mark.parametrize(
    ("message", "words", "expected"),
    [
        ("stop.key=x: Unknown.", ["stop=target", "goal.metric=x"], "goal.metric=x: Unknown."),
        ("stop.key=x: Unknown.", ["stop=target", "goal.metric=y", "stop.key=x"], "stop.key=x: Unknown."),
        ("stop.key=x: Unknown.", ["stop=plateau"], "stop.key=x: Unknown."),
        ("model.hiddens=x is wrong.", ["network.hiddens=x"], "network.hiddens=x is wrong."),
        ("algo.gamma=2 is out of range.", ["env=mine"], "conf/env/mine.yaml: algo.gamma=2 is out of range."),
        ("algo.gamma=2 is out of range.", ["env=mine", "algo.gamma=2"], "algo.gamma=2 is out of range."),
        ("algo.gamma=2 is out of range.", ["env=cartpole"], "algo.gamma=2 is out of range."),
        ("Unknown key 'env.x.y'.", ["env=mine"], "conf/env/mine.yaml: Unknown key 'env.x.y'."),
        ("Unknown key 'env.z'.", ["env=mine"], "Unknown key 'env.z'."),
        ("Unknown key 'stop.sec'.", ["stop=own"], "conf/stop/own.yaml: Unknown key 'stop.sec'."),
    ],
)
def test_what_is_wrong_is_named_by_the_key_or_the_file_that_it_was_written_in(program, message, words, expected):
    for name, text in (
        ("env/mine", "# @package _global_\nenv: {_target_: a.B, x: {y: 1}}\nalgo: {gamma: 2}\n"),
        ("stop/own", "_target_: rl8.conditions.WallTime\nsec: 3\n"),
    ):
        path = program / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    prepare()
    assert typeable(message, words).replace(f"{program}/", "") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["resume", "old", "env.forse=1"], "Try env.force=1 +env.push=2."),
        (["eval", "nowhere", "old", "--no-log"], "Try env.force=1 +env.push=2."),
        (["play", "old", "env=pendulum"], "Try +env.force=1 +env.push=2."),
        (["eval", "nowhere"], "Try +env.force=1 +env.push=2."),
        (["train", "old"], "Try +env.force=1 +env.push=2."),
    ],
)
def test_what_a_run_has_needs_no_plus_sign_there(program, words, expected):
    (program / "old").mkdir()
    (program / "old" / "checkpoint.pt").touch()
    (program / "old" / "config.yaml").write_text("env:\n  _target_: wall.Wall\n  force: 3.0\n")
    assert typeable("Try env.force=1 env.push=2.", words) == expected
