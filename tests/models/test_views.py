import pytest
import torch
from tensordict import TensorDict

from rl8.models.views import Views, split_window, window_of
from rl8.specs import Categorical, Composite, Unbounded

ENVS, STEPS = 4, 20
FLAT = Unbounded(2)
NESTED = Composite(
    action_mask=Categorical(2, 3, dtype=torch.bool),
    camera=Composite(image=Unbounded((2, 2)), zoom=Categorical(5)),
    speed=Unbounded(1),
    time=Unbounded(()),
)
CASES = [
    pytest.param(FLAT, {"obs": 1}, id="flat-1"),
    pytest.param(FLAT, {"obs": 4}, id="flat-4"),
    pytest.param(NESTED, {"speed": 3}, id="one key"),
    pytest.param(NESTED, {"camera": 5, "speed": 2, "time": 1}, id="lengths differ"),
]


def stream(spec, history, resets=0.2):
    """Return `STEPS` observations of every environment behind stale rows of history, and their ages."""
    torch.manual_seed(2)
    obs = torch.stack([spec.rand(ENVS) for _ in range(history + STEPS)])
    ages = torch.zeros(history + STEPS, ENVS, dtype=torch.int32)
    for row in range(history + 1, history + STEPS):
        ages[row] = torch.where(torch.rand(ENVS) < resets, 0, ages[row - 1] + 1)
    return obs, ages


def leaf_at(obs, key, row, n):
    return (obs if isinstance(obs, torch.Tensor) else obs[key])[row, n]


def assert_equal(one, other):
    assert one.shape == other.shape
    assert (one == other).all()


def test_windows_by_hand():
    # Episode 1, 2, 3, then a reset, then 10, 20. Two stale rows come first.
    obs = torch.tensor([-7.0, -8.0, 1.0, 2.0, 3.0, 10.0, 20.0]).reshape(7, 1, 1)
    ages = torch.tensor([5, 6, 0, 1, 2, 0, 1]).unsqueeze(1)
    views = Views(Unbounded(1), {"obs": 3})
    seen = [views.step(obs, ages, row) for row in range(2, 7)]
    assert views.history == 2
    assert [step["obs"].flatten().tolist() for step in seen] == [
        [0, 0, 1],
        [0, 1, 2],
        [1, 2, 3],
        [0, 0, 10],
        [0, 10, 20],
    ]
    masks = [[0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert [step["obs_mask"].flatten().tolist() for step in seen] == masks
    assert seen[0]["obs"].shape == (1, 1, 3, 1)


@pytest.mark.parametrize(("spec", "windows"), CASES)
def test_a_window_holds_the_episode_so_far_and_nothing_else(spec, windows):
    views = Views(spec, windows)
    obs, ages = stream(spec, views.history)
    for row in range(views.history, views.history + STEPS):
        seen = views.step(obs, ages, row)
        assert seen.batch_size == (1, ENVS)
        for key, length in windows.items():
            for n in range(ENVS):
                known = min(length, ages[row, n].item() + 1)
                window, mask = seen[key][0, n], seen[f"{key}_mask"][0, n]
                assert mask.tolist() == [False] * (length - known) + [True] * known
                for back in range(known):
                    assert_equal(window[length - 1 - back], leaf_at(obs, key, row - back, n))
                assert (window[: length - known] == 0).all()


@pytest.mark.parametrize(("spec", "windows"), [*CASES, (FLAT, {}), (NESTED, {})])
def test_the_update_sees_what_was_seen_while_collecting(spec, windows):
    views = Views(spec, windows)
    obs, ages = stream(spec, views.history)
    steps = [views.step(obs, ages, views.history + t) for t in range(STEPS)]
    rows = torch.randint(0, STEPS * ENVS, (3, 50))
    seen = views.rows(obs, ages, rows)
    assert seen.shape[:2] == (3, 50)
    assert_equal(seen, torch.cat(steps).flatten(0, 1)[rows])


@pytest.mark.parametrize(("spec", "windows"), CASES)
def test_windows_cross_horizon_borders(spec, windows):
    views, horizon = Views(spec, windows), 8
    obs, ages = stream(spec, views.history)
    for start in (0, horizon):  # the second horizon's history is the end of the first
        stored = slice(start, start + views.history + horizon + 1)
        for t in range(horizon + 1):
            seen = views.step(obs[stored], ages[stored], views.history + t)
            assert_equal(seen, views.step(obs, ages, start + views.history + t))


@pytest.mark.parametrize(("spec", "windows"), CASES)
def test_what_lies_before_a_reset_cannot_be_told(spec, windows):
    views = Views(spec, windows)
    obs, ages = stream(spec, views.history)
    row = views.history + 9
    ages[row], ages[row + 1] = 0, 1
    before = [views.step(obs, ages, row), views.step(obs, ages, row + 1)]
    for leaf in [obs] if isinstance(obs, torch.Tensor) else obs.values(include_nested=True, leaves_only=True):
        leaf[:row] = float("nan") if leaf.is_floating_point() else 1
    for step, old in zip((row, row + 1), before, strict=True):
        assert_equal(views.step(obs, ages, step), old)
        places = ((step - views.history) * ENVS + torch.arange(ENVS)).unsqueeze(0)
        assert_equal(views.rows(obs, ages, places), old)


def test_leaves_keep_their_types():
    views = Views(NESTED, {"camera": 3})
    seen = views.step(*stream(NESTED, 2), 4)
    assert seen["camera", "zoom"].dtype == torch.int64
    assert seen["camera", "image"].shape == (1, ENVS, 3, 2, 2)
    assert seen["action_mask"].dtype == seen["camera_mask"].dtype == torch.bool
    assert sorted(seen.keys()) == ["action_mask", "camera", "camera_mask", "speed", "time"]


@pytest.mark.parametrize("spec", [FLAT, NESTED])
def test_without_windows_observations_are_not_copied(spec):
    views = Views(spec, {})
    obs, ages = stream(spec, views.history)
    seen = views.step(obs, ages, 3)
    assert views.history == 0
    assert_equal(seen, obs[3:4])
    mine, stored = (seen, obs[3]) if isinstance(seen, torch.Tensor) else (seen["speed"], obs["speed"][3])
    assert mine.data_ptr() == stored.data_ptr()


@pytest.mark.parametrize(
    ("spec", "windows", "kind", "message"),
    [
        (FLAT, {"speed": 3}, ValueError, r"Unknown observation key for a window 'speed'. Accepted: obs."),
        (NESTED, {"sped": 3}, ValueError, r"Did you mean 'speed'\? Accepted: camera, speed, time."),
        (NESTED, {"action_mask": 3}, ValueError, r"Unknown observation key for a window 'action_mask'"),
        (NESTED, {"speed": 0}, ValueError, r"window of 'speed'=0 is out of range. Accepted: an integer >= 1."),
        (NESTED, {"speed": 2.0}, TypeError, r"window of 'speed'=2.0 is not an integer"),
        (Composite(action=Unbounded(1), action_mask=Categorical(2, 3)), {"action": 2}, ValueError,
         r"A window of 'action' comes with a mask of the name 'action_mask', .* already. Rename one .* 'last_action'"),
    ],
)  # fmt: skip
def test_windows_that_cannot_be_are_refused(spec, windows, kind, message):
    with pytest.raises(kind, match=message):
        Views(spec, windows)


def test_windows_of_everything_leave_the_action_mask_out():
    assert window_of(FLAT, 3) == {"obs": 3}
    assert window_of(NESTED, 3) == {"camera": 3, "speed": 3, "time": 3}


@pytest.mark.parametrize("spec", [FLAT, NESTED])
def test_split_windows_look_like_observations(spec):
    views = Views(spec, window_of(spec, 3))
    seen = views.rows(*stream(spec, 2), torch.randint(0, STEPS * ENVS, (2, 5)))
    window, mask = split_window(seen, spec)
    assert mask.shape == (2, 5, 3)
    assert window.shape[:3] == (2, 5, 3)
    if spec is FLAT:
        assert window is seen["obs"]
    else:
        assert isinstance(window, TensorDict)
        assert sorted(window.keys()) == ["camera", "speed", "time"]
        assert window.batch_size == mask.shape
