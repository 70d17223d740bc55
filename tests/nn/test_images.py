import pytest
import torch

from rl8.models import LSTMModel
from rl8.nn import Frames, ImpalaNet, NatureNet
from rl8.nn.images import encoder_of, fitting, flattened, is_image, smallest
from rl8.specs import Binary, Bounded, Categorical, Composite, Unbounded


def picture(*shape, dtype=torch.uint8):
    return Bounded(0, 255, shape, dtype=dtype)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (picture(8, 8, 3), True),
        (picture(8, 8), True),
        (picture(8, 8, dtype=torch.float32), False),
        (Unbounded((3, 8, 8)), True),
        (Binary(shape=(10, 10, 4), dtype=torch.bool), True),
        (Categorical(5, (4, 4, 3)), False),
        (picture(8), False),
    ],
    ids=repr,
)
def test_what_an_image_is(spec, expected):
    assert is_image(spec) is expected


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((8, 9, 3), "auto", (3, 8, 9)),
        ((3, 8, 9), "auto", (3, 8, 9)),
        ((3, 8, 9), "last", (9, 3, 8)),
        ((8, 9, 3), "first", (8, 9, 3)),
        ((8, 9), "auto", (1, 8, 9)),
        ((8, 9), "last", (1, 8, 9)),
    ],
)
@pytest.mark.parametrize("window", [1, 3])
def test_channels_come_first_and_bytes_become_numbers_up_to_one(shape, layout, expected, window):
    spec = picture(*shape)
    frames = Frames(spec, layout, window)
    channels, height, width = expected
    assert frames.shape == (window * channels, height, width)
    stored = spec.rand(2 * 5 * window).unflatten(0, (2, 5, window) if window > 1 else (2, 5))
    found = frames(stored)
    assert found.shape == (10, *frames.shape)
    assert found.dtype == torch.float32
    image = stored[1, 4] if window == 1 else stored[1, 4, 0]  # the oldest: the first channels are its
    byte = image[2, 1] if len(shape) == 2 else image[2, 1, -1] if frames.last else image[-1, 2, 1]
    assert found[9, channels - 1, 2, 1].item() == pytest.approx(byte.item() / 255)


def test_numbers_that_are_no_bytes_stay_as_they_are():
    spec = Unbounded((3, 4, 5))
    stored = spec.rand(6).unflatten(0, (2, 3))
    assert torch.equal(Frames(spec)(stored), stored.flatten(0, 1))
    truths = torch.rand(2, 3, 4, 5, 2) < 0.5
    assert torch.equal(Frames(Binary(shape=(4, 5, 2), dtype=torch.bool))(truths).sum(), truths.sum())


def test_channels_that_can_not_be_told_are_asked_for():
    with pytest.raises(ValueError, match=r"^model.layout=auto can't tell .* \(4, 9, 4\): .* Try model.layout=last"):
        Frames(picture(4, 9, 4))
    assert Frames(picture(4, 9, 4), "last").shape == (4, 4, 9)


def test_sizes_of_the_nature_network():
    # 84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9 -> 9 - 3 + 1 = 7
    net = NatureNet((4, 84, 84))
    assert net.size == 64 * 7 * 7 == 3136
    assert net.floats == 32 * 20 * 20 + 64 * 9 * 9 + 3136
    # kernels and biases: 4 * 8 * 8 * 32 + 32, 32 * 4 * 4 * 64 + 64, 64 * 3 * 3 * 64 + 64
    assert sum(parameter.numel() for parameter in net.parameters()) == 8224 + 32832 + 36928
    assert smallest(((32, 8, 4), (64, 4, 2), (64, 3, 1))) == 36
    assert NatureNet((1, 36, 44)).size == 64 * 1 * 2


def test_sizes_of_the_impala_network():
    net = ImpalaNet((3, 64, 64))
    assert net.size == 32 * 8 * 8
    assert len([layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]) == 15
    small = ImpalaNet((4, 10, 7), [8, 8])
    images = torch.rand(5, 4, 10, 7)
    assert small(images).shape == (5, small.size) == (5, 8 * 3 * 2)


@pytest.mark.parametrize(
    "make", [lambda: NatureNet((1, 8, 8), [[4, 3, 1], [4, 2, 2]]), lambda: ImpalaNet((1, 8, 8), [4])]
)
def test_every_weight_gets_a_gradient_and_pixels_count(make):
    net, images = make(), torch.rand(6, 1, 8, 8)
    found = net(images)
    assert found.shape == (6, net.size)
    assert not torch.allclose(found, net(images.flip(-1)))
    found.square().mean().backward()
    assert all((parameter.grad != 0).any() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: NatureNet((1, 35, 80)), ValueError, r"need images of at least 36 x 36, these are 35 x 80. Try"),
        (lambda: NatureNet((1, 80, 80), []), TypeError, r"^model.filters=\[\] is no list of \[channels"),
        (lambda: NatureNet((1, 80, 80), [[3, 1]]), TypeError, r"^model.filters=\[\[3, 1\]\] is no list"),
        (lambda: NatureNet((1, 80, 80), [[3, 1, 0]]), ValueError, r"^model.filters=0 is out of range"),
        (lambda: ImpalaNet((1, 8, 8), 3), TypeError, r"^model.channels=3 is no list of integers"),
        (lambda: ImpalaNet((1, 8, 8), [0]), ValueError, r"^model.channels=0 is out of range"),
        (
            lambda: Frames(picture(8, 8, 3), "middle"),
            ValueError,
            r"^model.layout='middle' is unknown. Accepted: auto",
        ),
    ],
)
def test_what_is_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [([(84, 84, 3)], "cnn"), ([(4, 36, 36)], "cnn"), ([(84, 84)], "cnn"), ([(84, 84, 3), (35, 84, 1)], "impala")],
)
def test_which_network_looks_at_images_as_it_is(shapes, expected):
    spec = Composite({str(index): picture(*shape) for index, shape in enumerate(shapes)})
    assert fitting([picture(*shape) for shape in shapes]) == expected
    assert encoder_of(spec, expected, "auto").size > 0


def test_images_that_are_taken_as_numbers_are_known():
    spec = Composite(eye=picture(5, 5, 3), speed=Unbounded(2))
    shapes = {"logits": torch.Size([2])}
    models = [LSTMModel(spec, Categorical(2), feature_shapes=shapes, images=images) for images in (None, "impala")]
    assert [flattened(model) for model in models] == [[spec["eye"]], []]
