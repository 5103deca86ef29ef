"""Attention for layouts that we make ourselves: rows aligned on the right while decoding, sequences packed end to end.

Registered with transformers' public attention interface and switched on for single forward passes only, because it
ignores two-dimensional attention masks: outside our own code a model keeps the attention that it came with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

NAME = "reft"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed_lengths: Sequence[int] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention without copies of keys and values.

    Args:
        query: [R, H, Q, D]; key, value: [R, G, N, D] with H a multiple of G.
        attention_mask: [R, 1, Q, N], True where a query may look; None: everything up to itself.
        packed_lengths: the sequences that lie end to end in one row (R = 1); each looks only at itself.
    """
    if packed_lengths is not None:
        parts = [torch.split(tensor, list(packed_lengths), dim=2) for tensor in (query, key, value)]
        outputs = [_grouped(q, k, v, None, scaling, dropout) for q, k, v in zip(*parts, strict=True)]
        output = torch.cat(outputs, dim=2)
    else:
        output = _grouped(query, key, value, attention_mask, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, dropout: float
) -> Tensor:
    rows, heads, queries, _ = query.shape
    groups = key.shape[1]
    if queries == 1:  # the heads of a group stand where queries would: one product per group reads its keys once
        grouped = query.reshape(rows, groups, heads // groups, -1)
        output = functional.scaled_dot_product_attention(
            grouped, key, value, attn_mask=mask, scale=scaling, dropout_p=dropout
        )
        return output.reshape(rows, heads, 1, -1)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, dropout_p=dropout,
        enable_gqa=heads != groups,
    )  # fmt: skip


AttentionInterface.register(NAME, attention)


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """While it lasts, the model uses `attention`. Only for models that `takes_own_attention`."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.no_grad()
def takes_own_attention(model: PreTrainedModel) -> bool:
    """Whether the model computes the same with `attention` as with its own: tried, on three sequences packed in a row.

    No for families that do not use the attention interface, or whose attention has more to it (windows, caps, sinks).
    """
    config = model.config
    windowed = set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    if windowed or getattr(config, "sliding_window", None) or getattr(config, "attn_logit_softcapping", None):
        return False
    lengths = [5, 1, 7]
    ids = (torch.arange(sum(lengths), device=model.device) * 7 + 3) % config.vocab_size
    rows = ids.split(lengths)
    was_training = model.training
    model.eval()
    try:
        expected = torch.cat([model.base_model(input_ids=row[None]).last_hidden_state[0] for row in rows])
        before = config._attn_implementation
        with own_attention(model):
            if config._attn_implementation != NAME:
                return False
            found = model.base_model(**packed(ids, lengths), use_cache=False).last_hidden_state[0]
    except (TypeError, ValueError, RuntimeError, AttributeError):
        model.set_attn_implementation(before)
        return False
    finally:
        model.train(was_training)
    scale = float(expected.float().abs().max())
    tolerance = 5e-2 if expected.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return float((expected - found).float().abs().max()) <= tolerance * max(scale, 1.0)


def packed(ids: Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """The arguments of a forward pass over sequences that lie end to end: ids [N] with N the sum of ``lengths``."""
    positions = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
    return {"input_ids": ids[None], "position_ids": positions[None], "packed_lengths": tuple(lengths)}
