import copy

import pytest
import torch
from torch import nn

from rl8.distributions import default_distribution
from rl8.execution import networks
from rl8.execution.perceptron.similarity import CELL, by_similarity
from rl8.models import MLPModel
from rl8.nn import MLP
from rl8.policy.policy import Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Categorical, Unbounded


def model_of(cls, inputs=3, **options):
    action_spec = Categorical(2)
    shapes = default_distribution(action_spec).feature_shapes(action_spec)
    return cls(Unbounded(inputs), action_spec, feature_shapes=shapes, **options)


@pytest.mark.parametrize(
    ("options", "piece_size"),
    [({}, 16384), ({"hiddens": (1024,)}, 4096), ({"hiddens": (4096,)}, 2048), ({"activation": "elu"}, 2048)],
)
def test_pieces_are_larger_where_layers_are_computed_in_blocks(options, piece_size):
    assert networks.piece_size(model_of(MLPModel, **options)) == piece_size


class Replaced(MLPModel):
    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.policy_net = self.value_net = torch.nn.Sequential(self.policy_net)


@pytest.mark.parametrize(
    ("cls", "inputs", "options", "expected"),
    [
        (MLPModel, 3, {}, True),
        (MLPModel, 64, {}, True),
        (MLPModel, 65, {}, False),
        (MLPModel, 3, {"window": 16}, True),
        (MLPModel, 3, {"window": 17}, False),
        (MLPModel, 3, {"hiddens": (127, 256)}, False),
        (MLPModel, 3, {"hiddens": (256,)}, False),
        (MLPModel, 3, {"hiddens": ()}, False),
        (MLPModel, 3, {"activation": "tanh"}, False),
        (MLPModel, 3, {"activation": "elu"}, False),
        (Replaced, 3, {}, False),
    ],
)
def test_which_networks_may_gain_from_an_order(cls, inputs, options, expected):
    model = model_of(cls, inputs, **options)
    assert networks.may_sort(model, 4 * CELL, 1) == expected
    assert not networks.may_sort(model, 4 * CELL, 2)


@pytest.mark.parametrize("independent", [2, 8])
def test_an_order_is_given_if_rows_resemble_each_other_in_it(independent):
    policy = Policy(Unbounded(8), Categorical(2), model_config={"hiddens": (128, 128)})
    rollout = Rollout(policy, CELL, 16)
    obs = torch.randn(16 * CELL, independent) @ torch.randn(independent, 8)
    rollout.obs[:16] = obs.reshape(16, CELL, 8)
    order = networks.order(policy, rollout, 2)
    if independent == 2:
        assert torch.equal(order, by_similarity(obs, 2))
    else:
        assert order is None


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_equipped_networks_are_computed_block_by_block_with_the_same_result(activation):
    model = model_of(MLPModel, activation=activation)
    plain = copy.deepcopy(model)
    networks.equip(model)
    obs = torch.randn(1, 50, 3)
    found, expected = model(obs), plain(obs)
    assert "Perceptron" in found.values.grad_fn.next_functions[0][0].next_functions[0][0].name()
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.features["logits"], expected.features["logits"])


def test_networks_of_other_activations_stay_as_they_are():
    model = model_of(MLPModel, activation="elu")
    networks.equip(model)
    assert networks.compute(model.policy_net, torch.ones(5, 3), model.policy_net.layers) is None
    assert model(torch.ones(1, 5, 3)).values.shape == (1, 5)


def test_a_layer_that_somebody_listens_to_is_computed_by_torch():
    net = MLP(3, [8])
    net.compute = networks.compute
    heard = []
    net.layers[0].register_forward_hook(lambda *_: heard.append(1))
    net(torch.randn(5, 3))
    assert heard == [1]


def test_an_equipped_network_can_be_copied_and_saved(tmp_path):
    model = model_of(MLPModel)
    networks.equip(model)
    other = copy.deepcopy(model)
    assert other.policy_net.compute is networks.compute
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    plain = model_of(MLPModel)
    plain.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert isinstance(plain.policy_net.layers[0], nn.Linear)
    torch.testing.assert_close(plain(torch.ones(1, 2, 3)).values, model(torch.ones(1, 2, 3)).values)


@pytest.mark.parametrize("part", ["the activation", "a layer's function", "a listener", "a listener to everything"])
def test_what_is_changed_in_a_network_acts(part):
    net = MLP(3, [4, 4])
    net.compute = networks.compute
    rows = torch.randn(5, 3)
    before, heard = net(rows), []
    handle = None
    if part == "the activation":
        net.activation = nn.Identity()
    elif part == "a layer's function":
        net.layers[0].forward = lambda inputs: heard.append(None) or torch.ones(5, 4)
    elif part == "a listener":
        net.activation.register_forward_hook(lambda *_: heard.append(None))
    else:
        handle = nn.modules.module.register_module_forward_hook(lambda *_: heard.append(None))
    after = net(rows)
    if handle is not None:
        handle.remove()
    assert heard or not torch.allclose(before, after)
