import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from envs import Machine, Steering

from rl8 import Algorithm
from rl8.cli import main
from rl8.models import MLPModel
from rl8.tracking.store import open_store
from rl8.use import export as exporting
from rl8.use.deployed import load_policy
from rl8.use.export import export
from rl8.use.portable import PortablePolicy
from use.test_deployed import trained

# Another process, without rl8: what does the work there must be enough.
ALONE = "import sys; sys.modules['rl8'] = None; sys.modules['tensordict'] = None\n"


def alone(code, *words):
    done = subprocess.run([sys.executable, "-c", ALONE + code, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def onnx_is_here():
    return pytest.importorskip("onnxruntime", reason="ONNX needs the extra rl8[export]")


def portable(policy):
    return PortablePolicy(policy.policy.requires_grad_(False)).eval()


def steps(policy, count=9):
    """Return observations of several steps, and what the policy does in use, as arrays by name."""
    names = portable(policy).inputs
    drawn = zip(names, portable(policy).random(3 * count), strict=True)
    obs = {name: tensor.numpy() for name, tensor in drawn if not name.startswith("state.")}
    return [{name: array[3 * step : 3 * step + 3] for name, array in obs.items()} for step in range(count)]


def nested(flat):
    if list(flat) == ["obs"]:
        return flat["obs"]
    out = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        place = out
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return out


def flattened(action, prefix="action"):
    if not isinstance(action, dict):
        return {prefix: action}
    return {name: leaf for key, part in action.items() for name, leaf in flattened(part, f"{prefix}.{key}").items()}


def play(policy, call):
    """Compare a policy in use with an exported one over several steps, each remembering by itself."""
    zeros = portable(policy).inputs.items()
    state = {name: np.repeat(zero.numpy(), 3, axis=0) for name, zero in zeros if name.startswith("state.")}
    for obs in steps(policy):
        outputs = call({**obs, **state})
        for name, expected in flattened(policy.predict(nested(obs))).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-5)
        state = {name: outputs[f"next_{name}"] for name in state}


@pytest.mark.parametrize("kind", ["mixed precision", "windows of dictionaries", "masked", "lstm"])
def test_torch(kind, tmp_path):
    _, policy = trained(kind, tmp_path)
    path = tmp_path / "a" / "policy.pt2"
    assert export(portable(policy), path, "torch") <= 1e-5
    assert [file.name for file in path.parent.iterdir()] == ["policy.pt2"]
    extra = {"names.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    names = json.loads(extra["names.json"])

    def call(inputs):
        found = module(*(torch.from_numpy(inputs[name]) for name in names["inputs"]))
        return {name: tensor.numpy() for name, tensor in zip(names["outputs"], found, strict=True)}

    play(policy, call)


def as_onnx(kind, path):
    """Return a policy after comparing it with what was written."""
    onnxruntime = onnx_is_here()
    _, policy = trained(kind, path.parent)
    assert export(portable(policy), path, "onnx") <= 1e-5
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    play(policy, lambda inputs: dict(zip(names, session.run(names, inputs), strict=True)))
    assert all(value.shape[0] == "n" for value in (*session.get_inputs(), *session.get_outputs()))
    return policy


@pytest.mark.parametrize("kind", ["bounded", "composite", "transformer", "pictures", "gru"])
def test_onnx(kind, tmp_path):
    as_onnx(kind, tmp_path / "policy.onnx")


def test_onnx_is_run_with_numpy_alone(tmp_path):
    policy = as_onnx("normalized", tmp_path / "policy.onnx")
    code = """
sys.modules["torch"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
print(session.run(["action"], {"obs": np.array([[0.1, 0.2, -0.3], [1, -2, 3]], np.float32)})[0].tolist())
"""
    expected = policy.predict([[0.1, 0.2, -0.3], [1.0, -2.0, 3.0]]).tolist()
    assert json.loads(alone(code, tmp_path / "policy.onnx")) == expected


def test_actions_are_drawn_from_noise_that_comes_in(tmp_path):
    algorithm = Algorithm(Machine, num_envs=6, horizon=8, model_config={"hiddens": [8]})
    policy = PortablePolicy(algorithm.policy.eval(), sample=True).eval()
    # a move of two numbers; a button, three gears and dials of 2 and 4, in rows of 4
    assert {name: policy.inputs[name].shape[1] for name in policy.inputs if "noise" in name} == {
        "noise.normal": 2,
        "noise.uniform": 1 + 3 + 8,
    }
    path = tmp_path / "policy.pt2"
    assert export(policy, path, "torch") <= 1e-5
    module = torch.export.load(path).module()
    n = 4000
    inputs = dict(
        zip(policy.inputs, (tensor[:1].expand(n, *tensor.shape[1:]) for tensor in policy.random(1)), strict=True)
    )
    inputs["arm.load"] = torch.zeros(n)  # a large one would move the mean
    inputs["action_mask.gear"] = torch.tensor([True, False, True]).expand(n, 3)
    noisy = {**inputs, "noise.normal": torch.randn(n, 2), "noise.uniform": torch.rand(n, 12)}
    outputs = dict(zip(policy.outputs, module(*noisy.values()), strict=True))
    again = dict(zip(policy.outputs, module(*noisy.values()), strict=True))
    assert all(torch.equal(outputs[name], again[name]) for name in outputs)
    # as often as the policy itself, which has not learnt to prefer anything: halves, thirds and quarters
    assert outputs["action.press"].double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert outputs["action.gear"].bincount().div(n).tolist() == pytest.approx([0.5, 0.0, 0.5], abs=0.05)
    assert outputs["action.dials"][:, 1].bincount().div(n).tolist() == pytest.approx([0.25] * 4, abs=0.05)
    # tanh of a standard normal number exceeds 1/2 as often as the number exceeds 0.549: 29.1%
    assert (outputs["action.move"][:, 0] > 1).double().mean().item() == pytest.approx(0.291, abs=0.04)


class Moody(MLPModel):
    """Another one as soon as it is written down."""

    def act(self, obs, state=None):
        features = super().act(obs)[0]
        if torch.compiler.is_exporting() or torch.compiler.is_compiling():
            features["mean"] = features["mean"] + 1
        return features, None


def test_a_policy_that_came_out_differently_is_refused(tmp_path):
    algorithm = Algorithm(Steering, num_envs=6, horizon=8, model_cls=Moody)
    path = tmp_path / "policy.pt2"
    path.write_text("the one before")
    with pytest.raises(ValueError, match=r"written with --format=torch differs .* by up to 0\.\d+. Accepted: 1e-05"):
        export(PortablePolicy(algorithm.policy.eval()), path, "torch")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.pt2"]
    assert path.read_text() == "the one before"


def test_mixed_precision_has_no_onnx(tmp_path):
    onnx_is_here()
    _, policy = trained("mixed precision", tmp_path)
    with pytest.raises(ValueError, match=r"onnxruntime can't run this policy on a CPU: .*Try --format=torch"):
        export(portable(policy), tmp_path / "policy.onnx", "onnx")
    assert not (tmp_path / "policy.onnx").exists()


def get(url, content=None):
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def test_mlflow_serves_a_recurrent_policy_without_rl8(empty_store, train, workdir, capsys):
    onnx_is_here()
    shutil.copyfile(empty_store, "mlflow.db")
    train("run", "env=pendulum", "algo=recurrent", "model.hidden_size=8", track=True)
    capsys.readouterr()
    assert main(["export", "run", "--format", "mlflow", "--register", "pendulum"]) == 0
    out = capsys.readouterr().out
    assert "inputs   obs [n, 3], state.hidden [n, 1, 8], state.cell [n, 1, 8], state.age [n]" in out
    assert "models:/pendulum/1" in out
    version = open_store().client.get_model_version("pendulum", "1")
    assert (version.status, version.run_id) == ("READY", json.loads(Path("run/run.json").read_text())["run_id"])

    policy = load_policy("run")
    example = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    expected = [policy.predict(example), policy.predict(example)]
    code = """
import json, mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
metadata = model.metadata
assert metadata.signature.inputs.input_names() == ["obs", "state.hidden", "state.cell", "state.age"]
example = metadata.load_input_example(sys.argv[1])
print(json.dumps({name: np.asarray(value).shape for name, value in model.predict(example).items()}))
"""
    shapes = json.loads(alone(code, workdir / "run" / "policy-mlflow"))
    assert shapes["action"] == [1, 1]
    assert shapes["next_state.hidden"] == [1, 1, 8]
    assert "\nonnxruntime==" in Path("run/policy-mlflow/requirements.txt").read_text()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Path("server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/pendulum/1", "--env-manager", "local",
             "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            stdout=log, stderr=log, start_new_session=True, env=environment(),
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        for n in (1, 1000):
            state = {
                "state.hidden": np.zeros((n, 1, 8)),
                "state.cell": np.zeros((n, 1, 8)),
                "state.age": np.zeros(n, int),
            }
            for step in range(2):
                inputs = {"obs": example[:n].tolist(), **{name: value.tolist() for name, value in state.items()}}
                answer = get(f"http://127.0.0.1:{port}/invocations", json.dumps({"inputs": inputs}).encode())
                found = {name: np.asarray(value) for name, value in json.loads(answer)["predictions"].items()}
                np.testing.assert_allclose(found["action"], expected[step][:n], atol=1e-5)
                state = {name: found[f"next_{name}"] for name in state}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def environment():
    """Return what a shell has in which the virtual environment is active."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{Path.cwd()}/mlflow.db"}


def wait_for(url, server):
    """Wait until a server answers, for two minutes at most."""
    end = time.monotonic() + 120
    while True:
        try:
            return get(url)
        except OSError:
            assert server.poll() is None, Path("server.log").read_text()
            assert time.monotonic() < end, Path("server.log").read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.2)


def test_mistakes_are_one_message_and_leave_nothing(train, workdir, capsys, monkeypatch):
    train("run", "env=pendulum")
    (workdir / "full").mkdir()
    (workdir / "full" / "thesis.txt").write_text("precious")
    files = sorted(workdir.glob("**/*"))
    monkeypatch.setattr(exporting, "check_packages", lambda kind: None)
    mistakes = {
        "export run": "The following arguments are required: --format",
        "export run --format onxx": "invalid choice: 'onxx'",
        "export --format torch": "rl8 export needs a run.",
        "export nowhere --format torch": "RUN=nowhere is no run.",
        "export run run --format torch": "rl8 export takes one run",
        "export run env.gravity=3 --format torch": "rl8 export takes one run, not run env.gravity=3",
        "export run --format torch --register me": "--register=me needs an MLflow model. Try --format=mlflow.",
        "export run --format torch -o run/policy.pt/x": "--out=run/policy.pt can't be a policy's folder: ",
        "export run --format torch -o full": "--out=full exists and is something else",
        "export run --format mlflow -o full": "--out=full exists and is something else",
        "export run --format mlflow --register me": "--register=me needs a run that MLflow recorded",
    }
    for line, message in mistakes.items():
        capsys.readouterr()
        assert main(line.split()) == 2, line
        out, err = capsys.readouterr()
        assert message in err.replace("\n", " "), (line, err)
        assert out == ""
    assert sorted(workdir.glob("**/*")) == files


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--format=onnx needs onnx, onnxruntime, onnxscript, .*rl8\[export\]"):
        exporting.check_packages("onnx")
    exporting.check_packages("torch")
