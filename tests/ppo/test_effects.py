import pytest

from rl8 import Algorithm, RecurrentTrainer, Trainer
from rl8.calls import typed
from rl8.env import CartPole, Pendulum

QUIET = {"num_envs": 4, "horizon": 4, "track": False, "view": "none", "render": False}


@pytest.mark.parametrize(
    ("trainer_cls", "options", "text"),
    [
        (Trainer, {"amp_dtype": "fp16"}, r"amp_dtype: enable_amp is false\. Accepted: options that act\. Drop amp_dty"),
        (RecurrentTrainer, {"lr_schedule_kind": "interp"}, "lr_schedule_kind: lr_schedule is null"),
        (Trainer, {"seqs_per_state_reset": 2}, "seqs_per_state_reset: the policy carries no state"),
        (
            Trainer,
            {"model_config": {"log_std": -1.0}},
            r"model_config={'log_std': -1.0}: these actions have no standard",
        ),
        (
            Trainer,
            {"model_config": {"state_dependent_std": True}},
            "model_config={'state_dependent_std': True}: these",
        ),
        (
            Trainer,
            {"entropy_coeff": 0.1, "entropy_coeff_schedule": ((0, 0.1), (99, 0.0))},
            "entropy_coeff: entropy_coeff_schedule says the value from env step 0 on",
        ),
        (
            Trainer,
            {"vf_coeff": 2.0, "schedules": {"vf_coeff": ((0, 2.0), (99, 2.0))}},
            r"vf_coeff: schedules.vf_coeff says .*; schedules={'vf_coeff': \(.*\)}: vf_coeff is 2, and stays so",
        ),
        (Trainer, {"desired_kl": 0.1, "num_sgd_iters": 1}, "desired_kl: an update has one optimizer step"),
    ],
)
def test_an_option_without_effect_is_refused_in_python_too(trainer_cls, options, text):
    with pytest.raises(ValueError, match=f"^What was given would have no effect. {text}"):
        trainer_cls(CartPole, **QUIET, **options)


def test_a_bare_algorithm_refuses_it_and_a_command_line_has_asked_already():
    options = {"num_envs": 4, "horizon": 4, "clip_obs": 3.0}
    with pytest.raises(ValueError, match=r"^What was given would have no effect. clip_obs: normalize_obs is false"):
        Algorithm(CartPole, **options)
    with typed():
        assert Algorithm(CartPole, **options).hparams.clip_obs == 3.0


def test_what_acts_or_is_the_default_anyway_is_accepted():
    Trainer(CartPole, amp_dtype="bf16", model_config={"hiddens": [8], "log_std": 0.0}, **QUIET)
    Trainer(Pendulum, model_config={"hiddens": [8], "log_std": -1.0}, **QUIET)
    RecurrentTrainer(CartPole, seq_len=2, seqs_per_state_reset=2, **QUIET)
