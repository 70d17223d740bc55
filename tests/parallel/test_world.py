import copy

import pytest
import torch
from comparing import assert_same
from envs import Terminating
from together import once, together
from torch import nn

from rl8 import Algorithm, RecurrentAlgorithm
from rl8.env import CartPole, Pendulum
from rl8.parallel import failure, launched, world

SMALL = {"num_envs": 6, "horizon": 4, "model_config": {"hiddens": (16,)}, "num_sgd_iters": 2}
NORMALIZED = {"normalize_obs": True, "normalize_rewards": True}

KINDS = {
    "feedforward": (Algorithm, Pendulum, {"sgd_minibatch_size": 12, "max_grad_norm": 0.5}),
    "recurrent": (
        RecurrentAlgorithm,
        Terminating,
        {"model_config": {"hidden_size": 8}, "sgd_minibatch_size": 12, "target_kl_div": 1e-6},
    ),
    "terminating": (Algorithm, Terminating, {"sgd_minibatch_size": 12, "accumulate_grads": True}),
}


def make(kind, **options):
    algorithm_cls, env_cls, special = KINDS[kind]
    return algorithm_cls(env_cls, **{**SMALL, **NORMALIZED, **special, **options})


def common(algorithm):
    """Return what is to be the same in all processes."""
    state = copy.deepcopy(algorithm.state_dict())
    scaler = {name: value for name, value in state["reward_scaler"].items() if name.startswith("moments")}
    return {name: state[name] for name in ("policy", "optimizer", "counters")} | {"scaler": scaler}


def train(kind, iterations=50):
    """Return what is common after some iterations, their metrics, and one number that is a process's own."""
    torch.manual_seed(3)
    algorithm = make(kind)
    metrics = [
        {name: float(value) for name, value in (algorithm.collect() | algorithm.step()).items()}
        for _ in range(iterations)
    ]
    return {"common": common(algorithm), "metrics": metrics, "own": float(algorithm.rollout.rewards.sum())}


def one_update(kind):
    """Return policy and data before an update by plain descent, and the policy and metrics after it."""
    torch.manual_seed(4)
    algorithm = make(kind, optimizer_cls=torch.optim.SGD, optimizer_config={"lr": 1.0}, **ONE_UPDATE)
    algorithm.collect()
    algorithm.step()
    collected = algorithm.collect()
    begin = copy.deepcopy(algorithm.state_dict())
    rollout = copy.deepcopy({name: value for name, value in vars(algorithm.rollout).items() if name != "views"})
    metrics = collected | algorithm.step()
    after = copy.deepcopy(algorithm.policy.state_dict())
    return {"begin": begin, "rollout": rollout, "after": after, "metrics": metrics}


ONE_UPDATE = {
    "sgd_minibatch_size": None,
    "accumulate_grads": False,
    "num_sgd_iters": 1,
    "max_grad_norm": None,
    "target_kl_div": None,
}


def operations(rank):
    """Return results of every operation between processes."""
    series = torch.arange(12, dtype=torch.float64).square()
    part = series[:4] if rank == 0 else series[4:]
    var, mean = torch.var_mean(part, correction=0)
    two = [torch.full((2,), float(rank)), torch.full((1, 3), 10.0 * rank)]
    summed, taken = copy.deepcopy(two), [*copy.deepcopy(two), torch.tensor(rank)]
    world.mean_(two)
    world.sum_(summed)
    world.broadcast_(taken)
    return {
        "who": (world.rank(), world.size(), world.first()),
        "place": failure.place(),
        "mean": two,
        "sum": summed,
        "broadcast": taken,
        "pooled": world.pooled(torch.tensor(float(len(part)), dtype=torch.float64), mean, var),
        "one empty": world.pooled(torch.tensor(3.0 * rank), torch.tensor(2.0), torch.tensor(0.5)),
        "gathered": world.gathered(torch.tensor([rank, 7])),
        "most": world.most([rank, 5 - rank]),
        "every": world.every({"rank": rank}),
        "first": world.from_first(lambda: f"made by {rank}"),
        "to first": world.to_first(rank),
    }


def refusals(rank):
    """Return what is said of settings that differ."""
    with pytest.raises(ValueError, match="process 1") as nested:
        world.check_same({"algo": {"gamma": 0.9 if rank == 0 else 0.8}})
    with pytest.raises(ValueError, match="num_envs") as built:
        Algorithm(CartPole, num_envs=4 + rank, horizon=4)
    return [str(nested.value), str(built.value).split(" Accepted")[0]]


def everything(rank):
    return {
        "operations": operations(rank),
        "refusals": refusals(rank),
        **{kind: train(kind) for kind in KINDS},
        **{f"one update, {kind}": one_update(kind) for kind in KINDS},
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return once(tmp_path_factory, "world", lambda _: together(everything))[1]


def test_operations_are_over_all_processes(found):
    for rank, each in enumerate(found):
        results = each["operations"]
        assert results["who"] == (rank, 2, rank == 0)
        assert results["place"] == (rank, 2)  # on one machine, which nobody has told them
        assert [tensor.unique().tolist() for tensor in results["mean"]] == [[0.5], [5.0]]
        assert [tensor.shape for tensor in results["mean"]] == [(2,), (1, 3)]
        assert [tensor.unique().tolist() for tensor in results["sum"]] == [[1.0], [10.0]]
        assert [tensor.unique().tolist() for tensor in results["broadcast"]] == [[0.0], [0.0], [0]]
        series = torch.arange(12, dtype=torch.float64).square()
        count, mean, var = results["pooled"]
        assert count == 12
        torch.testing.assert_close(mean, series.mean())
        torch.testing.assert_close(var, series.var(correction=0))
        assert [float(number) for number in results["one empty"]] == [3.0, 2.0, 0.5]
        assert results["gathered"].tolist() == [[0, 7], [1, 7]]
        assert results["most"] == [1, 5]
        assert results["every"] == [{"rank": 0}, {"rank": 1}]
        assert results["first"] == "made by 0"
        assert results["to first"] == ([0, 1] if rank == 0 else None)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_stay_equal_while_each_has_data_of_its_own(found, kind):
    one, other = (each[kind] for each in found)
    assert_same(one["common"], other["common"])
    assert one["metrics"] == other["metrics"]
    assert one["own"] != other["own"]
    assert one["common"]["counters"]["env_steps"] == 50 * 2 * 6 * 4


def test_an_update_ends_early_in_all_processes_at_once(found):
    steps = found[0]["recurrent"]["common"]["optimizer"]["state"][0]["step"]
    assert 50 <= steps < 50 * SMALL["num_sgd_iters"] * 2  # else nothing was tested


def joined(parts):
    """Return tensors `[T, N, ...]` of several processes beside each other, `[T, P * N, ...]`."""
    first = parts[0]
    if isinstance(first, torch.Tensor) and first.ndim < 2:
        return first
    return torch.cat(parts, 0 if first.ndim < 2 else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_from_their_data_what_one_learns_from_all(found, kind):
    ours = [each[f"one update, {kind}"] for each in found]
    algorithm = make(
        kind, optimizer_cls=torch.optim.SGD, optimizer_config={"lr": 1.0}, **{**ONE_UPDATE, "num_envs": 12}
    )
    algorithm.collect()
    begin = ours[0]["begin"]
    algorithm.policy.load_state_dict(begin["policy"])
    moments = {name: value for name, value in begin["reward_scaler"].items() if name.startswith("moments")}
    sums = torch.cat([each["begin"]["reward_scaler"]["sums"] for each in ours])
    algorithm.reward_scaler.load_state_dict({**moments, "sums": sums})
    for name, value in vars(algorithm.rollout).items():
        if torch.is_tensor(value) or hasattr(value, "batch_size"):
            setattr(algorithm.rollout, name, joined([each["rollout"][name] for each in ours]))
    algorithm.execution.forget()
    before = nn.utils.parameters_to_vector(algorithm.policy.parameters()).detach().clone()
    metrics = algorithm.step()
    after = nn.utils.parameters_to_vector(algorithm.policy.parameters()).detach()
    assert (after - before).abs().max() > 1e-3  # else nothing was learned
    for name, value in algorithm.policy.state_dict().items():
        torch.testing.assert_close(value, ours[0]["after"][name], rtol=1e-4, atol=1e-5)
    metrics.pop("losses/entropy")  # of a squashed normal it is estimated from a sample
    for name, number in metrics.items():
        torch.testing.assert_close(number, ours[0]["metrics"][name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m)


def test_settings_that_differ_are_refused_by_all_with_the_key(found):
    for each in found:
        message, built = each["refusals"]
        assert message == (
            "algo.gamma=0.9 in process 0, and 0.8 in process 1. Accepted: the same settings in all processes. Start "
            "all of them with one command line."
        )
        assert built == "num_envs=4 in process 0, and 5 in process 1."


def test_one_process_is_the_identity():
    tensors = [torch.ones(3), torch.zeros(2)]
    kept = copy.deepcopy(tensors)
    world.mean_(tensors)
    world.sum_(tensors)
    world.broadcast_(tensors)
    assert_same(tensors, kept)
    triple = (torch.tensor(3.0), torch.tensor(1.0), torch.tensor(2.0))
    assert world.pooled(*triple) == triple
    assert world.gathered(kept[0]).shape == (1, 3)
    assert world.most([3, 4]) == [3, 4]
    assert world.every("word") == world.to_first("word") == ["word"]
    assert world.from_first(lambda: 5) == 5
    assert world.join("cuda:3") == "cuda:3"


def test_seeds_are_of_one_process_each():
    seeds = [launched.seed_of(seed, rank) for seed in range(20) for rank in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert launched.seed_of(7, 0) == 7
    assert launched.seed_of(7, 1) == launched.seed_of(7, 1) != launched.seed_of(7, 1, 100)
    assert all(0 <= seed < 2**63 for seed in seeds)


def worker(monkeypatch, **more):
    environment = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **more}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 2, "4 processes on this machine are more than its 2 GPUs.*Try device.processes=2"),
        ("cuda", 0, "4 processes on this machine are more than its 0 GPUs.*Try device=cpu"),
        ("cuda:1", 4, "device.device=cuda:1 would put all 4 processes on one GPU.*Try device=cuda"),
    ],
)
def test_processes_that_gpus_do_not_suffice_for_are_refused_before_they_meet(monkeypatch, device, gpus, message):
    worker(monkeypatch, LOCAL_RANK="1", LOCAL_WORLD_SIZE="4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ValueError, match=message):
        world.join(device)


def test_what_a_launcher_says_is_read_as_a_whole(monkeypatch):
    monkeypatch.setenv("RANK", "3")  # somebody else's
    assert (launched.rank(), launched.size(), launched.place(), launched.attempt()) == (0, 1, (0, 1), 0)
    worker(monkeypatch, LOCAL_RANK="0", TORCHELASTIC_RESTART_COUNT="2")
    assert (launched.rank(), launched.size(), launched.place(), launched.attempt()) == (1, 4, None, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launched.place() == (0, 2)
