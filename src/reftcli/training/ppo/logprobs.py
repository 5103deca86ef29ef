"""Log-probabilities of given tokens, with gradients and without copies of the logits.

With z = (W h + b) / temperature and p = softmax(z):   d log p[y] / dz = onehot(y) - p.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reftcli.models.onednn import products_of


def at_least_fp32(x: Tensor) -> Tensor:
    """Statistics of a bf16 forward are made in fp32; those of a float64 model stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


_ROWS = 128
"""Rows of logits that are worked on at a time, so that what is made on the way stays small."""


def logprobs_of(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) at ``targets``, [_N], from logits [_N, V].

    The backward pass writes the gradient over the logits: nobody else may need them, and it works once.
    """
    logprobs: Tensor = _Logprobs.apply(at_least_fp32(logits), targets, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        normalisers = torch.cat([torch.logsumexp(rows / temperature, dim=-1) for rows in torch.split(logits, _ROWS)])
        ctx.save_for_backward(targets, normalisers)
        ctx.logits, ctx.temperature = logits.detach(), temperature
        return logits.gather(1, targets[:, None]).squeeze(1) / temperature - normalisers

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.logits is None:
            raise RuntimeError("the gradient of these log-probabilities was taken before")
        (targets, normalisers), (gradient,) = ctx.saved_tensors, gradients
        towards, ctx.logits = ctx.logits, None
        towards.div_(ctx.temperature).sub_(normalisers[:, None]).exp_().mul_(-gradient[:, None])
        towards.scatter_add_(1, targets[:, None], gradient[:, None])
        return towards.div_(ctx.temperature), None, None


@torch.no_grad()
def entropies_of(logits: Tensor, temperature: float) -> Tensor:
    """H(softmax(logits / temperature)) in nats, [_N]; without a gradient.   H = log Z - sum(p * z)"""
    parts = []
    for rows in torch.split(logits, _ROWS):
        scaled = at_least_fp32(rows) / temperature
        parts.append(torch.logsumexp(scaled, dim=-1) - (torch.softmax(scaled, dim=-1) * scaled).sum(dim=-1))
    return torch.cat(parts)


def chunked_logprobs(hidden: Tensor, head: nn.Module, targets: Tensor, temperature: float, chunk: int) -> Tensor:
    """log softmax(head(hidden) / temperature) at ``targets``, [_N], with at most [chunk, V] logits at a time.

    The backward pass computes the logits again. ``head``: a linear layer, perhaps with a bias.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # here, because the backward pass runs outside of it and must do the same
        hidden = hidden.to(torch.get_autocast_dtype(device))
    logprobs: Tensor = _ChunkedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, targets, temperature, chunk, head
    )
    return logprobs


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk: int,
        head: nn.Module,
    ) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature, ctx.chunk, ctx.head = temperature, chunk, head
        weight = weight.to(hidden.dtype)
        with products_of(head):
            parts = [
                torch.log_softmax(_logits(h, weight, bias, temperature), dim=-1).gather(1, y[:, None]).squeeze(1)
                for h, y in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
            ]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        for_hidden = torch.empty_like(hidden)
        # In fp32 at least: bf16 sums over thousands of chunks would lose the small ones.
        for_weight = (
            torch.zeros_like(weight, dtype=at_least_fp32(weight[:0]).dtype) if ctx.needs_input_grad[1] else None
        )
        for_bias = torch.zeros_like(bias) if bias is not None else None
        as_read, start = weight.to(hidden.dtype), 0
        with products_of(ctx.head):
            for h, y, g in zip(*(torch.split(x, ctx.chunk) for x in (hidden, targets, gradients[0])), strict=True):
                towards = torch.softmax(_logits(h, as_read, bias, ctx.temperature), dim=-1).mul_(-g[:, None])
                towards.scatter_add_(1, y[:, None], g[:, None].to(towards.dtype))
                towards = (towards / ctx.temperature).to(h.dtype)
                for_hidden[start : start + len(h)] = towards @ as_read
                if for_weight is not None:
                    for_weight += (towards.t() @ h).to(for_weight.dtype)
                if for_bias is not None:
                    for_bias += towards.sum(dim=0).to(for_bias.dtype)
                start += len(h)
        return for_hidden, None if for_weight is None else for_weight.to(weight.dtype), for_bias, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = hidden @ weight.t()
    if bias is not None:
        logits = logits + bias.to(hidden.dtype)
    return at_least_fp32(logits) / temperature
