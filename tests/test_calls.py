import numpy as np
import pytest
from envs import Steering

from rl8 import Algorithm, DeployedPolicy, RecurrentAlgorithm, Trainer
from rl8.calls import answered, as_python, in_python, missing, typed
from rl8.conditions import Plateaus, WallTime

SMALL = {"num_envs": 4, "horizon": 4, "track": False, "view": "none"}


@answered("Try add(number={number}).")
def add(*, number: int = 0) -> int:
    """Add one."""
    return number + 1


def test_right_calls_pass():
    assert add(number=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add one.")


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((np.int64(5),), {}, r"^add\(\) can't be called so: too many positional arguments\. Try add\(number=5\)\.$"),
        ((), {"steps": 7}, r"unexpected keyword argument 'steps'\. Try add\(number=7\)"),
        ((), {"steps": "x"}, r"Try add\(number=100000\)"),
    ],
)
def test_wrong_calls_are_answered_by_the_right_one(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        add(*args, **kwargs)


def test_errors_inside_are_left_alone():
    with pytest.raises(TypeError, match="can only concatenate str"):
        add(number="a")


class Thing:
    def __getattr__(self, name):
        return missing(self, name, {"learn": "run()"})

    @property
    def broken(self):
        return self.absent


def test_other_names_are_answered_by_ours():
    with pytest.raises(AttributeError, match=r"^'Thing' object has no attribute 'learn'\. Call run\(\)\.$"):
        Thing().learn()
    for name in ("absent", "broken"):  # a property's own error is not hidden
        with pytest.raises(AttributeError, match=r"^'Thing' object has no attribute 'absent'$"):
            getattr(Thing(), name)


def test_a_trainer_and_a_policy_answer_calls_of_other_libraries():
    with pytest.raises(TypeError, match=r"^Trainer\(\) can't be called so: too many.* Trainer\(CartPole, num_envs=64"):
        Trainer(Steering, "MlpPolicy")
    with pytest.raises(TypeError, match=r"^Trainer\(\) can't be called so: missing .*'env'"):
        Trainer()
    trainer = Trainer(Steering, **SMALL)
    run = r"trainer\.run\(stop_conditions=\[rl8\.conditions\.EnvSteps"
    with pytest.raises(TypeError, match=rf"^Trainer\.run\(\) can't be called so: .* Try {run}\(2000\)\]"):
        trainer.run(2000)
    with pytest.raises(TypeError, match=rf"'env_steps'.* {run}\(100\)\]"):
        trainer.run(env_steps=100)
    with pytest.raises(AttributeError, match=rf"no attribute 'learn'\. Call {run}"):
        trainer.learn(total_timesteps=100)
    assert not hasattr(trainer, "nothing_of_the_kind")
    policy = DeployedPolicy(Algorithm(Steering, num_envs=4, horizon=4).policy)
    with pytest.raises(AttributeError, match=r"no attribute 'act'\. Call policy\.predict\(obs\)"):
        policy.act(None)


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("algo.gamma='0.9' is text. Try algo.gamma=0.99", "gamma='0.9' is text. Try gamma=0.99"),
        ("Try algo.gamma=0.99, or ${oc.decode:${oc.env:NAME}} to read a variable.", "Try gamma=0.99."),
        ("device.device='gpu' is unknown. Try device.device=cpu.", "device='gpu' is unknown. Try device='cpu'."),
        ("Try device.kernels=auto.", "Try device=rl8.DeviceSettings(kernels='auto')."),
        ("Accepted: an integer or null. Try algo.seq_len=1.", "Accepted: an integer or None. Try seq_len=1."),
        ("Try algo.accumulate_grads=false.", "Try accumulate_grads=False."),
        ("trainer.view='x'. Try trainer.view=auto.", "view='x'. Try view='auto'."),
        ("Try algo.optimizer.lr=0.1.", 'Try optimizer_config={"lr": 0.1}.'),
        ("algo.optimizer._target_", "optimizer_cls"),
        ("Try algo.optimizer._target_=torch.optim.Adam.", "Try optimizer_cls=torch.optim.Adam."),
        ("stop.key=3. Try stop.key=returns/mean.", "key=3. Try key='returns/mean'."),
        ("Try goal.target=1 with stop=target, else stop.upper_bound=1.", "Try upper_bound=1."),
        ("Try 'algo.schedules.lr=[[0, 1], [9, 0]]', or", 'Try schedules={"lr": [[0, 1], [9, 0]]}, or'),
        ("Try algo=recurrent, or model=mlp.", "Try algo=recurrent, or model=mlp."),
    ],
)  # fmt: skip
def test_messages_speak_python(typed, written):
    assert as_python(typed) == written


def test_what_is_made_in_python_speaks_python():
    with pytest.raises(TypeError, match=r"^gamma='0\.9' is text\. Accepted: a number\. Try gamma=0\.\d+\.$"):
        Trainer(Steering, **SMALL, gamma="0.9")
    with pytest.raises(ValueError, match=r"^device='gpu' is unknown\. .* Try device='cpu'\.$"):
        Trainer(Steering, **SMALL, device="gpu")
    with pytest.raises(ValueError, match=r"^view='fancy' is unknown"):
        Trainer(Steering, **{**SMALL, "view": "fancy"})
    with pytest.raises(ValueError, match=r"^view='fancy' is unknown"):
        Trainer(Algorithm(Steering, num_envs=4, horizon=4), view="fancy")
    for cls in (Algorithm, RecurrentAlgorithm):
        with pytest.raises(ValueError, match=r"^schedules\.lr\[0\]'s value=-1 .* Try schedules=\{\"lr\": \[\["):
            cls(Steering, num_envs=4, horizon=4, schedules={"lr": [[0, -1]]})
    with pytest.raises(ValueError, match=r"^key=x: Unknown metric"):
        Trainer(Steering, **SMALL, stop_conditions=[Plateaus("x")])
    with pytest.raises(ValueError, match=r"^stop\.seconds=0 is out of range.* Try stop\.seconds=600\.$"), typed():
        WallTime(0)
    with pytest.raises(ValueError, match=r"^mine algo\.x=null$"), in_python():
        int_of_my_own()


def int_of_my_own():
    raise ValueError("mine algo.x=null")  # no check of rl8's
