import pytest
import torch
from envs import Drift

from rl8 import Algorithm
from rl8.models import CNNModel, ImpalaModel
from rl8.policy.policy import Policy
from rl8.rollout.rollout import Rollout
from rl8.specs import Binary, Bounded, Categorical, Composite, Unbounded

from .cases import build, leaves_of, seen, stored

PICTURE = Bounded(0, 255, (8, 8, 3), dtype=torch.uint8)
SMALL = {
    "cnn": (CNNModel, {"filters": [[4, 3, 2], [4, 2, 1]], "size": 16}),
    "impala": (ImpalaModel, {"channels": [4, 4], "size": 16}),
}
OBSERVATIONS = {
    "picture": PICTURE,
    "truths": Bounded(False, True, (10, 10, 4), dtype=torch.bool),
    "channels first": Bounded(0, 255, (3, 8, 9), dtype=torch.uint8),
    "grey": Bounded(0, 255, (8, 9), dtype=torch.uint8),
    "beside others": Composite(
        picture=PICTURE, speed=Unbounded(2), gear=Categorical(3), action_mask=Binary(3, dtype=torch.bool)
    ),
    "two": Composite(left=PICTURE, right=Bounded(0, 255, (9, 7, 1), dtype=torch.uint8)),
}
every_model = pytest.mark.parametrize("name", SMALL)


@every_model
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("spec", OBSERVATIONS.values(), ids=OBSERVATIONS)
def test_every_image_is_seen_and_every_weight_learns(name, window, spec):
    model_cls, config = SMALL[name]
    model, distribution_cls = build(model_cls, spec, Categorical(3), window=window, **config)
    inputs = seen(spec, model, *stored(spec, model, 3, 4))
    output = model(inputs)
    assert output.values.shape == (3, 4)
    assert output.features["logits"].shape == (3, 4, 3)
    assert output.state is None
    distribution = distribution_cls(output.features, Categorical(3))
    (distribution.logp(distribution.sample()).mean() + output.values.square().mean()).backward()
    grads = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    keys = list(spec.keys()) if isinstance(spec, Composite) else [None]
    for key in (key for key in keys if key != "action_mask"):
        changed = inputs.clone()
        leaf = changed if key is None or isinstance(changed, torch.Tensor) else changed[key]
        if window > 1 and key is None:
            leaf = changed["obs"]
        leaf.copy_(1 - leaf if leaf.dtype == torch.float32 else leaf == 0 if leaf.dtype == torch.bool else leaf + 1)
        assert not torch.equal(model(changed).values, output.values), key


def test_a_window_looks_at_frames_of_the_present_episode_oldest_first():
    model, _ = build(CNNModel, PICTURE, Categorical(3), window=3, **SMALL["cnn"][1])
    obs, ages = stored(PICTURE, model, 4, 2, age=0)
    inputs = seen(PICTURE, model, obs, ages)
    assert inputs["obs"].dtype == torch.uint8
    assert inputs["obs"].shape == (4, 2, 3, 8, 8, 3)
    channels = model.sight.frames[0](inputs["obs"]).unflatten(0, (4, 2))
    assert (channels[0, :, :6] == 0).all()
    for age in range(3):  # the newest frame's channels come last
        frame = obs[2 + 3 - age].movedim(-1, -3) / 255
        torch.testing.assert_close(channels[3, :, 6 - 3 * age : 9 - 3 * age], frame)


def test_a_rollout_stores_each_frame_once_in_bytes():
    policy = Policy(PICTURE, Categorical(3), model_cls=CNNModel, model_config={"window": 4, **SMALL["cnn"][1]})
    rollout = Rollout(policy, 5, 16)
    assert rollout.obs.dtype == torch.uint8
    assert rollout.obs.nbytes == (3 + 16 + 1) * 5 * 8 * 8 * 3
    batch = rollout.minibatch(rollout.places(torch.arange(10)))
    assert batch.seen["obs"].dtype == torch.uint8
    assert batch.seen["obs"].shape == (1, 10, 4, 8, 8, 3)
    others = sum(getattr(rollout, name).nbytes for name in ("rewards", "logp", "values", "returns", "advantages"))
    assert rollout.megabytes() * 1e6 >= rollout.obs.nbytes + others + rollout.actions.nbytes
    assert rollout.megabytes() * 1e6 < rollout.obs.nbytes + 2 * (others + rollout.actions.nbytes)


@every_model
def test_pieces_of_a_minibatch_suit_the_caches(name):
    spec = Bounded(0, 255, (84, 84, 4), dtype=torch.uint8)
    model, _ = build(SMALL[name][0], spec, Categorical(3))
    floats = model.piece_size * model.sight.networks[0].floats
    assert model.piece_size == 32 or 2**21 < floats <= 2**22


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (Unbounded(3), {}, r"^CNNModel finds no image in Unbounded.* Try model=mlp"),
        (PICTURE, {"window": 0}, r"^model.window=0 is out of range"),
        (PICTURE, {"size": 0}, r"^model.size=0 is out of range"),
        (PICTURE, {"filters": [[4, 9, 1]]}, r"^model.filters=\[\[4, 9, 1\]\] need images of at least 9 x 9"),
        (Composite(eye=Composite(left=PICTURE)), {"window": 2}, r"^model.window=2 can't look back at .* eye.left"),
    ],
)
def test_what_is_refused(spec, options, message):
    with pytest.raises(ValueError, match=message):
        build(CNNModel, spec, Categorical(3), **{**SMALL["cnn"][1], **options})


def test_an_image_that_lies_deeper_is_seen():
    spec = Composite(eye=Composite(left=PICTURE), speed=Unbounded(2))
    model, _ = build(CNNModel, spec, Categorical(3), **SMALL["cnn"][1])
    obs = spec.rand(6).unflatten(0, (2, 3))
    before = model(obs)
    obs["eye", "left"] += 1
    assert not any(map(torch.equal, leaves_of(before.features), leaves_of(model(obs).features)))


def learned(model_cls, iterations, **config):
    """Return the mean reward of the mode's actions in `Drift` after training."""
    torch.manual_seed(1)
    algorithm = Algorithm(
        Drift,
        num_envs=64,
        horizon=8,
        horizons_per_env_reset=-1,
        sgd_minibatch_size=128,
        gamma=0.0,
        model_cls=model_cls,
        model_config={"size": 32, **config},
        optimizer_config={"lr": 1e-2},
    )
    for _ in range(iterations):
        algorithm.collect()
        algorithm.step()
    algorithm.collect(deterministic=True)
    return algorithm.rollout.rewards.mean().item()


def test_what_moves_is_learned_from_two_frames_and_a_lamp():
    assert learned(CNNModel, 36, window=2, filters=[[8, 3, 1]]) > 0.85
    assert learned(ImpalaModel, 20, window=2, channels=[4]) > 0.85


def test_what_moves_can_not_be_told_from_one_frame():
    assert 0.4 < learned(CNNModel, 5, filters=[[8, 3, 1]]) < 0.6
