import copy

import pytest
import torch

from rl8.normalization import ObsNormalizer, RewardScaler, RunningMoments


def moments_of(batches, shape=()):
    moments = RunningMoments(shape)
    for batch in batches:
        moments.update(batch)
    return moments


def test_moments_by_hand():
    # 1, 2 and then 6: mean 3, variance (4 + 1 + 9) / 3 = 14/3
    moments = moments_of([torch.tensor([1.0, 2.0]), torch.tensor([6.0])])
    assert (moments.mean.item(), moments.var.item(), moments.count.item()) == pytest.approx((3.0, 14 / 3, 3))


@pytest.mark.parametrize("sizes", [[1000], [1, 999], [500, 500], [10, 90, 300, 600], [1] * 1000])
def test_moments_do_not_depend_on_the_split(sizes):
    samples = torch.randn(1000, 2, 3) * torch.tensor([0.1, 1.0, 50.0]) + torch.tensor([5.0, -3.0, 100.0])
    moments = moments_of(samples.split(sizes), (2, 3))
    torch.testing.assert_close(moments.mean, samples.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.var, samples.var(0, correction=0), rtol=1e-4, atol=1e-5)
    assert moments.count == 1000


def test_a_small_batch_after_very_many_samples_has_its_weight():
    moments = moments_of([torch.zeros(2)])
    moments.count.fill_(1e9)
    moments.update(torch.full((100,), 1e6))
    # 100 of 1e9 samples at 1e6: mean 0.1, variance share 1e-7 * (1e6)^2 = 1e5
    assert moments.mean.item() == pytest.approx(0.1, rel=1e-4)
    assert moments.var.item() == pytest.approx(1e5, rel=1e-4)


def test_counts_beyond_float32():
    moments = moments_of([torch.zeros(2)])
    moments.count.fill_(2.0**24)
    moments.update(torch.zeros(1))
    assert moments.count == 2**24 + 1


def test_moments_are_updated_in_place_and_saved():
    moments = RunningMoments((3,))
    buffers = [buffer.data_ptr() for buffer in moments.buffers()]
    moments.update(torch.randn(10, 3))
    assert [buffer.data_ptr() for buffer in moments.buffers()] == buffers
    assert sorted(moments.state_dict()) == ["count", "mean", "var"]
    assert not list(moments.parameters())


def test_normalised_observations_have_mean_0_and_std_1():
    normalizer = ObsNormalizer((2,))
    obs = torch.randn(5000, 2) * torch.tensor([0.01, 30.0]) + torch.tensor([4.0, -100.0])
    normalizer.update(obs)
    normalised = normalizer(obs.reshape(50, 100, 2))
    assert normalised.shape == (50, 100, 2)
    std, mean = torch.std_mean(normalised, dim=(0, 1))
    torch.testing.assert_close(mean, torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(2), atol=1e-3, rtol=0)


def test_using_a_normalizer_does_not_change_it():
    normalizer = ObsNormalizer((2,))
    normalizer.update(torch.randn(10, 2))
    before = copy.deepcopy(normalizer.state_dict())
    normalizer.train()(torch.randn(10, 2) * 100)
    assert all(torch.equal(before[key], value) for key, value in normalizer.state_dict().items())


def test_outliers_are_clipped_and_a_new_normalizer_does_nothing_else():
    obs = torch.tensor([[-1e6, 0.5, 1e6]])
    assert ObsNormalizer((3,))(obs).tolist() == [[-10.0, 0.5, 10.0]]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1000.1, -3.3e5])
def test_an_element_that_never_changes_becomes_0(constant):
    normalizer = ObsNormalizer((1,))
    for size in (1, 1000, 37):
        normalizer.update(torch.full((size, 1), constant))
    assert normalizer(torch.full((4, 1), constant)).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_normalised_observations_are_float32(dtype):
    normalizer = ObsNormalizer((2,))
    normalizer.update(torch.ones(3, 2, dtype=dtype))
    assert normalizer(torch.ones(3, 2, dtype=dtype)).dtype == torch.float32


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
