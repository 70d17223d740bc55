import dataclasses
import inspect
import pydoc

import pytest
import torch

from rl8 import Algorithm, RecurrentTrainer, Trainer
from rl8.env import CartPole
from rl8.ppo.hyperparameters import Hyperparameters
from rl8.ppo.typed import AlgorithmOptions, HyperparameterOptions, TrainerOptions
from rl8.settings import TrainerSettings
from rl8.tracking.names import run_title

QUIET = {"num_envs": 4, "horizon": 4, "track": False, "view": "none", "render": False, "model_config": {"hiddens": [8]}}


def written(options):
    """Return the names and types of a TypedDict's keys, as they stand in its file."""
    return {name: getattr(kind, "__forward_arg__", kind) for name, kind in options.__annotations__.items()}


def fields(cls):
    return {field.name: field.type for field in dataclasses.fields(cls)}


def parts():
    parameters = inspect.signature(Algorithm).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_the_typed_options_are_those_of_the_classes_that_have_them():
    assert written(HyperparameterOptions) == fields(Hyperparameters)
    assert written(AlgorithmOptions) == fields(Hyperparameters) | parts()
    assert written(TrainerOptions) == fields(Hyperparameters) | parts() | fields(TrainerSettings)


@pytest.mark.parametrize("cls", [Trainer, RecurrentTrainer])
def test_a_trainers_signature_has_every_option_with_type_and_default(cls):
    parameters = inspect.signature(cls).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    assert set(written(TrainerOptions)) | {"seed", "stop_conditions"} < set(parameters)
    assert (parameters["gamma"].annotation, parameters["gamma"].default) == (float, 0.95)
    assert (parameters["eval_horizon"].annotation, parameters["eval_horizon"].default) == (int | None, None)
    assert parameters["optimizer_cls"].default is torch.optim.Adam


def test_every_option_has_a_text():
    text = Trainer.__doc__
    for name in written(TrainerOptions):
        assert f"\n    {name}: " in text
        assert f"\n    {name}: \n" not in text
    assert "gamma: Discount factor, in [0, 1]." in pydoc.render_doc(Trainer, renderer=pydoc.plaintext)


def test_a_seed_repeats_a_run_and_is_recorded():
    def weights(seed):
        trainer = Trainer(CartPole, **QUIET, seed=seed)
        trainer.step()
        return trainer, torch.cat([parameter.flatten() for parameter in trainer.algorithm.parameters])

    (one, first), (_, second), (_, third) = weights(3), weights(3), weights(4)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert one.config["seed"] == 3
    assert run_title("CartPole", one.config) == "CartPole, seed 3"
    assert "seed" not in Trainer(CartPole, **QUIET).config


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, r"seed=-1 is out of range. Accepted: an integer >= 0 or None\. Try seed=1"),
        (2**64, ValueError, r"seed=18446744073709551616 is too large"),
        (1.5, TypeError, r"seed=1.5 is not an integer"),
    ],
)
def test_seeds_that_torch_can_not_take_are_refused(seed, error, message):
    with pytest.raises(error, match=message):
        Trainer(CartPole, **QUIET, seed=seed)


def test_a_seed_comes_too_late_for_a_ready_made_algorithm():
    with pytest.raises(TypeError, match=r"The algorithm is ready-made, so gamma, seed would have no effect. Drop it"):
        Trainer(Algorithm(CartPole, num_envs=4, horizon=4), gamma=0.9, seed=1)


def test_a_mistyped_seed_is_answered_by_seed():
    with pytest.raises(TypeError, match=r"Unknown option 'sed'. Did you mean 'seed'"):
        Trainer(CartPole, **QUIET, sed=1)
