"""Kinds of observations and actions that every model must take, and what a model sees of them."""

import torch

from rl8.distributions import default_distribution
from rl8.models.views import Views
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded

OBSERVATIONS = {
    "flat": Unbounded(3),
    "scalar": Unbounded(()),
    "bounded": Bounded(-1, 1, 2),
    "image": Bounded(0, 255, (4, 4, 3), dtype=torch.uint8),
    "categorical": Categorical(5),
    "categoricals": Categorical(3, (2, 2)),
    "multicategorical": MultiCategorical([2, 3, 4]),
    "binary": Binary(4),
    "bool": Categorical(2, 3, dtype=torch.bool),
    "composite": Composite(position=Unbounded(2), gear=Categorical(3), light=Binary(1, dtype=torch.bool)),
    "nested": Composite(
        speed=Unbounded(()), inner=Composite(image=Unbounded((2, 2)), deep=Composite(n=Categorical(4)))
    ),
}
ACTIONS = {
    "categorical": Categorical(3),
    "categorical (1,)": Categorical(3, (1,)),
    "categorical (2, 2)": Categorical(4, (2, 2)),
    "multicategorical": MultiCategorical([3, 2]),
    "binary": Binary(3),
    "bounded": Bounded([-1.0, 0.0], [1.0, 5.0]),
    "unbounded": Unbounded((2, 2)),
    "composite": Composite(gear=Categorical(3), inner=Composite(push=Bounded(-1, 1), lights=Binary(2))),
}


def masked(action_spec):
    """Return an observation with the mask that fits an action, or None for actions that take none."""
    shapes = default_distribution(action_spec).feature_shapes(action_spec)
    if isinstance(action_spec, Composite):
        mask = Composite(
            {key: Binary(shape=s["logits"], dtype=torch.bool) for key, s in shapes.items() if "logits" in s}
        )
    elif "logits" in shapes:
        mask = Binary(shape=shapes["logits"], dtype=torch.bool)
    else:
        return None
    return Composite(position=Unbounded(3), action_mask=mask)


def build(model_cls, observation_spec, action_spec, **config):
    """Return a model and the class of its distribution."""
    distribution_cls = default_distribution(action_spec)
    shapes = distribution_cls.feature_shapes(action_spec)
    return model_cls(observation_spec, action_spec, feature_shapes=shapes, **config), distribution_cls


def stored(observation_spec, model, steps, envs, age=50):
    """Return observations and ages as a rollout stores them; the first steps follow a reset if `age` is 0."""
    history = Views(observation_spec, model.windows).history
    obs = torch.stack([observation_spec.rand(envs) for _ in range(history + steps)])
    return obs, (torch.arange(-history, steps) + age).clamp(min=0).unsqueeze(1).expand(-1, envs)


def seen(observation_spec, model, obs, ages):
    """Return what a model sees of all that is stored, `[L, B, ...]`."""
    history = Views(observation_spec, model.windows).history
    steps, envs = ages.shape[0] - history, ages.shape[1]
    return Views(observation_spec, model.windows).rows(obs, ages, torch.arange(steps * envs).reshape(steps, envs))


def with_other_padding(inputs, observation_spec, model):
    """Return what a model sees with random padding instead of zeros."""
    changed = inputs.clone()
    for key in model.windows:
        padding = ~inputs[f"{key}_mask"]
        assert padding.any()
        spec = observation_spec[key] if isinstance(observation_spec, Composite) else observation_spec
        changed[key][padding] = spec.rand(int(padding.sum()))
        assert (changed[key] != inputs[key]).any()
    return changed


def state_of(model, envs):
    """Return the recurrent state at the start, or None."""
    return None if model.state_spec is None else model.state_spec.zeros(envs)


def leaves_of(features):
    """Return the tensors of nested features."""
    values = list(features.values())
    return [leaf for value in values for leaf in (leaves_of(value) if isinstance(value, dict) else [value])]
