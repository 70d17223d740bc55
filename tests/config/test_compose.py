import sys

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

from rl8.checks import closest
from rl8.config import catalog, compose, overrides


@pytest.fixture
def folder(program):
    """Make a user's folder with an environment file the working directory, and forget it afterwards."""
    workdir = program
    (workdir / "conf" / "env").mkdir(parents=True)
    (workdir / "conf" / "env" / "my_env.yaml").write_text("# Mine.\n_target_: my_env.MyEnv\nspeed: 1.0\n")
    catalog.prepare()
    yield workdir
    catalog.prepare()


def checked(*words):
    with compose.composer():
        return compose.checked(words)


def expanded(*words, multirun=True):
    with compose.composer():
        return compose.expand(words, "config", multirun)


def test_the_users_folder_is_searched_after_ours(folder):
    assert catalog.folders() == [catalog.CONF, folder / "conf"]
    assert catalog.options("env")["my_env"] == "Mine."
    assert next(iter(catalog.options("env"))) == "cartpole"
    assert str(folder) in sys.path


def test_a_missing_folder_and_our_own_are_not_added(workdir, monkeypatch):
    assert catalog.folders() == [catalog.CONF]
    monkeypatch.chdir(catalog.CONF.parent)
    assert catalog.folders() == [catalog.CONF]


def test_more_folders(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("more")
    (other / "env").mkdir()
    (other / "env" / "third.yaml").write_text("_target_: my_env.MyEnv\n")
    catalog.prepare([str(other)])
    assert {"my_env", "third", "cartpole"} <= set(catalog.options("env"))
    cfg, _ = checked("env=third")
    assert cfg.env == {"_target_": "my_env.MyEnv"}
    with pytest.raises(ValueError, match=r"--config-dir=nowhere is no folder. Accepted: a folder with files like"):
        catalog.prepare(["nowhere"])


def test_defaults_are_those_of_the_root_file():
    found = catalog.defaults()
    assert found["env"] == "cartpole"
    assert set(found) == set(catalog.GROUPS)


def test_checked_returns_the_config_and_what_its_files_say(folder):
    cfg, reference = checked("env=my_env", "env.speed=2", "+env.more=1", "algo.gamma=0.5", "~algo.horizon")
    assert cfg.env == {"_target_": "my_env.MyEnv", "speed": 2, "more": 1}
    assert "horizon" not in cfg.algo
    assert reference.env == {"_target_": "my_env.MyEnv", "speed": 1.0}
    assert (cfg.algo.gamma, reference.algo.gamma) == (0.5, 0.95)


def test_items_of_lists_are_keys_too():
    cfg, reference = checked("algo.lr_schedule.0.1=5e-3")
    assert cfg.algo.lr_schedule[0] == [0, 5e-3]
    assert reference.algo.lr_schedule[0] == [0, 2e-3]


def test_an_environments_file_wins_over_the_groups_and_the_command_line_over_it(folder):
    (folder / "conf" / "env" / "strong.yaml").write_text(
        "# @package _global_\nenv:\n  _target_: my_env.MyEnv\nalgo:\n  gamma: 0.5\n  horizon: 7\n"
    )
    cfg, _ = checked("env=strong", "algo.horizon=9")
    assert (cfg.algo.gamma, cfg.algo.horizon) == (0.5, 9)


def test_an_experiment_of_the_environment_and_device_is_taken_by_itself(folder):
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "my_env_cuda.yaml").write_text("# @package _global_\nalgo:\n  gamma: 0.25\n")
    assert checked("env=my_env")[0].algo.gamma == 0.95
    assert checked("env=my_env", "device=cuda")[0].algo.gamma == 0.25
    assert checked("env=my_env", "device=cuda", "~experiment")[0].algo.gamma == 0.95
    assert checked("env=my_env", "device=cuda", "algo.gamma=0.75")[0].algo.gamma == 0.75


def test_recurrent_brings_an_lstm_unless_the_command_line_chooses():
    assert checked("algo=recurrent")[0].model._target_ == "rl8.models.LSTMModel"
    assert checked("algo=recurrent", "model=gru")[0].model._target_ == "rl8.models.GRUModel"
    assert checked()[0].model._target_ == "rl8.models.MLPModel"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=cartpol"], r"env=cartpol is unknown\. Did you mean env=cartpole\? Accepted: cartpole, .*my_env"),
        (["device=gpu"], r"device=gpu is unknown\. Did you mean device=cuda\? Accepted: cpu, cuda"),
        (["env=3"], r"env=3 is unknown\. Accepted: cartpole"),
        (["env=[cartpole]"], r"env=\[cartpole\] is unknown"),
        (["env=null"], r"'env=null' leaves no env\. Accepted: env=<option>, one of cartpole, "),
        (["~algo"], r"'~algo' leaves no algo\. Accepted: algo=<option>, one of ppo, "),
        (["experiment=null"], r"'experiment=null' leaves no experiment\. .* Try ~experiment to have none"),
        (["experiment=nope"], r"experiment=nope is unknown\. .*, or your own conf/experiment/nope\.yaml\.$"),
        (["+env=pendulum"], r"'\+env=pendulum': env is chosen already\. Try env=pendulum"),
        (["hydra/launcher=slrm"], r"hydra/launcher=slrm is unknown.*Accepted: basic, joblib.*[^.]\.$"),
        (
            ["algo.gama=1"],
            r"Unknown key 'algo\.gama'\. Did you mean 'algo\.gamma'\? Accepted in algo: .* Try algo\.gamma=1",
        ),
        (["algo.learning_rate=linear"], r"Did you mean 'algo\.schedules\.lr'\?.* Try algo\.schedules\.lr=linear\.$"),
        (["algo.clip_range=linear"], r"Did you mean 'algo\.schedules\.clip_param'\?.* Try algo\.sche"),
        (["alg.gamma=1"], r"Unknown key 'alg\.gamma'\. Did you mean 'algo\.gamma'\?"),
        (["gamma=0.9"], r"Unknown key 'gamma'\. Did you mean 'algo\.gamma'\?.* Try algo\.gamma=0\.9"),
        (["~foo"], r"Unknown key 'foo'\. Accepted: seed"),
        (["env=my_env", "env.sped=1"], r"Unknown key 'env\.sped'\. Did you mean 'env\.speed'\?"),
        (["trainer.env_config.speed=3"], r"trainer\.env_config is null, .* Try 'trainer\.env_config=\{speed: 3\}'"),
        (["algo.gamma.x=3"], r"Unknown key 'algo\.gamma\.x': algo\.gamma is 0\.97, which has no keys"),
        (["algo.lr_schedule.7=3"], r"Unknown key 'algo\.lr_schedule\.7'"),
        (["hydra.run.dri=x"], r"Unknown key 'hydra\.run\.dri'\. Did you mean 'hydra\.run\.dir'\?"),
        (["algo@foo=ppo"], r"Could not override 'algo@foo'"),
        (["hydra.mode=FOO"], r"Invalid value 'FOO', expected one of \[RUN, MULTIRUN\]"),
        (["trian"], r"'trian' is no override\. Did you mean 'train'\? Accepted: group=option"),
        (["env"], r"'env' is no override\. Did you mean 'env=<option>'\?"),
        (["algo.gamma"], r"'algo\.gamma' is no override\..* Try algo\.gamma=<value>"),
        (["=3"], "'=3' is no override"),
        (
            ["algo.gamma=[1"],
            r"algo\.gamma=\[1 can't be read: \[ is not closed\. Accepted: .*: 'algo\.gamma=\[\.\.\.'\.",
        ),
        (["algo.gamma=!1"], r"algo\.gamma=!1 can't be read: .* Accepted: a number, .* Try 'algo\.gamma=\"!1\"'"),
        (["goalmetric=x"], r"Unknown key 'goalmetric'\. Did you mean 'goal'\? Accepted: [^.]*\.$"),
        (["+algo.gamma=!1"], r"\+algo\.gamma=!1 can't be read: .* Try 'algo\.gamma=\"!1\"'"),
        (["algo=[1"], r"algo=\[1 is unknown\. Accepted: ppo, recurrent"),
        (["trainer.run_name=${"], r"trainer\.run_name=\$\{ can't be read: .* Try 'trainer\.run_name="),
        (["trainer.run_name='"], r"trainer\.run_name=' can't be read: .* or text in quotes\.$"),
        (["algo.gämma=1"], r"Unknown key 'algo\.gämma'\. Did you mean 'algo'\? Accepted: letters a to z, digits and _"),
        (["+algo.gamma=1"], r"'\+algo\.gamma=1' adds algo\.gamma, which is there already\. .* Try algo\.gamma=1\."),
        (["+env=pendlum"], r"env=pendlum is unknown\. Did you mean env=pendulum\?"),
        (["~trainer.resume"], r"'~trainer\.resume' has nothing to remove: trainer\.resume is null\. Accepted"),
        (["~algo.gamma=3"], r"'~algo\.gamma=3' removes nothing: algo\.gamma is 0\.97\. .* Try ~algo\.gamma\."),
        (["~hydra.run.dir"], r"'~hydra\.run\.dir': Hydra's own keys can't be removed\. .* Try hydra\.run\.dir=<value>"),
        (["algo/gamma=1"], r"Unknown key 'algo/gamma'\. Accepted: names with dots\. Try algo\.gamma=1\."),
        (["network.hidden=[8, 8]"], r"Did you mean 'network\.hiddens'\?.* Try 'network\.hiddens=\[8, 8\]'\."),
        (["callbacks.watch.every=3"], r"callbacks is empty with the option .* Try callbacks=<option>; `rl8 --help` l"),
        (
            ["trainer.gamma=0.9"],
            r"Unknown key 'trainer\.gamma'\. Did you mean 'algo\.gamma'\?.* Try algo\.gamma=0\.9\.",
        ),
        (["algo.env_steps=9"], r"Did you mean 'goal\.env_steps'\?.* Try goal\.env_steps=9\."),
        (["model.gamma=1"], r"Unknown key 'model\.gamma'\. Did you mean 'algo\.gamma'\? .*Try algo\.gamma=1\."),
        (
            ["algo.optimizer.eps=1"],
            r"^Unknown key 'algo\.optimizer\.eps': the file of algo\.optimizer .* Try \+algo\.optimizer\.eps=1\.",
        ),
        (
            ["stop=wall_time", "stop.hours=1"],
            r"^Unknown key 'stop\.hours'\. Try stop=wall_time stop\.seconds=<seconds>\.",
        ),
        (["algo.optimizer.epsilon=1"], r"Did you mean 'algo\.optimizer\.eps'\? .* Try algo\.optimizer\.eps=1\."),
        (["env._target_=there.is.None", "env.x=1"], r"with a plus sign what else the class .* takes: \+env\.x=1 if it"),
        (["model.foo=3"], r"^Unknown key 'model\.foo'\. Accepted in model: _target_, hiddens, .*value_gain\.$"),
        (
            ["algo.hidden=3"],
            r"Unknown key 'algo\.hidden'\. Accepted in algo: .* and 32 more \(`rl8 --cfg job --package",
        ),
        (["seed.x=3"], r"Unknown key 'seed\.x': seed is 1, which has no keys\. .* Try seed=1\."),
    ],
)
def test_words_that_name_nothing_are_refused(folder, words, message):
    def both():
        expanded(*words, multirun=False)
        checked(*words)

    with pytest.raises(ValueError, match=message):
        both()


def test_a_launcher_that_is_not_installed_says_what_to_type(folder, monkeypatch):
    monkeypatch.setattr(overrides, "EXTRAS", {"cluster": "mine"})
    with pytest.raises(ValueError, match=r"hydra/launcher=cluster needs a plugin .* Type: pip install 'rl8\[mine\]'\."):
        checked("hydra/launcher=cluster")


def test_an_option_that_reads_as_a_number_is_chosen_in_quotes(folder):
    (folder / "conf" / "env" / "nan.yaml").write_text("_target_: my_env.MyEnv\n")
    with pytest.raises(ValueError, match=r"env=nan is read as a number or .* Try env=\\'nan\\'\.$"):
        checked("env=nan")
    assert checked("env='nan'")[0].env._target_ == "my_env.MyEnv"


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("model.hiddens=64,64", r"Accepted: a list\. Try model\.hiddens=\[64,64\]\.$"),
        ("model.hiddens=[64,64],[8]", r"one value, or -m .* Try rl8 -m model\.hiddens=\[64,64\],\[8\]\.$"),
        ("model.policy_obs=a,b", r"one value, model\.policy_obs=\[a,b\] for a list, or -m "),
        ("env.gravity=1,2", r"one value, env\.gravity=\[1,2\] for a list, or -m "),
        ("env=cartpole,pendulum", r"one value, or -m "),
        ("seed=1,2", r"one value, or -m .* Try rl8 -m seed=1,2\.$"),
    ],
)
def test_several_values_are_a_list_only_where_the_key_takes_one(word, advice):
    with pytest.raises(ValueError, match=f"gives several values.*{advice}"):
        expanded(word, multirun=False)


def test_the_root_file_must_exist(folder):
    (folder / "conf" / "mine.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 7\n")
    with compose.composer():
        assert compose.checked([], "mine")[0].seed == 7
        with pytest.raises(ValueError, match=r"--config-name=min is unknown\. Did you mean --config-name=mine\?"):
            compose.checked([], "min")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("env/bad.yaml", "a: [1,\nb: 2\n", r"bad\.yaml, line 3, column 1: expected .* Mend the YAML"),
        ("env/bad.yaml", "a: 1\na: 2\n", r"bad\.yaml, line 2, column 1: found duplicate key a"),
        ("env/cartpole.yaml", "_target_: my_env.MyEnv\n", r"env=cartpole is ambiguous: .*cartpole\.yaml.* Rename it"),
        (
            "env/bad.yaml",
            "# @package _global_\ndefaults:\n  - override /model: mpl\n",
            r"model=mpl is unknown\. Did you mean model=mlp\?.* named in the defaults list of a chosen file",
        ),
    ],
)
def test_mistakes_in_files_name_the_file(folder, file, text, message):
    (folder / "conf" / file).write_text(text)
    name = file.split("/")[1].removesuffix(".yaml")
    with pytest.raises(ValueError, match=message):
        checked(f"env={name}")


def test_a_copy_of_our_own_file_is_no_ambiguity(folder):
    text = (catalog.CONF / "env" / "cartpole.yaml").read_text()
    (folder / "conf" / "env" / "cartpole.yaml").write_text(text)
    assert checked()[0].env._target_ == "rl8.env.CartPole"


def test_a_single_run_is_one_job():
    settings, jobs = expanded("seed=3", multirun=False)
    assert jobs == [["seed=3"]]
    assert str(compose.folder_of(settings, "run.dir")).startswith("outputs/20")


def test_several_values_need_a_sweep():
    with pytest.raises(ValueError, match=r"'seed=1,2' gives several values\. .* Try rl8 -m seed=1,2"):
        expanded("seed=1,2", multirun=False)


def test_a_sweep_is_the_product_of_its_values():
    settings, jobs = expanded(
        "seed=1,2", "algo.gamma=choice(0.5,0.75)", "env=glob(*dummy)", "algo.horizon=range(8,17,8)"
    )
    assert len(jobs) == 16
    assert jobs[0] == ["seed=1", "algo.gamma=0.5", "env=continuous_dummy", "algo.horizon=8"]
    assert jobs[-1] == ["seed=2", "algo.gamma=0.75", "env=discrete_dummy", "algo.horizon=16"]
    assert str(compose.folder_of(settings, "sweep.dir")).startswith("outputs/sweeps/20")


def test_a_file_may_ask_for_the_sweep(folder):
    (folder / "conf" / "experiment").mkdir()
    (folder / "conf" / "experiment" / "seeds.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,2,3\n"
    )
    _, jobs = expanded("experiment=seeds", "algo.gamma=0.5", multirun=False)
    assert jobs == [[f"seed={seed}", "experiment=seeds", "algo.gamma=0.5"] for seed in (1, 2, 3)]


def test_of_a_range_the_ends_are_checked():
    _, jobs = expanded("algo.gamma=interval(0.5,0.99)")
    assert jobs == [["algo.gamma=0.5"], ["algo.gamma=0.99"]]


def test_an_output_folder_that_cannot_be_resolved():
    settings, _ = expanded("hydra.run.dir=${nothing}", multirun=False)
    with pytest.raises(ValueError, match=r"hydra\.run\.dir can't be resolved: .*nothing"):
        compose.folder_of(settings, "run.dir")


def test_explain_keeps_to_one_line():
    error = ValueError("first\nsecond")
    assert compose.explain(error) == "first"
    error.__cause__ = KeyError("why")
    assert compose.explain(error) == "first 'why'"
    assert compose.explain(ValueError()) == "ValueError"


def test_near_names_are_found_whatever_their_case():
    assert closest("CARTPOL", catalog.options("env")) == "cartpole"


def test_other_programs_that_use_hydra_do_not_find_the_users_options(workdir):
    (workdir / "conf").mkdir()
    for main, found in ((str(catalog.CONF), True), (f"file://{catalog.CONF}", True), ("file:///elsewhere", False)):
        path = ConfigSearchPathImpl()
        path.append("hydra", "pkg://hydra.conf")
        path.append("main", main)
        catalog.UserFolder().manipulate_search_path(path)
        assert (f"file://{workdir / 'conf'}" in [part.path for part in path.get_path()]) is found
