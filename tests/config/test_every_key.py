"""No value that is typed has no effect: every key of every option is changed, one at a time, and a short run compared.

It must change the weights, the files, what is recorded or what is shown, or stand on a list with the reason.
"""

import contextlib
import copy
import functools
import io

import pytest
from omegaconf import OmegaConf

from rl8 import launch
from rl8.config import effects
from rl8.config.catalog import GROUPS, defaults, options, prepare
from rl8.config.compose import checked, composer
from rl8.config.schema import check
from rl8.guest import torch_settings
from rl8.view import plots

SMALL = ("network.hiddens=[8]", "algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=8",
         "algo.num_sgd_iters=2", "algo.clip_param=0.001", "algo.max_grad_norm=0.01", "algo.horizons_per_env_reset=2",
         "goal.env_steps=32", "trainer.steps_per_eval=null", "trainer.eval_horizon=null", "trainer.eval_num_envs=4",
         "trainer.render=false", "trainer.view=none", "trainer.experiment_name=walk")  # fmt: skip
EVALUATES = ("trainer.steps_per_eval=1",)
# What each option needs to run for so short a time, and to let its keys act.
OWN = {
    "stop=plateau": ("stop.patience=1", "stop.rtol=0.001", "goal.env_steps=64"),
    "stop=target": ("goal.target=0.5", *EVALUATES),
    "stop=wall_time": ("stop.seconds=1000",),
    "env=mountain_car": ("trainer.env_config=null", "env.start_low=-0.5", "env.start_high=0.4", "env.goal_position=0.3",
                         "env.gravity=0.01"),
    "env=lander": ("env.max_episode_steps=3", "algo.horizons_per_env_reset=-1"),
    "env=cue_recall": ("env.delay=1", "network.seq_len=4"),
    **{f"model={name}": ("env=pendulum",) for name in ("mlp", "transformer")},
    **{f"model={name}": ("env=pendulum", "algo=recurrent", "algo.seq_len=2", "model.hiddens=[4]", "model.hidden_size=4",
                         "algo.horizons_per_env_reset=-1") for name in ("lstm", "gru")},
    **{f"distribution={name}": ("env=pendulum",) for name in ("normal", "squashed_normal")},
}  # fmt: skip
# What is typed where twice the number, or the opposite, would be refused or mean the same.
VALUES = {
    "algo.gamma": 0.5, "algo.gae_lambda": 0.5, "algo.horizons_per_env_reset": 1, "algo.sgd_minibatch_size": 4,
    "algo.clip_param": 0.5, "algo.dual_clip_param": 1.001, "algo.vf_clip_param": 0.001, "algo.entropy_coeff": 0.5,
    "algo.target_kl_div": 1e-9, "algo.max_grad_norm": 100.0, "algo.lr_schedule": [[0, 0.002], [16, 1e-6]],
    "algo.lr_schedule_kind": "step", "algo.entropy_coeff_schedule": [[0, 1.0]], "algo.amp_dtype": "fp16",
    "algo.entropy_coeff_schedule_kind": "interp", "algo.seqs_per_state_reset": 1, "algo.seq_len": 2,
    "algo.vf_huber_delta": 0.1, "algo.critic_lr": 1e-2, "algo.clip_rewards": 0.5, "algo.clip_obs": 0.1,
    "algo.desired_kl": 1e-9, "algo.min_lr": 1e-3, "algo.max_lr": 2.5e-3,
    "algo.bootstrap": "none", "algo.schedules.lr": [[0, 0.002], [16, 1e-6]], "algo.schedules.vf_coeff": [[16, 0.1]],
    "algo.schedules.entropy_coeff": [[0, 0.5], [32, 1.0]], "algo.schedules.clip_param": [[0, 0.5], [32, 0.1]],
    "algo.schedules.vf_clip_param": [[0, 0.001], [32, 1e-4]],
    "algo.schedules.dual_clip_param": [[0, 1.01], [32, 1.001]],
    "network.hiddens": [4], "network.activation": "tanh", "network.seq_len": 2, "network.log_std": 1.0,
    "model.log_std": 1.0,
    "model.hidden_gain": 2.0,
    "model.head_hiddens": [5],
    "model.hiddens": [5], "model.activation": "tanh", "model.num_heads": 2, "model.window": 2, "model.num_layers": 3,
    "env.integrator": "semi-implicit", "env.start_std": 0.5, "env.max_touch_speed": 1e6, "env.pad": 1e3,
    "env.bounds": 3.0, "env.goal_position": -0.3, "env.goal_velocity": -1.0, "env.min_position": -1.19,
    "env.max_position": 0.4, "env.max_speed": 0.001, "env.start_low": 0.1, "env.start_high": -0.45,
    "goal.env_steps": 16, "goal.target": -1e6,
    "trainer.experiment_name": "other", "trainer.run_name": "mine", "trainer.view": "plain",
    "trainer.steps_per_eval": 1, "trainer.eval_horizon": 3, "trainer.env_config": {"start_std": 1.0},
    "trainer.eval_env_config": {"start_std": 1.0}, "trainer.minutes_per_checkpoint": 1e-9,
    "trainer.steps_per_checkpoint": 1, "trainer.steps_per_video": 1, "trainer.keep_checkpoints": 1,
    "trainer.best_metric": None,
    "trainer.on_nonfinite": "skip", "trainer.output_dir": "elsewhere", "trainer.resume": "before",
    "trainer.branch": "before", "trainer.init_from": "before", "seed": 7,
    "stop.key": "coefficients/vf", "stop.patience": 2, "stop.rtol": 1e9, "stop.atol": 1e9, "stop.upper_bound": -1e6,
    "stop.seconds": 1e-9, "stop.env_steps": 16,
}  # fmt: skip
# What makes a key act.
WITH = {
    "algo.entropy_coeff_schedule_kind": ("algo.entropy_coeff_schedule=[[0,1.0],[32,0.0]]",),
    "algo.amp_dtype": ("algo.enable_amp=true",),
    "algo.schedules.lr": ("algo.lr_schedule=null",),
    "algo.desired_kl": ("algo.lr_schedule=null",),
    "algo.clip_obs": ("algo.normalize_obs=true",),
    "algo.min_lr": ("algo.lr_schedule=null", "algo.desired_kl=1e-9"),
    "algo.max_lr": ("algo.lr_schedule=null", "algo.desired_kl=1e9"),
    "algo.seq_len": ("algo=recurrent", "algo.horizons_per_env_reset=-1"),
    "algo.seqs_per_state_reset": ("algo=recurrent", "algo.seq_len=1", "algo.horizons_per_env_reset=-1"),
    "algo.bootstrap": ("env=lander", "env.max_episode_steps=2"),
    "algo.random_initial_ages": ("env=lander", "env.max_episode_steps=8"),
    "network.seq_len": ("algo=recurrent", "algo.horizons_per_env_reset=-1"),
    "network.log_std": ("env=pendulum",),
    "goal.target": ("stop=target", "goal.target=0.5", *EVALUATES),
    "trainer.keep_checkpoints": ("trainer.steps_per_checkpoint=1",),
    "trainer.best_metric": EVALUATES,
    "trainer.eval_deterministic": EVALUATES,
    "trainer.resume": ("goal.env_steps=48",),
    "trainer.branch": ("goal.env_steps=48",),
    "env.goal_velocity": ("env.goal_position=-0.3",),
    "env.min_position": ("env.start_low=-1.18", "env.start_high=-1.1", "env.gravity=-0.05"),
    "env.max_position": ("env.start_low=0.39", "env.gravity=-0.05"),
    "env.pad": ("env.gravity=200.0", "env.max_touch_speed=1e6"),
    "env.max_touch_speed": ("env.gravity=200.0", "env.pad=1e3"),
    "stop.patience": ("stop.rtol=1e9",),
}
# What a short run on a CPU can't show, and where it is shown.
ELSEWHERE = {
    **effects.ACCEPTED,
    "trainer.tensorboard": "an extra: tests/tracking/test_writers.py",
    "trainer.wandb": "an extra: tests/tracking/test_writers.py",
    "trainer.seconds_per_log": "acts in longer runs: tests/tracking/test_thinning.py",
    "model.images": "no environment here has images: tests/models/test_recurrent.py",
    "model.layout": "no environment here has images: tests/models/test_recurrent.py",
    "model.policy_obs": "observations here have no entries: tests/models/test_mlp.py",
    "model.value_obs": "observations here have no entries: tests/models/test_mlp.py",
    "model.min_std": "a limit that a short run does not reach: tests/nn/test_heads.py",
    "model.max_std": "a limit that a short run does not reach: tests/nn/test_heads.py",
    "device.device": "there is a CPU only: tests/execution",
    "device.graphs": "refused on a CPU: tests/config/test_effects.py",
    "device.kernels": "there is a CPU only: tests/execution/kernels",
    "device.processes": "starts others that train: tests/parallel",
    "device.max_restarts": "starts another that trains: tests/parallel",
    "device.patience_s": "refused with one process: tests/config/test_effects.py",
    "device.compile": "how fast, not what: tests/execution",
    "device.matmul_precision": "a CPU computes in float32: tests/execution",
    "trainer.experiment_name": None, "trainer.run_name": None, "trainer.view": None,
}  # fmt: skip
LEFT_OUT = {
    "algo=recurrent": "the keys of algo=ppo, with other defaults",
    "device=cuda": "tests/execution",
    **{f"experiment={name}": "has no keys of its own" for name in options("experiment")},
    "stop=never": "has no keys, and never ends: tests/test_conditions.py",
    "distribution=auto": "has no keys",
    "distribution=categorical": "what auto takes for these actions: has no keys",
    **{f"model={name}": "no environment here has images: tests/models/test_images.py" for name in ("cnn", "impala")},
    **{
        f"env={name}": "another package: tests/env/adapters"
        for name in ("envpool", "gymnasium", "isaaclab", "mjlab", "playground")
    },
}
WALKED = [f"{group}={option}" for group in GROUPS for option in options(group) if f"{group}={option}" not in LEFT_OUT]


class Record:
    """Stands for MLflow: keeps what would be recorded, times and amounts of memory left out."""

    run_id, run_name, place, where, record = "1", "one", "", "", {"run_id": "1"}

    def __init__(self, said):
        self.said, self.logged = said, []

    def log_metrics(self, metrics, step):
        self.logged.append(
            [step, sorted(item for item in metrics.items() if not item[0].startswith(("profiling", "memory")))]
        )

    def unsent(self):
        return []

    def ignore(self, *arguments, **options):
        pass

    log_artifact = set_tag = finish = send_again = ignore


@pytest.fixture(autouse=True)
def _program(program, monkeypatch):
    monkeypatch.setattr(plots, "learning_curve", lambda *arguments, **options: None)
    with composer():
        yield
    prepare()


@functools.cache
def composed(words):
    return checked(words)


def outcome(monkeypatch, folder, words, key=None, value=None):
    """Train for two iterations; return all that may differ."""
    cfg, reference = composed((*SMALL, *words))
    cfg = copy.deepcopy(cfg)
    if key is not None:
        OmegaConf.update(cfg, key, value, merge=False)
    plan, records, shown = check(cfg, reference, [key] if key else []), [], io.StringIO()

    def start(**said):
        left = {"params", "folder", "tags"}
        tags = {name: text for name, text in said["tags"].items() if name not in ("folder", "stop")}
        records.append(Record([tags, {name: said[name] for name in said if name not in left}]))
        return records[-1]

    monkeypatch.setattr("rl8.tracking.run.Tracker.start", start)
    with torch_settings(), contextlib.redirect_stdout(shown):
        trainer = launch.build(plan, folder)
        trainer.run()
    return {
        "weights": [weight.tolist() for weight in trainer.algorithm.policy.parameters()],
        "files": sorted(path.name for path in folder.rglob("*")),
        "record": [[record.said, record.logged] for record in records],
        "shown": bool(shown.getvalue()),
    }


def keys(tree, prefix):
    for name, value in tree.items():
        if name != "_target_":
            yield from keys(value, f"{prefix}{name}.") if OmegaConf.is_dict(value) else [f"{prefix}{name}"]


def changed(key, value):
    if key in VALUES:
        return VALUES[key]
    return not value if isinstance(value, bool) else value * 2


def without_effect(monkeypatch, folder, words, names):
    """Return the keys whose change changes nothing."""
    before = {(): outcome(monkeypatch, folder / "before", words)}
    monkeypatch.chdir(folder)
    found = []
    for number, key in enumerate(names):
        if ELSEWHERE.get(key):
            continue
        more = WITH.get(key, ())
        if more not in before:
            before[more] = outcome(monkeypatch, folder / f"with {number}", (*words, *more))
        value = changed(key, OmegaConf.select(composed((*SMALL, *words, *more))[0], key))
        if outcome(monkeypatch, folder / str(number), (*words, *more), key, value) == before[more]:
            found.append(key)
    return found


@pytest.mark.parametrize("option", WALKED)
def test_every_key_of_an_option_acts(option, monkeypatch, workdir):
    group = option.partition("=")[0]
    words = (option, *OWN.get(option, ()))
    names = list(keys(composed((*SMALL, *words))[0][group], f"{group}."))
    assert without_effect(monkeypatch, workdir, words, names) == []


def test_every_key_that_belongs_to_no_option_acts(monkeypatch, workdir):
    cfg = composed(SMALL)[0]
    names = [*keys(cfg.network, "network."), *keys(cfg.goal, "goal."), "seed"]
    assert {str(key) for key in cfg} == {*GROUPS, "network", "goal", "seed", "hydra"} - {"experiment"}
    assert without_effect(monkeypatch, workdir, (), names) == []


def test_what_is_left_out_is_there():
    assert LEFT_OUT.keys() <= {f"{group}={option}" for group in GROUPS for option in options(group)}
    assert defaults().keys() <= set(GROUPS)
