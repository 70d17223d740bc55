import copy
from functools import partial

import pytest
import torch
from comparing import assert_same, weights
from tensordict import TensorDict

from rl8 import Algorithm, DeviceSettings
from rl8.data import ACTION_MASK, OBS, REWARDS
from rl8.distributions import Normal
from rl8.env import CartPole, Env
from rl8.execution import cpu
from rl8.execution.compiled.building import library
from rl8.execution.compiled.steps import CompiledSteps
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded


class Noise(Env):
    """Observations are random, and rewards too; half of the choices are allowed if `masked`."""

    def __init__(self, num_envs, /, horizon=None, *, device="cpu", action_spec=None, masked=0):
        super().__init__(num_envs, horizon, device=device)
        self.action_spec, self.masked = action_spec, masked
        numbers = Unbounded(3)
        self.observation_spec = (
            Composite({"numbers": numbers, ACTION_MASK: Binary(masked, dtype=torch.bool)}) if masked else numbers
        )

    def reset(self, *, config=None):
        self.configure(config)
        return self._observe()

    def step(self, action):
        return TensorDict({OBS: self._observe(), REWARDS: torch.randn(self.num_envs)}, [self.num_envs])

    def _observe(self):
        self.state = torch.randn(self.num_envs, 3)
        if not self.masked:
            return self.state
        allowed = torch.rand(self.num_envs, self.masked) < 0.5
        allowed[:, [0, 2, 7]] = True  # one of each element at least
        return TensorDict({"numbers": self.state, ACTION_MASK: allowed}, [self.num_envs])


ACTIONS = {
    "one choice": (Categorical(1), {}),
    "many choices": (Categorical(70), {}),
    "a table of choices": (Categorical(5, shape=(2, 3)), {}),
    "choices of other numbers": (MultiCategorical([2, 5, 3]), {}),
    "some are forbidden": (MultiCategorical([2, 5, 3]), {"masked": 10}),
    "of one": (Categorical(9, dtype=torch.int32), {"masked": 9}),
    "an interval": (Bounded(-2.0, 1.0, shape=(3,)), {}),
    "any numbers": (Unbounded((2, 2)), {}),
    "limits, not squashed": (Bounded(-2.0, 1.0, shape=(2,)), {"distribution_cls": Normal}),
}


@pytest.fixture
def built(monkeypatch):
    found = library()
    if isinstance(found, str):
        pytest.skip(found)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # only small work is looked at
    return found


def iterate(algorithm, count, *, seed=0):
    torch.manual_seed(seed)
    return [{**algorithm.collect(), **algorithm.step()} for _ in range(count)]


@pytest.mark.parametrize("case", ACTIONS)
@pytest.mark.parametrize("num_envs", [5, 40])  # less than a vector of rows, and more than are computed at once
def test_every_kind_of_action(built, case, num_envs, monkeypatch):
    spec, options = ACTIONS[case]
    env_cls = partial(Noise, action_spec=spec, masked=options.get("masked", 0))
    rest = {name: value for name, value in options.items() if name != "masked"}
    steps = []
    step = CompiledSteps.__call__
    monkeypatch.setattr(CompiledSteps, "__call__", lambda self, rows: steps.append(rows) or step(self, rows))
    found = []
    for compiles in (True, False):
        torch.manual_seed(0)
        algorithm = Algorithm(
            env_cls,
            num_envs=num_envs,
            horizon=8,
            num_sgd_iters=3,
            entropy_coeff=0.03,
            vf_clip_param=0.5,
            model_config={"hiddens": [21, 6], "activation": "tanh"},
            device=DeviceSettings(compile=compiles, num_threads=1),
            **rest,
        )
        if not compiles:
            monkeypatch.setattr(cpu, "small_steps", lambda *_: None)
            monkeypatch.setattr(cpu, "small_act", lambda *_: None)
        metrics = iterate(algorithm, 2)
        found.append((weights(algorithm), algorithm.rollout, metrics))
    assert len(steps) == 6
    (ours, rollout, metrics), (plain, expected, theirs) = found
    assert torch.equal(rollout.actions, expected.actions) or rollout.actions.is_floating_point()
    for name in ("actions", "logp", "values", "rewards"):
        torch.testing.assert_close(getattr(rollout, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(metrics, theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


def test_units_that_are_saturated_stand_still(built, monkeypatch):
    class Far(Noise):
        def _observe(self):
            return super()._observe() * 300

    found = []
    for compiles in (True, False):
        torch.manual_seed(0)
        algorithm = Algorithm(
            partial(Far, action_spec=Categorical(3)),
            num_envs=8,
            horizon=8,
            model_config={"hiddens": [8, 8], "activation": "tanh"},
            device=DeviceSettings(compile=compiles, num_threads=1),
        )
        iterate(algorithm, 1)
        found.append(weights(algorithm))
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)  # a tenth of an optimizer step's length


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(built):
    def build(seed):
        torch.manual_seed(seed)
        return Algorithm(
            CartPole,
            num_envs=8,
            horizon=8,
            sgd_minibatch_size=16,
            num_sgd_iters=2,
            device=DeviceSettings(compile=True, num_threads=1),
        )

    one, other = build(0), build(1)
    iterate(one, 2)
    saved = copy.deepcopy(one.state_dict())
    iterate(one, 2, seed=3)
    other.load_state_dict(saved)
    iterate(other, 2, seed=3)
    assert isinstance(other.execution._small, CompiledSteps)
    assert_same(one.state_dict(), other.state_dict())


def test_the_mode_is_what_the_policy_takes(built):
    torch.manual_seed(0)
    algorithm = Algorithm(CartPole, num_envs=8, horizon=4, device=DeviceSettings(compile=True, num_threads=1))
    algorithm.collect(deterministic=True)
    rollout = algorithm.rollout
    with torch.no_grad():
        expected = algorithm.policy.act(rollout.obs[:1], deterministic=True)
    assert torch.equal(rollout.actions[0], expected.actions)


def test_parameters_that_lie_otherwise_are_left_to_torch(built):
    torch.manual_seed(0)
    algorithm = Algorithm(CartPole, num_envs=8, horizon=4, device=DeviceSettings(compile=True, num_threads=1))
    weight = algorithm.policy.model.policy_net.layers[0].weight
    weight.data = weight.data.t().contiguous().t()
    before = weight.detach().clone()
    iterate(algorithm, 1)
    assert not isinstance(algorithm.execution._small, CompiledSteps)
    assert not torch.equal(weight, before)


def test_small_work_is_compiled_unless_somebody_forbids_it_and_nothing_else(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("that was not wished")

    monkeypatch.setattr(torch, "compile", refuse)
    algorithm = Algorithm(CartPole, num_envs=8, horizon=4)
    iterate(algorithm, 1)
    assert isinstance(algorithm.execution._small, CompiledSteps) != isinstance(library(), str)
    monkeypatch.setattr(cpu, "library", refuse)
    for options in ({"num_envs": 1024, "horizon": 4}, {"device": DeviceSettings(compile=False)}):
        iterate(Algorithm(CartPole, **{"num_envs": 8, "horizon": 8, **options}), 1)


def test_who_looks_for_changes_of_a_parameter_finds_them(built):
    torch.manual_seed(0)
    algorithm = Algorithm(CartPole, num_envs=8, horizon=4, device=DeviceSettings(compile=True, num_threads=1))
    versions = [parameter._version for parameter in algorithm.policy.parameters()]
    iterate(algorithm, 1)
    assert all(parameter._version > old for parameter, old in zip(algorithm.policy.parameters(), versions, strict=True))


def test_without_a_compiler_torch_computes_and_a_run_says_so_once(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(cpu, "library", lambda: "there is no C compiler")
    algorithm = Algorithm(CartPole, num_envs=8, horizon=4, device=DeviceSettings(compile=True, num_threads=1))
    iterate(algorithm, 1)
    assert algorithm.execution._small is not None
    notes = algorithm.execution.notes()
    assert len(notes) == 1
    assert "device.compile=true: there is no C compiler" in notes[0]
    assert algorithm.execution.notes() == []


@pytest.mark.parametrize("spec", [Categorical(4), Unbounded((2,))])
def test_actions_that_an_environment_keeps_stay_what_they_were(built, spec):
    kept = []

    class Keeps(Noise):
        def step(self, action):
            kept.append((action, action.clone()))
            return super().step(action)

    torch.manual_seed(0)
    settings = DeviceSettings(compile=True, num_threads=1)
    algorithm = Algorithm(partial(Keeps, action_spec=spec), num_envs=8, horizon=4, device=settings)
    iterate(algorithm, 2)
    assert len(kept) >= 8
    for action, copied in kept:
        assert torch.equal(action, copied)


@pytest.mark.parametrize("clip_obs", [10.0, 0.5])
def test_observations_are_normalised_as_the_policy_does(built, clip_obs):
    torch.manual_seed(0)
    algorithm = Algorithm(
        partial(Noise, action_spec=Bounded(-2.0, 1.0, shape=(2,))),
        num_envs=8,
        horizon=16,
        normalize_obs=True,
        clip_obs=clip_obs,
        device=DeviceSettings(compile=True, num_threads=1),
    )
    iterate(algorithm, 2)
    algorithm.collect()
    rollout, policy = algorithm.rollout, algorithm.policy
    assert policy.normalizers[0].moments.count == 2 * 8 * 16
    with torch.no_grad():
        logp = policy.evaluate(rollout.block(0, 8 * 16), rollout.actions.flatten(0, 1).unsqueeze(0))[0]
    torch.testing.assert_close(rollout.logp.flatten(), logp[0])


class Halved(torch.nn.Module):
    """What stands in another's place, and halves what that gives."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, obs):
        return self.inner(obs) / 2


@pytest.mark.parametrize("part", ["encoder", "normalizer"])
def test_what_a_user_puts_before_the_networks_acts(built, part):
    torch.manual_seed(0)
    algorithm = Algorithm(
        partial(Noise, action_spec=Unbounded((2,))),
        num_envs=8,
        horizon=4,
        normalize_obs=True,
        model_config={"policy_gain": 1.0},
        device=DeviceSettings(compile=True, num_threads=1),
    )
    rollout, policy = algorithm.rollout, algorithm.policy
    if part == "encoder":
        policy.model.encoder = Halved(policy.model.encoder)
    else:
        policy.normalizers[0] = Halved(policy.normalizers[0])
    algorithm.collect()
    with torch.no_grad():
        logp = policy.evaluate(rollout.block(0, 8 * 4), rollout.actions.flatten(0, 1).unsqueeze(0))[0]
    torch.testing.assert_close(rollout.logp.flatten(), logp[0])
