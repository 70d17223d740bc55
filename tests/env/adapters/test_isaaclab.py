"""With a stand-in of Isaac Lab 2.3's signatures: Isaac Sim itself has never been at hand."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import gymnasium as gym
import pytest

from rl8.env.adapters.isaaclab import IsaacLabEnv
from rl8.ppo.algorithm import Algorithm
from tests.env.adapters.tasks import Simulator

TASK = "Isaac-Stand-In-v0"


class AppLauncher:
    """Has the signature of `isaaclab.app.AppLauncher`."""

    launched = None

    def __init__(self, launcher_args=None, **kwargs):
        self.launched.append({**launcher_args, **kwargs})
        self.app = object()


def parse_env_cfg(task_name, device="cuda:0", num_envs=None, use_fabric=None):
    """Return what `isaaclab_tasks.utils.parse_env_cfg` would, as far as it is read or set."""
    return SimpleNamespace(scene=SimpleNamespace(num_envs=num_envs), sim=SimpleNamespace(device=device), seed=None)


class ManagerBasedRLEnv(Simulator, gym.Env):
    """Is constructed as Isaac Lab's class."""

    unwrapped = None

    def __init__(self, cfg, render_mode=None, **kwargs):
        super().__init__(cfg.scene.num_envs)
        self.obs["policy"] = self.obs.pop("actor")
        self.seed, self.render_mode = cfg.seed, render_mode

    def _observe(self):
        self.obs["policy"][:] = self.episode_length_buf.unsqueeze(1)
        return self.obs


@pytest.fixture
def isaaclab(monkeypatch):
    def module(name, **contents):
        made = ModuleType(name)
        made.__spec__ = ModuleSpec(name, None)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    module("isaaclab")
    module("isaaclab.app", AppLauncher=AppLauncher)
    module("isaaclab_tasks")
    module("isaaclab_tasks.utils", parse_env_cfg=parse_env_cfg)
    monkeypatch.setattr(IsaacLabEnv, "app", None)
    monkeypatch.setattr(AppLauncher, "launched", [])
    gym.register(
        TASK,
        entry_point=ManagerBasedRLEnv,
        kwargs={"env_cfg_entry_point": "somewhere:Cfg"},
        disable_env_checker=True,
        order_enforce=False,
    )
    yield
    del gym.registry[TASK]


@pytest.mark.usefixtures("isaaclab")
def test_a_task_trains():
    def env(n, horizon, *, device):
        return IsaacLabEnv(n, horizon, device=device, task=TASK)

    algorithm = Algorithm(env, num_envs=4, horizon=8, horizons_per_env_reset=-1)
    assert algorithm.env.groups == ["policy"]
    assert algorithm.env.base.seed is not None
    algorithm.collect()
    algorithm.step()
    assert AppLauncher.launched == [{"headless": True, "device": "cpu"}]
    algorithm.env.close()
    assert algorithm.env.base.closed


@pytest.mark.usefixtures("isaaclab")
def test_isaac_sim_starts_once_with_what_it_is_told():
    for _ in range(2):
        IsaacLabEnv(2, task=TASK, launcher={"enable_cameras": True})
    assert AppLauncher.launched == [{"headless": True, "device": "cpu", "enable_cameras": True}]


@pytest.mark.usefixtures("isaaclab")
def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=f"Unknown task in env.task 'Isaac-Stand-v0'. Did you mean '{TASK}'"):
        IsaacLabEnv(2, task="Isaac-Stand-v0")
    with pytest.raises(ValueError, match=r"env.render_mode='human' is unknown. Accepted: rgb_array"):
        IsaacLabEnv(2, task=TASK, render_mode="human")


def test_isaac_sims_names_of_devices():
    from rl8.env.adapters.isaaclab import _place

    assert [_place(device) for device in (None, "cpu", "cuda", "cuda:1")] == ["cpu", "cpu", "cuda:0", "cuda:1"]
