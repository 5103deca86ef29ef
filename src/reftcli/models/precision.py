"""bf16 by autocast: products in bf16, weights and optimizer in fp32 (at lr 3e-7 a bf16 weight never moves)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

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


def under_deepspeed() -> bool:
    """Whether accelerate was launched with a DeepSpeed configuration."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def device_arguments() -> dict[str, Any]:
    """What transformers' TrainingArguments must be told of this process's device.

    DeepSpeed finds the CPU by itself, and accelerate leaves DeepSpeed out where it is told of the CPU; but then it
    believes to be alone unless the backend is named.
    """
    if torch.cuda.is_available():
        return {}
    if under_deepspeed():
        return {"ddp_backend": "gloo", "dataloader_pin_memory": False}
    return {"use_cpu": True, "dataloader_pin_memory": False}
