import pytest

from rl8 import cli
from rl8.config.overrides import check_once


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=queue", "env=cartpole"], r"^env is typed twice: queue and cartpole\. Type it once\.$"),
        (["a.b=0.9", "x=1", "a.b=0.8"], r"^a\.b is typed twice: 0\.9 and 0\.8\. "),
        (["seed=1", "seed=1"], r"^seed is typed twice: 1 and 1\. "),
        (["-m", "seed=1,2", "seed=3"], r"^seed is typed twice: 1,2 and 3\. "),
        (["+a.b=1", "++a.b=2"], r"^a\.b is typed twice: \+a\.b=1 and \+\+a\.b=2\. "),
        (["~experiment", "experiment=mine"], r"^experiment is typed twice: ~experiment and experiment=mine\. "),
        (["a.b=extend_list(1)", "a.b=extend_list(2)"], r"^a\.b is typed twice: "),
        (["a.b={c: 1, d: {e: 2}}", "a.b.d.e=3"], r"^a\.b\.d\.e is typed twice: a\.b=\{c: 1, d: \{e: 2\}\} and a\.b\.d"),
        (["a.b.c=1", "a.b=null"], r"^a\.b\.c is typed twice: a\.b\.c=1 and a\.b=null\. "),
    ],
)
def test_a_key_that_is_typed_twice_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        check_once(words)


def test_other_words_may_be_alike(workdir):
    check_once(
        ["stop=target", "stop.key=a", "a.b={c: 1}", "a.b.d=2", "a.bc=1", "--cfg", "job", "run", "run", "{=", "{="[:1]]
    )
    (workdir / "seed=1").mkdir()
    check_once(["eval", "seed=1", "seed=1"])


@pytest.mark.parametrize(
    "command", [[], ["train"], ["-m"], ["resume", "latest"], ["eval", "latest"], ["play", "latest"]]
)
def test_every_command_refuses_it_before_anything_exists(command, workdir, capsys):
    assert cli.main([*command, "env.gravity=1", "env.gravity=2"]) == 2
    assert capsys.readouterr().err == "rl8: env.gravity is typed twice: 1 and 2. Type it once.\n"
    assert not list(workdir.iterdir())
