"""Which kind of execution a device gets."""

from __future__ import annotations

import torch

from rl8.execution.cpu import CPU
from rl8.execution.cuda import CUDA
from rl8.execution.eager import Eager
from rl8.settings import DeviceSettings


def execution_for(settings: DeviceSettings, *, enable_amp: bool = False, amp_dtype: str = "bf16") -> Eager:
    """Return the execution for what the user chose.

    Args:
        settings: Device and how it computes.
        enable_amp: Whether networks compute in `amp_dtype`.
        amp_dtype: `"bf16"` or `"fp16"`.

    Raises:
        ValueError: If the device does not exist here, or torch's default dtype is another than float32.
    """
    if torch.get_default_dtype() is not torch.float32:
        raise ValueError(
            f"torch's default dtype is {torch.get_default_dtype()}, but policies are trained in float32. Accepted: "
            "torch.float32. Call torch.set_default_dtype(torch.float32) before; algo.enable_amp=true takes bf16."
        )
    kind = CUDA if settings.device.startswith("cuda") else CPU
    return kind(settings, enable_amp=enable_amp, amp_dtype=amp_dtype)
