import pytest
import torch
from envs import Endless, Episodes, Truncating
from torch import nn

from rl8 import RecurrentAlgorithm, RecurrentTrainer
from rl8.models import GRUModel, LSTMModel

SMALL = {"num_envs": 6, "horizon": 8, "model_config": {"hidden_size": 8}}


def test_defaults_are_an_lstm_with_short_sequences():
    algorithm = RecurrentAlgorithm(Episodes, num_envs=6, horizon=8)
    assert isinstance(algorithm.policy.model, LSTMModel)
    assert (algorithm.hparams.seq_len, algorithm.hparams.seqs_per_state_reset) == (4, 8)
    assert RecurrentTrainer.algorithm_cls is RecurrentAlgorithm


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize("env_cls", [Endless, Episodes])
def test_the_update_makes_one_fused_call_per_minibatch(env_cls):
    algorithm = RecurrentAlgorithm(env_cls, sgd_minibatch_size=24, num_sgd_iters=2, **SMALL)
    algorithm.collect()
    calls = count_calls(algorithm.policy.model.rnn)
    algorithm.step()
    assert len(calls) == 2 * 2


@pytest.mark.parametrize("seq_len", [1, 2, 8])
@pytest.mark.parametrize("env_cls", [Endless, Truncating])
def test_gradients_flow_through_seq_len_steps_of_an_episode(env_cls, seq_len):
    algorithm = RecurrentAlgorithm(env_cls, seq_len=seq_len, **SMALL)
    algorithm.collect()
    rollout = algorithm.rollout
    places = torch.arange(8 * 6).view(8 // seq_len, seq_len, 6).transpose(0, 1).flatten(1)
    batch = rollout.minibatch(places)
    obs = batch.seen.clone().requires_grad_()
    logp, _, _ = algorithm.policy.evaluate(obs, batch.actions, batch.state, batch.is_last)
    last = logp.view(seq_len, 8 // seq_len, 6)[-1, -1, 0]  # the last step of environment 0's last sequence
    (grad,) = torch.autograd.grad(last, obs)
    reached = grad.abs().sum(-1).view(seq_len, 8 // seq_len, 6).transpose(0, 1).reshape(8, 6) > 0
    steps = range(8 - seq_len, 8) if env_cls is Endless else range(max(8 - seq_len, 6), 8)  # truncated at steps 2 and 5
    assert [t for t in range(8) if reached[t, 0]] == list(steps)
    assert not reached[:, 1:].any()


@pytest.mark.parametrize("model_cls", [LSTMModel, GRUModel])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_state_starts_from_zeros_and_goes_on(model_cls, num_layers):
    algorithm = RecurrentAlgorithm(
        Endless,
        model_cls=model_cls,
        num_envs=4,
        horizon=4,
        horizons_per_env_reset=-1,
        seqs_per_state_reset=-1,
        seq_len=2,
        model_config={"num_layers": num_layers, "hidden_size": 5},
    )
    for horizon in range(2):
        algorithm.collect()
        for key in model_cls.state_keys:
            states = algorithm.rollout.states[key]
            assert states.shape == (2, 4, num_layers, 5)  # sequence starts only
            assert (states[0] == 0).all() == (horizon == 0)
        last = algorithm.rollout.state.clone()
    algorithm.collect()
    assert all(torch.equal(algorithm.rollout.states[0][key], last[key]) for key in model_cls.state_keys)


@pytest.mark.parametrize("sgd_minibatch_size", [8, 48])
def test_memory_is_learned(sgd_minibatch_size):
    """The update moves the recurrent weights, with one sequence per minibatch too."""
    algorithm = RecurrentAlgorithm(Episodes, seq_len=8, sgd_minibatch_size=sgd_minibatch_size, **SMALL)
    before = nn.utils.parameters_to_vector(algorithm.policy.model.rnn.parameters()).clone()
    algorithm.collect()
    algorithm.step()
    assert not torch.equal(nn.utils.parameters_to_vector(algorithm.policy.model.rnn.parameters()), before)
