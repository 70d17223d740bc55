"""Groups of observations: which entries of a Composite a network sees."""

from __future__ import annotations

from collections.abc import Sequence

from rl8.checks import unknown
from rl8.kinds import as_text
from rl8.specs import Composite, Spec


def entries(spec: Spec, names: Sequence[str] | None, key: str) -> Spec:
    """Return the part of a spec that has these entries; all of it for None.

    Args:
        spec: The environment's.
        names: Keys of a Composite.
        key: What they are called in messages.

    Raises:
        TypeError: If they are no list.
        ValueError: If one does not exist, or there are no entries.
    """
    if names is None:
        return spec
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"{key}={as_text(names)} is no list. Accepted: names of entries. Try {key}=[{as_text(names)}].")
    if not isinstance(spec, Composite):
        raise ValueError(f"{key}={as_text(names)}: observations here have no entries, they are {spec}. Try {key}=null.")
    for name in names:
        if name not in spec:
            raise ValueError(f"{key}: {unknown('entry of the observations', str(name), spec)}")
    if not names:
        raise ValueError(f"{key}=[] shows nothing. Accepted: {', '.join(spec)}. Try {key}=null.")
    return Composite({name: spec[name] for name in names})


def left_out(spec: Spec, names: Sequence[str] | None) -> list[str]:
    """Return the entries of a spec that are not among some names; none for None."""
    return [] if names is None or not isinstance(spec, Composite) else [name for name in spec if name not in names]
