"""Devices by name: which there are, and what to type instead of one that there is not."""

from __future__ import annotations

from typing import Any

import torch


def as_device(key: str, device: Any) -> torch.device:
    """Return a device that tensors can live on here.

    Args:
        key: Name of the option, as the user types it.
        device: What the user gave: a name or a `torch.device`.

    Raises:
        ValueError: If it is none, or does not exist here.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{key}={device!r} is no device. Accepted: cpu, cuda, cuda:<index>. Try {key.rpartition('.')[2]}='cpu'."
        ) from error
    if found.type != "cuda":
        return found
    if not torch.cuda.is_available():
        raise ValueError(f"{key}={found} but torch {torch.__version__} sees no CUDA device. Try device=cpu.")
    if (found.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(
            f"{key}={found} does not exist: torch sees {count} CUDA device(s), counted from 0. Try device=cuda."
        )
    return found
