import importlib.util
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
import torchrl_stand_in
from tensordict import TensorDict

from rl8 import Algorithm, data, specs
from rl8.env import Env
from rl8.specs import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    Spec,
    Unbounded,
    as_spec,
    leaves,
)

INF = float("inf")
EVERY_SPEC = [
    Unbounded(),
    Unbounded(()),
    Unbounded((2, 3), dtype=torch.float64),
    Unbounded(2, dtype=torch.int32),
    Bounded(-1, 1),
    Bounded([-2.0, 0.0], [2.0, 0.5]),
    Bounded(-INF, INF, 2),
    Bounded(3.0, INF, 2),
    Bounded(-INF, 3.0, 2),
    Bounded(-3.4028235e38, 3.4028235e38, 4),
    Bounded(0.1, 0.1, 3),
    Bounded(0, 255, (4, 4, 3), dtype=torch.uint8),
    Bounded(-3, 3, 2, dtype=torch.int64),
    Bounded(False, True, (2, 2, 1), dtype=torch.bool),
    Categorical(5),
    Categorical(1),
    Categorical(3, (2, 2), dtype=torch.int32),
    Categorical(2, 4, dtype=torch.bool),
    MultiCategorical([3, 2, 7]),
    MultiCategorical(torch.tensor([2, 2]), dtype=torch.int32),
    Binary(4),
    Binary(shape=()),
    Binary(3, (2, 3), dtype=torch.bool),
    Composite(a=Unbounded(2), b=Composite(c=Categorical(3), d=Binary(2))),
]
BOUNDED = [spec for spec in EVERY_SPEC if isinstance(spec, (Bounded, Categorical, MultiCategorical, Binary))]
ids = pytest.mark.parametrize("spec", EVERY_SPEC, ids=repr)


@ids
@pytest.mark.parametrize("n", [1, 500])
def test_samples_are_valid_and_zeros_have_their_form(spec, n):
    sample, zeros = spec.rand(n), spec.zeros(n)
    spec.check(sample)
    assert sample.shape == zeros.shape == (n, *spec.shape)
    if isinstance(spec, Composite):
        assert isinstance(sample, TensorDict)
        assert sample["b", "c"].shape == zeros["b", "c"].shape == (n,)
        assert all((value == 0).all() for value in zeros.values(include_nested=True, leaves_only=True))
    else:
        assert sample.dtype == zeros.dtype == spec.dtype
        assert (zeros == 0).all()


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        (Bounded(0, 255, dtype=torch.uint8), range(256)),
        (Bounded(-128, 127, dtype=torch.int8), range(-128, 128)),
        (Categorical(5), range(5)),
        (Categorical(2, dtype=torch.bool), (0, 1)),
        (Binary(1), (0, 1)),
        (Unbounded(dtype=torch.int64), range(10)),
    ],
)
def test_all_values_are_drawn(spec, seen):
    assert set(spec.rand(20_000).flatten().tolist()) == set(seen)


def test_a_multicategorical_draws_all_values_of_each_element():
    sample = MultiCategorical([3, 2, 7]).rand(5000)
    assert [sorted(set(column.tolist())) for column in sample.T] == [list(range(n)) for n in (3, 2, 7)]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-2, 6, (-2, 6)), (3.0, INF, (3, 4)), (-INF, 3.0, (2, 3)), (-INF, INF, (-1, 1)), (-3e38, 3e38, (-3e38, 3e38))],
)
def test_bounded_samples_fill_the_range(low, high, expected):
    sample = Bounded(low, high).rand(20_000)
    assert sample.min().item() == pytest.approx(expected[0], rel=0.01)
    assert sample.max().item() == pytest.approx(expected[1], rel=0.01)


@pytest.mark.parametrize(
    ("made", "shape", "dtype"),
    [
        (Unbounded(), (1,), torch.float32),
        (Unbounded(3), (3,), torch.float32),
        (Unbounded(torch.Size([2, 3])), (2, 3), torch.float32),
        (Bounded(-1, 1), (1,), torch.float32),
        (Bounded(-1, 1, (2,), "cpu", torch.float64), (2,), torch.float64),
        (Bounded([0.0, 1.0], 2.0), (2,), torch.float32),
        (Categorical(3), (), torch.int64),
        (Categorical(3, torch.Size([1]), "cpu", torch.int32), (1,), torch.int32),
        (MultiCategorical([2, 3]), (2,), torch.int64),
        (Binary(4), (4,), torch.int8),
        (Binary(shape=(2, 3)), (2, 3), torch.int8),
        (Composite(a=Unbounded()), (), None),
    ],
)
def test_constructors_take_torchrls_arguments(made, shape, dtype):
    assert (tuple(made.shape), made.dtype, made.device) == (shape, dtype, torch.device("cpu"))


def test_limits_and_counts_are_attributes():
    spec = Bounded([-2.0, 0.0], 1.0)
    assert (spec.low.tolist(), spec.high.tolist()) == ([-2, 0], [1, 1])
    assert Categorical(torch.tensor(3)).n == 3
    assert MultiCategorical(torch.tensor([2, 3])).nvec == (2, 3)
    assert Binary(shape=(2, 3)).n == 3
    assert Binary(shape=()).n == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bounded(1, -1), r"Bounded\(low=1, high=-1\) is empty. Give a low that is <= high everywhere"),
        (lambda: Bounded([0.0, 1.0], [1.0, 0.0]), "is empty"),
        (lambda: Bounded(float("nan"), 1), r"Bounded\(low=nan, high=1\) is empty"),
        (lambda: Bounded([0.0, 0.0, 0.0], 1.0, shape=2),
         r"limits of shapes \(3,\) and \(\) and shape=\(2,\) do not fit together. Give numbers"),
        (lambda: Bounded([0.0, 0.0, 0.0], [1.0, 1.0]), r"limits of shapes \(3,\) and \(2,\) do not fit together"),
        (lambda: Categorical(0), r"Categorical\(n=0\) has no choices. Give n >= 1"),
        (lambda: MultiCategorical([]), r"MultiCategorical\(nvec=\[\]\) needs at least one choice for every element"),
        (lambda: MultiCategorical([2, 0]), r"MultiCategorical\(nvec=\[2, 0\]\) needs at least one choice"),
        (lambda: MultiCategorical([2, 3], 3), r"MultiCategorical shape \(3,\) is not \(2,\), one per nvec entry"),
        (lambda: Binary(), r"Binary\(\) has no size. Give n or shape, e.g. Binary\(4\)"),
        (lambda: Binary(2, (2, 3)), r"Binary\(n=2, shape=\(2, 3\)\): the last size of shape must be n"),
        (lambda: Binary(2, ()), r"the last size of shape must be n"),
        (lambda: Composite(), r"Composite\(\) has no entries. Give at least one, e.g. Composite\(position=Unbounded"),
    ],
)  # fmt: skip
def test_specs_that_describe_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("spec", "sample", "message"),
    [
        (Unbounded(2), [0.0, 0.0], r"obs is a list, expected a tensor \(n, 2\)"),
        (Unbounded(2), torch.zeros(2), r"obs has shape \(2,\), expected \(n, 2\) of Unbounded\(shape=\(2,\)"),
        (Unbounded(2), torch.zeros(5, 3), r"obs has shape \(5, 3\), expected \(n, 2\)"),
        (Unbounded(()), torch.zeros(()), r"obs has shape \(\), expected \(n\) of"),
        (Unbounded(2), torch.zeros(5, 2).double(), r"obs has dtype torch.float64, expected torch.float32 of Unbounded"),
        (Unbounded(2), torch.zeros(5, 2, device="meta"), r"obs is on meta, expected cpu of Unbounded"),
        (Unbounded(2), torch.full((5, 2), INF), "obs has values that are infinite or NaN"),
        (Unbounded(2), torch.full((5, 2), float("nan")), "obs has values that are infinite or NaN"),
        (Bounded(-1, 1), torch.tensor([[0.5], [2.0]]),
         r"obs has values from 0.5 to 2, outside Bounded\(low=-1.0, high=1.0, shape=\(1,\)"),
        (Bounded([0.0, 5.0], [1.0, 6.0]), torch.full((1, 2), 0.5),
         r"obs has values from 0.5 to 0.5, outside Bounded\(low=\[0.0, 5.0\], high=\[1"),
        (Categorical(3), torch.tensor([0, 3]), r"obs has values outside 0 ... 2 of Categorical\(n=3"),
        (Categorical(3), torch.tensor([-1]), r"obs has values outside 0 ... 2"),
        (MultiCategorical([2, 3]), torch.tensor([[2, 0]]), r"obs has values outside 0 ... nvec - 1 of .*nvec=\[2, 3\]"),
        (Binary(2), torch.full((1, 2), 2, dtype=torch.int8), r"obs has values other than 0 and 1 of Binary"),
    ],
)  # fmt: skip
def test_wrong_samples_are_refused(spec, sample, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        spec.check(sample, "obs")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (torch.zeros(3), "obs is a Tensor, expected a TensorDict with a, b"),
        ({"a": torch.zeros(3, 1)}, r"obs lacks b\.$"),
        ({"b": 0, "d": 0}, "obs lacks a and has d, which the spec does not name"),
        ({"a": torch.zeros(3, 1), "b": {"c": torch.ones(3)}}, r"obs\['b'\]\['c'\] has dtype torch.float32"),
        (TensorDict({"a": torch.zeros(3, 1), "b": {"c": torch.full((3,), 7)}}, [3]),
         r"obs\['b'\]\['c'\] has values outside 0 ... 2"),
    ],
)  # fmt: skip
def test_a_wrong_leaf_is_named(sample, message):
    with pytest.raises(ValueError, match=message):
        Composite(a=Unbounded(), b=Composite(c=Categorical(3))).check(sample, "obs")


def test_a_composite_is_a_mapping():
    inner = Composite({"c": Categorical(3)})
    spec = Composite({"a": Unbounded()}, {"device": Binary(1)}, b=inner)
    assert list(spec) == list(spec.keys()) == ["a", "device", "b"]
    assert len(spec) == 3
    assert spec["b"] is inner
    assert "a" in spec
    assert "c" not in spec
    assert [path for path, _ in leaves(spec)] == [("a",), ("device",), ("b", "c")]
    assert list(leaves(Unbounded(2))) == [((), Unbounded(2))]


def test_a_composite_moves_its_entries_to_one_device():
    spec = Composite(a=Unbounded(), b=Unbounded(device="meta"))
    assert (spec.device.type, spec["b"].device.type) == ("cpu", "cpu")
    spec = Composite(a=Unbounded(), b={"c": Unbounded()}, device="meta")
    assert {leaf.device.type for _, leaf in leaves(spec)} == {spec.device.type} == {"meta"}


@pytest.mark.parametrize("spec", [spec for spec in EVERY_SPEC if not isinstance(spec, Bounded)], ids=repr)
def test_specs_move_between_devices(spec):
    moved = spec.to("meta")
    assert moved.device.type == "meta"
    assert moved.to("cpu") == spec
    assert moved.zeros(2).device.type == "meta"


@ids
def test_equal_specs_are_equal(spec):
    assert spec.to("cpu") == spec
    assert hash(spec.to("cpu")) == hash(spec)
    assert [other for other in EVERY_SPEC if other == spec] == [spec]
    assert spec != repr(spec)


def test_the_base_class_says_what_to_define():
    spec = Spec((), None, torch.float32)
    with pytest.raises(NotImplementedError, match=r"Spec must define rand\(\)"):
        spec.rand(1)
    with pytest.raises(NotImplementedError, match=r"Spec must define to\(\)"):
        spec.to("cpu")
    spec.check(torch.full((3,), 1e9))  # no range of its own


# Gymnasium


class OwnBox(gym.spaces.Box):
    """A space derived outside of Gymnasium."""


BOX = gym.spaces.Box
CARTPOLE_LIMIT = np.array([4.8, np.finfo(np.float32).max, 0.42, INF], dtype=np.float32)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (BOX(-1, 1, (2,)), Bounded(-1, 1, 2)),
        (BOX(-1, 1, (2,), np.float64), Bounded(-1, 1, 2)),
        (BOX(-1, 1, (2,), np.float16), Bounded(-1, 1, 2, dtype=torch.float16)),
        (BOX(-np.inf, np.inf, (3, 2)), Unbounded((3, 2))),
        (BOX(-np.inf, np.inf, ()), Unbounded(())),
        (BOX(0, np.inf, (2,)), Bounded(0, INF, 2)),
        (BOX(-CARTPOLE_LIMIT, CARTPOLE_LIMIT), Bounded((-CARTPOLE_LIMIT).tolist(), CARTPOLE_LIMIT.tolist())),
        (BOX(0, 255, (4, 4, 3), np.uint8), Bounded(0, 255, (4, 4, 3), dtype=torch.uint8)),
        (BOX(-5, 5, (2,), np.int64), Bounded(-5, 5, 2, dtype=torch.int64)),
        (OwnBox(-1, 1, (2,)), Bounded(-1, 1, 2)),
        (gym.spaces.Discrete(4), Categorical(4)),
        (gym.spaces.MultiDiscrete([3, 2]), MultiCategorical([3, 2])),
        (gym.spaces.MultiBinary(4), Binary(4)),
        (gym.spaces.MultiBinary((2, 3)), Binary(shape=(2, 3))),
        (gym.spaces.Dict({"b": gym.spaces.Discrete(2), "a": gym.spaces.Dict({"c": BOX(0, 1, (1,))})}),
         Composite(b=Categorical(2), a=Composite(c=Bounded(0, 1)))),
    ],
    ids=repr,
)  # fmt: skip
def test_gymnasium_spaces(space, expected):
    spec = as_spec(space)
    if isinstance(expected, Composite):  # Gymnasium sorts some dictionaries and not others
        assert dict(spec.items()) == dict(expected.items())
    else:
        assert spec == expected
    spec.check(spec.rand(50))


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(3, start=1),
        gym.spaces.MultiDiscrete([2, 2], start=[0, 1]),
        gym.spaces.MultiDiscrete([[2, 3], [4, 5]]),
        gym.spaces.Text(5),
        gym.spaces.Tuple([gym.spaces.Discrete(2)]),
        gym.spaces.Dict({"a": gym.spaces.Text(5)}),
    ],
    ids=repr,
)
def test_gymnasium_spaces_without_counterpart(space):
    with pytest.raises(TypeError, match=r"(?s)^Gymnasium's .* has no counterpart. Accepted: Box, Discrete and "):
        as_spec(space)


# TorchRL


@pytest.fixture(params=["stand-in", "installed"], scope="module")
def torchrl(request):
    if request.param == "stand-in":
        return torchrl_stand_in
    if importlib.util.find_spec("torchrl") is None:
        pytest.skip("TorchRL is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchrl.data")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda t: t.Unbounded(3), Unbounded(3)),
        (lambda t: t.Unbounded(shape=torch.Size([2]), dtype=torch.int64), Unbounded(2, dtype=torch.int64)),
        (lambda t: t.Bounded(-1.0, 1.0, (2,)), Bounded(-1.0, 1.0, 2)),
        (lambda t: t.Bounded(0, 9, (2,), dtype=torch.int64), Bounded(0, 9, 2, dtype=torch.int64)),
        (lambda t: t.Bounded(torch.zeros(2), torch.tensor([1.0, 2.0]), (2,)), Bounded([0.0, 0.0], [1.0, 2.0])),
        (lambda t: t.Categorical(3), Categorical(3)),
        (lambda t: t.Categorical(2, torch.Size([3]), dtype=torch.bool), Categorical(2, 3, dtype=torch.bool)),
        (lambda t: t.MultiCategorical([3, 2]), MultiCategorical([3, 2])),
        (lambda t: t.Binary(4), Binary(4)),
        (lambda t: t.Binary(shape=(2, 3), dtype=torch.bool), Binary(shape=(2, 3), dtype=torch.bool)),
        (lambda t: t.Composite({"a": t.Unbounded(2), "b": t.Composite(c=t.Binary(1))}),
         Composite(a=Unbounded(2), b=Composite(c=Binary(1)))),
    ],
)  # fmt: skip
def test_torchrl_specs(torchrl, make, expected):
    spec = as_spec(make(torchrl))
    assert spec == expected
    spec.check(spec.rand(20))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t.OneHot(3), "^One-hot specs have no counterpart. Use Categorical or MultiCategorical"),
        (lambda t: t.MultiOneHot([2, 3]), "^One-hot specs have no counterpart"),
        (lambda t: t.MultiCategorical([[2, 3], [4, 5]]), r"(?s)^TorchRL's .* has no counterpart.*\(one dimension\)"),
        (lambda t: t.NonTensor((1,)), r"(?s)^TorchRL's .*NonTensor.* has no counterpart. Accepted: Unbounded, Bounded"),
        (
            lambda t: t.Composite(a=t.Unbounded((4, 2)), shape=(4,)),
            r"(?s)^TorchRL's .* has a batch dim.* shape=\(\)",
        ),
        (lambda t: t.Composite(a=t.OneHot(2)), "^One-hot specs"),
    ],
)
def test_torchrl_specs_without_counterpart(torchrl, make, message):
    with pytest.raises(TypeError, match=message):
        as_spec(make(torchrl))


def test_torchrl_specs_keep_their_device(torchrl):
    assert as_spec(torchrl.Unbounded(3, device="meta")).device.type == "meta"
    assert as_spec(torchrl.Composite(a=torchrl.Unbounded(3), device="cpu")).device.type == "cpu"


def test_the_stand_in_has_torchrls_class_tree(torchrl):
    names = [name for name, value in vars(torchrl_stand_in).items() if isinstance(value, type) and "Spec" in str(value)]
    for name in names:
        theirs, ours = ([base.__name__ for base in getattr(t, name).__mro__] for t in (torchrl, torchrl_stand_in))
        assert theirs == ours


# An environment written for another library needs only its imports changed.


def greenhouse(library, keys=data):
    """Return an environment whose body is the same whichever library its specs come from."""
    Categorical, Composite, Unbounded = library.Categorical, library.Composite, library.Unbounded  # noqa: N806

    class Greenhouse(Env):
        """Heat, cool or wait; what is hot may not be heated. State: temperature above the wanted one, K."""

        max_horizon = 64

        def __init__(self, num_envs, /, horizon=None, *, device="cpu"):
            super().__init__(num_envs, horizon, device=device)
            self.observation_spec = Composite(
                {
                    "action_mask": Categorical(2, shape=torch.Size([3]), device=device, dtype=torch.bool),
                    "hot": Categorical(2, shape=torch.Size([1]), device=device, dtype=torch.long),
                    "temperature": Unbounded(1, device=device, dtype=torch.float32),
                }
            )
            self.action_spec = Categorical(3, shape=torch.Size([1]), device=device)

        def reset(self, *, config=None):
            self.state = torch.empty(self.num_envs, 1, device=self.device).uniform_(-10, 10)
            return self.observe()

        def observe(self):
            hot = self.state > 5
            obs = {"action_mask": torch.cat([~hot, *[torch.ones_like(hot)] * 2], -1), "hot": hot.long()}
            return TensorDict({**obs, "temperature": self.state.clone()}, batch_size=self.num_envs)

        def step(self, action):
            self.state = self.state + torch.tensor([1.0, -1.0, 0.0], device=self.device)[action]
            out = {keys.OBS: self.observe(), keys.REWARDS: -self.state.abs()}
            return TensorDict(out, batch_size=self.num_envs)

    return Greenhouse


def learn(env_cls):
    algo = Algorithm(env_cls, num_envs=8, horizon=4, model_config={"hiddens": [8]})
    algo.env.validate()
    collected = algo.collect()
    assert algo.rollout.actions.shape == (4, 8, 1)
    hot = algo.rollout.obs["hot"][:4].bool()
    assert (algo.rollout.actions[hot] != 0).all()
    return torch.stack([collected["rewards/mean"], algo.step()["losses/total"]])


def test_an_environment_with_torchrls_specs_needs_no_change(torchrl):
    torch.manual_seed(5)
    ours = learn(greenhouse(specs))
    torch.manual_seed(5)
    assert torch.equal(learn(greenhouse(torchrl)), ours)


def test_no_other_library_is_loaded_for_our_own_specs():
    code = (
        "import sys; from rl8.specs import Composite, Unbounded, as_spec; as_spec({'a': Unbounded()});"
        "print(*{'gymnasium', 'torchrl'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == ""


@pytest.mark.parametrize("thing", [None, 3, "Unbounded", torch.zeros(2), Unbounded])
def test_what_is_no_spec_is_refused(thing):
    with pytest.raises(TypeError, match=r"is no spec. Accepted: Unbounded, .* or a TorchRL spec. Try rl8.specs.Un"):
        as_spec(thing)
    with pytest.raises(TypeError, match="is no spec"):
        Composite(a=thing)


def test_mappings_become_composites():
    assert as_spec({"a": Unbounded(), "b": {"c": gym.spaces.Discrete(3)}}) == Composite(
        a=Unbounded(), b=Composite(c=Categorical(3))
    )


def test_a_layout_is_checked_without_looking_at_values():
    spec = Composite(x=Bounded(0.0, 1.0, shape=(2,)), y=Categorical(3))
    spec.check_layout(TensorDict({"x": torch.full((4, 2), torch.nan), "y": torch.full((4,), 9)}, [4]), "obs")
    with pytest.raises(ValueError, match=r"obs\['x'\] has shape \(4, 1\), expected \(n, 2\)"):
        spec.check_layout(TensorDict({"x": torch.zeros(4, 1), "y": torch.zeros(4, dtype=torch.long)}, [4]), "obs")
    with pytest.raises(ValueError, match=r"obs\['y'\] has dtype torch.int32"):
        spec.check_layout(TensorDict({"x": torch.zeros(4, 2), "y": torch.zeros(4, dtype=torch.int32)}, [4]), "obs")
    with pytest.raises(ValueError, match=r"obs lacks y"):
        spec.check_layout(TensorDict({"x": torch.zeros(4, 2)}, [4]), "obs")
