"""Causal attention over many short packed sequences at once, as batched products.

The library's attention is called for one sequence after another, and is slow where they are short: 32 of 55 tokens
take two thirds of the time here. The backward pass wants the weights of attention, L numbers for each token and head,
which is why sequences must be short.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reftcli.models.blocks import Layout
from reftcli.models.packing import Packing

LONGEST, PER_ELEMENT = 192, 4
"""Tokens, and tokens for each element of a head. At 250 tokens the library is as fast; where heads are small, the
weights that are kept would outgrow everything else that a layer keeps."""


def takes_short_sequences(query: Tensor, key: Tensor, value: Tensor, packing: Packing, dropout: float) -> bool:
    """Whether `attend_short_sequences` serves: exact numbers on a CPU, short sequences, no dropout."""
    size, longest = query.shape[-1], max(packing.lengths)
    exact = query.dtype in (torch.float32, torch.float64) and query.dtype == key.dtype == value.dtype
    on_cpu = query.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    plain = key.shape[-1] == value.shape[-1] == size and not dropout
    return exact and on_cpu and plain and longest <= min(LONGEST, PER_ELEMENT * size)


def attend_short_sequences(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None
) -> Tensor:
    """softmax(scale Q K') V in each sequence, every token up to itself.

    Args:
        query: [1, H, N, D]; key, value: [1, G, N, D] with H a multiple of G and N the sum of the lengths.
        scaling: None: 1 / sqrt(D).

    Returns:
        [1, N, H, D]

    Raises:
        ValueError: the lengths do not add up to N.
    """
    if not query.shape[2] == key.shape[2] == value.shape[2] == sum(packing.lengths):
        raise ValueError(f"{sum(packing.lengths)} tokens are packed, not {query.shape[2]} queries, {key.shape[2]} keys")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layout = packing.layout(query.shape[1], key.shape[1])
    by_token = (states.transpose(1, 2) for states in (query, key, value))
    output: Tensor = _ShortSequences.apply(*by_token, layout, scale)  # type: ignore[no-untyped-call]
    return output


class _ShortSequences(torch.autograd.Function):
    """S = scale Q K' + mask,  W = softmax(S),  O = W V."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        ctx.layout, ctx.scale, kept = layout, scale, any(ctx.needs_input_grad)
        queries, keys, values = (layout.laid_out(states) for states in (query, key, value))
        outputs, weights = torch.empty_like(queries), []
        views = layout.matrices([queries, outputs], [keys, values])
        for block, (q, o, k, v) in zip(layout.blocks, views, strict=True):
            scores = torch.baddbmm(layout.mask(block, q.dtype), q, k.transpose(1, 2), alpha=scale)
            w = torch.softmax(scores, dim=-1)
            torch.bmm(w, v, out=o)
            if kept:
                weights.append(w)
        ctx.save_for_backward(queries, keys, values, outputs, *weights)
        return layout.end_to_end(outputs, layout.heads)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """dV = W' dO,  dS = W (dO V' - rowsum(dO O)),  dQ = scale dS K,  dK = scale dS' Q."""
        layout, scale = ctx.layout, ctx.scale
        queries, keys, values, outputs, *weights = ctx.saved_tensors
        # Zeros where a sequence is filled up: those queries see real keys, and must not tell them anything.
        towards = layout.laid_out_among_zeros(gradients[0])
        along = (towards * outputs).sum(dim=-1, keepdim=True)
        for_q, for_k, for_v = (torch.empty_like(rows) for rows in (queries, keys, values))
        views = layout.matrices([queries, towards, along, for_q], [keys, values, for_k, for_v])
        for w, (q, do, do_o, dq, k, v, dk, dv) in zip(weights, views, strict=True):
            torch.bmm(w.transpose(1, 2), do, out=dv)
            ds = torch.baddbmm(do_o, do, v.transpose(1, 2), beta=-1).mul_(w)
            torch.baddbmm(dq, ds, k, beta=0, alpha=scale, out=dq)  # beta 0: what is in it is not read
            torch.baddbmm(dk, ds.transpose(1, 2), q, beta=0, alpha=scale, out=dk)
        for_query = layout.end_to_end(for_q, layout.heads)
        return for_query, *(layout.end_to_end(rows, layout.groups) for rows in (for_k, for_v)), None, None
