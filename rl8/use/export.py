"""`rl8 export`: a policy that needs no rl8, checked against the trained one before it is handed over."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rl8.checks import check_path
from rl8.launch import check_folder
from rl8.runs import find
from rl8.use.evaluate import split
from rl8.use.recorded import store_of

if TYPE_CHECKING:
    from torch import Tensor

    from rl8.use.portable import PortablePolicy

DESCRIPTION = "Write a policy for use without rl8: normalisation inside, actions in the environment's units, any batch."
NAMES: Final = {"torch": "policy.pt2", "onnx": "policy.onnx", "mlflow": "policy-mlflow"}
#: Random inputs that an exported policy is tried with, and how far an output may be off.
TRIALS: Final = 1000
TOLERANCE: Final = 1e-5

Call = Callable[[Sequence["Tensor"]], Sequence["Tensor"]]


def export(policy: PortablePolicy, path: Path, kind: str) -> float:
    """Write a policy, after comparing what was written with the policy itself.

    Args:
        policy: What to write; its weights should ask for no gradients, or the outputs in torch's form do.
        path: The file, or for `mlflow` the folder.
        kind: One of `NAMES`.

    Returns:
        The largest difference of any output, on `TRIALS` random inputs.

    Raises:
        ValueError: If a package is missing, the policy can't be written in this form, or it differs.
    """
    check_packages(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder, _quiet():
        made = Path(folder) / path.name
        {"torch": _write_torch, "onnx": _write_onnx, "mlflow": _write_mlflow}[kind](policy, made)
        difference = _largest_difference(
            policy, {"torch": _torch, "onnx": _onnx, "mlflow": _mlflow}[kind](policy, made)
        )
        if difference > TOLERANCE:
            raise ValueError(
                f"The policy written with --format={kind} differs from the trained one by up to {difference:.2g}. "
                f"Accepted: {TOLERANCE:g}. {'' if kind == 'torch' else 'Try --format=torch.'}"
            )
        if path.is_dir():
            path.replace(Path(folder) / "before")
        made.replace(path)
    return difference


def check_packages(kind: str) -> None:
    """Raise ValueError unless what a form needs is installed."""
    needed = [] if kind == "torch" else ["onnx", "onnxruntime", "onnxscript"]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--format={kind} needs {', '.join(missing)}, which is not installed. Accepted without it: torch. "
            "Try pip install 'rl8[export]'."
        )


def _exported(policy: PortablePolicy) -> Any:
    """Return torch's graph of the policy, for any number of rows."""
    import torch

    with torch.no_grad():
        return torch.export.export(policy, tuple(policy.random(7)), dynamic_shapes=_any_rows(policy), strict=False)


def _any_rows(policy: PortablePolicy) -> Any:
    """Return torch's description of inputs whose first dimension is free, and the same for all."""
    import torch

    n = torch.export.Dim("n")
    return (tuple({0: n} for _ in policy.inputs),)


def _write_torch(policy: PortablePolicy, path: Path) -> None:
    import torch

    names = json.dumps({"inputs": list(policy.inputs), "outputs": policy.outputs})
    torch.export.save(_exported(policy), path, extra_files={"names.json": names})


def _torch(policy: PortablePolicy, path: Path) -> Call:
    import torch

    module = torch.export.load(path).module()
    return lambda inputs: module(*inputs)


def _write_onnx(policy: PortablePolicy, path: Path) -> None:
    import torch

    program = torch.onnx.export(
        _exported(policy),
        input_names=list(policy.inputs),
        output_names=policy.outputs,
        dynamic_shapes=_any_rows(policy),
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    assert program is not None
    program.save(path, external_data=False)


def _onnx(policy: PortablePolicy, path: Path) -> Call:
    import torch

    onnxruntime = importlib.import_module("onnxruntime")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise ValueError(
            f"onnxruntime can't run this policy on a CPU: {str(error).splitlines()[0]} Accepted: policies of float32, "
            "not of mixed precision. Try --format=torch."
        ) from error

    def call(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(policy.inputs, inputs, strict=True)}
        return [torch.from_numpy(array) for array in session.run(policy.outputs, feed)]

    return call


def _write_mlflow(policy: PortablePolicy, path: Path) -> None:
    import mlflow.onnx
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    file = path.with_suffix(".onnx")
    _write_onnx(policy, file)
    with torch.no_grad():
        results = policy(*policy.inputs.values())
    examples = {name: tensor.numpy() for name, tensor in policy.inputs.items()}
    outputs = dict(zip(policy.outputs, (tensor.numpy() for tensor in results), strict=True))
    schemas = [
        Schema([TensorSpec(array.dtype, (-1, *array.shape[1:]), name) for name, array in arrays.items()])
        for arrays in (examples, outputs)
    ]
    mlflow.onnx.save_model(
        importlib.import_module("onnx").load(file),
        str(path),
        signature=ModelSignature(inputs=schemas[0], outputs=schemas[1]),
        input_example=examples,
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("mlflow", "numpy", "onnx", "onnxruntime")],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )


def _mlflow(policy: PortablePolicy, path: Path) -> Call:
    import mlflow.pyfunc
    import torch

    model = mlflow.pyfunc.load_model(str(path))

    def call(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        named = {name: tensor.numpy() for name, tensor in zip(policy.inputs, inputs, strict=True)}
        found = model.predict(named)
        return [torch.as_tensor(found[name]) for name in policy.outputs]

    return call


def _largest_difference(policy: PortablePolicy, call: Call) -> float:
    """Return how far outputs are off on many rows at once, and on the first of them alone."""
    import torch

    inputs = policy.random(TRIALS)
    differences: list[float] = []
    with torch.no_grad():
        expected = policy(*inputs)
        for rows in (TRIALS, 1):
            found = call([tensor[:rows] for tensor in inputs])
            for output, right in zip(found, expected, strict=True):
                assert output.shape == right[:rows].shape, (output.shape, right.shape)
                differences.append((output.double() - right[:rows].double()).abs().max().item())
    return max(differences)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks of torch's exporter and of MLflow to themselves: what matters of a result is compared."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "mlflow", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `rl8 export` takes."""
    parser.add_argument("words", nargs="*", metavar="RUN", help="a run")
    parser.add_argument("--format", choices=tuple(NAMES), required=True, help="torch.export, ONNX or an MLflow model")
    parser.add_argument("-o", "--out", help="the file, or an MLflow model's folder; by default in the run's folder")
    parser.add_argument("--sample", action="store_true", help="draw actions, from noise that becomes an input")
    parser.add_argument("--register", metavar="NAME", help="with --format=mlflow: make it the model's next version")


def run(args: argparse.Namespace) -> int:
    """Export as the command line says, and return the exit code.

    Raises:
        ValueError: If the run does not exist or what is asked for can't be had.
    """
    runs, overrides = split(args.words, "export")
    if len(runs) > 1 or overrides:
        raise ValueError(
            f"rl8 export takes one run, not {' '.join(args.words)}. Try rl8 export {runs[0]} --format=onnx."
        )
    if args.register and args.format != "mlflow":
        raise ValueError(f"--register={args.register} needs an MLflow model. Try --format=mlflow.")
    check_packages(args.format)
    found = find(runs[0], "policy")
    path = check_path("--out", args.out) if args.out else found.folder / NAMES[args.format]
    check_folder("--out", path.parent, "a policy's folder", NAMES[args.format])
    if path.exists() and path.is_dir() != (args.format == "mlflow" and (path / "MLmodel").exists()):
        raise ValueError(
            f"--out={path} exists and is something else. Accepted: a new name. Try -o {NAMES[args.format]}."
        )
    run_id = found.run_id() if args.register else None
    if args.register and run_id is None:
        raise ValueError(f"--register={args.register} needs a run that MLflow recorded, and {runs[0]} is none. Try -o.")
    if run_id is not None:
        store_of(run_id, found.folder)
    from rl8.checkpoint import load_policy
    from rl8.use.portable import PortablePolicy

    policy = PortablePolicy(
        load_policy(found.file, allow=found.modules()).requires_grad_(False), sample=args.sample
    ).eval()
    difference = export(policy, path, args.format)
    print(f"{path}: the trained policy to {difference:.2g} on {TRIALS:,} random inputs")
    print(f"  inputs   {_listed(policy.inputs)}\n  outputs  {', '.join(policy.outputs)}", flush=True)
    if args.register:
        assert run_id is not None
        print(f"  {_register(run_id, found.folder, path, args.register)}", flush=True)
    return 0


def _listed(inputs: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} [{', '.join(['n', *map(str, zeros.shape[1:])])}]" for name, zeros in inputs.items())


def _register(run_id: str, folder: Path, path: Path, name: str) -> str:
    """Store an MLflow model with the run of a folder and make it a version of a registered model; say what was done."""
    from mlflow.exceptions import MlflowException

    client = store_of(run_id, folder).client
    client.log_artifacts(run_id, str(path), path.name)
    with _quiet():
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{client.get_run(run_id).info.artifact_uri}/{path.name}"
        version = client.create_model_version(name, source, run_id)
    return f"models:/{name}/{version.version}"
