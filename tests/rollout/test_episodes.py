import math
from types import SimpleNamespace

import pytest
import torch
from envs import Endless, Episodes

from rl8 import Algorithm, Trainer
from rl8.data import EPISODE_METRICS, RETURNS, WINDOW
from rl8.env import Lander
from rl8.reported import metric_names
from rl8.rollout.episodes import Episodes as Counted

T, F = True, False
QUIET = {"track": False, "view": "none", "render": False, "eval_num_envs": 4}


def horizon(rewards, terminated, truncated=None, filler=None):
    """Return what a horizon of one environment stores, `[T, 1]` each."""
    flags = [torch.tensor(series or [F] * len(rewards)).unsqueeze(1) for series in (terminated, truncated, filler)]
    return SimpleNamespace(
        horizon=len(rewards),
        rewards=torch.tensor(rewards).unsqueeze(1),
        is_last=flags[0] | flags[1] | flags[2],
        terminated=flags[0],
        truncated=flags[1],
        weights=None if filler is None else (~flags[2]).float(),
    )


def numbers(counted):
    return {name: value.item() for name, value in counted.metrics().items()}


def test_episodes_by_hand():
    counted = Counted(1, torch.device("cpu"))
    counted.add(horizon([1.0, 2.0, 3.0, 4.0], [F, F, F, F]))
    found = numbers(counted)
    assert found.pop("episodes/count") == 0
    assert all(map(math.isnan, found.values()))
    # ends after its 6th step: 1 + 2 + 3 + 4 + 5 + 6 = 21; the next after two more: 7 + 8 = 15, cut off by a time limit
    counted.add(horizon([5.0, 6.0, 7.0, 8.0], [F, T, F, F], [F, F, F, T]))
    expected = {"count": 2, "return/mean": 18, "return/std": 3, "return/min": 15, "return/max": 21}
    expected |= {"length/mean": 4, "truncated": 0.5}
    found = numbers(counted)
    assert {name: found[f"episodes/{name}"] for name in expected} == expected
    assert [found[name] for name in RETURNS] == [18, 3, 15, 21]
    counted.add(horizon([9.0], [T]))  # the horizon's alone, and all three
    found = numbers(counted)
    assert [found[name] for name in ("episodes/count", "episodes/return/mean", "returns/mean")] == [1, 9, 15]


def test_what_began_at_a_random_age_or_was_cut_off_is_no_whole_episode():
    counted = Counted(1, torch.device("cpu"))
    counted.begin(random_ages=True)
    counted.add(horizon([1.0, 1.0], [F, F]))
    counted.add(horizon([1.0, 2.0, 3.0], [T, F, T]))  # the first began at a random age
    assert numbers(counted)["episodes/return/mean"] == 5
    counted.add(horizon([7.0], [F]))
    counted.begin()  # a reset cuts off the next
    counted.add(horizon([1.0], [T]))
    assert numbers(counted)["episodes/return/mean"] == 1


def test_a_filler_belongs_to_no_episode():
    counted = Counted(1, torch.device("cpu"))
    counted.add(horizon([1.0, 0.0, 2.0, 3.0], [T, F, F, T], filler=[F, T, F, F]))
    found = numbers(counted)
    assert [found[f"episodes/{name}"] for name in ("count", "return/max", "length/mean")] == [2, 5, 1.5]


def test_counting_in_horizons_equals_counting_step_by_step():
    torch.manual_seed(1)
    steps, envs = 60, 7
    rewards, ended = torch.randn(steps, envs), torch.rand(steps, envs) < 0.2
    counted, seen = Counted(envs, torch.device("cpu")), []
    total, length = [0.0] * envs, [0] * envs
    for start, stop in ((0, 1), (1, 9), (9, 40), (40, 60)):
        rows = slice(start, stop)
        part = SimpleNamespace(
            horizon=stop - start,
            rewards=rewards[rows],
            is_last=ended[rows],
            terminated=ended[rows],
            truncated=torch.zeros_like(ended[rows]),
            weights=None,
        )
        counted.add(part)
        episodes = []
        for t in range(start, stop):
            for n in range(envs):
                total[n], length[n] = total[n] + rewards[t, n].item(), length[n] + 1
                if ended[t, n]:
                    episodes.append((total[n], length[n]))
                    total[n], length[n] = 0.0, 0
        seen += episodes
        if not episodes:
            continue
        found, returns = numbers(counted), torch.tensor([each for each, _ in episodes])
        assert found["episodes/count"] == len(episodes)
        assert found["episodes/return/std"] == pytest.approx(returns.std(correction=0).item(), rel=1e-4, abs=1e-5)
        assert found["episodes/length/mean"] == pytest.approx(sum(each for _, each in episodes) / len(episodes))
        recent = torch.tensor([each for each, _ in seen[-WINDOW:]])
        assert found["returns/mean"] == pytest.approx(recent.mean().item(), rel=1e-4, abs=1e-5)
        assert found["returns/max"] == pytest.approx(recent.max().item(), rel=1e-4, abs=1e-5)


def test_the_window_holds_the_last_hundred_of_more_that_end_at_once():
    counted = Counted(1, torch.device("cpu"))
    counted.add(horizon([float(number) for number in range(250)], [T] * 250))
    assert numbers(counted)["returns/min"] == 150
    assert numbers(counted)["returns/mean"] == 199.5
    counted.add(horizon([1000.0], [T]))
    assert numbers(counted)["returns/min"] == 151


def test_training_tells_of_episodes_where_these_end():
    trainer = Trainer(Episodes, num_envs=6, horizon=2, **QUIET)
    first, second = trainer.step(), trainer.step()
    assert first["episodes/count"] == 0  # the shortest has three steps
    assert not [name for name in first if name.startswith(("returns/", "episodes/return"))]
    assert second["episodes/count"] == 4
    assert second["episodes/length/mean"] == pytest.approx((3 + 3 + 4 + 4) / 4)
    assert second["episodes/truncated"] == 0.5
    assert second["returns/mean"] == pytest.approx(second["episodes/return/mean"], rel=1e-5)
    known = metric_names(trainer.algorithm)
    assert {*EPISODE_METRICS, *RETURNS} < set(known)
    found = trainer.eval()
    assert set(found) < set(known)
    assert found["eval/episodes/length/mean"] == (3 + 4 + 5 + 3) / 4
    endless = Trainer(Endless, num_envs=6, horizon=2, **QUIET)
    assert not [name for name in {**endless.step(), **endless.eval()} if "episodes/" in name]


def test_episodes_of_a_resumed_run_go_on():
    options = {"num_envs": 6, "horizon": 2}
    torch.manual_seed(1)
    algorithm = Algorithm(Episodes, **options)
    algorithm.collect()
    algorithm.step()
    saved = algorithm.state_dict()
    expected = {name: value.item() for name, value in algorithm.collect().items()}
    resumed = Algorithm(Episodes, **options)
    resumed.load_state_dict(saved)
    assert {name: value.item() for name, value in resumed.collect().items()} == pytest.approx(expected)


def test_random_ages_leave_the_first_episodes_out():
    torch.manual_seed(1)
    make = lambda n, horizon, *, device: Lander(n, max_episode_steps=4)  # noqa: E731
    trainer = Trainer(make, num_envs=50, horizon=4, random_initial_ages=True, **QUIET)
    first, second = trainer.step(), trainer.step()
    assert trainer.algorithm.rollout.truncated.sum() == 50
    assert first["episodes/count"] < 25  # those that began at an age near the limit, and then crashed in no step
    assert second["episodes/length/mean"] == 4
