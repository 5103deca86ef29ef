"""bf16 by autocast: products in bf16, weights and optimizer in fp32 (at lr 3e-7 a bf16 weight never moves)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch

Autocast = Callable[[], AbstractContextManager[object]]


def uses_bf16(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> bool:
    """What a setting means on a device."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


def autocast_for(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Autocast:
    """Makes contexts for forward passes."""
    if not uses_bf16(precision, device):
        return nullcontext
    return partial(torch.autocast, device.type, torch.bfloat16)
