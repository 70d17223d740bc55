import dataclasses
import re

import pytest

from rl8.settings import DeviceSettings, TrainerSettings


@pytest.mark.parametrize("settings", [DeviceSettings, TrainerSettings])
def test_the_defaults_are_valid_and_frozen(settings):
    first = dataclasses.fields(settings)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError, match=first):
        setattr(settings(), first, None)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(device):
    assert DeviceSettings(device=device).device == device


@pytest.mark.parametrize(
    ("settings", "name", "value", "accepted"),
    [
        *[
            (DeviceSettings, "device", value, "cpu, cuda, cuda:<index>. Try device.device=cpu")
            for value in ("gpu", "cuda:", "cuda:x", "cpux")
        ],
        (DeviceSettings, "kernels", "yes", "auto, on, off"),
        (DeviceSettings, "compile", "yes", "auto, true, false"),
        (DeviceSettings, "matmul_precision", "low", "highest, high, medium"),
        (DeviceSettings, "num_threads", 10**6, "an integer up to 1,024"),
        (DeviceSettings, "piece_size", 0, "an integer >= 1 or null"),
        (DeviceSettings, "num_threads", -1, "an integer >= 1 or null"),
        (TrainerSettings, "view", "life", "auto, live, plain, none. Try trainer.view=live"),
        (TrainerSettings, "seconds_per_log", -1.0, "a number >= 0"),
        (TrainerSettings, "eval_horizon", 10**23, "an integer up to 2,147,483,647"),
        (TrainerSettings, "eval_num_envs", 0, "an integer >= 1"),
        *[
            (TrainerSettings, name, 0, "an integer >= 1 or null")
            for name in ("steps_per_eval", "eval_horizon", "steps_per_checkpoint", "steps_per_video")
        ],
    ],
)
def test_values_out_of_range_are_refused(settings, name, value, accepted):
    with pytest.raises(ValueError, match=rf"\.{name}={value!r} is .*Accepted: {re.escape(accepted)}"):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("settings", "name", "value", "accepted"),
    [
        (DeviceSettings, "device", None, "text"),
        (TrainerSettings, "resume", [3], "text or null"),
        (TrainerSettings, "run_name", object(), "text or null"),
        (DeviceSettings, "graphs", 1, "true or false"),
        (DeviceSettings, "compile", None, "text or true or false"),
        (DeviceSettings, "piece_size", 1.5, "an integer or null"),
        *[(TrainerSettings, name, "yes", "true or false") for name in ("track", "eval_deterministic", "render")],
        (TrainerSettings, "eval_num_envs", None, "an integer"),
        *[
            (TrainerSettings, name, 3.7, f"null, or settings for the environment's reset, e.g. 'trainer.{name}={{")
            for name in ("env_config", "eval_env_config")
        ],
    ],
)
def test_values_of_another_kind_are_refused(settings, name, value, accepted):
    with pytest.raises(TypeError, match=rf"\.{name}=.* is (no|of the wrong kind).*Accepted: {re.escape(accepted)}"):
        settings(**{name: value})


def test_env_configs_may_be_mappings():
    assert TrainerSettings(env_config={"gravity": 3.7}).env_config == {"gravity": 3.7}


def test_kernels_are_on_and_off_as_yaml_reads_it_and_refused_where_there_are_none():
    assert DeviceSettings("cuda", kernels=True).kernels == "on"
    assert DeviceSettings(kernels=False).kernels == "off"
    with pytest.raises(ValueError, match=r"device.kernels=on has no effect with device.device=cpu: .*kernels=auto\.$"):
        DeviceSettings(kernels="on")
