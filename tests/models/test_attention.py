import pytest
import torch

from rl8.models import TransformerModel
from rl8.specs import Categorical, Unbounded

from .cases import OBSERVATIONS, build, seen, stored

W, ENVS = 5, 3
CONFIG = {"window": W, "size": 8, "num_heads": 2, "num_layers": 2}


def make(spec):
    model, _ = build(TransformerModel, spec, Categorical(3), **CONFIG)
    return model


@pytest.mark.parametrize("spec", [OBSERVATIONS[key] for key in ("flat", "nested")], ids=repr)
def test_a_step_depends_on_the_last_observations_and_on_no_later_ones(spec):
    model, steps = make(spec), 12
    obs, ages = stored(spec, model, steps, ENVS)
    values = model(seen(spec, model, obs, ages)).values
    changed, t = obs.clone(), 4
    changed[W - 1 + t] = spec.rand(ENVS)  # row W - 1 + t of storage is step t
    assert (changed != obs).any()
    differs = (model(seen(spec, model, changed, ages)).values - values).abs().amax(-1) > 1e-6
    assert differs.tolist() == [t <= step < t + W for step in range(steps)]


def test_the_order_of_observations_matters():
    spec = Unbounded(3)
    model = make(spec)
    inputs = seen(spec, model, *stored(spec, model, 1, ENVS))
    swapped = inputs.clone()
    swapped["obs"][:, :, [0, 1]] = inputs["obs"][:, :, [1, 0]]
    assert not torch.allclose(model(swapped).values, model(inputs).values, atol=1e-7, rtol=0)


def test_a_window_that_fills_up_looks_like_a_shorter_one():
    # Positions count from the newest step: the last three of five are those of a model of window three.
    spec = Unbounded(3)
    long, (short, _) = make(spec), build(TransformerModel, spec, Categorical(3), **{**CONFIG, "window": 3})
    weights = long.state_dict()
    weights["position"] = weights["position"][-3:]
    short.load_state_dict(weights)
    obs, ages = stored(spec, long, 3, ENVS, age=0)
    values = long(seen(spec, long, obs, ages)).values
    torch.testing.assert_close(short(seen(spec, short, obs[2:], ages[2:])).values, values)


@pytest.mark.parametrize(
    ("option", "value", "kind", "message"),
    [
        ("window", 0, ValueError, r"^model.window=0 is out of range. Accepted: an integer >= 1"),
        ("size", 8.0, TypeError, r"^model.size=8.0 is not an integer"),
        ("num_layers", 0, ValueError, r"^model.num_layers=0 is out of range"),
        ("num_heads", 3, ValueError, r"^model.num_heads=3 does not divide model.size=8"),
    ],
)
def test_options_that_are_refused(option, value, kind, message):
    with pytest.raises(kind, match=message):
        build(TransformerModel, Unbounded(3), Categorical(3), **{**CONFIG, option: value})
