import pytest
import torch
from envs import Episodes, Truncating

from rl8 import Algorithm
from rl8.env import Lander
from rl8.ppo.advantages import gae
from rl8.rollout.bootstrap import FinalSlots, next_values
from tests.rollout.test_rollout import MODELS, build

T, F = True, False
VALUES = (1.0, 2.0, 3.0, 4.0, 5.0)  # of the four states in which actions were taken, and of the one after
FINAL = (0.0, 20.0, 30.0, 40.0)
# Name: which steps terminate, which are truncated, and the next values of each way by hand.
CASES = {
    "nothing": ((F, F, F, F), (F, F, F, F), (2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)),
    "termination": ((F, T, F, F), (F, F, F, F), (2, 0, 4, 5), (2, 0, 4, 5), (2, 0, 4, 5)),
    "truncation": ((F, F, F, F), (F, T, F, F), (2, 20, 4, 5), (2, 2, 4, 5), (2, 0, 4, 5)),
    "both at once": ((F, T, F, F), (F, T, F, F), (2, 0, 4, 5), (2, 0, 4, 5), (2, 0, 4, 5)),
    "the last step": ((F, T, F, F), (F, F, F, T), (2, 0, 4, 40), (2, 0, 4, 4), (2, 0, 4, 0)),
    "the last step, for good": ((F, F, F, T), (F, F, T, F), (2, 3, 30, 0), (2, 3, 3, 0), (2, 3, 0, 0)),
}


def column(numbers):
    return torch.tensor(numbers).unsqueeze(1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("way", "bootstrap"), list(enumerate(["final_obs", "last_value", "none"])))
def test_next_values_by_hand(case, way, bootstrap):
    terminated, truncated, *expected = CASES[case]
    found = next_values(
        column(VALUES), column(terminated), column(truncated), column(FINAL), bootstrap=bootstrap
    ).flatten()
    assert found.tolist() == list(expected[way])


# rewards 1 1 1, values 1 2 3 (4 after), gamma 0.5, lambda 1, truncated after the second step, final value 20
# delta_0 = 1 + 0.5 * 2 - 1 = 1;  delta_2 = 1 + 0.5 * 4 - 3 = 0
@pytest.mark.parametrize(
    ("bootstrap", "expected"),
    [
        ("final_obs", (5.5, 9.0, 0.0)),  # delta_1 = 1 + 0.5 * 20 - 2 = 9;  1 + 0.5 * 9 = 5.5
        ("last_value", (1.0, 0.0, 0.0)),  # delta_1 = 1 + 0.5 * 2 - 2 = 0;  1 + 0.5 * 0 = 1
        ("none", (0.5, -1.0, 0.0)),  # delta_1 = 1 - 2 = -1;  1 - 0.5 = 0.5
    ],
)
def test_advantages_by_hand(bootstrap, expected):
    values, truncated = column((1.0, 2.0, 3.0, 4.0)), column((F, T, F))
    following = next_values(
        values, torch.zeros_like(truncated), truncated, column((0.0, 20.0, 0.0)), bootstrap=bootstrap
    )
    found = gae(torch.ones(3, 1), values[:-1], following, truncated, gamma=0.5, gae_lambda=1.0)
    torch.testing.assert_close(found, column(expected))


def test_values_are_computed_for_truncated_rows_alone_in_one_pass(monkeypatch):
    algorithm = build("mlp", num_envs=6, horizon=8)
    rows, values = [], algorithm.policy.values

    def counted(seen, state=None):
        rows.append(seen.shape[1])
        return values(seen, state)

    monkeypatch.setattr(algorithm.policy, "values", counted)
    algorithm.collect()
    truncated = algorithm.rollout.truncated
    assert truncated.sum() == 5  # environments 0 and 4 twice, at every third and fourth step; 2 at the fifth
    assert rows.count(5) == 1
    assert sum(rows) == 5 + algorithm.rollout.values.numel()


@pytest.mark.parametrize("slots", [3, 8])
@pytest.mark.parametrize("model", MODELS)
def test_slots_of_a_graph_hold_the_same_as_rows(model, slots):
    found = []
    for kept in ("rows", "slots"):
        torch.manual_seed(1)
        algorithm = build(model, num_envs=6, horizon=8)
        if kept == "slots":
            algorithm.rollout.finals = FinalSlots(6, slots, torch.device("cpu"))
        for _ in range(2):
            algorithm.collect()
            found.append(algorithm.rollout.next_values().clone())
    for one, other in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(one, other)


def test_an_environment_that_truncates_more_often_than_it_says_is_found_out():
    algorithm = build("mlp", Truncating, num_envs=1, horizon=8)  # at the third and the sixth step
    algorithm.rollout.finals = FinalSlots(1, 1, torch.device("cpu"))
    algorithm.collect()
    assert algorithm.rollout.next_values().isnan().flatten().tolist() == [F, F, F, F, F, T, F, F]


class WithoutFinal(Truncating):
    def step(self, action):
        return super().step(action).exclude("final_obs")


class KnownWithoutFinal(WithoutFinal):
    has_final_obs = False


def test_the_way_follows_from_what_the_environment_gives():
    options = {"num_envs": 4, "horizon": 8}
    assert Algorithm(Episodes, **options).hparams.bootstrap == "final_obs"
    assert Algorithm(Episodes, **options, bootstrap="none").hparams.bootstrap == "none"
    algorithm = Algorithm(KnownWithoutFinal, **options)
    assert algorithm.hparams.bootstrap == "last_value"
    algorithm.collect()
    rollout = algorithm.rollout
    assert rollout.truncated.any()
    assert torch.equal(rollout.next_values()[rollout.truncated], rollout.values[:-1][rollout.truncated])
    with pytest.raises(ValueError, match=r"'truncated' without 'final_obs'.* sets has_final_obs = False"):
        Algorithm(WithoutFinal, **options)
    with pytest.raises(ValueError, match=r"^bootstrap="):
        Algorithm(Episodes, **options, bootstrap="final")


def test_episodes_begin_at_random_ages():
    torch.manual_seed(1)
    algorithm = Algorithm(Lander, num_envs=200, horizon=4, random_initial_ages=True)
    algorithm.collect()
    ages = algorithm.env.state["steps"]
    assert ages.unique().numel() > 100
    assert ages.max() < 200
    assert (algorithm.rollout.truncated.sum() > 0) & (algorithm.rollout.truncated.sum() < 20)  # 4 of 200 on average


@pytest.mark.parametrize(
    ("env_cls", "match"),
    [
        (Episodes, r"the ages of Episodes's episodes can't be set. .* Try random_initial_ages=False"),
        (lambda n, horizon, *, device: Lander(n, max_episode_steps=None), "episodes of Lander have no time limit"),
    ],
)
def test_ages_that_cannot_be_set_are_refused(env_cls, match):
    with pytest.raises(ValueError, match=match):
        Algorithm(env_cls, num_envs=4, horizon=4, random_initial_ages=True)
