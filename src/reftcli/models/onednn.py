"""Matrix products on CPUs through oneDNN, faster than the default library where they are large: ``docs/benchmarks.md``.

Two ways. `use_onednn` is a switch for the whole process, for training. `prepacked` lays the weights out anew for the
time of a rollout, which pays where few rows meet many weights. Both are tried before they are used, and neither is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FP32_ERROR = 1e-5
"""Largest error of a product relative to its largest entry; that of bf16 is above 1e-3."""


@cache
def use_onednn() -> bool:
    """Sends fp32 products to oneDNN from now on, unless they are less exact there. Returns whether they go there.

    The setting that does this permits bf16 inside. Where oneDNN makes use of that, the guard turns it off again.
    """
    settings: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not torch.backends.mkldnn.is_available() or not hasattr(settings, "fp32_precision"):  # type: ignore[no-untyped-call]
        return False
    before = settings.fp32_precision
    try:
        settings.fp32_precision = "bf16"
    except (RuntimeError, ValueError):
        return False
    if _products_are_exact(functional.linear):
        return True
    settings.fp32_precision = before
    return False


def _products_are_exact(linear: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Few rows and many, because libraries choose their way by size."""
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 16, 256):
        x, weight = (torch.randn(n, 512, generator=generator) for n in (rows, 256))
        exact = functional.linear(x.double(), weight.double())
        if float((linear(x, weight).double() - exact).abs().max()) > _FP32_ERROR * float(exact.abs().max()):
            return False
    return True


@contextmanager
def prepacked(model: nn.Module, rows: int) -> Iterator[None]:
    """While it lasts, linear layers on CPU in fp32 compute with a copy of their weights laid out for ``rows`` rows.

    For inference only, and only while the weights do not change. The copies take as much memory as the weights.
    """
    packed: list[nn.Module] = []
    try:
        if prepacking_works() and not torch.is_autocast_enabled("cpu"):
            for module in model.modules():
                if type(module) is nn.Linear and _is_plain(module.weight):
                    # An instance's forward hides that of its class until it is deleted again.
                    module.forward = partial(_forward, _pack(module.weight.detach(), rows), module.bias)  # type: ignore[method-assign]
                    packed.append(module)
        yield
    finally:
        for module in packed:
            del module.forward


def _is_plain(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.dim() == 2 and weight.numel() > 0


def _pack(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    return packed


def _forward(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@cache
def prepacking_works() -> bool:
    """Whether this build of torch has the two operators, which are not public, and they compute what they should."""

    def packed_linear(x: Tensor, weight: Tensor) -> Tensor:
        return _forward(_pack(weight, 16), None, x)

    try:
        return _products_are_exact(packed_linear)
    except (AttributeError, RuntimeError, TypeError):
        return False
