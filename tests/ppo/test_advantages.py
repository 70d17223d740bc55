import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl8.ppo.advantages import BLOCK, discounted_sums, gae, gae_endless, std_mean

DISCOUNT = {"gamma": 0.9, "gae_lambda": 0.8}


def column(*numbers):
    """Return `[T, 1]`."""
    return torch.tensor(numbers).unsqueeze(1)


def flags(steps, last):
    return torch.arange(steps).unsqueeze(1) == last


def random_batch(steps=12, envs=5):
    torch.manual_seed(1)
    return torch.randn(steps, envs), torch.randn(steps + 1, envs)


# delta = r + 0.9 v' - v:  1 + 0.9 - 0.5 = 1.4;  2 + 1.35 - 1 = 2.35;  3 + 1.8 - 1.5 = 3.3
# trace 0.9 * 0.8 = 0.72
GOLDEN = [
    # 2.35 + 0.72 * 3.3 = 4.726;  1.4 + 0.72 * 4.726 = 4.80272
    pytest.param(2, (1.0, 1.5, 2.0), (4.80272, 4.726, 3.3), id="last"),
    # The trace is cut after step 1, whose delta keeps its bootstrap: 1.4 + 0.72 * 2.35 = 3.092
    pytest.param(1, (1.0, 1.5, 2.0), (3.092, 2.35, 3.3), id="truncated"),
    # The same without the bootstrap, 2 - 1 = 1:  1.4 + 0.72 * 1 = 2.12
    pytest.param(1, (1.0, 0.0, 2.0), (2.12, 1.0, 3.3), id="terminated"),
]


@pytest.mark.parametrize(("last", "next_values", "expected"), GOLDEN)
def test_gae_by_hand(last, next_values, expected):
    advantages = gae(column(1.0, 2.0, 3.0), column(0.5, 1.0, 1.5), column(*next_values), flags(3, last), **DISCOUNT)
    torch.testing.assert_close(advantages, column(*expected))


def test_gae_endless_by_hand():
    advantages = gae_endless(column(1.0, 2.0, 3.0), column(0.5, 1.0, 1.5, 2.0), **DISCOUNT)
    torch.testing.assert_close(advantages, column(4.80272, 4.726, 3.3))


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 64])
def test_both_forms_agree_where_nothing_ends(gamma, gae_lambda, steps):
    rewards, values = random_batch(steps)
    discount = {"gamma": gamma, "gae_lambda": gae_lambda}
    walked = gae(rewards, values[:-1], values[1:], torch.zeros_like(rewards, dtype=torch.bool), **discount)
    torch.testing.assert_close(gae_endless(rewards, values, **discount), walked, atol=1e-4, rtol=1e-5)


def test_lambda_0_leaves_the_temporal_difference():
    rewards, values = random_batch()
    advantages = gae_endless(rewards, values, gamma=0.9, gae_lambda=0.0)
    torch.testing.assert_close(advantages, rewards + 0.9 * values[1:] - values[:-1])


def test_gamma_0_leaves_the_reward_less_its_value():
    rewards, values = random_batch()
    torch.testing.assert_close(gae_endless(rewards, values, gamma=0.0, gae_lambda=0.7), rewards - values[:-1])


def test_gamma_1_lambda_1_leaves_the_whole_return():
    rewards, values = random_batch()
    advantages = gae_endless(rewards, values, gamma=1.0, gae_lambda=1.0)
    torch.testing.assert_close(advantages[0], rewards.sum(0) + values[-1] - values[0])


def test_an_end_makes_what_follows_irrelevant():
    rewards, values = random_batch()
    advantages = gae(rewards, values[:-1], values[1:], flags(12, 6).expand(12, 5), **DISCOUNT)
    alone = gae_endless(rewards[:7], values[:8], **DISCOUNT)
    torch.testing.assert_close(advantages[:7], alone)


def test_environments_do_not_mix():
    rewards, values = random_batch()
    is_last = torch.rand(12, 5) < 0.2
    advantages = gae(rewards, values[:-1], values[1:], is_last, **DISCOUNT)
    for n in range(5):
        alone = gae(rewards[:, n], values[:-1, n], values[1:, n], is_last[:, n], **DISCOUNT)
        torch.testing.assert_close(advantages[:, n], alone)


def test_inputs_are_left_alone():
    rewards, values = random_batch()
    copies = rewards.clone(), values.clone()
    gae_endless(rewards, values, **DISCOUNT)
    gae(rewards, values[:-1], values[1:], flags(12, 3).expand(12, 5), **DISCOUNT)
    discounted_sums(rewards, values[0], gamma=0.9)
    assert torch.equal(rewards, copies[0])
    assert torch.equal(values, copies[1])


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        # 1 + 0.5 * 4 = 3;  2 + 0.5 * 3 = 3.5;  3 + 0.5 * 3.5 = 4.75
        (None, (3.0, 3.5, 4.75)),
        (2, (3.0, 3.5, 4.75)),
        # Step 0 ends the episode, so step 1 starts from nothing: 2;  3 + 0.5 * 2 = 4
        (0, (3.0, 2.0, 4.0)),
    ],
)
def test_discounted_sums_by_hand(last, expected):
    is_last = None if last is None else flags(3, last)
    sums = discounted_sums(column(1.0, 2.0, 3.0), torch.tensor([4.0]), gamma=0.5, is_last=is_last)
    torch.testing.assert_close(sums, column(*expected))


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("ends", [False, True])
def test_discounted_sums_may_be_taken_in_parts(gamma, ends):
    rewards, values = random_batch()
    is_last = torch.rand(12, 5) < 0.3 if ends else None
    whole = discounted_sums(rewards, values[0], gamma=gamma, is_last=is_last)
    start, parts = values[0], []
    for t in range(0, 12, 4):
        end = None if is_last is None else is_last[t : t + 4]
        parts.append(discounted_sums(rewards[t : t + 4], start, gamma=gamma, is_last=end))
        start = parts[-1][-1] if end is None else torch.where(end[-1], 0.0, parts[-1][-1])
    torch.testing.assert_close(torch.cat(parts), whole)


def test_discounted_sums_are_advantages_without_values_in_reverse():
    rewards, _ = random_batch()
    advantages = gae_endless(rewards, torch.zeros(13, 5), gamma=0.9, gae_lambda=1.0)
    torch.testing.assert_close(discounted_sums(rewards.flip(0), torch.zeros(5), gamma=0.9).flip(0), advantages)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, v: gae(r, v, v[1:], r > 0, **DISCOUNT),
         r"values has shape \(13, 5\), expected \(12, 5\), the shape of rewards"),
        (lambda r, v: gae(r, v[1:], v[1:], r[0] > 0, **DISCOUNT), r"is_last has shape \(5,\), expected \(12, 5\)"),
        (lambda r, v: gae_endless(r, v[1:], **DISCOUNT),
         r"values has shape \(12, 5\), expected \(T \+ 1, N\) = \(13, 5\)"),
        (lambda r, v: gae_endless(r, v[:, :1], **DISCOUNT), r"values has shape \(13, 1\).*T steps need T \+ 1 values"),
        (lambda r, v: discounted_sums(r, v[:, 0], gamma=0.9), r"start has shape \(13,\), expected \(N,\) = \(5,\)"),
        (lambda r, v: discounted_sums(r, v[0], gamma=0.9, is_last=v > 0),
         r"is_last has shape \(13, 5\), expected \(12, 5\)"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*random_batch())


@pytest.mark.parametrize("horizon", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_blocks_of_a_long_horizon_are_joined(horizon):
    rewards, values = torch.randn(horizon, 3), torch.randn(horizon + 1, 3)
    found = gae_endless(rewards, values, gamma=0.99, gae_lambda=0.95)
    never = torch.zeros(horizon, 3, dtype=torch.bool)
    torch.testing.assert_close(
        found, gae(rewards, values[:-1], values[1:], never, gamma=0.99, gae_lambda=0.95), rtol=1e-4, atol=1e-4
    )
    start = torch.randn(3)
    sums = discounted_sums(rewards, start, gamma=0.99)
    torch.testing.assert_close(sums, discounted_sums(rewards, start, gamma=0.99, is_last=never), rtol=1e-4, atol=1e-4)


def test_memory_grows_with_the_horizon_not_with_its_square():
    most = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                most.append(out.numel())
            return out

    horizon = 20 * BLOCK
    with Sizes():
        gae_endless(torch.randn(horizon, 2), torch.randn(horizon + 1, 2), gamma=0.99, gae_lambda=0.95)
    assert max(most) <= max(BLOCK**2, 2 * (horizon + 1))


def test_std_and_mean_of_weighted_elements():
    series, weights = torch.tensor([[1.0, 2.0], [3.0, 50.0]]), torch.tensor([[4 / 3, 4 / 3], [4 / 3, 0.0]])
    std, mean = std_mean(series, weights)
    assert mean.item() == pytest.approx(2)
    assert std.item() == pytest.approx((2 / 3) ** 0.5)  # of 1, 2 and 3
    std, mean = std_mean(series)
    assert (std.item(), mean.item()) == pytest.approx((series.std(correction=0).item(), 14.0))


def random_ends(seed, steps, envs):
    """Return rewards, values, next values (0 where an episode terminated) and last steps, `[T, N]` in float64."""
    torch.manual_seed(seed)
    rewards, values, next_values = (torch.randn(steps, envs, dtype=torch.float64) for _ in range(3))
    is_last = torch.rand(steps, envs) < torch.rand(())
    terminated = is_last & (torch.rand(steps, envs) < 0.5)
    return rewards, values, next_values.masked_fill(terminated, 0.0), is_last


@pytest.mark.parametrize("seed", range(8))
def test_gae_with_random_ends_is_the_sum_over_what_follows_in_the_episode(seed):
    gamma, gae_lambda = torch.rand(2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
    steps, envs = 1 + 5 * seed, 3
    rewards, values, next_values, is_last = random_ends(seed, steps, envs)
    expected = torch.zeros_like(rewards)
    for env in range(envs):
        for t in range(steps):
            for s in range(t, steps):
                delta = rewards[s, env] + gamma * next_values[s, env] - values[s, env]
                expected[t, env] += (gamma * gae_lambda) ** (s - t) * delta
                if is_last[s, env]:
                    break
    discount = {"gamma": gamma, "gae_lambda": gae_lambda}
    torch.testing.assert_close(gae(rewards, values, next_values, is_last, **discount), expected)
    single = (part.float() for part in (rewards, values, next_values))
    torch.testing.assert_close(gae(*single, is_last, **discount).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_discounted_sums_with_random_ends_are_sums_over_what_came_before_in_the_episode(seed):
    gamma = torch.rand((), generator=torch.Generator().manual_seed(seed)).item()
    steps, envs = 1 + 5 * seed, 3
    rewards, values, _, is_last = random_ends(seed, steps, envs)
    start, expected = values[0], torch.zeros_like(rewards)
    for env in range(envs):
        for t in range(steps):
            for s in range(t, -1, -1):
                expected[t, env] += gamma ** (t - s) * rewards[s, env]
                if s and is_last[s - 1, env]:
                    break
            else:
                expected[t, env] += gamma ** (t + 1) * start[env]
    torch.testing.assert_close(discounted_sums(rewards, start, gamma=gamma, is_last=is_last), expected)


@pytest.mark.parametrize("steps", [16, 32, 71])
def test_blocks_of_few_environments_give_what_steps_one_after_the_other_give(steps, monkeypatch):
    rewards, values, next_values, is_last = random_ends(steps, steps, 5)
    is_last[:, 2] = False

    def both():
        advantages = gae(rewards, values, next_values, is_last, gamma=0.9, gae_lambda=0.8)
        return advantages, discounted_sums(rewards, values[0], gamma=0.9, is_last=is_last)

    in_blocks = both()
    monkeypatch.setattr("rl8.ppo.advantages.FEW_ENVS", 0)
    for found, expected in zip(in_blocks, both(), strict=True):
        torch.testing.assert_close(found, expected)
