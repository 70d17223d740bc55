"""Files: a checkpoint to go on training from, and a policy to use elsewhere. Loading runs no code that is in them.

A checkpoint also says how its policy is built, so that it stands for one until the run has ended. Of a run's
checkpoints the last few are kept beside one another: `checkpoint.pt`, before it `checkpoint.1.pt`, and so on.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rl8.atomic import atomic
from rl8.devices import as_device
from rl8.execution.eager import AMP_DTYPES
from rl8.models import Model
from rl8.parallel import world
from rl8.policy.normalization import ObsNormalizer
from rl8.policy.policy import Policy
from rl8.ppo import processes
from rl8.ppo.algorithm import Algorithm
from rl8.ppo.resume import OWN
from rl8.rng import forked
from rl8.runs import CHECKPOINT
from rl8.specs import Binary, Bounded, Categorical, Composite, MultiCategorical, Spec, Unbounded
from rl8.stored import decode, encode, find, name_of

FORMAT = 2

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint's file holds.

    Attributes:
        file: The file that was read.
        algorithm: State of the algorithm.
        policy: How its policy is built.
        extra: What else was saved.
        others: What the other processes had of their own, in the order of their numbers from 1.
        skipped: Why other files were not read that were asked for first, a sentence each.
    """

    file: Path
    algorithm: dict[str, Any]
    policy: dict[str, Any]
    extra: dict[str, Any]
    others: tuple[dict[str, Any], ...] = ()
    skipped: tuple[str, ...] = ()


def save_checkpoint(
    path: str | Path, algorithm: Algorithm, extra: Mapping[str, Any] | None = None, *, keep: int = 1
) -> Path:
    """Write all that training needs to go on exactly; an interrupted write leaves the old files whole.

    With several processes all call it: process 0 writes what each of them has.

    Args:
        path: File to write.
        algorithm: What to save.
        extra: More to save with it: tensors, numbers, strings and plain containers.
        keep: How many checkpoints there shall be: this one and those before it.

    Raises:
        OSError: If the file can't be written, with its name and the reason.
        TypeError: If something has no form that can be loaded again.
    """
    state = encode(algorithm.state_dict(), "state")
    states = world.to_first({name: state[name] for name in OWN})
    if states is None:
        return Path(path)
    content = {
        "format": FORMAT,
        "algorithm": state,
        "others": states[1:],
        "policy": describe_policy(algorithm),
        "extra": encode(dict(extra or {}), "extra"),
    }
    return write(Path(path), content, keep)


def read_checkpoint(path: str | Path, *, key: str = "trainer.resume") -> Saved:
    """Return what a checkpoint holds; the one before it, where a run's last one is damaged.

    Args:
        path: File to read.
        key: What it was typed for, for messages.

    Raises:
        ValueError: If there is no checkpoint, or none that can be read.
    """
    first = Path(path)
    numbered = first.parent.glob(f"{first.stem}.*{first.suffix}") if first.name == CHECKPOINT else ()
    others = sorted((file for file in numbered if _age(file) > 0), key=_age)
    if not first.is_file() and not others:
        raise ValueError(f"{key}: there is no checkpoint at {path}. Try {key}=null.")
    skipped: list[str] = []
    for file in [first, *others]:
        try:
            content = _read(file, "checkpoint", "algorithm", f"{key}=null")
        except ValueError as error:
            if not others:
                raise
            skipped.append(f"{str(error).split('. Try')[0]}.")
            continue
        own = tuple(content.get("others", ()))
        return Saved(file, content["algorithm"], content["policy"], content["extra"], own, tuple(skipped))
    raise ValueError(f"{key}={path}: no checkpoint there can be read. {' '.join(skipped)} Try {key}=null.")


def restore(saved: Saved, algorithm: Algorithm, *, key: str = "trainer.resume") -> None:
    """Put a checkpoint's state into an algorithm; a process that it holds nothing of begins new episodes.

    Raises:
        ValueError: If it does not fit.
    """
    number = world.rank()
    own = saved.others[number - 1] if 0 < number <= len(saved.others) else {}
    try:
        check_fit(saved.policy, algorithm, weights=saved.algorithm["policy"])
        algorithm.load_state_dict({**saved.algorithm, **own})
        if number > len(saved.others):
            processes.begin_anew(algorithm)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = _reason(error)
        accepted = "" if "Accepted: " in reason or "Try " in reason else " Accepted: the options that it was made with."
        raise ValueError(f"{key}={saved.file} does not fit this run: {reason}{accepted}") from error


def lost_processes(saved: Saved) -> str | None:
    """Return what a run loses that goes on with another number of processes; None if it is the same."""
    there, here = len(saved.others) + 1, world.size()
    if there == here:
        return None
    what = (
        "The environments and random numbers of the others are lost."
        if there > here
        else "The new ones begin new episodes with new random numbers."
    )
    return f"Not an exact resume: there were {there} processes and there are {here} now. {what}"


def load_checkpoint(path: str | Path, algorithm: Algorithm) -> dict[str, Any]:
    """Put a checkpoint's state into an algorithm built with the same options; return what `extra` was.

    Where a run's last checkpoint is damaged, the one before it is taken, and a warning logged.

    Raises:
        ValueError: If the file is missing, is no checkpoint, or does not fit the algorithm.
    """
    saved = read_checkpoint(path)
    for reason in saved.skipped:
        _logger.warning("%s Going on from %s.", reason, saved.file)
    restore(saved, algorithm)
    return saved.extra


def save_policy(path: str | Path, algorithm: Algorithm) -> Path:
    """Write the policy: weights, normalisation statistics, and what it takes to build it again.

    Args:
        path: File to write.
        algorithm: Its policy is saved.

    Raises:
        OSError: If the file can't be written, with its name and the reason.
    """
    weights = encode(algorithm.policy.state_dict(), "weights")
    return write(Path(path), {"format": FORMAT, "weights": weights, "policy": describe_policy(algorithm)})


def load_policy(
    path: str | Path, *, model: Model | None = None, device: str | torch.device = "cpu", allow: Sequence[str] = ()
) -> Policy:
    """Return the policy that `save_policy` wrote, or that a checkpoint holds, in evaluation mode.

    Args:
        path: File to read.
        model: A model built as the saved one was; needed only if the file can't say how.
        device: Where the policy shall live.
        allow: Modules that may be imported for the policy's classes, besides rl8's own and what is imported already.

    Raises:
        ValueError: If the file is missing, is no policy, needs a class that is not to be had, or does not fit the
            model.
    """
    device = as_device("device", device)
    saved, weights = read_policy(path)
    if model is None and saved["model_config"] is None:
        raise ValueError(
            f"{path} can't say how its model is built: no import gives its class, or what it was made with, back. "
            f"Build one like it: load_policy({str(path)!r}, model={_short(saved['model_cls'])}(...))."
        )
    try:
        with forked(device):  # a model's first weights are drawn
            policy = Policy(
                _rebuild(saved["observation_spec"]).to(device),
                _rebuild(saved["action_spec"]).to(device),
                model=model,
                model_cls=None if model is not None else find(saved["model_cls"], allow),
                model_config=None if model is not None else decode(saved["model_config"], allow),
                distribution_cls=find(saved["distribution_cls"], allow),
                normalize_obs=saved["normalize_obs"],
                clip_obs=saved.get("clip_obs", ObsNormalizer.clip),
                device=device,
                autocast=_autocast(device, saved["amp_dtype"]),
                steps_per_state_reset=saved["steps_per_state_reset"],
            )
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{_short(saved['model_cls'])} does not fit {path}: {_reason(error)}") from error
    return policy.eval()


def _autocast(device: torch.device, amp_dtype: str | None) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes the context in which the policy computed while it was trained."""
    if amp_dtype is None:
        return nullcontext
    return functools.partial(torch.autocast, device.type, dtype=AMP_DTYPES[amp_dtype])


def read_policy(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a saved policy is built, and its weights; of a checkpoint those that it holds.

    Raises:
        ValueError: If the file is missing or holds no policy.
    """
    saved = _read(Path(path), "policy", "policy", "the policy.pt of a run's folder")
    return saved["policy"], saved["weights"] if "weights" in saved else saved["algorithm"]["policy"]


def start_from(path: str | Path, algorithm: Algorithm, *, key: str = "trainer.init_from") -> None:
    """Give an algorithm the weights and normalisation statistics of a saved policy.

    Raises:
        ValueError: If there is no such policy, or its shapes are others; the message lists both.
    """
    described, weights = read_policy(path)
    try:
        check_fit(described, algorithm, weights=weights)
    except ValueError as error:
        raise ValueError(f"{key}={path} does not fit this run: {_reason(error)}") from error
    algorithm.policy.load_state_dict(weights)


def check_fit(described: Mapping[str, Any], algorithm: Algorithm, *, weights: Mapping[str, Any]) -> None:
    """Check that a saved policy is one for an algorithm's environment and model.

    Raises:
        ValueError: If it is not; the message names both.
    """
    ours = describe_policy(algorithm)
    for name in ("observation_spec", "action_spec"):
        if _layout(described[name]) != _layout(ours[name]):
            raise ValueError(
                f"it was made in {described['env']} with the {name} {_rebuild(described[name])}, and "
                f"{ours['env']} has {_rebuild(ours[name])}. Accepted: the same."
                + (f" Try env._target_={_dotted(described['env'])}." if described["env"] != ours["env"] else "")
            )
    if described["normalize_obs"] != ours["normalize_obs"]:
        typed = str(described["normalize_obs"]).lower()
        raise ValueError(f"it was made with algo.normalize_obs={typed}. Try algo.normalize_obs={typed}.")
    theirs, own = (
        {name: _shape(value) for name, value in each.items()} for each in (weights, algorithm.policy.state_dict())
    )
    if theirs != own:
        names = [name for name in {**theirs, **own} if theirs.get(name) != own.get(name)]
        listed = "; ".join(
            f"{name} {theirs.get(name, 'absent')} there, {own.get(name, 'absent')} here" for name in names[:4]
        )
        more = f"; and {len(names) - 4} more" if len(names) > 4 else ""
        their_model, own_model = _dotted(described["model_cls"]), _dotted(ours["model_cls"])
        advice = "" if their_model == own_model else f" Try model._target_={their_model}."
        models = f"{their_model} there, {own_model} here"
        raise ValueError(f"the networks' shapes differ ({models}): {listed}{more}. Accepted: the same shapes.{advice}")


def check_savable(algorithm: Algorithm) -> None:
    """Check that what an algorithm trains can be saved and loaded again.

    Raises:
        TypeError: If an option can't be; the message names it.
    """
    encode(algorithm.policy.model_config, "model_config")
    name_of(algorithm.policy.distribution_cls, "distribution_cls")
    for group in algorithm.optimizer.state_dict()["param_groups"]:
        encode(group, "optimizer_config")


def describe_policy(algorithm: Algorithm) -> dict[str, Any]:
    """Return what it takes to build an algorithm's policy again, without its weights."""
    policy, hparams = algorithm.policy, algorithm.hparams
    steps_per_state_reset = hparams.seq_len * hparams.seqs_per_state_reset
    return {
        "env": class_name(type(algorithm.env)),
        "observation_spec": _describe(policy.observation_spec),
        "action_spec": _describe(policy.action_spec),
        **_describe_model(policy),
        "distribution_cls": class_name(policy.distribution_cls),
        "normalize_obs": hparams.normalize_obs,
        "clip_obs": hparams.clip_obs,
        "amp_dtype": hparams.amp_dtype if hparams.enable_amp else None,
        "steps_per_state_reset": steps_per_state_reset if steps_per_state_reset > 0 else None,
    }


def class_name(cls: type) -> str:
    """Return `module:name`, whether or not it can be imported."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _dotted(name: str) -> str:
    """Return `module:name` as it is typed."""
    return name.replace(":", ".")


def _describe_model(policy: Policy) -> dict[str, Any]:
    """Return a model's class and what it was built with; None for the latter if no file can hold it."""
    cls = type(policy.model)
    try:
        name_of(cls, "model_cls")
        config = encode(policy.model_config, "model_config")
    except TypeError:
        config = None
    return {"model_cls": class_name(cls), "model_config": config}


def write(path: Path, content: dict[str, Any], keep: int = 1) -> Path:
    """Write a file so that it is there as a whole or not at all.

    Raises:
        OSError: If it can't be written, with its name and the reason.
    """
    with atomic(path) as partial:
        with partial.open("wb") as file:
            torch.save(content, file)
        _shift(path, keep)
    return path


def _shift(path: Path, keep: int) -> None:
    """Let a file that is about to be replaced, and those before it, move on by one; `path` itself stays."""
    if keep < 2 or not path.exists():
        return
    names = [path.with_name(f"{path.stem}.{age}{path.suffix}") for age in range(1, keep)]
    for older, newer in zip(reversed(names), [*reversed(names[:-1]), path], strict=True):
        if newer == path:
            older.unlink(missing_ok=True)
            try:
                os.link(path, older)
            except OSError:  # a file system without hard links: for a moment there is none of this name
                path.replace(older)
        elif newer.exists():
            newer.replace(older)


def _age(file: Path) -> int:
    """Return how many checkpoints are newer than `checkpoint.<age>.pt`; 0 for any other name."""
    number = file.name.split(".")[-2]
    return int(number) if number.isdigit() else 0


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


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _short(name: str) -> str:
    """Return the last part of `module:name`."""
    return name.rpartition(":")[2].rpartition(".")[2]


def _layout(described: Mapping[str, Any]) -> Any:
    """Return what must be the same of a described spec; limits may differ, as constants do."""
    if described["kind"] == "Composite":
        return {key: _layout(child) for key, child in described["entries"].items()}
    arguments = described["arguments"]
    return [arguments.get(name) for name in ("shape", "dtype", "n", "nvec")]


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
