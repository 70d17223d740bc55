"""Values of options, converted to the types that a class declares or a file shows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar, get_type_hints

from rl8.config.keys import unknown_key
from rl8.kinds import as_text, convert, kinds_of

Options = TypeVar("Options")

# What to advise for a text that is null unless it is given.
_EXAMPLES: Final = {
    "trainer.run_name": "mine",
    "trainer.resume": "latest",
    "trainer.branch": "latest",
    "trainer.init_from": "latest",
    "trainer.output_dir": "outputs/mine",
}


def options(
    key: str,
    values: Mapping[str, Any],
    schema: type[Options],
    extra: tuple[str, ...] = (),
    before: Mapping[str, Any] | None = None,
) -> Options:
    """Return an instance of the dataclass `schema` with `values`, all of which it knows.

    Args:
        key: Where the values stand in the config.
        values: Names and values.
        schema: A dataclass whose constructor checks kinds and ranges.
        extra: Further names that exist under `key` and are handled elsewhere.
        before: What the files say, to be advised where a value is of the wrong kind; by default what `schema` says.

    Raises:
        TypeError: If a value is of the wrong kind.
        ValueError: If a name does not exist or a value is out of range.
    """
    defaults = {option.name: option.default for option in fields(schema)}  # type: ignore[arg-type]
    known, hints = list(defaults), get_type_hints(schema)
    for name in values:
        if name not in known:
            raise ValueError(unknown_key(f"{key}.{name}", key, [*known, *extra]))
    usual = defaults | {name: value for name, value in (before or {}).items() if name in defaults}

    def fits(name: str, value: Any) -> bool:
        with contextlib.suppress(TypeError, ValueError):
            schema(**{**values, name: value})
            return True
        return False

    def advised(name: str) -> Any:
        """Return the file's or else the class's own value, or an example: the first that fits what else is given."""
        kinds, own = kinds_of(hints[name]), (usual[name], defaults[name])
        examples = [_EXAMPLES.get(f"{key}.{name}"), *(value for value in (10, 1, 0.5) if type(value) in kinds)]
        candidates = [*own, *(examples if usual[name] is None else ())]
        candidates = [value for value in candidates if value is not None] + [None]
        return next((value for value in candidates if fits(name, value)), usual[name])

    def converted(name: str, value: Any) -> Any:
        try:
            return convert(f"{key}.{name}", value, hints[name], usual[name])
        except TypeError:
            if str in kinds_of(hints[name]):  # where only some texts are accepted, they are named
                schema(**{name: as_text(value)})
            return convert(f"{key}.{name}", value, hints[name], advised(name))

    try:
        return schema(**{name: converted(name, value) for name, value in values.items()})
    except ValueError as error:
        refused = re.match(rf"{re.escape(key)}\.(\w+)=\S+ is out of range", str(error))
        if refused is None or refused[1] not in known or "Try " in str(error):
            raise
        raise ValueError(f"{error} Try {key}.{refused[1]}={as_text(advised(refused[1]))}.") from error


def like(key: str, values: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, each converted to the type that `before` has it in.

    Raises:
        TypeError: If a value can't be converted without loss.
    """
    return {name: _alike(f"{key}.{name}", value, before.get(name)) for name, value in values.items()}


def _alike(key: str, value: Any, before: Any) -> Any:
    if isinstance(before, (bool, int, float)) and isinstance(value, (list, dict)) and key.startswith("env."):
        return value  # one value per environment, or limits of random draws
    if (
        isinstance(before, Mapping)
        and set(before) == {"low", "high"}
        and key.startswith("env.")
        and _is_constant(value)
    ):
        return value  # the other way round
    if isinstance(before, str) and before.startswith(("${", "???")):
        return value  # the file leaves it open
    if isinstance(before, (bool, int, float, str)):
        # A file's -200 does not say that only integers are accepted; whether they are, the class says.
        kind = int | float if isinstance(before, int) and not isinstance(before, bool) else type(before)
        return convert(key, value, kind, before)
    if isinstance(before, Mapping) and isinstance(value, Mapping):
        return like(key, value, before)
    if isinstance(before, (list, Mapping)) and not isinstance(value, type(before)):
        noun = "a list" if isinstance(before, list) else "a mapping"
        advised = [value] if before == [] and isinstance(value, (str, int, float)) else before
        raise TypeError(
            f"{key}={as_text(value)} is of the wrong kind. Accepted: {noun}. Try '{key}={as_text(advised)}'."
        )
    if isinstance(before, list) and before and isinstance(value, list):
        try:
            return [_alike(f"{key}.{index}", item, before[0]) for index, item in enumerate(value)]
        except TypeError as error:  # one entry alone can't be typed
            fault = str(error).partition(" Try ")[0]
            raise TypeError(f"{key}={as_text(value)}: {fault} Try '{key}={as_text(before)}'.") from error
    return value


def _is_constant(value: Any) -> bool:
    return isinstance(value, (int, float, list)) and not isinstance(value, bool)
