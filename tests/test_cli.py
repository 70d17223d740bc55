import gc
import os
import re
import resource
import runpy
import shlex
import signal
import subprocess
import sys

import pytest

from rl8 import __version__, cli, jobs, launch
from rl8.cli import exit_code, main, report
from rl8.config import catalog, compose
from rl8.launch import Outcome

QUIET = ["trainer.track=false", "trainer.view=none", "trainer.render=false", "goal.env_steps=32"]
SMALL = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=null", "trainer.eval_num_envs=4"]


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""
    yield
    catalog.prepare()


@pytest.fixture
def my_env(workdir):
    """Make an environment of the user's own, without installing anything."""
    (workdir / "my_env.py").write_text(
        "from rl8.env import DiscreteDummyEnv\n\n\nclass MyEnv(DiscreteDummyEnv):\n    pass\n"
    )
    (workdir / "conf" / "env").mkdir(parents=True)
    (workdir / "conf" / "env" / "my_env.yaml").write_text("# Walk.\n_target_: my_env.MyEnv\nbounds: 10.0\n")


# What people mistype, and what the one message must say.
MISTAKES = {
    "env=cartpol": "env=cartpol is unknown. Did you mean env=cartpole? Accepted: cartpole, ",
    "env.gravty=1": "Unknown key 'env.gravty'. Did you mean 'env.gravity'?",
    "env.task=CartPole-v1": "Unknown key 'env.task'. Try env=<option>.",
    "env=gymnasium env.task=CartPole-v1": "Unknown key 'env.task'. Accepted in env: _target_, id, kwargs",
    "env=gymnasium env.wrappers=a.B": "env.wrappers=a.B is of the wrong kind. Accepted: a list. Try 'env.wrappers=[a.B",
    "algo.gama=1": "Unknown key 'algo.gama'. Did you mean 'algo.gamma'?",
    "+algo.gama=1": "Unknown key 'algo.gama'. Did you mean 'algo.gamma'?",
    "++algo.gama=1": "Unknown key 'algo.gama'. Did you mean 'algo.gamma'?",
    "algo.gamma=abc": "algo.gamma=abc is of the wrong kind. Accepted: a number. Try algo.gamma=0.97.",
    "algo.gamma=1.5": "algo.gamma=1.5 is out of range. Accepted: a number in [0, 1].",
    "algo.gamma=0.9,0.95": "gives several values. Accepted: one value",
    "+algo.optimizer.eps=null": "Accepted: a number. Try +algo.optimizer.eps=1e-08.",
    "~algo.gama": "Try ~algo.gamma.",
    "~algo.gamma=[": "or text in quotes. Try ~algo.gamma.",
    "model.hiddens.0=5": "model.hiddens follows network.hiddens and has no entries of its own.",
    "model._target_=rl8.models.LSTMModel": "does not take model.window, which the chosen file sets. ",
    "env._target_=rl8.env.Pendulum": "Accepted: gravity, mass, length, max_torque, max_speed, tau. Try env=pendulum.",
    "device=gpu": "device=gpu is unknown. Did you mean device=cuda? Accepted: cpu, cuda.",
    "~algo": "'~algo' leaves no algo.",
    "algo.gamma=[0.9": "algo.gamma=[0.9 can't be read",
    "algo.gamma": "'algo.gamma' is no override.",
    "stop.env_steps=0": "stop.env_steps=0 is out of range. Accepted: an integer >= 1.",
    "algo.lr_schedule=3": "algo.lr_schedule=3 is no list.",
    "env._target_=my_env.MyEnv": "there is no module 'my_env'",
    "env._target_=rl8.env.CartPol": "Try env=cartpole.",
    "-m algo.gamma=0.9,1.5": "Try algo.gamma=0.95. (run 2 of the sweep's 2; none was begun)",
    "-m algo.gama=0.9,0.95": "Did you mean 'algo.gamma'?",
    "-m env=cartpole,pendlum": "env=pendlum is unknown. Did you mean env=pendulum?",
    "--cfg job algo.gama=1": "Unknown key 'algo.gama'",
    "--cfg job -p algo.gama": "Unknown key 'algo.gama'",
    "--cfg job -m seed=1,2": "--cfg prints one config, -m makes many.",
    "--cfg jbo": "invalid choice: 'jbo'",
    "--info al": "invalid choice: 'al'",
    "--mutlirun seed=1,2": "Unknown flag '--mutlirun'. Did you mean '--multirun'?",
    "-cn conf": "--config-name=conf is unknown. Did you mean --config-name=config?",
    "-cd nowhere": "--config-dir=nowhere is no folder.",
    "train -f nowhere.yaml": "-f nowhere.yaml does not exist. Accepted: a YAML or JSON file; in ",
    "-f here.yaml": "-f is a flag of `rl8 train`. Try rl8 train -f here.yaml.",
    "--env-id CartPole-v1": "--env-id is no flag: keys are written without dashes. Try "
    "env=<option>, or for Gymnasium's tasks env=gymnasium env.id=<name>.",
    "--use-gpu": "Try device=cuda.",
    "--max-iterations 10": "Try goal.env_steps=<value>: it counts env steps, algo.num_envs * algo.horizon an",
    "seed=2 train": "'train' is a command. Accepted: it as the first word. Try rl8 train ...",
    "'algo.gamma = 0.9'": "'algo.gamma = 0.9' has spaces around the =. Accepted: key=value in one word. Try algo.g",
    "resume": "rl8 resume needs a run. Accepted: its folder, its checkpoint.pt, its MLflow id, or latest. Try rl8 res",
    "algo.optimizer=adamw": "is no group of options. Accepted: its class as algo.optimizer._target_, the class's opt",
    "train -f": "Argument -f/--file: expected one argument.",
    "train -f a.yaml --max-stpes 3": "Unknown flag '--max-stpes'. Did you mean '--max-steps'?",
    "-m hydra.run.dir=a,b": "'hydra.run.dir=a,b' gives several values to Hydra itself.",
    "-p algo": "--package is for --cfg, which prints the config. Try rl8 --cfg job --package algo.",
    "--resolve": "--resolve is for --cfg",
    "-m seed=range(1,1)": "'seed=range(1,1)' gives no values.",
    "-m seed=1,2,1": "'seed=1,2,1' gives seed=1 twice, which would train the same twice. Accepted: each value once. Try"
    " seed=1,2.",
    "-m algo.gamma=0.9,0.90": "gives algo.gamma=0.9 twice",
    "seed=18446744073709551616": "seed=18446744073709551616 is too large.",
    "algo.seqs_per_state_reset=4": "algo.seqs_per_state_reset: the policy carries no state from step to step.",
    "hydra.run.dir=/dev/null/x": "hydra.run.dir=/dev/null/x can't be a run's folder: /dev/null is no folder.",
    "trainer.output_dir=/dev/null": "trainer.output_dir=/dev/null can't be a run's folder",
    "env.cart_mass=0": "env.cart_mass=0.0 is out of range.",
    "-m env.cart_mass=1,0": "env.cart_mass=0.0 is out of range. Accepted: a number > 0. Try env.cart_mass=1. (run 2 of",
    "env=pendulum network.log_std=nan": "network.log_std=nan is out of range. Accepted: a number in [-10, 5].",
    "env.pole_mass=nan": "env.pole_mass=nan is out of range. Accepted: a number > 0. Try env.pole_mass=1.",
    "'trainer.env_config={nope: 1}'": "trainer.env_config={nope: 1} is refused: Unknown setting",
    "stop=plateau stop.key=nope": "stop.key=nope: Unknown metric 'nope'.",
    "stop._target_=torch.nn.ReLU ~stop.env_steps": "stop._target_=torch.nn.ReLU makes a ReLU.",
    "algo.optimizer._target_=torch.optim.LBFGS": "algo.optimizer: LBFGS refuses",
    "+trainer.eval_env_config.gravity=null": "Try +trainer.eval_env_config.gravity=9.8.",
    "trainer.best_metric=nope": "trainer.best_metric=nope: Unknown metric 'nope'. Accepted: returns/mean, ",
    "stop=target goal.target=1 goal.metric=nope": "rl8: goal.metric=nope: Unknown metric 'nope'. Accepted: returns/",
    "seed=1 seed=2": "seed is typed twice: 1 and 2. Type it once.",
    "-m seed=1,2 --jobs 2 -j 3": "--jobs is typed twice. Type it once.",
    "stop._target_=rl8.conditions.WallTime": "does not take stop.env_steps, which the chosen file sets. Accepted: seco"
    "nds. Try stop=wall_time.",
    "stop=wall_time stop.hours=1": "Try stop=wall_time stop.seconds=<seconds>.",
    "--gamma=0.9": "--gamma is no flag: keys are written without dashes. Try algo.gamma=0.9.",
    "--algo.gamma=0.9": "Try algo.gamma=0.9.",
    "algo.gamma:0.9": "Try algo.gamma=0.9, in one word;",
    "~model.hiddens.0": "removes an entry of a list. Accepted: another list. Try model.hiddens='[64, 64]'.",
    "model.hiddens=[64,a]": "Accepted: an integer or a number. Try 'model.hiddens=[64, 64]'.",
    "env._target_=rl8.env.Pendulumm": "has no 'Pendulumm'. Accepted: CartPole, ",
    "network.hiddens=[-4]": "network.hiddens=-4 is out of range.",
    "env=pendulum 'env.gravity={low: 3, high: 1}'": "Try 'env.gravity={low: 1, high: 3}'.",
    "+algo.optimizer.betas=[0.9]": "refuses betas=[0.9]: list index out of range. ",
    "'trainer.env_config={gravity: nan}'": "Try +trainer.env_config.gravity=9.8.",
    "-sc": "--shell-completion: Expecting one subcommand",
    "stop=target goal.target=-7 ~trainer.steps_per_eval": "evaluated only at the end. Try trainer.steps_per_eval=10.",
    "++stop=${{seed}}": "stop=${{seed}} is unknown. Accepted: env_steps, ",
    'hydra.output_subdir=""': "Try hydra.output_subdir=.hydra.",
    f"trainer.branch={'1' * 400}": "can't be a path: the name is too long. Accepted: names of up to 255 bytes",
    f"hydra.run.dir=a/{'1' * 400}/b": "can't be a path: the name is too long.",
    f"hydra.job.name={'1' * 252}": "can't be a path: the name is too long.",
    f"-cn {'1' * 252}": "can't be a path: the name is too long.",
    f"eval {'1' * 400}": "can't be a path: the name is too long.",
    "+trai.er.foo=3": "Unknown key 'trai.er.foo'. Did you mean 'trainer.er.foo'? Accepted: env, ",
    "algo.gamma=é": "it has a character that needs quotes. Accepted: a number, a word, ",
    "tran": "'tran' is no override. Did you mean 'train'?",
}


@pytest.mark.parametrize(("line", "message"), MISTAKES.items())
def test_a_mistake_is_one_message_and_leaves_nothing(workdir, capfd, line, message):
    assert main(shlex.split(line)) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("rl8: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(workdir.iterdir())


def test_a_mistake_shows_its_traceback_on_request(monkeypatch, capfd):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main(["algo.gama=1"]) == 2
    err = capfd.readouterr().err
    assert "Traceback (most recent call last):" in err
    assert "ValueError: Unknown key 'algo.gama'" in err


def test_other_errors_show_the_users_part_of_their_traceback(workdir, my_env, capfd):
    (workdir / "my_env.py").write_text(
        "from rl8.env import DiscreteDummyEnv\n\n\nclass MyEnv(DiscreteDummyEnv):\n"
        "    def step(self, action):\n        raise ValueError('mine')\n"
    )
    assert main(["env=my_env", *SMALL, *QUIET]) == 1
    err = capfd.readouterr().err
    assert err.rstrip().endswith("ValueError: mine")
    assert err.startswith("Traceback of your own code (HYDRA_FULL_ERROR=1 shows all of it):\n")
    assert f'File "{workdir / "my_env.py"}", line 6, in step' in err
    assert err.count("File ") == 1


def test_a_class_that_is_no_environment_is_a_mistake(workdir, my_env, capfd):
    (workdir / "my_env.py").write_text("class MyEnv:\n    pass\n")
    assert main(["env=my_env", *SMALL, *QUIET]) == 2
    file = workdir / "conf" / "env" / "my_env.yaml"
    assert capfd.readouterr().err.startswith(f"rl8: {file}: env._target_=my_env.MyEnv is no Env.")


def test_help_names_groups_options_and_examples(my_env, capfd):
    assert main(["--help"]) == main(["-h", "env=pendulum"]) == 0
    text = capfd.readouterr().out
    for group in catalog.GROUPS:
        assert re.search(rf"^  {group} ", text, re.MULTILINE), group
        for option in catalog.options(group):
            assert re.search(rf"^  ({group})? +{option}\*?( |$)", text, re.MULTILINE), option
    assert "cartpole*" in text
    assert re.search(r"^ +my_env +Walk$", text, re.MULTILINE)
    assert sum(line.strip() in "\n".join(cli.EXAMPLES) for line in text.splitlines() if line) == 0
    assert all(example in text for example in cli.EXAMPLES)
    assert len(cli.EXAMPLES) == 6
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("example", cli.EXAMPLES)
def test_the_examples_are_real(example):
    args = cli.parser().parse(shlex.split(example)[1:])
    with compose.composer():
        _, plans = cli._check_jobs(args.overrides, args.config_name, args.multirun)
    assert len(plans) == (9 if "-m" in example else 1)


def test_version(capfd):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capfd.readouterr().out == f"rl8 {__version__}\n"


def test_the_module_is_the_same_program(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["rl8", "algo.gama=1"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("rl8", run_name="__main__")
    assert capfd.readouterr().err.startswith("rl8: Unknown key 'algo.gama'")


def test_the_train_commands_help(capfd):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    out = capfd.readouterr().out
    for flag in ("-f", "--experiment-name", "--max-steps", "--save", "--steps-per-eval"):
        assert flag in out


def test_the_config_is_printed_with_changes(my_env, capfd):
    assert main(["env=my_env", "--cfg", "job", "algo.gamma=0.5", "--resolve"]) == 0
    printed = capfd.readouterr().out
    assert "gamma: 0.5" in printed
    assert "_target_: my_env.MyEnv" in printed
    assert "${" not in printed
    assert main(["-c", "job", "-p", "env", "env=my_env"]) == 0
    assert capfd.readouterr().out == "# @package env\n_target_: my_env.MyEnv\nbounds: 10.0\n"


def test_hydras_information(capfd):
    assert main(["--info", "searchpath"]) == 0
    assert str(catalog.CONF) in capfd.readouterr().out


def test_hydras_refusals_are_one_message(capfd):
    assert main(["--info", "config", "algo.gama=1"]) == 2
    assert capfd.readouterr().err.startswith("rl8: --info config algo.gama=1: Could not override 'algo.gama'.")


def test_training_with_an_environment_of_ones_own(workdir, my_env):
    assert main(["train", "env=my_env", "env.bounds=20", *SMALL, *QUIET]) == 0
    assert next((workdir / "outputs").glob("*/*/policy.pt")).is_file()


def test_the_users_choice_of_a_folder_is_kept(workdir):
    assert main([*SMALL, *QUIET, "hydra.run.dir=here"]) == 0
    assert (workdir / "here" / "policy.pt").is_file()
    assert not (workdir / "outputs").exists()


def test_training_from_a_file(workdir, capfd):
    (workdir / "config.yaml").write_text(
        "env_cls: rl8.env.ContinuousDummyEnv\ngamma: 0.75\nhorizon: 8\nnum_envs: 4\nview: plain\ntrack: false\n"
        "model_config: {hiddens: [8]}\neval_num_envs: 4\nrender: false\n"
    )
    assert main(["train", "-f", "config.yaml", "--max-steps", "2", "--save", "saved"]) == 0
    assert (workdir / "saved" / "policy.pt").is_file()
    assert "algorithm/steps >= 2" in capfd.readouterr().out


def test_exit_codes_follow_the_shells_custom(monkeypatch, capfd):
    assert exit_code(Outcome(0.0, None)) == 0
    assert exit_code(Outcome(0.0, "SIGINT")) == 130
    assert exit_code(Outcome(0.0, "SIGTERM")) == 143
    assert report(ValueError("never raised for http://me:abc@host")) == 1
    assert "ValueError: never raised for http://me:***@host" in capfd.readouterr().err

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "run", interrupt)
    assert main([]) == 130
    assert "rl8: stopped by SIGINT" in capfd.readouterr().err


# ---- in processes of their own ----


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, check=False, **options)


LIGHT = """
import sys
from rl8.cli import main
codes = []
for words in (["--help"], ["--cfg", "job"], ["algo.gama=1"], ["env=cartpol"], ["env._target_=rl8.env.CartPol"],
              ["-m", "algo.gamma=0.9,2"], ["train", "-f", "nowhere.yaml"]):
    codes.append(main(words))
print(codes, [name for name in ("torch", "mlflow", "tensordict", "numpy") if name in sys.modules], file=sys.stderr)
"""


def test_help_and_mistakes_load_neither_torch_nor_mlflow():
    done = run(sys.executable, "-c", LIGHT)
    assert done.stderr.splitlines()[-1] == "[0, 0, 2, 2, 2, 2, 2] []"


def test_help_takes_under_a_second_and_a_half():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(sys.executable, "-m", "rl8", "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    # time of the processor, not of the clock: other tests may run beside
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_completion_knows_the_users_options(workdir, my_env):
    environment = {**os.environ, "COMP_LINE": "rl8 env=my", "COMP_POINT": "10", "COMP_CWORD": "1"}
    done = run(sys.executable, "-X", "importtime", "-m", "rl8", "-sc", "query=bash", env=environment)
    assert done.stdout.split() == ["env=my_env"]
    assert "torch" not in done.stderr


def test_a_signal_ends_a_run_with_everything_saved(workdir):
    words = ["trainer.view=plain", "trainer.render=false", "stop=never", "trainer.track=false", *SMALL]
    process = subprocess.Popen([sys.executable, "-m", "rl8", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r"\d steps ", line):
            process.send_signal(signal.SIGTERM)
            break
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.search(r"^SIGTERM: the iteration at hand is being finished.* A second SIGTERM stops now\.", rest, re.M)
    assert "stopped by SIGTERM" in rest
    assert next((workdir / "outputs").glob("*/*/policy.pt")).is_file()


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=1,2"]])
def test_the_garbage_collector_rests_until_training_begins(monkeypatch, sweep):
    build, run, freeze = launch.build, launch.run, gc.freeze
    seen = []
    monkeypatch.setattr(launch, "build", lambda *args: seen.append(("build", gc.isenabled())) or build(*args))
    monkeypatch.setattr(gc, "freeze", lambda: seen.append("freeze") or freeze())

    def spy(trainer, plan):
        train = trainer.run
        monkeypatch.setattr(trainer, "run", lambda: seen.append(("train", gc.isenabled())) or train())
        return run(trainer, plan)

    monkeypatch.setattr(launch, "run", spy)
    assert main([*sweep, *QUIET, *SMALL]) == 0
    first = [("build", False), ("build", False), "freeze", ("train", True)]
    # What a sweep's first job leaves is garbage in the second, which must not be kept for good.
    assert seen == ([*first, ("build", True), ("train", True)] if sweep else first)
    assert gc.isenabled()
    gc.unfreeze()


def test_the_garbage_collector_works_again_after_a_mistake():
    assert main(["env=cartpol"]) == 2
    assert gc.isenabled()
