import argparse
import json

import pytest

from rl8 import fileconfig, launch
from rl8.fileconfig import plan_of, read
from rl8.launch import verify


def arguments(*words):
    parser = argparse.ArgumentParser()
    fileconfig.add_arguments(parser)
    return parser.parse_args(words)


def test_the_seeds_file(workdir):
    (workdir / "config.yaml").write_text("env_cls: rl8.env.ContinuousDummyEnv\n\n# Some.\ngamma: 0.75\nhorizon: 8\n")
    plan = plan_of(read(workdir / "config.yaml"), max_steps=100)
    assert plan.env.target == "rl8.env.ContinuousDummyEnv"
    assert plan.algorithm.target == "rl8.ppo.algorithm.Algorithm"
    assert plan.algorithm.options == {"gamma": 0.75, "horizon": 8}
    assert plan.trainer.experiment_name == "rl8.env.ContinuousDummyEnv"
    assert launch.stop_condition(plan).describe() == "algorithm/steps >= 100"


def test_options_may_be_nested_and_json(workdir):
    content = {
        "env_cls": "rl8.env.DiscreteDummyEnv",
        "recurrent": True,
        "algorithm_config": {
            "model_config": {"hidden_size": 16},
            "distribution_cls": "rl8.Categorical",
            "optimizer_cls": "torch.optim.SGD",
            "optimizer_config": {"lr": 0.1},
            "max_grad_norm": None,
            "gamma": None,
            "model_cls": None,
        },
        "steps_per_eval": 2,
        "seed": 3,
        "device": "cuda",
    }
    (workdir / "config.json").write_text(json.dumps(content))
    plan = plan_of(read(workdir / "config.json"), max_steps=1)
    verify(plan)
    assert plan.algorithm.target == "rl8.ppo.algorithm.RecurrentAlgorithm"
    assert plan.algorithm.options == {"max_grad_norm": None}  # null is a value of this one, and gamma's default
    assert (plan.model.target, plan.model.options) == ("rl8.models.LSTMModel", {"hidden_size": 16})
    assert plan.distribution.target == "rl8.Categorical"
    assert (plan.optimizer.target, plan.optimizer.options) == ("torch.optim.SGD", {"lr": 0.1})
    assert (plan.trainer.steps_per_eval, plan.seed, plan.device.device) == (2, 3, "cuda")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "env_cls: [1\n", r"a\.yaml, line 2, column 1: .* Mend the YAML"),
        ("a.yaml", "- 1\n", r"a\.yaml holds no options\. Accepted: lines like"),
        ("a.yaml", "env_cls: a.B\nalgorithm_config: 3\n", r"a\.yaml holds no options"),
        (
            "a.yaml",
            "env_cls: a.B\ngamma: 1\nalgorithm_config: {gamma: 1}\n",
            "gives gamma at the top and in algorithm_config",
        ),
        ("a.yaml", "gamma: ${nothing}\n", "gamma: Interpolation key 'nothing' not found"),
        ("a.json", '{"env_cls": "a.B",}', r"a\.json, line 1, column 19: .* Mend the JSON"),
        (
            "a.toml",
            "",
            r"-f .*a\.toml is neither YAML nor JSON\. Accepted: a file that ends in \.yaml, \.yml or \.json",
        ),
    ],
)
def test_files_that_cannot_be_read(workdir, name, text, message):
    (workdir / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(workdir / name)


def test_a_missing_file_names_those_that_are_there(workdir):
    (workdir / "config.yaml").write_text("env_cls: rl8.env.CartPole\n")
    with pytest.raises(
        ValueError, match=r"conf\.yaml does not exist\. Accepted: a YAML or JSON file; there: .*config\.yaml\."
    ):
        read(workdir / "conf.yaml")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["gamma: 0.9"], r"config\.yaml: env_cls is missing\. .* Add env_cls: rl8\.env\.CartPole"),
        (["env_cls: rl8.env.CartPol"], r"config\.yaml: env_cls='rl8\.env\.CartPol': .* Try env_cls=rl8\.env\.CartPole"),
        (
            ["env_cls: rl8.env.CartPole", "num_envs: 4", "horizon: 4", "optimizer_config: {betas: [0.9]}"],
            r"optimizer_config: Adam refuses betas=\[0\.9\]: .* Try optimizer_config\.betas=\[0\.9, 0\.999\]\.$",
        ),
        (["env_cls: os.system"], "Python's standard library, which is not allowed here"),
        (["env_cls: nowhere.Env"], "there is no module 'nowhere'"),
        (["env_cls: rl8.env.CartPole", "gama: 0.9"], r"config\.yaml: Unknown key 'gama'\. Did you mean 'gamma'\?"),
        (["env_cls: rl8.env.CartPole", "gamma: 1.9"], r"config\.yaml: gamma=1\.9 is out of range\. .* Try gamma=0\.95"),
        (["env_cls: rl8.env.CartPole", "gamma: abc"], r"config\.yaml: gamma=abc is of the wrong kind"),
        (["env_cls: rl8.env.CartPole", "seed: -1"], r"config\.yaml: seed=-1 is out of range"),
        (["env_cls: rl8.env.CartPole", "recurrent: 3"], r"recurrent=3 is of the wrong kind\. Accepted: true or false"),
        (["env_cls: rl8.env.CartPole", "device: tpu"], "'tpu' is unknown"),
        (["env_cls: rl8.env.CartPole", "model_cls: rl8.models.MPLModel"], r"Try model_cls=rl8\.models\.MLPModel"),
        (["env_cls: rl8.env.CartPole", "model_config: 3"], r"model_config=3 is of the wrong kind"),
        (["env_cls: rl8.env.CartPole", "lr_schedule: 3"], r"config\.yaml: lr_schedule=3 is no list"),
    ],
)
def test_mistakes_in_the_file_are_named_as_it_names_things(workdir, lines, message):
    (workdir / "config.yaml").write_text("\n".join(lines))
    with pytest.raises((TypeError, ValueError), match=message):
        fileconfig.train_from_file(arguments("-f", "config.yaml"))
    assert not (workdir / "outputs").exists()


def test_the_flags_reach_the_run(workdir, monkeypatch):
    seen = []
    monkeypatch.setattr(launch, "train", lambda plan, folder: seen.append((plan, folder)))
    (workdir / "config.yaml").write_text("env_cls: rl8.env.CartPole\n")
    words = ["-f", "config.yaml", "--experiment-name", "mine", "--max-steps", "3", "--steps-per-eval", "2"]
    fileconfig.train_from_file(arguments(*words))
    fileconfig.train_from_file(arguments(*words, "--save", "policies/first"))
    (plan, folder), (saved, place) = seen
    assert (plan.trainer.experiment_name, plan.trainer.steps_per_eval) == ("mine", 2)
    assert plan.stop["upper_bound"] == 3
    assert folder.parts[0] == "outputs"
    assert folder.is_dir()
    assert saved.trainer.output_dir == str(place) == "policies/first"


def test_iterations_are_at_least_one(workdir):
    with pytest.raises(ValueError, match=r"--max-steps=0 is out of range\. Accepted: an integer >= 1"):
        fileconfig.train_from_file(arguments("-f", "config.yaml", "--max-steps", "0"))


def test_it_trains_with_a_class_beside_the_file(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "beside.py").write_text(
        "from rl8.env import DiscreteDummyEnv\n\n\nclass Mine(DiscreteDummyEnv):\n    pass\n"
    )
    (folder / "config.yaml").write_text(
        "env_cls: beside.Mine\nnum_envs: 4\nhorizon: 4\ntrack: false\nview: none\nrender: false\neval_num_envs: 4\n"
        "model_config: {hiddens: [8]}\n"
    )
    outcome = fileconfig.train_from_file(
        arguments("-f", str(folder / "config.yaml"), "--max-steps", "2", "--save", "out")
    )
    assert outcome.stopped_by is None
    assert outcome.objective < 0
    assert (program / "out" / "policy.pt").is_file()
