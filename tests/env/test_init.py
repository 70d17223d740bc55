import inspect
from pathlib import Path

import pytest
import torch
import yaml
from accelerator import DEVICE
from tensordict.utils import assert_close

import rl8.env
from rl8.env import (
    CartPole,
    ContinuousDummyEnv,
    CueRecall,
    DiscreteDummyEnv,
    Env,
    Lander,
    MountainCar,
    Pendulum,
)

CONF = Path(__file__).parents[2] / "conf" / "env"
ENVS = {
    "cartpole": CartPole,
    "mountain_car": MountainCar,
    "pendulum": Pendulum,
    "discrete_dummy": DiscreteDummyEnv,
    "continuous_dummy": ContinuousDummyEnv,
    "cue_recall": CueRecall,
    "lander": Lander,
}

each_env = pytest.mark.parametrize("cls", ENVS.values(), ids=ENVS.keys())


def parameters(cls: type[Env]) -> dict[str, object]:
    signature = inspect.signature(cls)
    skipped = ("num_envs", "horizon", "device")
    return {name: parameter.default for name, parameter in signature.parameters.items() if name not in skipped}


def test_every_environment_is_exported():
    assert {name for name in rl8.env.__all__ if name in {cls.__name__ for cls in ENVS.values()}} == {
        cls.__name__ for cls in ENVS.values()
    }
    for name in rl8.env.__all__:
        assert hasattr(rl8.env, name)


@each_env
@pytest.mark.parametrize("num_envs", [1, 7])
def test_every_environment_keeps_the_contract(cls, num_envs):
    cls(num_envs).validate()


@each_env
def test_every_environment_keeps_the_contract_with_drawn_constants(cls):
    env = cls(5)
    values = {name: getattr(env, name).item() for name in env.parameters}
    drawn = {
        name: {"low": value - 0.1 * abs(value), "high": value + 0.1 * abs(value)} for name, value in values.items()
    }
    env.reset(config=drawn)
    assert all(getattr(env, name).shape == (5,) for name in env.parameters)
    env.validate()
    assert env.render(4).shape == (400, 600, 3)


@each_env
def test_a_seed_repeats_everything(cls):
    def play() -> torch.Tensor:
        torch.manual_seed(11)
        env = cls(6)
        obs = [env.reset()]
        obs += [env.step(env.action_spec.rand(6))["obs"] for _ in range(20)]
        return torch.stack(obs)

    assert torch.equal(play(), play())


@each_env
def test_the_state_alone_decides_what_follows(cls):
    torch.manual_seed(0)
    env, twin = cls(6), cls(6)
    env.reset()
    twin.reset()
    for _ in range(5):
        env.step(env.action_spec.rand(6))
    twin.state = env.state.clone()
    actions = env.action_spec.rand(6)
    generator = torch.get_rng_state()
    first = env.step(actions)
    torch.set_rng_state(generator)
    second = twin.step(actions)
    assert_close(first, second, rtol=0, atol=0)


@each_env
def test_values_stay_finite_over_a_long_run(cls):
    torch.manual_seed(0)
    env = cls(16)
    env.reset()
    for _ in range(500):
        result = env.step(env.action_spec.rand(16))
    env.observation_spec.check(result["obs"], "obs")
    assert torch.isfinite(result["rewards"]).all()


@each_env
def test_a_step_reads_nothing_on_the_host(cls, device):
    env = cls(4, device=DEVICE)
    env.reset()
    action = env.action_spec.rand(4)
    device.waits.clear()
    env.step(action)
    assert device.waits == []
    env.reset().sum().item()
    assert device.waits == ["aten._local_scalar_dense.default"]


@pytest.mark.cuda
@each_env
def test_a_step_can_be_captured_in_a_cuda_graph(cls):
    env = cls(64, device="cuda")
    env.validate()
    env.reset()
    action = env.action_spec.rand(64)
    start = env.state.clone()
    static = start.clone()
    env.state = static
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        env.step(action)
    torch.cuda.current_stream().wait_stream(side)
    env.state = static
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = env.step(action)
    static.copy_(start)
    graph.replay()
    env.state = start.clone()
    eager = env.step(action)
    torch.testing.assert_close(captured["rewards"], eager["rewards"])
    if cls not in (CueRecall, Lander):  # whose next episodes are drawn
        torch.testing.assert_close(captured["obs"], eager["obs"])


@pytest.mark.parametrize("name", ENVS)
def test_the_yaml_repeats_the_constructors_defaults(name):
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))["env"]
    cls = ENVS[name]
    assert config.pop("_target_") == f"rl8.env.{cls.__name__}"
    assert config == parameters(cls)
    cls(3, **config).validate()


@pytest.mark.parametrize("name", ENVS)
def test_every_key_of_the_yaml_has_a_comment(name):
    lines = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")
    section = lines_below(lines, "env:")
    assert len(section) == len(parameters(ENVS[name])) + 1
    for line in section:
        assert "  # " in line, line


def lines_below(lines: list[str], header: str) -> list[str]:
    """Return the indented lines that follow `header`."""
    start = next(index for index, line in enumerate(lines) if line.startswith(header)) + 1
    end = next((index for index in range(start, len(lines)) if not lines[index].startswith(" ")), len(lines))
    return [line for line in lines[start:end] if line.strip()]
