import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from envs import Episodes
from PIL import Image

from rl8 import Algorithm
from rl8.cli import main
from rl8.env import CartPole, DiscreteDummyEnv, Lander
from rl8.use.evaluate import evaluate
from rl8.use.play import shots
from rl8.view import movies, terminal


def drawn(folder):
    with Image.open(folder) as image:
        return image.n_frames, image.size, image.info["duration"]


def test_a_gif_in_the_run_s_folder(train, capsys, workdir):
    train("run", "env=cartpole")
    capsys.readouterr()
    assert main(["play", "run"]) == 0
    assert capsys.readouterr().out == "run/play.gif: 9 pictures of 1 environment(s), 50 per second\n"
    assert drawn(workdir / "run" / "play.gif") == (9, (480, 350), 20)  # 0.02 s a step


def test_a_grid_as_mp4(train, capsys, workdir):
    av = pytest.importorskip("av", reason="MP4 needs the extra rl8[video]")
    train("run", "env=pendulum")
    assert main(["play", "run", "-o", "new/a.mp4", "--grid=2x3", "--steps=5", "--fps=12.5", "--width=101"]) == 0
    with av.open(str(workdir / "new" / "a.mp4")) as film:
        pictures = [frame.to_image() for frame in film.decode(video=0)]
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.video[0].average_rate == 12.5
    assert len(pictures) == 6
    assert pictures[0].size == (3 * 101 + 2 * 6 - 1, 2 * (67 + 17 + 6) - 6)  # the odd column is left out


def test_a_film_shows_time_and_return():
    policy = Algorithm(CartPole, num_envs=2, horizon=4).policy.eval()
    env, rewards = CartPole(2, 4), []
    step = env.step

    def noted(action):
        result = step(action)
        rewards.append(result["rewards"].reshape(2))
        return result

    env.step = noted
    before = torch.get_rng_state()
    texts = [texts for _, texts in shots(policy, env, steps=3)]
    assert torch.equal(torch.get_rng_state(), before)
    sums = torch.stack(rewards).cumsum(0)
    assert texts[0] == ["0.00 s   return 0"] * 2
    assert texts[3] == [f"0.06 s   return {total:.4g}" for total in sums[2].tolist()]


class Drawing(Episodes):
    def render(self, index=0):
        return np.zeros((20, 30, 3), np.uint8)


def test_an_episode_that_ends_begins_anew():
    policy = Algorithm(Drawing, num_envs=2, horizon=4).policy.eval()
    texts = [texts[0].split()[:2] for _, texts in shots(policy, Drawing(1), steps=7)]
    assert texts == [["step", str(step % 3)] for step in range(8)]  # environment 0's end after three steps


def test_pictures_change_and_are_the_same_for_the_same_seed():
    policy = Algorithm(CartPole, num_envs=2, horizon=4).policy.eval()
    one, same, other = (
        [pictures[0] for pictures, _ in shots(policy, CartPole(1, 4), steps=3, seed=seed)] for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert (one[0] != one[3]).any()
    assert (one[0] != other[0]).any()


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    """Let the output be a terminal of 20 x 12 characters."""
    stream = Screen()
    monkeypatch.setattr("rl8.use.play.sys", SimpleNamespace(stdout=stream))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "12")
    return stream


def test_live_in_a_terminal(train, screen, workdir, capfd):
    train("run", "env=cartpole")
    capfd.readouterr()
    assert main(["play", "run", "--live", "--steps=2", "--fps=1000"]) == 0
    assert capfd.readouterr().out == "3 pictures shown\n"
    shown = screen.getvalue()
    assert shown.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.endswith("\x1b[?25h\x1b[?1049l")
    assert shown.count("0.02 s   return ") == 1
    assert {line.count("▀") for line in shown.split("\r\n")[1:-1] if "▀" in line} == {20}
    assert not (workdir / "run" / "play.gif").exists()


def test_pictures_are_half_characters_in_their_colours_at_their_time(screen):
    picture = np.zeros((4, 2, 3), np.uint8)
    picture[0], picture[1] = (255, 0, 0), (0, 0, 255)
    time, waited = iter([0.0, 0.1, 0.7, 2.0]), []
    shots = ((picture, f"{number} s") for number in range(3))
    assert terminal.show(shots, screen, fps=2, clock=lambda: next(time), wait=waited.append) == 3
    assert waited == pytest.approx([0.4, 0.3, 0.0])
    first = screen.getvalue().split("\x1b[H")[1].split("\r\n")
    assert first[0] == "\x1b[0m0 s\x1b[K"
    assert first[1] == "\x1b[38;2;255;0;0;48;2;255;0;0m" + 10 * "▀" + "\x1b[0m\x1b[K"  # ten lines for four pixels
    assert len(first) == 1 + 10


@pytest.mark.parametrize(
    ("words", "term", "message"),
    [
        (
            [],
            "dumb",
            "--live can't show pictures: TERM=dumb has no colours. Accepted without it: a film. Try -o play.gif",
        ),
        (["--grid=2x2"], "xterm", "--grid is for films, and --live shows one environment in this terminal"),
        (["-o", "a.gif"], "xterm", "--out is for films"),
        (["--width=99"], "xterm", "--width is for films"),
    ],
)
def test_what_can_not_be_shown_live_is_refused(words, term, message, screen, monkeypatch, capfd):
    monkeypatch.setenv("TERM", term)
    assert main(["play", "nowhere", "--live", *words]) == 2
    assert message in capfd.readouterr().err


def test_what_is_no_terminal_shows_nothing_live(capfd):
    assert main(["play", "nowhere", "--live"]) == 2
    assert "--live can't show pictures: the output is no terminal." in capfd.readouterr().err


def test_mistakes_are_one_message_and_leave_nothing(train, workdir, capsys):
    train("run", "env=cartpole")
    files = sorted(workdir.glob("**/*"))
    mistakes = {
        "play": "rl8 play needs a run.",
        "play nowhere": "RUN=nowhere is no run.",
        "play run run": "films one policy, not run, run. Try rl8 play run.",
        "play run -o a.avi": "--out=a.avi is no film. Accepted: a name that ends in .gif or .mp4.",
        "play run -o run/policy.pt/a.gif": "--out=run/policy.pt can't be a film's folder: ",
        "play run --grid 3": "--grid='3' is no grid. Accepted: ROWSxCOLUMNS",
        "play run --grid 0x3": "--grid='0x3' is no grid",
        "play run --grid 20x20": "up to 100 environments",
        "play run --steps 0": "--steps=0 is out of range",
        "play run --fps 0": "--fps=0.0 is out of range",
        "play run --width 3": "--width=3 is out of range",
        "play run trainer.eval_num_envs=3": "has no effect on a film. Accepted: --grid",
        "play run --steps 9 trainer.eval_horizon=9": "--steps acts in place of trainer.eval_horizon",
        "play run algo.gamma=0.9": "has no effect",
    }
    for line, message in mistakes.items():
        capsys.readouterr()
        assert main(line.split()) == 2, line
        assert message in capsys.readouterr().err.replace("\n", " "), line
    assert sorted(workdir.glob("**/*")) == files


def test_what_draws_nothing_is_not_filmed(train, workdir, capsys):
    (workdir / "conf" / "env").mkdir(parents=True)
    (workdir / "conf" / "env" / "blind.yaml").write_text("# Blind.\n_target_: envs.Episodes\n")
    train("run", "env=blind")
    assert main(["play", "run"]) == 2
    assert "Episodes draws no pictures. Accepted: an environment that defines render(self" in capsys.readouterr().err
    assert not (workdir / "run" / "play.gif").exists()


def test_without_pyav_there_is_gif(train, workdir, capsys, monkeypatch):
    train("run", "env=cartpole")
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["play", "run", "-o", "a.mp4"]) == 2
    assert "MP4 needs PyAV, which is not installed. Accepted without it: GIF. Try pip" in capsys.readouterr().err
    assert not (workdir / "a.mp4").exists()


def test_a_mosaic():
    red, blue = (np.full((10, 20, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    picture = movies.mosaic([red, blue, red], ["1.00 s", "2", "3"], columns=2, width=40)
    height, bar = 20, 11 + 2 * 3
    assert picture.shape == (2 * (height + bar) + 6, 2 * 40 + 6, 3)
    assert (picture[bar + 1, 1] == (255, 0, 0)).all()
    assert (picture[bar + 1, 47] == (0, 0, 255)).all()
    assert (picture[-2, 1] == (255, 0, 0)).all()
    assert (picture[-2, 60] == (255, 255, 255)).all()
    assert (picture[:bar, :40] < 128).any()  # the text


def test_an_mp4_refuses_what_a_gif_does(tmp_path):
    pytest.importorskip("av", reason="MP4 needs the extra rl8[video]")
    with pytest.raises(ValueError, match=r"frames is empty"):
        movies.mp4([], tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"fps=0 is out of range"):
        movies.mp4([DiscreteDummyEnv(1)], tmp_path / "a.mp4", fps=0)


def test_a_film_of_whole_episodes_ends_with_the_longest(monkeypatch):
    torch.manual_seed(1)
    policy = Algorithm(Lander, num_envs=2, horizon=4).policy.eval()
    lengths = evaluate(policy, Lander(3), steps=0, episodes=3, seed=1).lengths
    assert len(list(shots(policy, Lander(3), steps=None, seed=1))) == max(lengths)
    monkeypatch.setattr("rl8.use.play.LONGEST", 5)
    assert len(list(shots(policy, Lander(3), steps=None, seed=1))) == 6
