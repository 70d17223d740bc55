import numpy as np
import pytest
import torch

from rl8.env import CueRecall


def play(env: CueRecall, answers: torch.Tensor | None, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take steps with fixed answers, or with the cue that was last seen; return obs [T + 1, N, ...], rewards, ends."""
    obs = [env.reset()]
    rewards, ends = [], []
    seen = torch.zeros(env.num_envs, dtype=torch.int64)
    for _ in range(steps):
        cue = obs[-1][:, : env.num_cues]
        seen = torch.where(cue.any(-1), cue.argmax(-1), seen)
        result = env.step(seen if answers is None else answers)
        obs.append(result["obs"])
        rewards.append(result["rewards"])
        ends.append(result["terminated"])
    return torch.stack(obs), torch.stack(rewards), torch.stack(ends)


@pytest.mark.parametrize(("num_cues", "delay"), [(4, 8), (2, 1), (7, 3)])
def test_a_policy_that_remembers_is_always_right(num_cues, delay):
    torch.manual_seed(0)
    env = CueRecall(64, num_cues=num_cues, delay=delay)
    _, rewards, ends = play(env, None, 3 * (delay + 1))
    due = torch.zeros(3 * (delay + 1), dtype=torch.bool)
    due[delay :: delay + 1] = True
    assert torch.equal(rewards, due.float().unsqueeze(-1).expand_as(rewards))
    assert torch.equal(ends, due.unsqueeze(-1).expand_as(ends))


def test_a_memoryless_policy_is_right_once_in_num_cues():
    # One environment per cue; at the query all of them show the same, so that a memoryless policy answers the same in
    # all (or draws from the same distribution): whatever the answer, exactly one of the four is right.
    env = CueRecall(4)
    env.reset()
    env.state = torch.stack((torch.arange(4), torch.full((4,), 8)))
    query = env.state.clone()
    for answer in range(4):
        env.state = query.clone()
        assert env.step(torch.full((4,), answer))["rewards"].sum() == 1


def test_observations_show_the_cue_only_in_the_first_step():
    env = CueRecall(4)
    env.reset()
    env.state = torch.stack((torch.arange(4), torch.full((4,), 8)))
    env.step(torch.zeros(4, dtype=torch.int64))  # on to the next episode, whose cues are then set by hand
    env.state = torch.stack((torch.arange(4), torch.zeros(4, dtype=torch.int64)))
    shown = [env._observe(), *(env.step(torch.zeros(4, dtype=torch.int64))["obs"] for _ in range(8))]
    assert torch.equal(shown[0], torch.eye(4, 5))
    for obs in shown[1:8]:
        assert torch.equal(obs, torch.zeros(4, 5))
    assert torch.equal(shown[8], torch.tensor([[0.0, 0, 0, 0, 1]]).expand(4, 5))


def test_actions_change_nothing_that_is_observed():
    env = CueRecall(32)
    torch.manual_seed(3)
    first, *_ = play(env, torch.zeros(32, dtype=torch.int64), 30)
    torch.manual_seed(3)
    second, *_ = play(env, torch.full((32,), 3), 30)
    assert torch.equal(first, second)


def test_cues_are_uniform_and_independent_from_one_episode_to_the_next():
    torch.manual_seed(0)
    obs, _, _ = play(CueRecall(20_000, delay=1), None, 2)
    first, second = obs[0, :, :4].argmax(-1), obs[2, :, :4].argmax(-1)
    counts = torch.bincount(first * 4 + second, minlength=16).float()  # 1250 expected, standard deviation 34
    torch.testing.assert_close(counts, torch.full((16,), 1250.0), rtol=0, atol=170)


@pytest.mark.parametrize(("name", "value"), [("num_cues", 1), ("delay", 0)])
def test_counts_that_make_no_task_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"env.{name}={value} is out of range"):
        CueRecall(1, **{name: value})


def test_it_has_no_settings_at_reset():
    with pytest.raises(ValueError, match=r"Unknown setting of CueRecall.reset\(\) 'delay': there are none"):
        CueRecall(1).reset(config={"delay": 3})


@pytest.mark.parametrize(("num_cues", "delay"), [(4, 8), (12, 30)])
def test_render_shows_the_cue_then_nothing_then_the_question(num_cues, delay):
    env = CueRecall(2, num_cues=num_cues, delay=delay)
    env.reset()
    panels = []
    for time in (0, 1, delay):
        env.state = torch.tensor([[1, 2], [time, time]])
        panels.append(env.render(1)[70:170, 220:380])
    frame = env.render(0)
    assert frame.shape == (400, 600, 3)
    assert frame.dtype == np.uint8
    ink, green, yellow = (38, 50, 66), (60, 158, 104), (240, 190, 60)
    assert (panels[0] == green).all(-1).any()
    assert (panels[1] == ink).all()
    assert (panels[2] == yellow).all(-1).any()
    with pytest.raises(ValueError, match="index=2 is out of range"):
        env.render(2)
