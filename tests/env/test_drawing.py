import math

import numpy as np
import pytest

from rl8.env.drawing import Canvas

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def blank() -> Canvas:
    return Canvas(100, 120, top=BLACK, bottom=BLACK)


def area(canvas: Canvas) -> float:
    """Return the number of pixels covered with white, parts of pixels included."""
    return float(canvas.pixels[..., 0].sum() / 255)


def test_the_background_is_a_gradient():
    frame = Canvas(11, 5, top=(0, 0, 0), bottom=(200, 100, 50)).frame()
    assert frame.shape == (11, 5, 3)
    assert frame.dtype == np.uint8
    assert frame[0].tolist() == [[0, 0, 0]] * 5
    assert frame[5].tolist() == [[100, 50, 25]] * 5
    assert frame[10].tolist() == [[200, 100, 50]] * 5


@pytest.mark.parametrize("center", [(60, 50), (60.3, 49.7)])
def test_a_circle_covers_its_area(center):
    canvas = blank()
    canvas.circle(center, 20, WHITE)
    assert area(canvas) == pytest.approx(math.pi * 20**2, rel=2e-3)
    assert canvas.frame()[50, 60].tolist() == [255] * 3
    assert canvas.frame()[50, 82].tolist() == [0] * 3


def test_a_ring_covers_its_area_and_not_its_middle():
    canvas = blank()
    canvas.circle((60, 50), 20, WHITE, outline=4)
    assert area(canvas) == pytest.approx(2 * math.pi * 20 * 4, rel=5e-3)
    assert canvas.frame()[50, 60].tolist() == [0] * 3
    assert canvas.frame()[50, 80].tolist() == [255] * 3


def test_edges_are_smooth():
    canvas = blank()
    canvas.circle((60, 50), 20, WHITE)
    grey = canvas.frame()[..., 0]
    assert ((grey > 0) & (grey < 255)).sum() > 60
    canvas = blank()
    canvas.circle((60, 50), 20, WHITE, soft=10)
    assert ((canvas.frame()[..., 0] > 0) & (canvas.frame()[..., 0] < 255)).sum() > 600


@pytest.mark.parametrize("end", [(90, 50), (60, 80), (75.3, 77.1)])
def test_a_line_covers_its_area(end):
    canvas = blank()
    canvas.line([(60, 50), end], 6, WHITE)
    length = math.dist((60, 50), end)
    assert area(canvas) == pytest.approx(length * 6 + math.pi * 3**2, rel=0.01)


def test_strokes_through_many_points_do_not_add_up():
    canvas = blank()
    canvas.line([(20, 20), (60, 20), (60, 60)], 5, WHITE, alpha=0.5)
    assert canvas.frame()[20, 60].tolist() == canvas.frame()[20, 40].tolist() == [128] * 3


def test_a_line_of_no_length_is_a_dot():
    canvas = blank()
    canvas.line([(60, 50), (60, 50)], 10, WHITE)
    assert area(canvas) == pytest.approx(math.pi * 5**2, rel=0.01)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2])
def test_a_rectangle_covers_its_area_at_every_angle(angle):
    canvas = blank()
    canvas.rectangle((60, 50), (40, 20), WHITE, angle=angle)
    assert area(canvas) == pytest.approx(40 * 20, rel=5e-3)
    # the end of its long side, half a width from the middle, lies clockwise of the right
    spot = round(50 + 17 * math.sin(angle)), round(60 + 17 * math.cos(angle))
    assert canvas.frame()[spot].tolist() == [255] * 3


def test_round_corners_take_away_area():
    canvas = blank()
    canvas.rectangle((60, 50), (40, 20), WHITE, corner=8)
    assert area(canvas) == pytest.approx(40 * 20 - (4 - math.pi) * 8**2, rel=5e-3)


def test_an_arc_runs_clockwise_from_the_right():
    canvas = blank()
    canvas.arc((60, 50), 30, 0, math.pi / 2, 4, WHITE)
    frame = canvas.frame()
    assert frame[71, 81].tolist() == [255] * 3  # below and to the right
    assert frame[28, 81].tolist() == [0] * 3
    assert area(canvas) == pytest.approx(30 * math.pi / 2 * 4 + math.pi * 2**2, rel=0.02)


def test_ground_fills_below_the_curve():
    canvas = blank()
    canvas.ground(np.full(120, 70.0, np.float32), WHITE)
    assert area(canvas) == pytest.approx(30 * 120)
    assert canvas.frame()[69].max() == 0
    assert canvas.frame()[70].min() == 255
    slope = blank()
    slope.ground(np.linspace(20, 80, 120, dtype=np.float32), WHITE)
    assert area(slope) == pytest.approx(50 * 120, rel=0.01)


def test_opacity_mixes_colors():
    canvas = Canvas(10, 10, top=(100, 100, 100), bottom=(100, 100, 100))
    canvas.rectangle((5, 5), (40, 40), (200, 0, 100), alpha=0.25)
    assert canvas.frame()[5, 5].tolist() == [125, 75, 100]


def test_what_lies_off_the_canvas_is_cut():
    canvas = blank()
    canvas.circle((-100, 50), 20, WHITE)
    canvas.line([(500, 500), (600, 500)], 3, WHITE)
    canvas.rectangle((60, -50), (20, 20), WHITE)
    assert area(canvas) == 0
    canvas.circle((0, 50), 20, WHITE)
    assert area(canvas) == pytest.approx(math.pi * 20**2 / 2, rel=5e-3)


def test_text_is_centered_and_every_character_differs():
    pictures = {}
    for char in "0123456789-.?":
        canvas = blank()
        canvas.text(char, (60, 50), 40, WHITE, weight=3)
        pictures[char] = canvas.frame()[..., 0]
        columns = np.flatnonzero(pictures[char].max(0))
        assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(60, abs=6)
    assert len({picture.tobytes() for picture in pictures.values()}) == 13
    canvas = blank()
    canvas.text("-1.5", (60, 50), 20, WHITE)
    columns = np.flatnonzero(canvas.frame()[..., 0].max(0))
    assert (columns[0] + columns[-1] + 1) / 2 == pytest.approx(60, abs=2)
    canvas = blank()
    canvas.text(" ", (60, 50), 20, WHITE)
    assert area(canvas) == 0
