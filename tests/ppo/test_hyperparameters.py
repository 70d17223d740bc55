import dataclasses
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from rl8.ppo.hyperparameters import Hyperparameters

SMALL = {"num_envs": 6, "horizon": 12}  # 72 env steps


def test_the_defaults_are_valid_and_frozen():
    hparams = Hyperparameters()
    with pytest.raises(dataclasses.FrozenInstanceError, match="gamma"):
        hparams.gamma = 0.5


def test_importing_needs_no_torch():
    code = "import sys, rl8.ppo.hyperparameters, rl8.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("size", "minibatch", "count"), [(None, 72, 1), (72, 72, 1), (24, 24, 3), (1, 1, 72)])
def test_sizes(size, minibatch, count):
    hparams = Hyperparameters(**SMALL, sgd_minibatch_size=size)
    assert (hparams.batch_size, hparams.minibatch_size, hparams.num_minibatches) == (72, minibatch, count)


def test_build_refuses_unknown_names():
    assert Hyperparameters.build({"gamma": 0.5}) == Hyperparameters(gamma=0.5)
    with pytest.raises(TypeError, match=r"^Unknown option 'gama'\. Did you mean 'gamma'\? Accepted: num_envs, "):
        Hyperparameters.build({"gama": 0.5})


@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 0, "gae_lambda": 0.0},
        {"gamma": 1, "gae_lambda": 1.0},
        {"vf_clip_param": 0.5, "dual_clip_param": 1.01, "target_kl_div": 0.01, "max_grad_norm": None},
        {"horizons_per_env_reset": -1, "seqs_per_state_reset": 3, "seq_len": 32},
        {"vf_coeff": 0, "entropy_coeff": 0.01, "clip_param": 2},
        {"amp_dtype": "fp16", "enable_amp": True, "lr_schedule_kind": "interp"},
        {"num_envs": 1, "horizon": 1, "normalize_advantages": False},
    ],
)
def test_accepted(options):
    hparams = Hyperparameters(**options)
    assert {name: getattr(hparams, name) for name in options} == options


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        *[(name, 0, "an integer >= 1") for name in ("num_envs", "horizon", "num_sgd_iters", "seq_len")],
        ("sgd_minibatch_size", 0, "an integer >= 1 or null"),
        ("horizons_per_env_reset", 0, "an integer >= 1, or negative for never. Try algo.horizons_per_env_reset=1"),
        ("seqs_per_state_reset", 0, "an integer >= 1, or negative for never"),
        ("gamma", 1.01, "a number in [0, 1]. Try algo.gamma=0.95"),
        ("gae_lambda", -0.1, "a number in [0, 1]"),
        ("clip_param", 0.0, "a number > 0. Try algo.clip_param=0.2"),
        ("vf_clip_param", 0.0, "a number > 0 or null"),
        ("dual_clip_param", 1.0, "a number > 1 or null. Try algo.dual_clip_param=5"),
        ("vf_coeff", -1.0, "a number >= 0"),
        ("entropy_coeff", math.nan, "a number >= 0"),
        ("target_kl_div", 0.0, "a number > 0 or null"),
        ("max_grad_norm", math.inf, "a number > 0 or null"),
        ("amp_dtype", "fp32", "bf16, fp16. Try algo.amp_dtype=fp16"),
        ("lr_schedule_kind", "linear", "step, interp"),
        ("entropy_coeff_schedule_kind", "linear", "step, interp"),
    ],
)
def test_values_out_of_range_are_refused(name, value, accepted):
    pattern = rf"^algo\.{name}={re.escape(repr(value))} .*Accepted: {re.escape(accepted)}"
    with pytest.raises(ValueError, match=pattern):
        Hyperparameters(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("num_envs", 64.5, "an integer. Try algo.num_envs=8192"),
        ("horizon", "many", "an integer"),
        ("sgd_minibatch_size", True, "an integer or null"),
        ("horizons_per_env_reset", [1], "an integer or null"),
        ("gamma", "high", "a number. Try algo.gamma=0.95"),
        ("vf_coeff", None, "a number"),
        ("lr_schedule_kind", None, "text"),
        *[(name, 1, "true or false") for name in ("shuffle_minibatches", "normalize_advantages", "normalize_rewards")],
        *[(name, "yes", "true or false") for name in ("normalize_obs", "accumulate_grads", "enable_amp")],
    ],
)
def test_values_of_another_kind_are_refused(name, value, accepted):
    pattern = rf"^algo\.{name}=.* is of the wrong kind\..*Accepted: {re.escape(accepted)}"
    with pytest.raises(TypeError, match=pattern):
        Hyperparameters(**{name: value})


COMBINATIONS = [
    # 4096 = 128 * 32; its largest divisor up to 5000 is itself, up to 1000 it is 512.
    (
        {"num_envs": 128, "sgd_minibatch_size": 5000},
        "num_envs * horizon = 4096. Use a divisor",
        "sgd_minibatch_size=4096",
    ),
    ({"num_envs": 128, "sgd_minibatch_size": 1000}, "does not divide num_envs * horizon", "sgd_minibatch_size=512"),
    # 8 divides 4096, but 3 does not, and no multiple of 8 is as small: one sequence.
    ({"num_envs": 128, "sgd_minibatch_size": 3, "seq_len": 8}, "does not divide", "sgd_minibatch_size=8"),
    ({"num_envs": 128, "seq_len": 3}, "algo.seq_len=3 does not divide algo.horizon=32. Use a divisor", "seq_len=2"),
    ({**SMALL, "seq_len": 24}, "does not divide algo.horizon=12", "seq_len=12"),
    # 18 divides 72 but holds 4.5 sequences of 4; 16 holds whole ones but does not divide 72: 12.
    ({**SMALL, "seq_len": 4, "sgd_minibatch_size": 18}, "no sequence is cut", "sgd_minibatch_size=12"),
    ({**SMALL, "seq_len": 4, "sgd_minibatch_size": 2}, "is no multiple of algo.seq_len=4", "sgd_minibatch_size=4"),
    # A quarter of 72 is 18, no whole number of sequences of 4.
    ({**SMALL, "seq_len": 4, "accumulate_grads": True}, "nothing to accumulate", "sgd_minibatch_size=12"),
    ({**SMALL, "accumulate_grads": True}, "one minibatch holds all 72 env steps", "accumulate_grads=false"),
    ({"num_envs": 1, "horizon": 1}, "one sample has no std", "normalize_advantages=false"),
]


@pytest.mark.parametrize(("options", "message", "advice"), COMBINATIONS)
def test_contradictions_are_refused_and_the_advice_helps(options, message, advice):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        Hyperparameters(**options)
    assert f"algo.{advice}" in str(error.value)
    name, value = advice.split("=")
    Hyperparameters(**{**options, name: False if value == "false" else int(value)})


def test_whole_numbers_may_be_written_as_floats_or_come_from_numpy():
    hparams = Hyperparameters(num_envs=1e3, horizon=np.int64(8), gamma=np.float32(0.5), normalize_obs=np.bool_(True))
    assert [type(value) for value in (hparams.num_envs, hparams.horizon, hparams.gamma)] == [int, int, float]
    assert hparams.normalize_obs is True


def test_advice_on_a_divisor_comes_at_once_however_large_the_numbers():
    with pytest.raises(ValueError, match=r"e\.g\. algo\.sgd_minibatch_size=1073741824\."):
        Hyperparameters(num_envs=2**30, horizon=1, sgd_minibatch_size=2**30 + 1)
    with pytest.raises(ValueError, match=r"algo\.num_envs=2147483647 times algo\.horizon=32 is too large.*=1024"):
        Hyperparameters(num_envs=2**31 - 1)
    with pytest.raises(ValueError, match=r"algo\.horizon=10000000000000 is too large\. Accepted: an integer up to"):
        Hyperparameters(horizon=10**13)
