import math

import pytest
import torch

from rl8.ppo.reward_scaling import RewardScaler


def test_reward_scale_by_hand():
    # One env, gamma 0.5, rewards 1 and 2: sums 1 and 2.5, mean 1.75, std 0.75. Scaled: 1 / 0.75, 2 / 0.75.
    scaler = RewardScaler(1, 0.5)
    torch.testing.assert_close(scaler(torch.tensor([[1.0], [2.0]])), torch.tensor([[4 / 3], [8 / 3]]))
    # The sum goes on from 2.5: 0 + 1.25. All three: mean 4.75 / 3, squares 1 + 6.25 + 1.5625, so
    # var = 8.8125 / 3 - (4.75 / 3)^2 = 0.430556. A reward of 0 stays 0.
    assert scaler(torch.zeros(1, 1)).item() == 0
    assert scaler.moments.var.item() == pytest.approx(0.430556, abs=1e-6)
    assert scaler.sums.item() == 1.25


@pytest.mark.parametrize("ends", [False, True])
def test_the_sum_of_rewards_carries_over_horizons(ends):
    rewards = torch.randn(20, 7)
    is_last = torch.rand(20, 7) < 0.2 if ends else None
    whole, parts = RewardScaler(7, 0.95), RewardScaler(7, 0.95)
    whole(rewards, is_last)
    for t in range(0, 20, 5):
        parts(rewards[t : t + 5], None if is_last is None else is_last[t : t + 5])
    torch.testing.assert_close(parts.sums, whole.sums)
    torch.testing.assert_close(parts.moments.var, whole.moments.var)
    torch.testing.assert_close(parts.moments.mean, whole.moments.mean)


def test_a_sum_starts_anew_after_an_end_and_after_a_reset():
    scaler = RewardScaler(2, 0.9)
    scaler(torch.ones(1, 2), torch.tensor([[True, False]]))
    assert scaler.sums.tolist() == [0.0, 1.0]
    scaler.reset()
    assert scaler.sums.tolist() == [0.0, 0.0]
    assert scaler.moments.count == 2


def test_rewards_are_scaled_but_not_shifted():
    scaler = RewardScaler(50, 0.9)
    rewards = torch.randn(40, 50) * 300 + 1000
    scaled = scaler(rewards)
    ratio = scaled / rewards
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert 0 < ratio[0, 0] < 1 / 300


@pytest.mark.parametrize("reward", [0.0, 1e-30, 1e-12, 0.1, -7.0])
@pytest.mark.parametrize("gamma", [0.0, 0.99])
def test_rewards_without_spread_are_not_blown_up(reward, gamma):
    scaler = RewardScaler(8, gamma)
    scaled = scaler(torch.full((1, 8), reward))
    assert torch.equal(scaled, torch.full((1, 8), reward))


def test_a_tiny_spread_scales_by_1e4_at_most():
    rewards = torch.randn(4, 8) * 1e-9
    torch.testing.assert_close(RewardScaler(8, 0.0)(rewards), rewards * 1e4)


def test_scaler_state_is_saved():
    assert sorted(RewardScaler(3, 0.9).state_dict()) == ["moments.count", "moments.mean", "moments.var", "sums"]


def test_one_absurd_reward_is_clipped_and_outlived():
    scaler = RewardScaler(64, 0.9)
    scaler(torch.rand(8, 64))
    before = scaler(torch.rand(8, 64))
    spike = torch.rand(8, 64)
    spike[0, 0] = 1e22
    assert scaler(spike).abs().max().item() == scaler.clip
    scaler.reset()
    for _ in range(50):
        after = scaler(torch.rand(8, 64))
    assert after.mean().item() > 0.2 * before.mean().item()


@pytest.mark.parametrize("absurd", [1e6, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("when", [0, 5])
def test_an_absurd_reward_is_not_carried_on_from_horizon_to_horizon(absurd, when):
    draws = torch.Generator().manual_seed(0)
    scaler = RewardScaler(16, 0.95)
    for horizon in range(100):
        rewards = torch.randn(16, 16, generator=draws)
        if horizon == when:
            rewards[3, 0] = absurd
        scaler(rewards)
    assert scaler.moments.var.sqrt().item() < 4 * 3.2  # std of these sums without it: 1 / sqrt(1 - 0.95^2) = 3.2
    assert scaler.sums.isfinite().all()
