import pytest
import torch
from envs import Endless, Steering

from rl8 import Algorithm
from rl8.parts.symmetry import MirroredData, MirrorLoss

SMALL = {"num_envs": 6, "horizon": 4, "model_config": {"hiddens": [8]}}


def negative(values):
    return -values


def same(values):
    return values


def collected(**options):
    torch.manual_seed(0)
    algorithm = Algorithm(Steering, **SMALL, **options)
    algorithm.collect()
    algorithm.compute_advantages()
    return algorithm, algorithm.rollout.minibatch(slice(0, 24))


def test_a_mirror_loss_by_hand():
    algorithm, batch = collected()
    features, _ = algorithm.policy.outputs(batch.seen)
    loss = MirrorLoss(same, negative)(algorithm.policy, batch)  # f(s) against -f(s): (2 f(s))^2
    assert loss.item() == pytest.approx((2 * features["mean"]).square().mean().item())
    assert MirrorLoss(same, same)(algorithm.policy, batch).item() == 0.0
    assert MirrorLoss(same, negative, "log_std")(algorithm.policy, batch).item() >= 0.0


def test_a_mirror_loss_makes_a_policy_symmetric():
    def asymmetry(weight):
        mirror = MirrorLoss(negative, negative)
        torch.manual_seed(0)
        options = {"extra_losses": {"mirror": (weight, mirror)}, "optimizer_config": {"lr": 1e-2}}
        algorithm = Algorithm(Steering, **SMALL, **options)
        for _ in range(20):
            algorithm.collect()
            metrics = algorithm.step()
        return metrics["losses/mirror"].item()

    assert asymmetry(10.0) < 0.5 * asymmetry(0.0)


def test_data_mirrored_twice_is_the_data():
    algorithm, batch = collected()
    own = algorithm._loss_of(batch)
    found = MirroredData(same, same)(algorithm.policy, batch)
    torch.testing.assert_close(found, own.total)
    mirrored = MirroredData(negative, negative)(algorithm.policy, batch)
    twice = MirroredData(lambda obs: negative(negative(obs)), same)(algorithm.policy, batch)
    torch.testing.assert_close(twice, own.total)
    assert not torch.allclose(mirrored, own.total)


def test_several_features_need_a_choice():
    algorithm = Algorithm(Endless, **SMALL)
    algorithm.collect()
    with pytest.raises(KeyError, match="mean"):
        MirrorLoss(same, same, "mean")(algorithm.policy, algorithm.rollout.minibatch(slice(0, 24)))
