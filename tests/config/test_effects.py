import pytest
import torch

from rl8 import launch
from rl8.config import effects
from rl8.config.compose import checked, composer, prepare, typed
from rl8.config.schema import check

BASE = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=8", "algo.num_sgd_iters=2", "network.hiddens=[8]",
        "trainer.track=false", "trainer.view=none", "trainer.render=false", "goal.env_steps=64",
        "algo.clip_param=0.001", "algo.max_grad_norm=0.01", "algo.horizons_per_env_reset=2"]  # fmt: skip

# What to type where half or twice the value would be refused or mean the same, and what makes it act.
VALUES = {
    "algo.gamma": "0.5", "algo.gae_lambda": "0.5", "algo.horizons_per_env_reset": "1", "algo.sgd_minibatch_size": "4",
    "algo.clip_param": "0.5", "algo.dual_clip_param": "1.001", "algo.vf_clip_param": "0.001",
    "algo.entropy_coeff": "0.5", "algo.target_kl_div": "1e-9", "algo.max_grad_norm": "100",
    "algo.lr_schedule": "[[0,0.002],[16,1e-6]]", "algo.lr_schedule_kind": "step",
    "algo.entropy_coeff_schedule": "[[0,1.0]]", "algo.enable_amp": "true", "algo.optimizer.lr": "0.1",
    "env.integrator": "semi-implicit", "env.start_std": "0.5", "model.activation": "tanh", "model.window": "2",
    "model.hiddens": "[4]", "network.hiddens": "[4]",
    "algo.normalize_advantages": "false", "seed": "7",
}  # fmt: skip
WITH = {
    "algo.entropy_coeff_schedule_kind": ("interp", ["algo.entropy_coeff_schedule=[[0,1.0],[32,0.0]]"]),
    "algo.amp_dtype": ("fp16", ["algo.enable_amp=true"]),
    "network.seq_len": ("2", ["algo=recurrent", "algo.horizons_per_env_reset=-1"]),
    "algo.seqs_per_state_reset": ("1", ["algo=recurrent", "algo.seq_len=1", "algo.horizons_per_env_reset=-1"]),
    "algo.seq_len": ("2", ["algo=recurrent"]),
    "algo.bootstrap": ("none", ["env=lander", "env.max_episode_steps=2"]),
    "algo.random_initial_ages": ("true", ["env=lander", "env.max_episode_steps=8"]),
    "network.log_std": ("1.0", ["env=pendulum"]),
    "model.log_std": ("1.0", ["env=pendulum"]),
    "model.state_dependent_std": ("true", ["env=pendulum"]),
}
# Keys that act elsewhere than in the weights after two iterations, each with the place that reads it.
ELSEWHERE = {
    "trainer": "evaluation, files, display and records: `Trainer.run`, tests/test_trainer.py",
    "stop": "when a run ends: tests/test_conditions.py",
    "goal": "what the stop condition and sweeps refer to: tests/test_launch.py",
    "device": "where and how fast, not what: tests/execution",
    "distribution": "one class, chosen by the action spec: tests/policy",
}


def plan(*words):
    with composer():
        return check(*checked(words), typed(words))


def weights(words):
    trainer = launch.build(plan(*words), "unused")
    for _ in range(2):
        trainer.step()
    return torch.cat([parameter.detach().flatten() for parameter in trainer.algorithm.policy.parameters()])


def keys(tree, prefix=""):
    for name, value in tree.items():
        if name != "_target_":
            yield from keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]


def changed(key, value):
    if key in VALUES:
        return VALUES[key]
    if isinstance(value, bool):
        return str(not value).lower()
    return str(value * 2)


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""
    yield
    prepare()


def test_every_key_that_is_changed_changes_the_weights_or_is_read_elsewhere():
    config = plan(*BASE).config
    before, without = weights(BASE), []
    for key in keys(config):
        if key.split(".")[0] in ELSEWHERE or key in effects.ACCEPTED:
            continue
        value, more = WITH.get(key, (None, []))
        value = changed(key, config_value(config, key)) if value is None else value
        reference = weights([*BASE, *more]) if more else before
        after = weights([*BASE, *more, f"{key}={value}"])
        if after.shape == reference.shape and torch.equal(after, reference):
            without.append(key)
    assert without == []


def config_value(config, key):
    for name in key.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize(
    ("words", "key", "reason"),
    [
        (["algo.amp_dtype=fp16"], "algo.amp_dtype", "algo.enable_amp is false"),
        (["algo.entropy_coeff_schedule_kind=interp"], "algo.entropy_coeff_schedule_kind", "schedule is null"),
        (["algo.lr_schedule=null", "algo.lr_schedule_kind=step"], "algo.lr_schedule_kind", "algo.lr_schedule is null"),
        (["algo.entropy_coeff=0.5", "algo.entropy_coeff_schedule=[[0,0.01]]"], "algo.entropy_coeff", "from env step 0"),
        (
            ["algo.shuffle_minibatches=false", "algo.sgd_minibatch_size=null"],
            "algo.shuffle_minibatches",
            "one minibatch",
        ),
        (["device.graphs=false"], "device.graphs", "a CPU has no CUDA graphs"),
        (["network.seq_len=2"], "network.seq_len", "nothing refers to it with algo._target_=rl8.ppo.algorithm.Algo"),
        (["model=transformer", "network.hiddens=[9]"], "network.hiddens", "TransformerModel"),
        (["model.hiddens=[4]", "network.hiddens=[9]"], "network.hiddens", "nothing refers to it"),
        (["goal.target=-3"], "goal.target", "stop._target_=rl8.conditions.EnvSteps"),
        (["algo=recurrent", "model.activation=tanh"], "model.activation", "model.hiddens has no layers"),
        (["network.log_std=1"], "network.log_std", "these actions have no standard deviation"),
        (["model.state_dependent_std=true"], "model.state_dependent_std", "these actions have no standard deviation"),
        (["algo.bootstrap=none"], "algo.bootstrap", "no time limit ends an episode"),
        (["algo.seqs_per_state_reset=4"], "algo.seqs_per_state_reset", "the policy carries no state"),
    ],
)
def test_a_typed_key_without_effect_has_a_reason(tmp_path, words, key, reason):
    found = launch.rehearse(plan(*BASE, *words), tmp_path).idle
    assert reason in found[key]
    assert effects.refusal({key: reason}).startswith(f"What was typed would have no effect. {key}: {reason}. Accepted")


@pytest.mark.parametrize(
    "words", [[], ["algo.amp_dtype=bf16"], ["goal.target=-3", "stop=target", "trainer.steps_per_eval=1"]]
)
def test_what_acts_or_stays_as_it_was_is_accepted(tmp_path, words):
    assert launch.rehearse(plan(*BASE, *words), tmp_path).idle == {}


def test_what_is_worth_a_line(tmp_path):
    removed = [word for word in BASE if "horizons" not in word]
    notes = launch.rehearse(plan(*removed, "~algo.gamma", "goal.env_steps=8"), tmp_path).notes
    assert notes == (
        "algo.gamma is removed, so algo.gamma=0.95 acts, the default of the class.",
        "goal.env_steps=8 is less than one iteration of num_envs * horizon = 16 env steps.",
    )
    assert plan("experiment=cartpole_cuda").notes == (
        "experiment=cartpole_cuda has settings made for cuda, but device=cpu.",
    )
