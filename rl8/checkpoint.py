"""Files: a checkpoint to go on training from, and a policy to use elsewhere. Loading runs no code that is in them."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from rl8.execution.eager import AMP_DTYPES
from rl8.models import Model
from rl8.policy.policy import Policy
from rl8.ppo.algorithm import Algorithm
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Spec, Unbounded

FORMAT = 1


def save_checkpoint(path: str | Path, algorithm: Algorithm, extra: Mapping[str, Any] | None = None) -> Path:
    """Write all that training needs to go on exactly; an interrupted write leaves the old file whole.

    Args:
        path: File to write.
        algorithm: What to save.
        extra: More to save with it: tensors, numbers, strings and plain containers.
    """
    return _write(Path(path), {"format": FORMAT, "algorithm": algorithm.state_dict(), "extra": dict(extra or {})})


def load_checkpoint(path: str | Path, algorithm: Algorithm) -> dict[str, Any]:
    """Put a checkpoint's state into an algorithm built with the same options; return what `extra` was.

    Raises:
        ValueError: If the file is missing, is no checkpoint, or does not fit the algorithm.
    """
    saved = _read(Path(path), "checkpoint", "algorithm", "trainer.resume=null")
    try:
        algorithm.load_state_dict(saved["algorithm"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ValueError(
            f"trainer.resume={path} does not fit this run: {_reason(error)} Resume with the options that it was made "
            "with."
        ) from error
    extra: dict[str, Any] = saved["extra"]
    return extra


def save_policy(path: str | Path, algorithm: Algorithm) -> Path:
    """Write the policy: weights, normalisation statistics, and what it takes to build it again.

    Args:
        path: File to write.
        algorithm: Its policy is saved.
    """
    policy, hparams = algorithm.policy, algorithm.hparams
    steps_per_state_reset = hparams.seq_len * hparams.seqs_per_state_reset
    return _write(
        Path(path),
        {
            "format": FORMAT,
            "weights": policy.state_dict(),
            "observation_spec": _describe(policy.observation_spec),
            "action_spec": _describe(policy.action_spec),
            "model_cls": _name(type(policy.model)),
            "model_config": policy.model_config,
            "distribution_cls": _name(policy.distribution_cls),
            "normalize_obs": hparams.normalize_obs,
            "amp_dtype": hparams.amp_dtype if hparams.enable_amp else None,
            "steps_per_state_reset": steps_per_state_reset if steps_per_state_reset > 0 else None,
        },
    )


def load_policy(path: str | Path, *, model: Model | None = None, device: str | torch.device = "cpu") -> Policy:
    """Return the policy that `save_policy` wrote, in evaluation mode.

    Args:
        path: File to read.
        model: A model built as the saved one was; needed only if that was handed over ready-made.
        device: Where the policy shall live.

    Raises:
        ValueError: If the file is missing, is no policy, or does not fit the model.
    """
    saved = _read(Path(path), "policy", "weights", "the policy.pt of a run's folder")
    if model is None and saved["model_config"] is None:
        raise ValueError(
            f"The model of {path} was handed over ready-made, so the file can't say how to build it. Build one like "
            f"it: load_policy({str(path)!r}, model={saved['model_cls'].rpartition('.')[2]}(...))."
        )
    policy = Policy(
        _rebuild(saved["observation_spec"]).to(device),
        _rebuild(saved["action_spec"]).to(device),
        model=model,
        model_cls=None if model is not None else _find(saved["model_cls"]),
        model_config=None if model is not None else saved["model_config"],
        distribution_cls=_find(saved["distribution_cls"]),
        normalize_obs=saved["normalize_obs"],
        device=device,
        autocast=_autocast(torch.device(device), saved.get("amp_dtype")),
        steps_per_state_reset=saved.get("steps_per_state_reset"),
    )
    try:
        policy.load_state_dict(saved["weights"])
    except RuntimeError as error:
        raise ValueError(f"{type(policy.model).__name__} does not fit {path}: {_reason(error)}") from error
    return policy.eval()


def _autocast(device: torch.device, amp_dtype: str | None) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes the context in which the policy computed while it was trained."""
    if amp_dtype is None:
        return nullcontext
    return functools.partial(torch.autocast, device.type, dtype=AMP_DTYPES[amp_dtype])


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(content, partial)
    partial.replace(path)
    return path


def _read(path: Path, kind: str, key: str, advice: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"There is no {kind} at {path}. Try {advice}.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(
            f"{path} can't be read as a {kind}: it is damaged or of another kind. Try {advice}."
        ) from error
    if not isinstance(saved, dict) or key not in saved or saved.get("format") != FORMAT:
        raise ValueError(f"{path} is no {kind} of this version of rl8. Try {advice}.")
    return saved


def _reason(error: Exception) -> str:
    """Return the first fault that an error tells; torch puts a heading before it."""
    return str(error).strip().splitlines()[:2][-1].strip().rstrip(".") + "."


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _find(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The policy needs {name}, which can't be imported here. Put its file on the path.") from error


def _describe(spec: Spec) -> dict[str, Any]:
    """Return a spec as plain containers."""
    if isinstance(spec, Composite):
        return {"kind": "Composite", "entries": {key: _describe(child) for key, child in spec.items()}}
    arguments: dict[str, Any] = {"shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch.")}
    if isinstance(spec, Bounded):
        arguments |= {"low": spec.low.cpu(), "high": spec.high.cpu()}
    elif isinstance(spec, Categorical):
        arguments |= {"n": spec.n}
    elif isinstance(spec, MultiCategorical):
        arguments |= {"nvec": list(spec.nvec)}
    return {"kind": type(spec).__name__, "arguments": arguments}


def _rebuild(described: Mapping[str, Any]) -> Spec:
    """Return what `_describe` described."""
    if described["kind"] == "Composite":
        return Composite({key: _rebuild(child) for key, child in described["entries"].items()})
    kinds = {cls.__name__: cls for cls in (Unbounded, Bounded, Categorical, MultiCategorical, Binary)}
    arguments = {**described["arguments"], "dtype": getattr(torch, described["arguments"]["dtype"])}
    spec: Spec = kinds[described["kind"]](**arguments)
    return spec
