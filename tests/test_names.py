import re

import pytest
from omegaconf import OmegaConf

from rl8 import Trainer
from rl8.config.compose import checked, composer
from rl8.env import CartPole
from rl8.names import FORMS, THEIRS, ours, ours_in_python


def test_our_keys_exist():
    with composer():
        cfg, _ = checked([])
    for key in THEIRS:
        if "=" not in key:
            node, _, last = key.rpartition(".")
            assert last in OmegaConf.select(cfg, node), key


def test_no_name_of_theirs_is_a_key_of_ours_in_the_same_place():
    with composer():
        cfg, _ = checked([])
    for key, names in THEIRS.items():
        for name in names.split():
            assert name not in cfg.algo or key == "algo.optimizer._target_", name


def test_no_name_means_two_things():
    names = [name for names in THEIRS.values() for name in names.split()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("algo.lr=1e-4", "algo.optimizer.lr=1e-4"),
        ("algo.learning_rate=1e-4", "algo.optimizer.lr=1e-4"),
        ("algo.target_kl=0.01", "algo.target_kl_div=0.01"),
        ("algo.n_steps=128", "algo.horizon=128"),
        ("total_timesteps=1000", "goal.env_steps=1000"),
        ("num_steps_per_env=24", "algo.horizon=24"),
        ("ent_coef=0.01", "algo.entropy_coeff=0.01"),
        ("algo.num_learning_epochs=5", "algo.num_sgd_iters=5"),
        ("algo.kl_threshold=0.01", "algo.desired_kl=0.01"),
        ("model.net_arch=[64,64]", "network.hiddens=[64,64]"),
    ],
)
def test_their_names_are_answered_with_ours_and_the_advice_works(word, ours):
    with composer():
        with pytest.raises(ValueError, match=r"Unknown key") as caught:
            checked([word])
        assert str(caught.value).endswith(f"Try {ours}.")
        checked([ours])


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        (
            "max_iterations=10",
            "Try goal.env_steps=<value>: it counts env steps, algo.num_envs * algo.horizon an iteration.",
        ),
        ("algo.num_minibatches=4", "Try algo.sgd_minibatch_size=<value>: it is the size of a minibatch, not how many "),
        ("init_noise_std=1.0", "Try network.log_std=<value>: it is the logarithm."),
    ],
)
def test_no_value_is_advised_where_theirs_counts_something_else(word, advice):
    with composer(), pytest.raises(ValueError, match=re.escape(advice)):
        checked([word])


def test_what_has_another_form_is_a_name_of_theirs():
    known = {name for names in THEIRS.values() for name in names.split()}
    assert {name for names in FORMS for name in names.split()} <= known


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("lr", r"optimizer_config=\{\"lr\": 1\}"),
        ("n_steps", "horizon"),
        ("total_timesteps", "EnvSteps"),
        ("clip_range", "clip_param"),
    ],
)
def test_their_names_are_answered_in_python_too(name, advice):
    with pytest.raises(TypeError, match=rf"^Unknown option '{name}'. Did you mean .*{advice}"):
        Trainer(CartPole, **{name: 1})


def test_names_are_found_however_they_are_written():
    assert ours("Total-Timesteps") == "goal.env_steps"
    assert ours("algo.e_clip") == "algo.clip_param"
    assert ours("nobody_calls_it_so") is None
    assert ours_in_python("nobody_calls_it_so") is None
    assert ours_in_python("n_epochs") == "num_sgd_iters"


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("learning_rate", 3e-4, 'optimizer_config={"lr": 0.0003}'),
        ("learning_rate", "3e-4", 'optimizer_config={"lr": 0.001}'),
        ("learning_rate", True, 'optimizer_config={"lr": 0.001}'),
        ("net_arch", [32], 'model_config={"hiddens": [32]}'),
        ("net_arch", {"pi": [32]}, 'model_config={"hiddens": [64, 64]}'),
        ("init_std", 0.5, 'model_config={"log_std": 0.0}'),  # ours is the logarithm
        ("activation_fn", "elu", "model_config={\"activation\": 'elu'}"),
    ],
)
def test_the_value_that_was_given_is_advised_where_ours_has_its_form(name, value, advice):
    assert ours_in_python(name, value) == advice
