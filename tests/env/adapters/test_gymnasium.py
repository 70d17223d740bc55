import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rl8.env import CartPole
from rl8.env.adapters.gymnasium import GymnasiumEnv, VectorEnv, one_of
from rl8.env.adapters.manager import ManagerEnv
from rl8.ppo.algorithm import Algorithm
from rl8.specs import Bounded, Categorical, Composite, MultiCategorical, Unbounded
from rl8.use.evaluate import evaluate
from tests.env.adapters.tasks import Count, Echo, Overwrites, count_vec

MODES = ("SAME_STEP", "NEXT_STEP", "DISABLED")
KEYS = ("rewards", "terminated", "truncated")


def transitions(env, steps):
    """Return each environment's real transitions: observation, reward, whether and how it ended, and what followed."""
    obs, found = env.reset().clone(), [[] for _ in range(env.num_envs)]
    for _ in range(steps):
        out = env.step(torch.zeros(env.num_envs, dtype=torch.int64)).clone()
        keys = set(out.keys())
        for row in range(env.num_envs):
            if "filler" in keys and out["filler"][row]:
                continue
            terminated, truncated = (key in keys and bool(out[key][row]) for key in ("terminated", "truncated"))
            following = out["final_obs"] if truncated else out["obs"]
            after = None if terminated else tuple(following[row].tolist())
            found[row].append((tuple(obs[row].tolist()), out["rewards"][row].item(), terminated, truncated, after))
        obs = out["obs"]
    return found


# Worked by hand from `Count`: environment 0 is truncated after 2 steps, environment 1 terminated after 3.
FIRST = [
    ((0, 0), 0, False, False, (0, 1)),
    ((0, 1), 1, False, True, (0, 2)),
    ((1, 0), 10, False, False, (1, 1)),
    ((1, 1), 11, False, True, (1, 2)),
]
SECOND = [
    ((0, 0), 0, False, False, (0, 1)),
    ((0, 1), 1, False, False, (0, 2)),
    ((0, 2), 2, True, False, None),
    ((1, 0), 10, False, False, (1, 1)),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv])
def test_every_way_of_beginning_anew_gives_the_same_transitions(mode, kind):
    env = VectorEnv(count_vec(mode, kind))
    first, second = transitions(env, 6)
    env.close()
    assert first[:4] == FIRST
    assert second[:4] == SECOND


SAME_STEP = gym.vector.AutoresetMode.SAME_STEP


@pytest.mark.parametrize(
    "made",
    [
        lambda: VectorEnv(gym.vector.SyncVectorEnv([lambda: Overwrites(end="truncated")], autoreset_mode=SAME_STEP)),
        lambda: VectorEnv(one_of(Overwrites(end="truncated"))),
        lambda: GymnasiumEnv(1, id="Overwrites-v0"),
        lambda: GymnasiumEnv(1, id="Overwrites-v0", vectorization="async"),
    ],
    ids=["given", "one", "sync", "async"],
)
def test_a_last_observation_outlives_a_reset_that_writes_to_its_place(made, monkeypatch):
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    options = {"end": "truncated"}
    gym.register("Overwrites-v0", "tests.env.adapters.tasks:Overwrites", kwargs=options, disable_env_checker=True)
    env = made()
    assert transitions(env, 4)[0] == FIRST
    env.close()


def test_no_step_is_spent_on_a_reset_unless_the_library_does_so():
    counts = {mode: [len(found) for found in transitions(VectorEnv(count_vec(mode)), 6)] for mode in MODES}
    # episodes of 2 and 3 steps: a reset after each is the third and fourth step
    assert counts == {"SAME_STEP": [6, 6], "DISABLED": [6, 6], "NEXT_STEP": [4, 5]}


@pytest.mark.parametrize("mode", MODES)
def test_advantages_bootstrap_from_the_true_last_observation(mode):
    algorithm = Algorithm(
        lambda n, horizon, *, device: VectorEnv(count_vec(mode), horizon, device=device),
        num_envs=2,
        horizon=4,
        horizons_per_env_reset=-1,
        gamma=0.5,
        gae_lambda=0.0,
        normalize_rewards=False,
        normalize_advantages=False,
        num_sgd_iters=1,
    )

    def value(*obs):
        return algorithm.policy.values(torch.tensor([[obs]], dtype=torch.float32))[0, 0].item()

    algorithm.collect()
    # before the update moves them; with lambda = 0: reward + gamma * value of what followed - value
    v = {obs: value(*obs) for obs in ((0, 0), (0, 1), (0, 2), (1, 0))}
    algorithm.works.prepare()
    advantages = algorithm.rollout.advantages
    first = [0 + 0.5 * v[0, 1] - v[0, 0], 1 + 0.5 * v[0, 2] - v[0, 1]]  # truncated: the value of (0, 2), not of (1, 0)
    second = [0 + 0.5 * v[0, 1] - v[0, 0], 1 + 0.5 * v[0, 2] - v[0, 1], 2 - v[0, 2]]  # terminated: nothing follows
    torch.testing.assert_close(advantages[:2, 0].tolist(), first, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(advantages[:3, 1].tolist(), second, rtol=1e-5, atol=1e-6)


def test_what_a_filler_holds_changes_nothing():
    gradients = []
    for garbage in (0.0, 1e3):
        torch.manual_seed(0)
        algorithm = Algorithm(
            lambda n, horizon, *, device: VectorEnv(count_vec("NEXT_STEP"), horizon, device=device),
            num_envs=2,
            horizon=6,
            horizons_per_env_reset=-1,
            normalize_obs=True,
            entropy_coeff=0.1,
            num_sgd_iters=1,
        )
        algorithm.collect()
        rollout = algorithm.rollout
        fillers = rollout.weights == 0
        # environment 0 spends steps 2 and 5 on a reset, environment 1 step 3
        assert fillers.nonzero().tolist() == [[2, 0], [3, 1], [5, 0]]
        assert algorithm.env_steps == 12 - 3
        # values follow from observations, which the next step's may not share: change what only the filler has
        rollout.obs[:-1][fillers] += garbage
        rollout.logp[fillers] -= min(garbage, 1.0)
        rollout.values[:-1][fillers] += garbage
        metrics = algorithm.step()
        counted = rollout.advantages[~fillers]
        assert counted.mean().item() == pytest.approx(0, abs=1e-5)
        assert counted.std(correction=0).item() == pytest.approx(1, abs=1e-3)
        gradients.append([parameter.grad.clone() for parameter in algorithm.parameters])
        gradients.append([value for name, value in metrics.items() if name != "monitors/grad_norm"])
        moments = algorithm.policy.normalizers[0].moments
        gradients.append([moments.mean.clone(), moments.count.clone()])
        assert moments.count == 9
    for one, other in zip(gradients[:3], gradients[3:], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (gym.spaces.Box(0, 255, (4, 5, 3), np.uint8), Bounded(0, 255, (4, 5, 3), dtype=torch.uint8)),
        (gym.spaces.Box(-1, 1, (3,), np.float64), Unbounded(3)),
        (gym.spaces.Discrete(5, start=2), Categorical(5)),
        (gym.spaces.MultiDiscrete([2, 3], start=[1, -1]), MultiCategorical([2, 3])),
        (
            gym.spaces.Dict(image=gym.spaces.Box(0, 255, (2, 2), np.uint8), at=gym.spaces.Discrete(3)),
            Composite(image=Bounded(0, 255, (2, 2), dtype=torch.uint8), at=Categorical(3)),
        ),
        (
            gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Discrete(2)]),
            Composite({"0": Categorical(3), "1": Categorical(2)}),
        ),
    ],
    ids=["image", "box", "discrete", "multi-discrete", "dict", "tuple"],
)
@pytest.mark.parametrize("mode", MODES)
def test_observations_of_every_kind(space, spec, mode):
    makers = [lambda: Echo(space, gym.spaces.Discrete(2))] * 2
    env = VectorEnv(gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode[mode]))
    assert set(env.observation_spec) == set(spec) if isinstance(spec, Composite) else env.observation_spec == spec
    env.validate()  # shapes, types and ranges of observations and final observations
    algorithm = Algorithm(lambda n, horizon, *, device: env, num_envs=2, horizon=8, horizons_per_env_reset=-1)
    algorithm.collect()
    algorithm.step()


@pytest.mark.parametrize(
    ("space", "chosen", "given"),
    [
        (gym.spaces.Box(-1, 2, (2,), np.float64), torch.tensor([[-5.0, 5.0]]), np.array([-1.0, 2.0])),
        (gym.spaces.Discrete(3, start=-1), torch.tensor([0]), np.int64(-1)),
        (gym.spaces.MultiDiscrete([2, 3], start=[1, 0]), torch.tensor([[0, 2]]), np.array([1, 2])),
        (gym.spaces.MultiBinary(2), torch.tensor([[1, 0]], dtype=torch.int8), np.array([1, 0], dtype=np.int8)),
    ],
    ids=["box", "discrete", "multi-discrete", "binary"],
)
def test_actions_are_clipped_and_shifted_at_the_door(space, chosen, given):
    task = Echo(Count.observation_space, space)
    env = VectorEnv(one_of(task))
    env.reset()
    before = chosen.clone()
    env.step(chosen)
    assert torch.equal(chosen, before)
    np.testing.assert_array_equal(task.given[0], given)
    assert np.asarray(task.given[0]).dtype == space.dtype


def test_a_dictionary_of_actions():
    space = gym.spaces.Dict(push=gym.spaces.Box(-1, 1, (1,)), gear=gym.spaces.Discrete(3, start=1))
    task = Echo(Count.observation_space, space)
    env = VectorEnv(one_of(task))
    env.reset()
    env.step(TensorDict({"push": torch.tensor([[3.0]]), "gear": torch.tensor([2])}, [1]))
    assert task.given[0]["push"].tolist() == [1.0]
    assert task.given[0]["gear"] == 3


def test_the_runs_seed_decides_everything():
    def rewards(seed):
        torch.manual_seed(seed)
        algorithm = Algorithm(GymnasiumEnv, num_envs=2, horizon=16)
        algorithm.collect()
        algorithm.step()
        algorithm.collect()
        return algorithm.rollout.obs.clone()

    assert torch.equal(rewards(1), rewards(1))
    assert not torch.equal(rewards(1), rewards(2))


def test_wrappers_by_dotted_name():
    wrappers = [
        {"_target_": "gymnasium.wrappers.TimeLimit", "max_episode_steps": 3},
        "gymnasium.wrappers.vector.RecordEpisodeStatistics",
    ]
    env = GymnasiumEnv(2, id="Pendulum-v1", kwargs={"g": 3.0}, wrappers=wrappers)
    env.reset()
    ends = ["truncated" in set(env.step(torch.zeros(2, 1)).keys()) for _ in range(3)]
    assert ends == [False, False, True]
    assert type(env.vec).__name__ == "RecordEpisodeStatistics"
    assert env.vec.unwrapped.get_attr("g") == (3.0, 3.0)
    env.validate()


def test_a_tasks_own_vectorized_class():
    env = GymnasiumEnv(3, id="CartPole-v1", vectorization="own")
    assert type(env.vec).__name__ == "CartPoleVectorEnv"
    assert env.autoreset == "next_step"
    env.validate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "CartPol-v1"}, r"env.id=CartPol-v1 can't be made: .* Did you mean env.id=CartPole-v1\?"),
        ({"vectorization": "threads"}, "env.vectorization='threads' is unknown. Accepted: sync, async, own"),
        (
            {"wrappers": ["TimeLimit"]},
            r"env.wrappers.0=TimeLimit is no wrapper.* Try env.wrappers=\[gymnasium.wrappers.TimeLimit\]",
        ),
        ({"wrappers": "a.B"}, r"env.wrappers=a.B is no list.* Try env.wrappers=\[a.B\]"),
        ({"wrappers": ["math.pi"]}, "env.wrappers.0=math.pi is no class but 3.14.* Accepted: a wrapper's class"),
        (
            {"wrappers": ["gymnasium.wrappers.FrameStackObservation"]},
            r"env.wrappers.0=gymnasium.wrappers.FrameStackObservation can't be made: .* It takes stack_size \(needed\)",
        ),
        (
            {"wrappers": [{"_target_": "rl8.env.adapters.wrappers.SeenEntries", "entries": [9]}]},
            r"env.wrappers.0=.*entries: \[9\]} can't be made: entries=\[9\] are no places of 4 numbers",
        ),
        (
            {"kwargs": {"gravity": 3}},
            r"env.kwargs={gravity: 3} can't be made: .* Accepted in env.kwargs: .*render_mode",
        ),
        (
            {"kwargs": {"render_mode": "rgb"}},
            r"render_mode: rgb} is none that CartPole-v1 has. Accepted: human, rgb_array",
        ),
        ({"vectorization": "own", "id": "Pendulum-v1"}, r"can't be made: .* Try env.vectorization=sync\.$"),
        ({"id": "CartPol-v7"}, r"Did you mean env.id=CartPole-v1\?$"),
        ({"id": "Maze-v0"}, r"A module that registers tasks is named before a colon: env.id=module:Name-v0"),
        ({"id": "no_module:CartPole-v1"}, r"registration and can be imported\.$"),
        ({"kwargs": 3}, "env.kwargs=3 is no mapping.* Try env.kwargs=null"),
        ({"id": "ALE/Pong-v5"}, r"A module that registers tasks is named before a colon: env.id=module:Name-v0"),
        ({"wrappers": ["gymnasium.wrappers.Nothing"]}, "env.wrappers.0=gymnasium.wrappers.Nothing can't be found"),
        (
            {"vectorization": "own", "wrappers": ["gymnasium.wrappers.FlattenObservation"]},
            "env.vectorization=own has no single environments to wrap",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is not in the possible render_modes")
def test_mistakes_are_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        GymnasiumEnv(2, **options)


def test_a_wrapper_that_takes_a_tuple_takes_a_list():
    wrappers = [{"_target_": "gymnasium.wrappers.ReshapeObservation", "shape": [2, 2]}]
    assert GymnasiumEnv(2, wrappers=wrappers).observation_spec.shape == (2, 2)


def test_an_installed_package_registers_its_tasks(monkeypatch, tmp_path):
    offer = tmp_path / "counting-1.0.dist-info"
    offer.mkdir()
    (offer / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (offer / "entry_points.txt").write_text("[gymnasium.envs]\nCounting = counting_tasks:register\n")
    (tmp_path / "counting_tasks.py").write_text(
        "import gymnasium\n\ndef register():\n"
        "    gymnasium.register('Counting/Count-v0', entry_point='tests.env.adapters.tasks:Count')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert GymnasiumEnv(2, id="Counting/Count-v0").action_spec == Categorical(2)
    gym.registry.pop("Counting/Count-v0")


def test_a_vector_environment_must_say_how_it_begins_anew():
    vec = count_vec("SAME_STEP")
    vec.metadata = {}
    with pytest.raises(ValueError, match="SyncVectorEnv does not say how it begins anew"):
        VectorEnv(vec)
    assert VectorEnv(vec, autoreset="same_step").autoreset == "same_step"
    with pytest.raises(ValueError, match="autoreset='sometimes' is unknown"):
        VectorEnv(vec, autoreset="sometimes")


def test_pictures_where_it_was_made_to_draw():
    env = VectorEnv(count_vec("SAME_STEP"))
    assert not env.has_pictures
    with pytest.raises(NotImplementedError, match="VectorEnv has no pictures"):
        env.render()
    env.vec.render_mode = "rgb_array"
    upside_down = np.stack([np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)])[:, ::-1]  # as MuJoCo has it
    env.vec.render = lambda: tuple(upside_down)
    assert env.has_pictures
    assert torch.as_tensor(env.render(1)).all()


def test_episodes_are_evaluated_though_ends_are_reported_only_where_they_are():
    env = GymnasiumEnv(2, id="CartPole-v1")
    policy = Algorithm(lambda n, horizon, device: GymnasiumEnv(n, horizon, device=device), num_envs=2, horizon=8).policy
    sample = evaluate(policy.eval(), env, steps=1, episodes=3)
    assert sample.returns == sample.lengths  # a reward of 1 per step
    env.close()


def test_a_step_between_two_episodes_is_no_step_of_an_evaluated_one():
    def made(n, horizon=None, *, device=None):
        return VectorEnv(count_vec("NEXT_STEP"), horizon, device=device)

    policy = Algorithm(made, num_envs=2, horizon=8).policy
    assert evaluate(policy.eval(), made(2), steps=1, episodes=6).lengths == [2, 3, 2, 3, 2, 3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"kwargs": {"render_mode": "rgb_array"}}),
        ({"id": "a", "kwargs": {"g": 3}}, {"id": "a", "kwargs": {"g": 3, "render_mode": "rgb_array"}}),
        ({"kwargs": {"render_mode": "rgb_array_list"}}, {"kwargs": {"render_mode": "rgb_array_list"}}),
    ],
)
def test_a_film_asks_the_library_for_pictures(options, expected):
    given = copy.deepcopy(options)
    assert GymnasiumEnv.made_to_draw(options) == expected
    assert options == given
    assert ManagerEnv.made_to_draw({"groups": None}) == {"groups": None, "render_mode": "rgb_array"}
    assert CartPole.made_to_draw(options) is options


def test_a_library_that_can_not_draw_is_named():
    env = GymnasiumEnv(1, id="CartPole-v1", kwargs={"render_mode": "rgb_array"})
    env.vec.render = lambda: (_ for _ in ()).throw(gym.error.DependencyNotInstalled("pygame is not installed"))
    with pytest.raises(ValueError, match=r"^env.id=CartPole-v1, .* can't be drawn: pygame is not installed"):
        env.render()
    env.close()


def test_a_first_reset_that_fails_is_one_message_with_the_line():
    env = GymnasiumEnv(1, id="CartPole-v1")

    def disconnected(**options):
        raise RuntimeError("no robot is connected")

    env.vec.reset = disconnected
    expected = (
        r"^env.id=CartPole-v1 can't be reset: RuntimeError: no robot is connected \(test_gymnasium.py, line \d+\)\.$"
    )
    with pytest.raises(ValueError, match=expected):
        env.reset()
    with pytest.raises(RuntimeError, match="no robot"):  # while training, with its traceback
        env.reset()
    env.close()
