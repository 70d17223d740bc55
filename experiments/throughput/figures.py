"""Figures drawn from the study's JSON: what tables and pictures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .bounds import bounds, work_of
from .programs import Line, speed

Study = Mapping[str, Any]

GRIDS = ("grid", "speeds", "more")  # parts that measure points


def result(study: Study, part: str) -> Any:
    """Return a part's result, or None if it has not been run."""
    return study["parts"].get(part, {}).get("result")


def point_lines(study: Study) -> list[Line]:
    """Return the lines of all points that were measured."""
    return [line for part in GRIDS for line in (result(study, part) or {}).get("lines", []) if line["timings"]]


def skipped_points(study: Study) -> list[dict[str, str]]:
    """Return the points that were not measured, with the reason."""
    return [one for part in GRIDS for one in (result(study, part) or {}).get("skipped", [])]


def chosen(lines: Iterable[Line], **fixed: Any) -> list[Line]:
    """Return the lines whose options are the given ones and otherwise the default network, one minibatch, no extras."""
    wanted = {"env": "cartpole", "model": "mlp", "minibatches": 1, "amp": False, "compile": False, **fixed}
    if "width" not in wanted:
        wanted["width"] = 128 if wanted["model"] == "lstm" else 256
    return [line for line in lines if all(line[key] == value for key, value in wanted.items() if value is not ...)]


def line_bounds(line: Line, peaks: Mapping[str, float]) -> dict[str, float]:
    """Return the bounds of a line's own work."""
    work = work_of(
        line.get("env", "cartpole"),
        model=line.get("model", "mlp"),
        width=line["width"],
        horizon=line["horizon"],
        passes=line["passes"],
    )
    return bounds(work, peaks)


def shares(line: Line, peaks: Mapping[str, float]) -> dict[str, float]:
    """Return a line's speed as shares of the bounds for its precision, by name."""
    found = line_bounds(line, peaks)
    suffix = "_bf16" if line.get("amp") else ""
    return {
        name: speed(line) / found.get(name + suffix, found[name])
        for name in ("arithmetic", "layered", "fused")
        if name in found
    }


def base_of(study: Study) -> dict[str, int]:
    """Return the sizes around which the scaling curves vary: the smaller of the comparison's on a CPU."""
    return {"num_envs": 1024 if study["device"] == "cpu" else 65536, "horizon": 32}


def amount(number: float) -> str:
    """Return a rate in thousands or millions, three digits."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}" if number / limit < 1000 else f"{number / limit:.0f}{unit}"
    return f"{number:.3g}"
