import pytest
import torch
from tensordict import TensorDict

from rl8.env import Env
from rl8.env.masks import allowed_action
from rl8.specs import Binary, Categorical, Composite, MultiCategorical, Unbounded

N = 64


class Masked(Env):
    """Observes `mask`, and raises where an action is forbidden by `legal`."""

    def __init__(self, spec, mask, legal=None):
        super().__init__(N)
        self.action_spec, self.mask, self.legal = spec, mask, legal
        masks = mask if isinstance(mask, torch.Tensor) else Composite({k: self.bits(v) for k, v in mask.items()})
        self.observation_spec = Composite(x=Unbounded(1), action_mask=self.bits(masks))

    def bits(self, mask):
        return Binary(shape=mask.shape[1:], dtype=torch.bool) if isinstance(mask, torch.Tensor) else mask

    def observe(self):
        return TensorDict({"x": self.state, "action_mask": self.mask}, [N])

    def reset(self, *, config=None):
        self.state = torch.zeros(N, 1)
        return self.observe()

    def step(self, action):
        if self.legal is not None and not bool(self.legal(action).all()):
            raise AssertionError("an action that the mask forbids")
        return TensorDict({"obs": self.observe(), "rewards": torch.zeros(N)}, [N])


def some_of(*shape, always=0):
    """Return a random mask `[N, *shape]` that always allows one entry of the last dimension."""
    mask = torch.rand(N, *shape) < 0.5
    mask[..., always] = True
    return mask


def allowed_by(mask):
    """Return a function that looks choices `[N, ...]` up in a table `[N, ..., choices]`."""
    return lambda action: mask.gather(-1, action.long().unsqueeze(-1))


def test_multicategorical_actions_keep_to_each_elements_part_of_the_mask():
    first, second = some_of(2, always=1), some_of(4, always=3)

    def legal(action):
        return torch.cat([allowed_by(first)(action[:, 0]), allowed_by(second)(action[:, 1])])

    env = Masked(MultiCategorical([2, 4]), torch.cat([first, second], -1), legal)
    env.validate()
    action = allowed_action(env, env.reset())
    assert action.dtype == torch.int64
    assert action[:, 1].unique().tolist() == [0, 1, 2, 3]  # all that some environment allows are tried


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_binary_actions_are_zero_where_a_one_is_forbidden(shape):
    mask = torch.rand(N, *shape) < 0.5
    env = Masked(Binary(shape=shape), mask, lambda action: (action == 0) | mask)
    env.validate()
    action = allowed_action(env, env.reset())
    assert action[mask].float().mean() == pytest.approx(0.5, abs=0.15)


def test_each_part_of_a_composite_action_keeps_to_its_own_mask():
    gear, dial = some_of(3), some_of(2 + 2)
    dial[:] = torch.tensor([True, False, False, True])
    spec = Composite(gear=Categorical(3), dials=MultiCategorical([2, 2]), free=Categorical(2), push=Unbounded(1))

    def legal(action):
        dials = action["dials"] == torch.tensor([0, 1])
        return torch.cat([allowed_by(gear)(action["gear"]), dials], -1)

    mask = TensorDict({"gear": gear, "dials": dial}, [N])
    env = Masked(spec, mask, legal)
    env.validate()
    assert allowed_action(env, env.reset())["free"].unique().tolist() == [0, 1]


def test_flat_masks_of_categorical_actions_of_several_elements_are_read_row_by_row():
    table = some_of(2, 3)
    Masked(Categorical(3, shape=(2,)), table.flatten(1), allowed_by(table)).validate()


WRONG = {
    "shape": (MultiCategorical([2, 3]), some_of(4), r"an action_mask of shape \(64, 4\), expected \(64, 5\). Give it"),
    "nothing": (
        MultiCategorical([2, 2]),
        torch.tensor([True, True, False, False]).expand(N, -1),
        r"observes an action_mask that allows nothing. Leave at least one",
    ),
    "no parts": (Composite(a=Categorical(2)), some_of(2), r"action_mask that is one tensor, for actions of several"),
    "part": (
        Composite(a=Categorical(2)),
        TensorDict({"a": some_of(3)}, [N]),
        r"observes an action_mask\['a'\] of shape \(64, 3\), expected \(64, 2\)",
    ),
    "no choices": (Unbounded(1), some_of(1), r"observes an action_mask, but Unbounded.* has none to mask. Leave it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_masks_that_do_not_fit_are_named(name):
    spec, mask, message = WRONG[name]
    with pytest.raises(ValueError, match=rf"Masked.*{message}"):
        Masked(spec, mask).validate()
