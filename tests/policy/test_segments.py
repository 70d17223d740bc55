import pytest
import torch
from envs import Endless

from rl8.models import GRUModel, LSTMModel
from rl8.policy.policy import Policy
from rl8.policy.segments import segments


def test_by_hand():
    # two sequences of four steps: the first ends after its second step, the second after its last, which cuts nothing
    found = segments(torch.tensor([[0, 0], [1, 0], [0, 0], [0, 1]]).bool())
    assert found.steps.tolist() == [[0, 2, 0], [1, 3, 1], [1, 3, 2], [1, 3, 3]]  # padding repeats the last step
    assert found.sequences.tolist() == [[0, 0, 1]] * 4
    assert found.begins.tolist() == [False, True, False]
    assert found.places.tolist() == [[0, 2], [3, 5], [1, 8], [4, 11]]  # k * 3 + s


def test_features_come_back_in_their_places():
    ended = torch.rand(7, 5) < 0.3
    found = segments(ended)
    steps = torch.arange(7 * 5).view(7, 5)
    there = steps[found.steps, found.sequences]
    features = found.unfold({"a": there, "b": {"c": there.unsqueeze(-1)}})
    assert torch.equal(features["a"], steps)
    assert torch.equal(features["b"]["c"], steps.unsqueeze(-1))


def test_much_padding_is_left():
    ended = torch.zeros(32, 8, dtype=torch.bool)
    ended[:, :4] = True  # half of them end at each step: 4 * 32 + 4 segments, the longest of 32
    assert segments(ended) is None


@pytest.mark.parametrize("model_cls", [LSTMModel, GRUModel])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_network_gives_what_it_gives_step_by_step(model_cls, share):
    torch.manual_seed(0)
    env = Endless(6)
    policy = Policy(
        env.observation_spec, env.action_spec, model_cls=model_cls, model_config={"hidden_size": 8}, recurrent=True
    )
    seen = torch.randn(9, 6, *env.observation_spec.shape)
    state = policy.initial_state(6).apply(torch.randn_like)
    ended = torch.rand(9, 6) < share
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]

    def found(side_by_side):
        policy.side_by_side = side_by_side
        features, values = policy.outputs(seen, state, ended)
        loss = values.square().sum() + sum(leaf.square().sum() for leaf in features.values())
        return features, values, torch.autograd.grad(loss, parameters)

    torch.testing.assert_close(found(True), found(False), rtol=1e-4, atol=1e-5)
