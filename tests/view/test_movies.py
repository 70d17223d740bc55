import numpy as np
import pytest
import torch
from PIL import Image

from rl8.view.movies import film_strip, gif

RED, BLUE, WHITE = (220, 40, 40), (40, 40, 220), (255, 255, 255)


def frames(count, height=40, width=60):
    """Return frames of a red square that moves one pixel right per frame, over blue."""
    pictures = []
    for i in range(count):
        picture = np.full((height, width, 3), BLUE, np.uint8)
        picture[10:20, i : i + 10] = RED
        pictures.append(picture)
    return pictures


def near(color, other):
    return max(abs(a - b) for a, b in zip(color, other, strict=True)) < 12


def test_gif_shows_every_frame_at_its_speed_for_ever(tmp_path):
    path = gif(frames(12), tmp_path / "new" / "a.gif", fps=25)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["duration"], image.info["loop"]) == (12, (60, 40), 40, 0)
        for index in range(12):
            image.seek(index)
            picture = image.convert("RGB")
            assert near(picture.getpixel((index + 5, 15)), RED)
            assert near(picture.getpixel((index + 12, 15)), BLUE)


def test_frames_may_be_tensors(tmp_path):
    arrays = frames(3)
    assert (
        gif(arrays, tmp_path / "a.gif").read_bytes()
        == gif([torch.from_numpy(frame) for frame in arrays], tmp_path / "b.gif").read_bytes()
    )


def test_gif_faster_than_browsers_play_leaves_frames_out(tmp_path):
    with Image.open(gif(frames(12), tmp_path / "a.gif", fps=100)) as image:
        assert (image.n_frames, image.info["duration"]) == (6, 20)
    with Image.open(gif(frames(2), tmp_path / "a.gif", fps=0.5)) as image:
        assert image.info["duration"] == 2000


def test_film_strip_spreads_its_frames_from_first_to_last(tmp_path):
    path = film_strip(frames(21), tmp_path / "new" / "strip.png", count=3)
    with Image.open(path) as image:
        assert image.size == (3 * 60 + 2 * 6, 40)
        for place, frame in enumerate((0, 10, 20)):
            assert image.getpixel((place * 66 + frame + 5, 15)) == RED
            assert image.getpixel((place * 66 + frame + 12, 15)) == BLUE
        assert image.getpixel((62, 15)) == WHITE


def test_film_strip_in_rows_with_captions(tmp_path):
    captions = [f"step {i}" for i in range(5)]
    path = film_strip(frames(5), tmp_path / "strip.png", columns=2, captions=captions)
    plain = film_strip(frames(5), tmp_path / "plain.png", columns=2)
    with Image.open(path) as image, Image.open(plain) as bare:
        assert bare.size == (126, 3 * 40 + 2 * 6)
        assert image.size == (126, 3 * (40 + 6 + 11 + 6) - 6)
        below = image.crop((0, 41, 60, 57)).convert("L")
        assert below.getextrema()[0] < 200  # ink
    small = film_strip(frames(3), tmp_path / "small.png", width=30)
    with Image.open(small) as image:
        assert image.size == (3 * 30 + 2 * 6, 20)
    one = film_strip(frames(4), tmp_path / "one.png", count=1)
    with Image.open(one) as image:
        assert image.size == (60, 40)


@pytest.mark.parametrize("make", [gif, film_strip])
def test_frames_that_are_no_pictures(tmp_path, make):
    path = tmp_path / "x"
    with pytest.raises(ValueError, match=r"frames is empty\. Accepted: at least one frame"):
        make([], path)
    with pytest.raises(ValueError, match=r"frames\[1\] is float32 \[4, 4, 3\]\. Accepted: uint8 \[H, W, 3\]"):
        make([np.zeros((4, 4, 3), np.uint8), torch.zeros(4, 4, 3)], path)
    with pytest.raises(ValueError, match=r"frames\[0\] is uint8 \[4, 4\]"):
        make([np.zeros((4, 4), np.uint8)], path)
    with pytest.raises(ValueError, match=r"frames\[0\] is str \[\]"):
        make(["picture"], path)
    with pytest.raises(ValueError, match=r"frames\[1\] has 5x4 pixels and frames\[0\] 4x4"):
        make([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], path)
    assert not path.exists()


def test_numbers_out_of_range(tmp_path):
    with pytest.raises(ValueError, match=r"fps=0 is out of range\. Accepted: a number > 0"):
        gif(frames(2), tmp_path / "a.gif", fps=0)
    with pytest.raises(ValueError, match="count=0 is out of range"):
        film_strip(frames(2), tmp_path / "a.png", count=0)
    with pytest.raises(ValueError, match="columns=0 is out of range"):
        film_strip(frames(2), tmp_path / "a.png", columns=0)
    with pytest.raises(ValueError, match=r"width=0 is out of range\. Accepted: an integer >= 1"):
        film_strip(frames(2), tmp_path / "a.png", width=0)
    with pytest.raises(ValueError, match="captions has 1 texts for 2 frames"):
        film_strip(frames(2), tmp_path / "a.png", captions=["one"])
