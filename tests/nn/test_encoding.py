import pytest
import torch

from rl8.nn import Encoder
from rl8.nn.encoding import encode, encoded_size
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded


@pytest.mark.parametrize(
    ("spec", "sample", "vector"),
    [
        (Unbounded(2), [1.5, -2.0], [1.5, -2.0]),
        (Unbounded(()), 3.0, [3.0]),
        (Unbounded(2, dtype=torch.float64), [1.5, -2.0], [1.5, -2.0]),
        (Unbounded((2, 2)), [[1.0, 2.0], [3.0, 4.0]], [1, 2, 3, 4]),
        (Bounded(0, 255, (1, 2), dtype=torch.uint8), [[7, 255]], [7, 255]),
        (Categorical(3), 1, [0, 1, 0]),
        (Categorical(3, 2), [2, 0], [0, 0, 1, 1, 0, 0]),
        (Categorical(2, (2, 1)), [[1], [0]], [0, 1, 1, 0]),
        (Categorical(2, 3, dtype=torch.bool), [True, False, True], [1, 0, 1]),
        (MultiCategorical([2, 3]), [1, 2], [0, 1, 0, 0, 1]),
        (Binary(3), [0, 1, 1], [0, 1, 1]),
        (Binary(shape=(2, 2), dtype=torch.bool), [[False, True], [True, True]], [0, 1, 1, 1]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (2, 3, 4)])
def test_encodings_by_hand(spec, sample, vector, batch):
    samples = torch.tensor(sample, dtype=spec.dtype).expand((*batch, *spec.shape))
    encoded = encode(samples, spec)
    assert encoded.shape == (*batch, encoded_size(spec))
    assert encoded.dtype == torch.float32
    assert torch.equal(encoded, torch.tensor(vector).float().expand_as(encoded))


def test_components_are_joined_in_the_specs_order():
    spec = Composite(speed=Unbounded(2), inner=Composite(gear=Categorical(3), light=Binary(1)))
    obs = spec.zeros(1)
    obs["speed"], obs["inner", "gear"] = torch.tensor([[5.0, 6.0]]), torch.tensor([2])
    encoder = Encoder(spec)
    assert encoder.size == 6
    assert encoder(obs).tolist() == [[5, 6, 0, 0, 1, 0]]


@pytest.mark.parametrize("mask", [Categorical(2, 3, dtype=torch.bool), Composite(gear=Binary(3))])
def test_the_action_mask_is_no_input(mask):
    encoder = Encoder(Composite(action_mask=mask, speed=Unbounded(2)))
    assert encoder.size == 2
    with pytest.raises(ValueError, match=r"has nothing for a model to look at besides 'action_mask'. Add an observat"):
        Encoder(Composite(action_mask=mask))


def test_a_flat_float_vector_is_not_copied():
    obs = torch.randn(2, 3, 4)
    assert Encoder(Unbounded(4))(obs) is obs
