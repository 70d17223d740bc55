from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import nn

from rl8 import Algorithm
from rl8.checkpoint import load_checkpoint, save_checkpoint
from rl8.env import CartPole, Env
from rl8.env.draws import drawn_values, fingerprint, restore
from rl8.specs import Categorical, Unbounded


def layer(draw):
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, float(draw[0]))
    return module.requires_grad_(False)


# Where a reset puts what it drew, and how a step reads it.
PLACES = {
    "tensor": (lambda draw: draw, lambda wind: wind),
    "tensordict": (lambda draw: TensorDict({"w": draw}, [len(draw)]), lambda wind: wind["w"]),
    "dict": (lambda draw: {"north": {"w": draw}}, lambda wind: wind["north"]["w"]),
    "list": (lambda draw: [0.0, draw], lambda wind: wind[1]),
    "float": (lambda draw: float(draw[0]), lambda wind: wind),
    "integer": (lambda draw: int(1e6 * draw[0]), lambda wind: wind / 1e6),
    "array": (lambda draw: draw.numpy().copy(), torch.from_numpy),
    "module": (layer, lambda wind: wind.weight[0, 0]),
    "object": (lambda draw: SimpleNamespace(w=draw), lambda wind: wind.w),
}


def windy(place):
    wrap, unwrap = PLACES[place]

    class Windy(Env):
        """Drifts by what its last reset drew."""

        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, device=device)
            self.observation_spec, self.action_spec = Unbounded(1), Categorical(2)
            self.constant = [1.0]

        def reset(self, *, config=None):
            self.wind = wrap(torch.rand(self.num_envs, 1))
            self.state = torch.zeros(self.num_envs, 1)
            return self.state

        def step(self, action):
            self.state = self.state + self.constant[0] * unwrap(self.wind) + action.unsqueeze(-1)
            return TensorDict({"obs": self.state, "rewards": -self.state.abs()}, [self.num_envs])

    return Windy


@pytest.mark.parametrize("place", PLACES)
def test_what_a_reset_drew_is_back_after_resuming(place, tmp_path):
    cls, options = windy(place), {"num_envs": 4, "horizon": 4, "horizons_per_env_reset": -1}
    torch.manual_seed(0)
    first = Algorithm(cls, **options)
    first.collect()
    first.step()
    save_checkpoint(tmp_path / "c.pt", first)
    expected = first.collect()["returns/mean"]
    first.step()
    torch.manual_seed(9)
    second = Algorithm(cls, **options)
    load_checkpoint(tmp_path / "c.pt", second)
    assert second.collect()["returns/mean"] == expected
    second.step()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))


def made(place):
    env = windy(place)(3)
    env.validate()
    return env


def test_only_what_resets_draw_is_kept():
    assert made("dict").drawn == {"self.wind['north']['w']"}
    assert made("list").drawn == {"self.wind[1]"}
    assert made("module").drawn == {"self.wind._parameters['weight']", "self.wind._parameters['bias']"}
    env = CartPole(3)
    env.validate()
    assert env.drawn == frozenset()
    assert drawn_values(env) == {}


def test_an_array_and_a_parameter_keep_their_kinds():
    for place, kind in (("array", np.ndarray), ("module", nn.Linear)):
        env, other = made(place), made(place)
        restore(other, drawn_values(env))
        assert isinstance(other.wind, kind)
        assert drawn_values(other).keys() == drawn_values(env).keys()


def test_a_checkpoint_of_other_code_is_refused():
    with pytest.raises(
        ValueError, match=r"The checkpoint has Windy.wind\['north'\]\['w'\], which this environment has"
    ):
        restore(made("list"), drawn_values(made("dict")))


@pytest.mark.parametrize("place", ["dict", "float"])
def test_a_captured_graph_learns_of_another_draw(place):
    env = made(place)
    before, wind = fingerprint(env), env.wind
    assert fingerprint(env) == before
    env.reset()
    assert wind is not env.wind
    assert fingerprint(env) != before


class Tuples(windy("tensor")):
    def reset(self, *, config=None):
        obs = super().reset()
        self.gusts = (torch.rand(self.num_envs), 1)
        return obs


class Generators(windy("tensor")):
    def reset(self, *, config=None):
        if not hasattr(self, "generator"):
            self.generator = torch.Generator()
        torch.rand(1, generator=self.generator)
        return super().reset()


class Numpy(windy("tensor")):
    def reset(self, *, config=None):
        np.random.rand()  # noqa: NPY002 (the fault that is looked for)
        return super().reset()


LOST = {
    Tuples: r"Tuples.reset\(\) draws self.gusts\[0\], which a checkpoint can't put back. Keep it in self.state",
    Generators: r"Generators.reset\(\) draws self.generator, which a checkpoint can't put back. .*torch.rand",
    Numpy: r"Numpy.reset\(\) draws from the global generator of NumPy, .*Use torch.rand",
}


@pytest.mark.parametrize("cls", LOST, ids=lambda cls: cls.__name__)
def test_draws_that_no_checkpoint_can_put_back_are_refused(cls):
    with pytest.raises(ValueError, match=LOST[cls]):
        cls(3).validate()
