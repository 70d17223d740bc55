import copy

import pytest
import torch

from rl8.policy.normalization import ObsNormalizer, RunningMoments


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
