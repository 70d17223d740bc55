import pytest

from rl8 import launch
from rl8.config import effects
from rl8.config.catalog import prepare
from rl8.config.compose import checked, composer
from rl8.config.overrides import typed
from rl8.config.schema import check

BASE = ["algo.num_envs=4", "algo.horizon=4", "algo.sgd_minibatch_size=8", "algo.num_sgd_iters=2", "network.hiddens=[8]",
        "trainer.track=false", "trainer.view=none", "trainer.render=false", "goal.env_steps=64",
        "algo.horizons_per_env_reset=2"]  # fmt: skip


def plan(*words):
    with composer():
        return check(*checked(words), typed(words))


@pytest.fixture(autouse=True)
def _program(program):
    """Be the program in an empty folder."""
    yield
    prepare()


@pytest.mark.parametrize(
    ("words", "key", "reason"),
    [
        (["algo.amp_dtype=fp16"], "algo.amp_dtype", "algo.enable_amp is false"),
        (["algo.entropy_coeff_schedule_kind=interp"], "algo.entropy_coeff_schedule_kind", "schedule is null"),
        (["algo.lr_schedule=null", "algo.lr_schedule_kind=step"], "algo.lr_schedule_kind", "algo.lr_schedule is null"),
        (
            ["algo.clip_param=0.5", "algo.schedules.clip_param=[[0,0.1]]"],
            "algo.clip_param",
            "schedules.clip_param",
        ),
        (["algo.entropy_coeff=0.5", "algo.entropy_coeff_schedule=[[0,0.01]]"], "algo.entropy_coeff", "from env step 0"),
        (
            ["algo.shuffle_minibatches=false", "algo.sgd_minibatch_size=null"],
            "algo.shuffle_minibatches",
            "one minibatch",
        ),
        (["device.graphs=false"], "device.graphs", "a CPU has no CUDA graphs"),
        (["device.patience_s=5"], "device.patience_s", "one process waits for no other"),
        (["network.seq_len=2"], "network.seq_len", "nothing refers to it with algo._target_=rl8.ppo.algorithm.Algo"),
        (["model=transformer", "network.hiddens=[9]"], "network.hiddens", "TransformerModel"),
        (["model.hiddens=[4]", "network.hiddens=[9]"], "network.hiddens", "nothing refers to it"),
        (["goal.target=-3"], "goal.target", "stop._target_=rl8.conditions.EnvSteps"),
        (["model.hidden_gain=2", "network.hiddens=[]"], "model.hidden_gain", "model.hiddens has no layers"),
        (["algo=recurrent", "model.hidden_gain=2"], "model.hidden_gain", "model.hiddens and model.head_hiddens have"),
        (["algo=recurrent", "model.activation=tanh"], "model.activation", "model.hiddens and model.head_hiddens have"),
        (
            ["algo=recurrent", "network.activation=tanh"],
            "network.activation",
            "model.hiddens and model.head_hiddens have",
        ),
        (["model=transformer", "network.activation=tanh"], "network.activation", "TransformerModel"),
        (["model=transformer", "model.layout=last"], "model.layout", "model.images is null"),
        (["network.log_std=1"], "network.log_std", "these actions have no standard deviation"),
        (["model.state_dependent_std=true"], "model.state_dependent_std", "these actions have no standard deviation"),
        (["model.min_std=0.1"], "model.min_std", "these actions have no standard deviation"),
        (["algo.max_lr=0.1"], "algo.max_lr", "algo.desired_kl is null"),
        (["algo.clip_obs=5"], "algo.clip_obs", "algo.normalize_obs is false"),
        (
            ["algo.normalize_advantages_per_minibatch=true", "algo.normalize_advantages=false"],
            "algo.normalize_advantages_per_minibatch",
            "algo.normalize_advantages is false",
        ),
        (
            ["algo.desired_kl=0.1", "algo.num_sgd_iters=1", "algo.sgd_minibatch_size=null", "algo.lr_schedule=null"],
            "algo.desired_kl",
            "one optimizer step",
        ),
        (
            ["algo.target_kl_div=0.1", "algo.num_sgd_iters=1", "algo.accumulate_grads=true"],
            "algo.target_kl_div",
            "one optimizer step",
        ),
        (
            ["algo.entropy_coeff=0", "algo.schedules.entropy_coeff=linear"],
            "algo.schedules.entropy_coeff",
            "algo.entropy_coeff is 0, and stays so",
        ),
        (["algo.bootstrap=none"], "algo.bootstrap", "no time limit ends an episode"),
        (["algo.seqs_per_state_reset=4"], "algo.seqs_per_state_reset", "the policy carries no state"),
    ],
)
def test_a_typed_key_without_effect_has_a_reason(tmp_path, words, key, reason):
    found = launch.rehearse(plan(*BASE, *words), tmp_path).idle
    assert reason in found[key]
    assert effects.refusal({key: reason}).startswith(f"What was typed would have no effect. {key}: {reason}. Accepted")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trainer.track=true", "trainer.run_name=r"],
        ["env=discrete_dummy", "stop=wall_time", "goal.env_steps=48"],
        ["algo.amp_dtype=bf16"],
        ["goal.target=-3", "stop=target", "trainer.steps_per_eval=1"],
    ],
)
def test_what_acts_or_stays_as_it_was_is_accepted(tmp_path, words):
    assert launch.rehearse(plan(*BASE, *words), tmp_path).idle == {}


def test_what_is_worth_a_line(tmp_path):
    removed = [word for word in BASE if "horizons" not in word]
    notes = launch.rehearse(plan(*removed, "~algo.gamma", "~env.gravity", "goal.env_steps=8"), tmp_path).notes
    assert notes == (
        "algo.gamma is removed, so algo.gamma=0.95 acts, the default of the class.",
        "env.gravity is removed, so env.gravity=9.8 acts, the default of the class.",
        "goal.env_steps=8 is less than one iteration of num_envs * horizon = 16 env steps.",
    )
    told = plan("trainer.track=false", "trainer.run_name=r", "trainer.seconds_per_log=0").notes
    assert told == (
        "Without effect: trainer.run_name, trainer.seconds_per_log. Nothing records the run: trainer.track is false.",
    )
    assert not plan("trainer.track=false", "trainer.wandb=offline", "trainer.run_name=r").notes
    assert plan("experiment=cartpole_cuda").notes == (
        "experiment=cartpole_cuda has settings made for cuda, but device=cpu.",
    )
