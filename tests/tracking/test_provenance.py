import getpass
import shlex
import subprocess
import sys

import pytest
import torch
import yaml
from mlflow.utils.validation import _validate_param_name

from rl8.tracking import provenance


def _git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_flatten_names_leaves_by_their_path():
    config = {
        "algo": {"gamma": 0.99, "lr": 1e-4, "steps": None, "optimizer_cls": torch.optim.Adam, "model_config": {}},
        "sizes": [256, 256],
        "stop": {"conditions": [{"key": "a", "on": True}, {"key": "b", "on": False}]},
        "seed": 1,
        "name": "x y",
    }
    assert provenance.flatten(config) == {
        "algo.gamma": "0.99",
        "algo.lr": "0.0001",
        "algo.steps": "null",
        "algo.optimizer_cls": "torch.optim.adam.Adam",
        "algo.model_config": "{}",
        "sizes": "[256, 256]",
        "stop.conditions.0.key": "a",
        "stop.conditions.0.on": "true",
        "stop.conditions.1.key": "b",
        "stop.conditions.1.on": "false",
        "seed": "1",
        "name": "x y",
    }


def test_flatten_cuts_long_values():
    (value,) = provenance.flatten({"long": "x" * 7000}).values()
    assert len(value) == 6000
    assert value.endswith("x…")


def test_mappings_inside_lists_of_values_read_as_typed():
    assert provenance.as_text([1, None, {"a": True}]) == "[1, null, {a: true}]"


@pytest.mark.parametrize(
    "name", ["a b/c-d_e.f:g", "x(%)", "a//b", "/a", "a/", "a/../b", "..", ".", "", "é" * 300, "a/./"]
)
def test_clean_names_are_what_mlflow_accepts(name):
    clean = provenance.clean_name(name)
    _validate_param_name(clean)  # raises
    assert 0 < len(clean) <= 250


def test_names_that_mlflow_accepts_stay():
    assert provenance.clean_name("eval/returns/mean") == "eval/returns/mean"


def test_yaml_keeps_order_and_reads_back():
    config = {"b": {"x": 1e-3, "cls": torch.nn.ReLU}, "a": [1, (2, 3)], "none": None}
    text = provenance.as_yaml(config)
    assert text.index("b:") < text.index("a:")
    relu = "torch.nn.modules.activation.ReLU"
    assert yaml.safe_load(text) == {"b": {"x": 1e-3, "cls": relu}, "a": [1, [2, 3]], "none": None}


def test_versions_of_what_is_installed(monkeypatch):
    versions = provenance.versions()
    assert versions["torch"] == torch.__version__
    assert versions["python"] == sys.version.split()[0]
    assert {"tensordict", "hydra-core", "mlflow"} <= set(versions)
    assert "mlflow-skinny" not in versions
    monkeypatch.setattr(provenance, "_PACKAGES", ("mlflow-skinny", "no-such-package"))
    assert set(provenance.versions()) == {"python", "mlflow-skinny"}


def test_git_state(tmp_path):
    assert provenance.git_state(tmp_path) == {}
    _git(tmp_path, "init")
    assert provenance.git_state(tmp_path) == {}  # no commit yet
    (tmp_path / "file").write_text("1")
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "-m", "first")
    state = provenance.git_state(tmp_path)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert state == {"commit": head.stdout.strip(), "branch": "main", "dirty": "false"}
    (tmp_path / "untracked").touch()
    assert provenance.git_state(tmp_path)["dirty"] == "false"
    (tmp_path / "file").write_text("2")
    (tmp_path / "below").mkdir()
    assert provenance.git_state(tmp_path / "below")["dirty"] == "true"


def test_without_git_there_is_no_git_state(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(tmp_path) == {}


def test_hardware_names_processor_or_card(monkeypatch):
    assert provenance.hardware("cpu").endswith("cores")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")
    assert provenance.hardware("cuda:1") == "card cuda:1"


def test_processor_has_a_name_where_there_is_no_proc(monkeypatch):
    def absent(*args, **kwargs):
        raise OSError("no /proc")

    monkeypatch.setattr(provenance.Path, "read_text", absent)
    assert not provenance.hardware("cpu").startswith(",")


def test_command_line_can_be_pasted(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-m", "rl8", "stop.conditions=[a, b]"])
    assert provenance.command_line() == "python3 -m rl8 'stop.conditions=[a, b]'"
    assert shlex.split(provenance.command_line())[-1] == "stop.conditions=[a, b]"


def test_a_user_without_a_name(monkeypatch):
    def nobody():
        raise KeyError("uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert provenance.user() == "unknown"


def test_the_state_is_that_of_the_folder_where_rl8_was_started(tmp_path, monkeypatch):
    _git(tmp_path, "init")
    _git(tmp_path, "commit", "--allow-empty", "-m", "first")
    monkeypatch.setattr(provenance, "origin", lambda: tmp_path)
    assert "git.commit" in provenance.provenance()


def test_provenance_is_one_set_of_tags(tmp_path):
    _git(tmp_path, "init")
    (tmp_path / "file").touch()
    _git(tmp_path, "add", "file")
    _git(tmp_path, "commit", "-m", "first")
    tags = provenance.provenance("cpu", tmp_path)
    assert tags["device"] == "cpu"
    assert "cores" in tags["hardware"]
    assert tags["version.torch"] == torch.__version__
    assert tags["git.commit"] == tags["mlflow.source.git.commit"]
    assert tags["command"] == provenance.command_line()[:5000]
    assert "device" not in provenance.provenance(None, tmp_path)


def test_secrets_are_stored_nowhere():
    config = {"env": {"api_key": "abc", "pad_token": 3, "url": "https://me:abc@host/x"}, "deep": [{"password": "abc"}]}
    flat = provenance.flatten(config)
    assert flat["env.api_key"] == flat["deep.0.password"] == "***"
    assert flat["env.pad_token"] == "3"
    assert flat["env.url"] == "https://me:***@host/x"
    assert yaml.safe_load(provenance.as_yaml(config)) == {
        "env": {"api_key": "***", "pad_token": 3, "url": "https://me:abc@host/x"},
        "deep": [{"password": "***"}],
    }
    assert provenance.cut("rl8 env.api_key=abc seed=1", 100) == "rl8 env.api_key=*** seed=1"


def test_a_branch_may_have_any_name(tmp_path):
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    _git(tmp_path, "checkout", "-q", "-b", b"caf\xe9")
    assert provenance.git_state(tmp_path)["branch"] == "caf\\xe9"


def test_what_is_no_text_is_escaped():
    assert provenance.cut("a\udce9b", 100) == "a\\udce9b"


def test_what_can_not_be_found_out_stops_no_run(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "versions", lambda: 1 / 0)
    tags = provenance.provenance("cpu", tmp_path)
    assert tags["device"] == "cpu"
    assert "version.torch" not in tags
