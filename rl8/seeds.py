"""What a seed does in a run that begins from another one's checkpoint, and which seed such a run is recorded under."""

from __future__ import annotations

from contextlib import suppress

from rl8 import runs
from rl8.settings import TrainerSettings


def settled(settings: TrainerSettings, seed: int | None) -> int | None:
    """Return the seed that a run's random numbers follow from.

    A run that goes on has its checkpoint's random numbers. A branch has them too, unless it is given a seed, from
    which it draws after the checkpoint is loaded. All others draw from their seed from the beginning.

    Args:
        settings: What the run begins from.
        seed: The one that was given, None where none was.

    Returns:
        `seed`, or that of the run that it begins from; None where nobody knows.

    Raises:
        ValueError: If a run that goes on is given another seed than its own.
    """
    run, key = settings.resume or settings.branch, "trainer.resume" if settings.resume else "trainer.branch"
    if run is None:
        return seed
    found, own = None, None
    with suppress(ValueError):  # a run that is not there is refused where it is loaded
        found = runs.find(run, "checkpoint", key=key)
        own = (found.config() or {}).get("seed")
    if seed is None or settings.branch is not None:
        return own if seed is None else seed
    if seed != own and found is not None:
        place = found.folder if found.file.name == runs.CHECKPOINT else found.file
        accepted = "no seed" if own is None else f"no seed, or seed={own}, that of the run"
        raise ValueError(
            f"seed={seed} would have no effect: a run that goes on has the random numbers of its checkpoint. Accepted: "
            f"{accepted}. For a new run from there with other random numbers, try trainer.branch={place} seed={seed}."
        )
    return seed
