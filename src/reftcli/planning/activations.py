"""Bytes that a forward pass leaves behind or works in, per token: what autograd keeps, logits, and passing room.

The numbers were read off the layers of transformers 5 (what each operation saves for its backward pass) and are held
by tests against what autograd really keeps, layer by layer (``tests/planning/test_activations.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reftcli.planning.shapes import Family, ModelShape

Arithmetic = Literal["fp32", "autocast", "bf16"]
"""fp32 throughout; fp32 weights whose products are cast to bf16; bf16 weights (DeepSpeed's)."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """Bytes kept per token and layer, for each element of: the residual stream, queries, keys, the MLP's middle."""

    hidden: int
    query: int
    kv: int
    middle: int
    scores: int = 0
    """Per pair of tokens and head, in families that do not take our attention; they also run padded."""


# llama, in elements of fp32: each norm keeps its input, the normalised value and its output (3 h, twice); attention
# keeps queries, keys, values, its output and that output in the order of the next product (3 q + 2 kv); the MLP keeps
# gate, activated gate, up and their product (4 i). Autocast keeps the residual stream in fp32 and casts a norm's output
# once for each product that reads it: 4 + 4 + 3 x 2, and 4 + 4 + 2 x 2 bytes. bf16 norms compute in fp32: 4 + 2 + 2.
# opt, gpt2: LayerNorm keeps input and output only; the MLP the activation's input and output, gpt2's
# written-out GELU three things more. bf16 weights run under autocast, too, whose LayerNorm on a GPU is fp32.
# codegen: one norm for both branches; it computes and keeps every score.
_KEPT: Mapping[tuple[Family, Arithmetic], _Kept] = {
    ("llama", "fp32"): _Kept(24, 12, 8, 16),
    ("llama", "autocast"): _Kept(26, 6, 4, 8),
    ("llama", "bf16"): _Kept(16, 6, 4, 8),
    ("opt", "fp32"): _Kept(16, 12, 8, 8),
    ("opt", "autocast"): _Kept(16, 6, 4, 4),
    ("opt", "bf16"): _Kept(16, 6, 4, 4),
    ("gpt2", "fp32"): _Kept(16, 12, 8, 20),
    ("gpt2", "autocast"): _Kept(12, 6, 4, 10),
    ("gpt2", "bf16"): _Kept(12, 6, 4, 10),
    ("codegen", "fp32"): _Kept(8, 12, 8, 20, scores=4),
    ("codegen", "autocast"): _Kept(8, 6, 4, 10, scores=6),
    ("codegen", "bf16"): _Kept(8, 6, 4, 10, scores=6),
}
SHORT, SHORT_PER_ELEMENT = 192, 4
"""Tokens, and tokens for each element of a head, up to which fp32 sequences attend by batched products, which keep
every score; on CPUs (`reftcli.models.short_sequences`)."""
_LAYER_STATISTICS = 24
"""Bytes per token and layer for norms and the softmax's normaliser: too few to tell families apart."""
_LOGPROB_ROWS = 128
"""`reftcli.training.ppo.logprobs` works on so many rows of logits at a time, in two fp32 copies."""


def arithmetic_bytes(arithmetic: Arithmetic) -> int:
    """Bytes of an element of what matrix products give."""
    return 4 if arithmetic == "fp32" else 2


def stream(arithmetic: Arithmetic) -> int:
    """Bytes of an element of the residual stream: autocast keeps it fp32."""
    return 2 if arithmetic == "bf16" else 4


def kept_per_layer(shape: ModelShape, arithmetic: Arithmetic) -> int:
    """Bytes that autograd keeps per token of one layer, scores apart."""
    kept = _KEPT[shape.family, arithmetic]
    return (
        kept.hidden * shape.hidden
        + kept.query * shape.query_size
        + kept.kv * shape.kv_size
        + kept.middle * shape.intermediate
        + _LAYER_STATISTICS
    )


def kept(
    shape: ModelShape, rows: int, tokens: int, completion: int, arithmetic: Arithmetic, checkpointing: bool
) -> int:
    """Bytes that a forward pass over ``rows`` sequences of ``tokens`` keeps for its backward pass, logits apart.

    With checkpointing: only the input of every layer. Without, the last layer's MLP runs only where the ``completion``
    tokens of each sequence are predicted (`reftcli.models.read_rows`); 0: a classifier, whose layers run everywhere.
    """
    ends = rows * tokens * 2 * shape.hidden * stream(arithmetic)  # the last norm
    if checkpointing:
        return shape.layers * rows * tokens * shape.hidden * stream(arithmetic) + ends
    unread = tokens - completion if completion and shape.family in ("llama", "gpt2") else 0
    return (
        shape.layers * kept_of_layer(shape, rows, tokens, arithmetic)
        + ends
        - rows * unread * _mlp_kept(shape, arithmetic)
    )


def _mlp_kept(shape: ModelShape, arithmetic: Arithmetic) -> int:
    """Bytes that a layer's MLP keeps per token: its input and its middle."""
    return arithmetic_bytes(arithmetic) * shape.hidden + _KEPT[shape.family, arithmetic].middle * shape.intermediate


def kept_of_layer(shape: ModelShape, rows: int, tokens: int, arithmetic: Arithmetic) -> int:
    """Bytes that one layer keeps: what a checkpointed layer makes once more in the backward pass."""
    short = tokens <= min(SHORT, SHORT_PER_ELEMENT * shape.query_size // shape.heads)
    of_a_pair = _KEPT[shape.family, arithmetic].scores or (4 if arithmetic == "fp32" and short else 0)
    return rows * tokens * kept_per_layer(shape, arithmetic) + of_a_pair * rows * shape.heads * tokens**2


def passing(shape: ModelShape, rows: int, tokens: int, arithmetic: Arithmetic) -> int:
    """Bytes that one layer works in and gives back: the MLP's middle three times (twice ungated), and four streams.

    The fourth is what it was given, which its caller keeps.
    """
    middle = (3 if shape.gated else 2) * shape.intermediate * arithmetic_bytes(arithmetic)
    scores = _KEPT[shape.family, arithmetic].scores * rows * shape.heads * tokens**2
    return rows * tokens * (middle + 4 * shape.hidden * stream(arithmetic)) + scores


def scored_logits(shape: ModelShape, completion_tokens: int, arithmetic: Arithmetic, chunk: int | None = None) -> int:
    """Bytes of the logits of completion tokens and of making log-probabilities from them, [_N, V].

    bf16 logits lie beside their fp32 copy for a moment (2 + 4). With a chunk: at most so many rows, in four tensors.
    """
    if chunk is not None:
        rows = min(chunk, completion_tokens)
        return rows * shape.vocabulary * (12 + (2 if arithmetic != "fp32" else 0)) + shape.head * 4
    per_element = 4 if arithmetic == "fp32" else 6
    rows = min(_LOGPROB_ROWS, completion_tokens)
    return shape.vocabulary * (completion_tokens * per_element + rows * 8)


def decoded_logits(shape: ModelShape, rows: int) -> int:
    """Bytes of choosing the next token of ``rows``: seven fp32 tensors [R, V] at their peak (`sampling.choosing`)."""
    return rows * shape.vocabulary * 28


_CACHE_ROOM = 64
"""Columns that `reftcli.sampling.slots` adds when a cache grows."""


def cache_per_token(shape: ModelShape, arithmetic: Arithmetic) -> int:
    """Bytes of the keys and values of one token in all layers.

    Under autocast llama's keys come out of the rotation in fp32; values are bf16.
    """
    keys = 4 if arithmetic == "fp32" or (arithmetic == "autocast" and shape.family in ("llama", "codegen")) else 2
    values = arithmetic_bytes(arithmetic)
    return shape.layers * shape.kv_size * (keys + values)


def kv_cache(shape: ModelShape, rows: int, tokens: int, arithmetic: Arithmetic) -> int:
    """Bytes of the cache of ``rows`` sequences of ``tokens``, and of the one layer that is copied when it grows."""
    whole = rows * (tokens + _CACHE_ROOM) * cache_per_token(shape, arithmetic)
    return whole + whole // shape.layers
