"""Matrix products on CPUs through oneDNN, twice as fast as the default library: ``docs/benchmarks.md``.

Two ways. `use_onednn` changes the linear layers of a model for good, for training. `prepacked` lays their weights out
anew for the time of a rollout, which pays where few rows meet many weights. Both are tried before they are used, and
neither is needed.

Only linear layers: oneDNN compiles a program for every shape that it meets, and for the many small products inside
attention looking one up takes longer than the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_FP32_ERROR = 1e-5
"""Largest error of a product relative to its largest entry; that of bf16 is above 1e-3."""


def use_onednn(model: nn.Module) -> bool:
    """From now on the model's linear layers compute through oneDNN, unless that is less exact here.

    Returns:
        Whether they do, wherever weights and inputs are in fp32 on the CPU.
    """
    if not products_work():
        return False
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
    return True


class OneDnnLinear(nn.Linear):
    """`nn.Linear` with products through oneDNN where they are in fp32 on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not (_is_plain(self.weight) and x.dtype == torch.float32) or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        product: Tensor = _Product.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return product


def products_of(layer: nn.Module) -> AbstractContextManager[None]:
    """While it lasts, products go where this linear layer's go: for those that use its weights without calling it."""
    return _products_in_onednn() if isinstance(layer, OneDnnLinear) else nullcontext()


class _Product(torch.autograd.Function):
    """y = x W' + b, forwards and backwards through oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        with _products_in_onednn():
            return functional.linear(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), needs = ctx.saved_tensors, ctx.needs_input_grad
        gradient = gradients[0].reshape(-1, len(weight))
        with _products_in_onednn():
            for_x = (gradient @ weight).view_as(x) if needs[0] else None
            for_weight = gradient.t() @ x.reshape(-1, weight.shape[1]) if needs[1] else None
        return for_x, for_weight, gradient.sum(0) if needs[2] else None


@contextmanager
def _products_in_onednn() -> Iterator[None]:
    """The setting permits bf16 inside; `products_work` has made sure that no use is made of that."""
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@cache
def products_work() -> bool:
    """Whether this build of torch sends fp32 products to oneDNN when asked, and they are exact there."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):  # type: ignore[no-untyped-call]
        return False
    try:
        with _products_in_onednn():
            return _products_are_exact(functional.linear)
    except (AttributeError, RuntimeError, ValueError):
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


_LINEAR = (nn.Linear, OneDnnLinear)
"""Not their subclasses, which may compute something else."""


@contextmanager
def prepacked(model: nn.Module, rows: int) -> Iterator[None]:
    """While it lasts, linear layers on CPU in fp32 compute with a copy of their weights laid out for ``rows`` rows.

    For inference only, and only while the weights do not change. The copies take as much memory as the weights.
    """
    packed: list[nn.Module] = []
    try:
        if prepacking_works() and not torch.is_autocast_enabled("cpu"):
            for module in model.modules():
                if type(module) in _LINEAR and isinstance(module, nn.Linear) and _is_plain(module.weight):
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
