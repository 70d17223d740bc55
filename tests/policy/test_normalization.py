import copy

import pytest
import torch
from envs import Endless

from rl8 import Algorithm
from rl8.checkpoint import load_policy, save_policy
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
    torch.testing.assert_close(moments.mean.float(), samples.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moments.var.float(), samples.var(0, correction=0), rtol=1e-4, atol=1e-5)
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


def test_one_absurd_number_is_outlived():
    moments = RunningMoments((1,))
    for _ in range(5):
        moments.update(torch.randn(1024, 1))
    batch = torch.randn(1024, 1)
    batch[0] = 1e30
    moments.update(batch)
    # counted as 100 std away: 10_000 / 1024 in one batch of six
    assert moments.var.item() == pytest.approx(1 + 10_000 / 1024 / 6, rel=0.1)
    for _ in range(200):
        moments.update(torch.randn(1024, 1))
    assert moments.var.item() == pytest.approx(1.05, abs=0.05)
    assert abs(moments.mean.item()) < 0.01


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_what_is_not_finite_leaves_the_moments_finite(number, first):
    moments = RunningMoments((2,))
    if not first:
        moments.update(torch.randn(100, 2))
    batch = torch.randn(100, 2)
    batch[0, 0] = number
    moments.update(batch)
    assert moments.mean.isfinite().all()
    assert moments.var.isfinite().all()
    assert moments.var[1].item() == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("absurd", [1e6, 1e21, 1e38])
@pytest.mark.parametrize("place", [0, 700])
def test_an_absurd_number_among_the_first_is_outlived(absurd, place):
    moments = RunningMoments()
    samples = 100 + torch.randn(1000, generator=torch.Generator().manual_seed(0))
    samples[place] = absurd
    moments.update(samples)
    assert moments.mean.item() == pytest.approx(100, abs=0.1)
    assert 1 < moments.var.sqrt().item() < 3


def test_a_scale_that_grows_a_thousandfold_is_followed():
    moments = RunningMoments((1,))
    moments.update(torch.randn(1000, 1))
    for _ in range(20):
        moments.update(1000 * torch.randn(1000, 1))
    assert moments.var.sqrt().item() == pytest.approx(1000, rel=0.2)


def test_the_first_rare_event_after_constant_samples_counts_in_full():
    moments = RunningMoments()
    moments.update(torch.zeros(1000))  # nothing happened yet: no scale to judge by
    batch = torch.zeros(1000)
    batch[0] = 1.0
    moments.update(batch)
    assert moments.mean.item() == pytest.approx(1 / 2000)


def test_seconds_since_1970_keep_their_last_digits():
    normalizer = ObsNormalizer((1,))
    times = 1.7e9 + torch.arange(1000, dtype=torch.float64).unsqueeze(-1)
    normalizer.update(times)
    out = normalizer(times)
    assert out.dtype == torch.float32
    assert out.std(correction=0).item() == pytest.approx(1, rel=1e-3)
    assert (out.diff(dim=0) > 0).all()


def test_the_limit_of_normalized_observations_is_kept_with_the_policy(tmp_path):
    options = {"num_envs": 4, "horizon": 4, "normalize_obs": True, "clip_obs": 0.5}
    algorithm = Algorithm(Endless, **options)
    algorithm.collect()
    algorithm.step()
    wild = torch.full((3, *algorithm.env.observation_spec.shape), 1e6)
    assert algorithm.policy.normalizers[0](wild).unique().tolist() == [0.5]
    loaded = load_policy(save_policy(tmp_path / "policy.pt", algorithm))
    assert loaded.normalizers[0](wild).unique().tolist() == [0.5]


def test_looking_at_its_numbers_changes_none(monkeypatch):
    batches = [torch.randn(40, 3), torch.randn(50, 3) * 5, torch.zeros(30, 3), torch.tensor([[1e30, 2.0, 3.0]])]
    batches[0][:, 2] = 0.0  # an element without a scale
    found = []
    for looks in (True, False):
        monkeypatch.setattr(RunningMoments, "looks", looks)
        moments = RunningMoments((3,))
        for batch in batches:
            moments.update(batch)
        found.append((moments.mean, moments.var, moments.limit(batches[1])))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e20, 1e37])
def test_samples_of_any_size_have_their_moments(size):
    samples = torch.randn(200, 2)
    moments, usual = RunningMoments((2,)), RunningMoments((2,))
    for batch in samples.split(100):
        moments.update(batch * size)
        usual.update(batch)
    torch.testing.assert_close(moments.var.sqrt() / size, usual.var.sqrt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(moments.mean / size, usual.mean, rtol=1e-4, atol=1e-7)
