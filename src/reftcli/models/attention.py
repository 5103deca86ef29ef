"""Attention for layouts that we make ourselves: rows aligned on the right while decoding, sequences packed end to end.

Registered with transformers' public attention interface and switched on for single forward passes only, because it
ignores two-dimensional attention masks: outside our own code a model keeps the attention that it came with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from reftcli.models.packing import Packing, packed
from reftcli.models.read_rows import reading_only
from reftcli.models.short_sequences import attend_short_sequences, takes_short_sequences

NAME = "reft"


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring rows, ``first`` to ``end``, that share a prefix."""

    prefix: int
    first: int
    end: int


@dataclass(slots=True)
class Prefixes:
    """Keys and values that rows share: [layer][prefix], each [G, N, D]; each row is in one of the runs."""

    keys: list[list[Tensor]]
    values: list[list[Tensor]]
    runs: list[Run] = field(default_factory=list)

    @property
    def longest(self) -> int:
        """Most columns of a prefix."""
        return max(keys.shape[1] for keys in self.keys[0])


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    prefixes: Prefixes | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Grouped-query attention without copies of keys and values.

    Args:
        query: [R, H, Q, D]; key, value: [R, G, N, D] with H a multiple of G.
        attention_mask: [R, 1, Q, N], True where a query may look; None: everything up to itself.
        packing: the sequences that lie end to end in one row (R = 1); each looks only at itself.
        prefixes: what every row sees before its own keys (Q = 1).
    """
    if prefixes is not None:
        output = _behind_prefixes(query, key, value, attention_mask, scaling, prefixes, cast(int, module.layer_idx))
    elif packing is not None and takes_short_sequences(query, key, value, packing, dropout):
        return attend_short_sequences(query, key, value, packing, scaling), None
    elif packing is not None:
        parts = [torch.split(tensor, list(packing.lengths), dim=2) for tensor in (query, key, value)]
        outputs = [_grouped(q, k, v, None, scaling, dropout) for q, k, v in zip(*parts, strict=True)]
        output = torch.cat(outputs, dim=2)
    else:
        output = _grouped(query, key, value, attention_mask, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, dropout: float
) -> Tensor:
    heads, queries = query.shape[1:3]
    groups = key.shape[1]
    if queries == 1 and not dropout:
        return _one_query(query, key, value, mask, scaling)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, dropout_p=dropout,
        enable_gqa=heads != groups,
    )  # fmt: skip


def _one_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """softmax(scale q K^T + mask) V for one query a row, where decoding spends its time: plain products are faster.

    The heads of a group stand where queries would, so that one product for each group reads its keys once.
    """
    rows, heads, _, size = query.shape
    groups, columns = key.shape[1], key.shape[2]
    grouped = query.reshape(rows * groups, heads // groups, size)
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    scores = torch.bmm(grouped * (size**-0.5 if scaling is None else scaling), keys.transpose(1, 2))
    if mask is not None:
        by_row = scores.view(rows, groups, heads // groups, columns)
        by_row.masked_fill_(mask.logical_not(), -torch.inf) if mask.dtype == torch.bool else by_row.add_(mask)
    return torch.bmm(torch.softmax(scores, dim=-1), values).view(rows, heads, 1, size)


def _behind_prefixes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    prefixes: Prefixes,
    layer: int,
) -> Tensor:
    """`_one_query` where rows that share a prefix read it together, in one product, and then their own keys."""
    (rows, heads, _, size), (_, groups, columns, _) = query.shape, key.shape
    per_group, before = heads // groups, prefixes.longest
    grouped = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, groups, per_group, size)
    scores = grouped.new_full((rows, groups, per_group, before + columns), -torch.inf)
    own = torch.bmm(grouped.flatten(0, 1), key.flatten(0, 1).transpose(1, 2)).view(rows, groups, per_group, columns)
    scores[..., before:] = own if mask is None else own.add_(mask)
    for run in prefixes.runs:
        keys = prefixes.keys[layer][run.prefix]
        together = _by_group(grouped[run.first : run.end])
        found = (
            torch.bmm(together, keys.transpose(1, 2)).view(groups, run.end - run.first, per_group, -1).transpose(0, 1)
        )
        scores[run.first : run.end, ..., : keys.shape[1]] = found
    weights = torch.softmax(scores, dim=-1)
    output = torch.bmm(weights[..., before:].flatten(0, 1), value.flatten(0, 1)).view(rows, groups, per_group, size)
    for run in prefixes.runs:
        values = prefixes.values[layer][run.prefix]
        together = _by_group(weights[run.first : run.end, ..., : values.shape[1]])
        output[run.first : run.end] += (
            torch.bmm(together, values).view(groups, run.end - run.first, per_group, -1).transpose(0, 1)
        )
    return output.view(rows, heads, 1, size)


def _by_group(states: Tensor) -> Tensor:
    """[R, G, M, D] -> [G, R M, D]."""
    return states.transpose(0, 1).flatten(1, 2)


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
    """Whether the model computes the same with `attention` and `reading_only` as by itself: tried, on three sequences.

    No for families that do not use the attention interface, or whose attention has more to it (windows, caps, sinks).
    """
    config = model.config
    windowed = set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    if windowed or getattr(config, "sliding_window", None) or getattr(config, "attn_logit_softcapping", None):
        return False
    lengths = [5, 1, 7]
    ids = (torch.arange(sum(lengths), device=model.device) * 7 + 3) % config.vocab_size
    rows, read = ids.split(lengths), torch.tensor([1, 4, 5, 11], device=model.device)
    was_training, before = model.training, config._attn_implementation
    model.eval()
    try:
        expected = torch.cat([model.base_model(input_ids=row[None]).last_hidden_state[0] for row in rows])[read]
        with own_attention(model):
            if config._attn_implementation != NAME:
                return False
            with reading_only(model, read):
                found = model.base_model(**packed(ids, lengths), use_cache=False).last_hidden_state[0, read]
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        model.set_attn_implementation(before)
        return False
    finally:
        model.train(was_training)
    scale = float(expected.float().abs().max())
    tolerance = 5e-2 if expected.dtype in (torch.bfloat16, torch.float16) else 1e-4
    return float((expected - found).float().abs().max()) <= tolerance * max(scale, 1.0)
