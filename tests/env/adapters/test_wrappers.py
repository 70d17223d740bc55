import gymnasium
import pytest

from rl8.env.adapters.gymnasium import GymnasiumEnv
from rl8.env.adapters.wrappers import SeenEntries


def test_only_some_entries_are_seen():
    wrapper = {"_target_": "rl8.env.adapters.wrappers.SeenEntries", "entries": [0, 2]}
    some, every = GymnasiumEnv(2, id="CartPole-v1", wrappers=[wrapper]), GymnasiumEnv(2, id="CartPole-v1")
    assert some.observation_spec.shape == (2,)
    assert some.begin(5).tolist() == every.begin(5)[:, [0, 2]].tolist()


@pytest.mark.parametrize("entries", [[], [4], [-1]])
def test_entries_that_are_not_there_are_refused(entries):
    with pytest.raises(ValueError, match=r"are no places of 4 numbers\. Accepted: some of 0 to 3\.$"):
        SeenEntries(gymnasium.make("CartPole-v1"), entries)


def test_what_is_no_vector_is_refused():
    with pytest.raises(ValueError, match="needs observations that are vectors, not Tuple"):
        SeenEntries(gymnasium.make("Blackjack-v1"), [0])
