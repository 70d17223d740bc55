import pytest
import torch
from comparing import weights
from envs import Endless, Episodes, MaskedBandit, Steering
from tensordict import TensorDict
from torch import nn

from rl8 import Algorithm, DeviceSettings, RecurrentAlgorithm
from rl8.data import OBS, REWARDS
from rl8.distributions import Normal
from rl8.env import Env
from rl8.execution import forward, pieces
from rl8.models import MLPModel, Model, Output
from rl8.policy.policy import Policy
from rl8.specs import Categorical, Composite, MultiCategorical, Unbounded

WHOLE = 64  # env steps of a batch


class Levers(Env):
    """Composite actions, one nested; the reward is 1 for gear 2."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
        super().__init__(num_envs, horizon, device=device)
        self.observation_spec = Composite(speed=Unbounded(2))
        self.action_spec = Composite(gear=Categorical(3), panel=Composite(dials=MultiCategorical([2, 4])))

    def reset(self, *, config=None):
        self.configure(config)
        self.state = torch.randn(self.num_envs, 2, device=self.device)
        return TensorDict({"speed": self.state}, [self.num_envs])

    def step(self, action):
        self.state = 0.5 * self.state + torch.randn_like(self.state)
        obs = TensorDict({"speed": self.state}, [self.num_envs])
        return TensorDict({OBS: obs, REWARDS: (action["gear"] == 2).float()}, [self.num_envs])


class Dropout(MLPModel):
    """Draws random numbers in every pass."""

    def __init__(self, *args, **config):
        super().__init__(*args, **config)
        self.policy_net = nn.Sequential(self.policy_net)

    def _features(self, inputs):
        return self.policy_head(nn.functional.dropout(self.policy_net(inputs)))


class Shared(Model):
    """Values come with the features."""

    def __init__(self, observation_spec, action_spec):
        super().__init__(observation_spec, action_spec)
        self.layer = nn.Linear(3, 4)

    def forward(self, obs, state=None):
        out = self.layer(obs)
        return Output({"logits": out[..., :3]}, out[..., 3])


def build(env_cls=Endless, *, threads=1, piece_size=WHOLE, cls=Algorithm, seed=0, **options):
    """Return an algorithm of 8 environments and 8 steps."""
    torch.manual_seed(seed)
    device = DeviceSettings(piece_size=piece_size, num_threads=threads)
    sizes = {"num_envs": 8, "horizon": 8, "model_config": {"hiddens": [16, 16]}}
    return cls(env_cls, device=device, **{**sizes, **options})


def metrics_of(algorithm, iterations=1):
    for _ in range(iterations):
        metrics = algorithm.collect() | algorithm.step()
    return {name: value.item() for name, value in metrics.items()}


@pytest.fixture
def evaluated(monkeypatch):
    """Return the number of env steps in each evaluation so far."""
    counts, evaluate = [], Policy.evaluate

    def counting(self, seen, actions, *others):
        counts.append(torch.as_tensor(actions if isinstance(actions, torch.Tensor) else actions["gear"]).shape[1])
        return evaluate(self, seen, actions, *others)

    monkeypatch.setattr(Policy, "evaluate", counting)
    return counts


@pytest.fixture(autouse=True)
def _threads_for_few_steps(monkeypatch):
    monkeypatch.setattr(pieces, "MIN_STEPS_PER_THREAD", 1)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("env_cls", "options"),
    [
        (Endless, {}),
        (Episodes, {"normalize_obs": True}),
        (Endless, {"model_config": {"hiddens": [16], "activation": "elu"}}),
        (Endless, {"model_config": {"hiddens": [16], "window": 3}}),
        (Steering, {"distribution_cls": Normal, "vf_clip_param": 0.1}),
        (MaskedBandit, {}),
        (Levers, {}),
        (Endless, {"enable_amp": True}),
    ],
    ids=["plain", "episodes", "elu", "window", "normal", "mask", "nested", "bf16"],
)
def test_the_update_is_the_same(env_cls, options, threads, monkeypatch):
    after = []
    for most in (0, forward.MAX_KEPT_PARTS):
        monkeypatch.setattr(forward, "MAX_KEPT_PARTS", most)
        algorithm = build(env_cls, threads=threads, **options)
        assert len(algorithm.execution.forward_shares) == (threads if most else 0)
        torch.manual_seed(1)
        after.append((metrics_of(algorithm, 2), weights(algorithm)))
    tolerance = {"rtol": 0.05, "atol": 2e-3} if "enable_amp" in options else {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(after[0][1], after[1][1], **tolerance)
    if "enable_amp" not in options:
        assert after[0][0] == pytest.approx(after[1][0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_pass_evaluates_nothing(threads, evaluated):
    algorithm = build(threads=threads)
    evaluated.clear()  # of building
    metrics_of(algorithm, 2)
    assert evaluated == [WHOLE // threads] * (2 * 3 * threads)  # of four passes


def test_the_first_pass_has_the_policy_that_collected():
    algorithm = build(num_sgd_iters=1)
    metrics = metrics_of(algorithm)
    assert metrics["monitors/kl_div"] == 0
    assert metrics["monitors/clip_fraction"] == 0
    assert metrics["monitors/grad_norm"] > 0


def test_the_same_seed_gives_the_same_run():
    runs = [build(threads=2) for _ in range(2)]
    for algorithm in runs:
        torch.manual_seed(1)
        metrics_of(algorithm, 3)
    assert torch.equal(*map(weights, runs))


def test_nothing_is_kept_after_the_update():
    algorithm = build()
    algorithm.collect()
    assert algorithm.execution._forward is not None
    algorithm.step()
    assert algorithm.execution._forward is None


@pytest.mark.parametrize("change", ["parameter", "buffer", "moved"])
def test_networks_written_to_in_between_are_evaluated_anew(change, evaluated):
    algorithm = build(normalize_obs=True, num_sgd_iters=1)
    algorithm.collect()
    evaluated.clear()
    parameter = algorithm.parameters[0]
    if change == "parameter":
        with torch.no_grad():
            parameter.mul_(1.5)
    elif change == "moved":
        parameter.data = parameter.data * 1.5
    else:
        algorithm.policy.update_normalizers(torch.randn(100, 3))
    metrics = {name: value.item() for name, value in algorithm.step().items()}
    assert evaluated == [WHOLE]
    assert metrics["monitors/kl_div"] > 0


def test_the_last_of_two_collections_counts(evaluated):
    algorithm = build(num_sgd_iters=1)
    algorithm.collect()
    evaluated.clear()
    algorithm.collect()
    assert algorithm.step()["monitors/kl_div"].item() == 0
    algorithm.collect()
    algorithm.collect(deterministic=True)  # nothing is kept of it, nor of the one before
    algorithm.step()
    assert evaluated == [WHOLE]


def test_collecting_without_gradients(evaluated):
    algorithm = build(num_sgd_iters=1)
    evaluated.clear()
    with torch.no_grad():
        algorithm.collect()
    assert algorithm.step()["monitors/grad_norm"].item() > 0
    assert evaluated == []
    with torch.inference_mode():
        algorithm.collect()
    assert algorithm.step()["monitors/grad_norm"].item() > 0
    assert evaluated == [WHOLE]


@pytest.mark.parametrize(
    "options",
    [
        {"sgd_minibatch_size": 32},
        {"piece_size": 63},
        {"piece_size": 8 * 33, "num_envs": 8},
        {"horizon": 7, "threads": 2},
        {"model_config": {"hiddens": [16]}, "model_cls": Dropout},
        {"model_config": {}, "model_cls": Shared},
        {"cls": RecurrentAlgorithm, "model_config": {"hidden_size": 8}, "seq_len": 4},
    ],
    ids=["minibatches", "pieces", "many parts", "steps in two shares", "dropout", "shared", "recurrent"],
)
def test_where_nothing_can_be_kept(options):
    algorithm = build(**options)
    algorithm.collect()
    assert algorithm.execution._forward is None
    algorithm.step()


def test_inductor_computes_the_first_pass_itself(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    assert Algorithm(Endless, num_envs=8, horizon=8, device=DeviceSettings(compile=True)).execution.forward_shares == []
