import copy

import pytest
import torch

from rl8 import Algorithm
from rl8.env import DiscreteDummyEnv
from rl8.ppo.optim import build_optimizer, load_optimizer, set_learning_rate

FUSED = [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad]
OTHERS = [torch.optim.RMSprop, torch.optim.NAdam]


class Custom(torch.optim.Adam):
    """An optimizer whose signature tells nothing."""

    def __init__(self, params, **kwargs):
        super().__init__(params, **kwargs)


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(4))]


def stepped(optimizer, params, steps=3):
    """Return the parameters after steps down the gradient of their squared sum."""
    for _ in range(steps):
        optimizer.zero_grad()
        sum(parameter.square().sum() for parameter in params).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in params]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("optimizer_cls", FUSED + OTHERS)
def test_steps_are_those_of_the_plain_optimizer(optimizer_cls, graphs):
    ours, plain = parameters(), parameters()
    # Off a GPU torch refuses capturable steps of optimizers that it does not fuse.
    config = {"lr": 0.01, **({"capturable": False} if graphs and optimizer_cls in OTHERS else {})}
    optimizer = build_optimizer(optimizer_cls, ours, config, graphs=graphs)
    expected = stepped(optimizer_cls(plain, lr=0.01), plain)
    for mine, theirs in zip(stepped(optimizer, ours), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("optimizer_cls", FUSED)
def test_fused_unless_another_way_is_asked_for(optimizer_cls):
    assert build_optimizer(optimizer_cls, parameters(), {}).defaults["fused"]
    for option in ({"foreach": True}, {"fused": False}):
        assert not build_optimizer(optimizer_cls, parameters(), option).defaults["fused"]


@pytest.mark.parametrize("optimizer_cls", FUSED + OTHERS)
def test_for_graphs_the_learning_rate_is_a_tensor(optimizer_cls):
    default = optimizer_cls(parameters()).defaults["lr"]
    for config, expected in (({"lr": 0.02}, 0.02), ({}, default)):
        lr = build_optimizer(optimizer_cls, parameters(), config, graphs=True).param_groups[0]["lr"]
        assert isinstance(lr, torch.Tensor)
        assert lr.item() == pytest.approx(expected)


@pytest.mark.parametrize("optimizer_cls", [torch.optim.Adam, torch.optim.NAdam])
def test_for_graphs_steps_are_capturable(optimizer_cls):
    assert build_optimizer(optimizer_cls, parameters(), {}, graphs=True).defaults["capturable"]
    assert not build_optimizer(optimizer_cls, parameters(), {}).defaults["capturable"]


@pytest.mark.parametrize("graphs", [False, True])
def test_the_learning_rate_is_set_in_every_group(graphs):
    params = parameters()
    optimizer = build_optimizer(torch.optim.SGD, params[:1], {"lr": 0.5}, graphs=graphs)
    optimizer.add_param_group({"params": params[1:]})
    rates = [group["lr"] for group in optimizer.param_groups]
    set_learning_rate(optimizer, 0.25)
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.25]
    before = params[0].detach().clone()
    torch.testing.assert_close(stepped(optimizer, params, steps=1)[0], before - 0.25 * 2 * before)
    if graphs:  # the tensors that a captured step reads
        assert [group["lr"].data_ptr() for group in optimizer.param_groups] == [rate.data_ptr() for rate in rates]


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("saved_with_graphs", [False, True])
def test_a_loaded_optimizer_goes_on_as_the_saved_one_but_steps_its_own_way(graphs, saved_with_graphs):
    theirs, ours = parameters(), parameters()
    saved = build_optimizer(torch.optim.Adam, theirs, {"lr": 0.5}, graphs=saved_with_graphs)
    set_learning_rate(saved, 0.05)
    for mine, value in zip(ours, stepped(saved, theirs), strict=True):
        mine.data.copy_(value)
    state = copy.deepcopy(saved.state_dict())
    optimizer = build_optimizer(torch.optim.Adam, ours, {"lr": 0.05, "foreach": False}, graphs=graphs)
    rate = optimizer.param_groups[0]["lr"]
    load_optimizer(optimizer, state)
    (group,) = optimizer.param_groups
    assert (float(group["lr"]), group["capturable"]) == (pytest.approx(0.05), graphs)
    assert group["lr"] is rate  # the tensor that a captured step reads
    for mine, value in zip(stepped(optimizer, ours), stepped(saved, theirs), strict=True):
        torch.testing.assert_close(mine, value)
    assert all(entry["step"] == 3 for entry in state["state"].values())  # what was loaded is left alone


@pytest.mark.parametrize("config", [{"lr": 0.1, "eps": 1e-3}, {"eps": 1e-3}])
@pytest.mark.parametrize("graphs", [False, True])
def test_an_optimizer_of_ones_own_takes_what_its_signature_takes(config, graphs):
    optimizer = build_optimizer(Custom, parameters(), config, graphs=graphs)
    assert optimizer.defaults["eps"] == 1e-3
    assert float(optimizer.defaults["lr"]) == pytest.approx(config.get("lr", 1e-3))


@pytest.mark.parametrize("given", ["adam", torch.nn.Linear, torch.optim.Adam(parameters())])
def test_what_is_no_optimizer_is_refused(given):
    with pytest.raises(TypeError, match=r"(?s)^optimizer_cls=.* is no torch optimizer. Try optimizer_cls=torch"):
        build_optimizer(given, parameters(), {})


@pytest.mark.parametrize("name", ["momentum", "params"])
def test_unknown_options_are_refused(name):
    with pytest.raises(TypeError, match=rf"^Unknown option of Adam '{name}'\..* Accepted: lr, betas, eps, "):
        build_optimizer(torch.optim.Adam, parameters(), {name: 0.9})


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("lr", "fast"), ("eps", -1.0)])
def test_values_that_torch_refuses_are_named(graphs, name, value):
    with pytest.raises(
        ValueError, match=rf"^algo\.optimizer: Adam refuses {name}={value}: .+ Try algo\.optimizer\.{name}=\S+\.$"
    ):
        build_optimizer(torch.optim.Adam, parameters(), {name: value}, graphs=graphs)


def test_adagrad_has_no_fused_kernel_on_a_gpu():
    class OnCuda(torch.nn.Parameter):
        device = torch.device("cuda")

    parameter = OnCuda(torch.zeros(2))
    assert not build_optimizer(torch.optim.Adagrad, [parameter], {"lr": 0.1}).param_groups[0]["fused"]
    assert build_optimizer(torch.optim.Adagrad, [torch.nn.Parameter(torch.zeros(2))], {"lr": 0.1}).param_groups[0][
        "fused"
    ]


class WithoutRate(torch.optim.Optimizer):
    def __init__(self, params, momentum=0.9, lr=None):
        super().__init__(params, {"momentum": momentum})

    def step(self, closure=None):
        pass


@pytest.mark.parametrize(
    ("optimizer_cls", "config", "message"),
    [
        (
            torch.optim.LBFGS,
            {},
            r"LBFGS refuses no options: .*closure.* Try algo\.optimizer\._target_=torch\.optim\.Adam\.",
        ),
        (torch.optim.SparseAdam, {}, "SparseAdam refuses .*dense gradients"),
        (
            torch.optim.Adam,
            {"differentiable": True},
            r"Adam refuses differentiable=true: .*leaf.* Try algo\.optimizer\.differentiable=false\.",
        ),
        (
            torch.optim.Adam,
            {"betas": [0.9]},
            r"Adam refuses betas=\[0\.9\]: .* Try algo\.optimizer\.betas=\[0\.9, 0\.999\]\.",
        ),
        (WithoutRate, {}, "WithoutRate has no lr among the options"),
    ],
)
def test_what_would_fail_in_the_first_step_is_refused_when_built(optimizer_cls, config, message):
    params = parameters()
    before = [parameter.detach().clone() for parameter in params]
    with pytest.raises(ValueError, match=rf"^(algo\.optimizer: )?{message}"):
        build_optimizer(optimizer_cls, params, config)
    assert all(torch.equal(old, new) for old, new in zip(before, params, strict=True))


def test_a_resumed_learning_rate_is_the_last_updates():
    schedule = {"lr_schedule": [[0, 0.01], [64, 0.0]], "lr_schedule_kind": "interp"}
    options = {"num_envs": 4, "horizon": 8, "optimizer_config": {"lr": 0.01}, **schedule}
    one, other = Algorithm(DiscreteDummyEnv, **options), Algorithm(DiscreteDummyEnv, **options)
    for _ in range(2):
        one.collect()
        one.step()
    other.load_state_dict(one.state_dict())
    assert other.optimizer.param_groups[0]["lr"] == one.optimizer.param_groups[0]["lr"] == 0.005
