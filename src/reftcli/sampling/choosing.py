"""From logits to the next token: greedy, or by the inverse of the cumulative distribution at a given random number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reftcli.sampling.interface import Decode
from reftcli.sampling.seeds import seed_sequence

_BLOCK = 256
"""Tokens whose weights are summed before one of them is looked for."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Next tokens [R], their log-probabilities [R] and the entropy [R] of the distribution they come from, in nats.

    Log-probability and entropy are those at the sampling temperature (1 for greedy), before top-k and top-p.
    """

    tokens: Tensor
    logprobs: Tensor
    entropies: Tensor


def choose(logits: Tensor, decode: Decode, uniform: Tensor | None) -> Choice:
    """The next token of each row from logits [R, V]; greedy where there is no uniform number [R] in [0, 1).

    With z = logits / T, m = max z, w = exp(z - m), Z = sum w:  log p = z - m - log Z,  H = log Z - sum w (z - m) / Z.
    Large vocabularies make this as dear as a layer of the model: it passes over [R, V] as rarely as it can.
    """
    scaled = logits if uniform is None or decode.temperature == 1 else logits / decode.temperature
    shifted = scaled - scaled.amax(dim=-1, keepdim=True)
    if bool(shifted.amin().isneginf()):
        shifted.clamp_(min=torch.finfo(shifted.dtype).min)  # 0 * -inf is nan: a token that cannot come adds nothing
    weights = shifted.exp()
    total = weights.sum(dim=-1)
    if uniform is None:
        tokens = logits.argmax(dim=-1)
    else:
        kept = filtered(scaled, decode)
        tokens = _inverse(weights if kept is scaled else torch.softmax(kept, dim=-1), uniform)
    log_total = total.log()
    logprobs = shifted.gather(1, tokens[:, None]).squeeze(1) - log_total
    expected = shifted.mul_(weights).sum(dim=-1) / total
    return Choice(tokens, logprobs, log_total - expected)


def _inverse(weights: Tensor, uniform: Tensor) -> Tensor:
    """Smallest i with sum_{j <= i} w_j > u sum w: in which block [R] of the vocabulary it is, then where in the block.

    ``weights``: [R, V] >= 0, not normalised. A token of weight 0 is never chosen, whatever is rounded.
    """
    rows, size = weights.shape
    whole = size // _BLOCK * _BLOCK
    sums = weights[:, :whole].view(rows, -1, _BLOCK).sum(dim=-1) if whole else weights[:, :0]
    if whole < size:
        sums = torch.cat([sums, weights[:, whole:].sum(dim=-1, keepdim=True)], dim=1)
    upto = sums.cumsum(dim=-1)
    block, before = _first_above(upto, uniform[:, None] * upto[:, -1:])
    columns = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, columns.clamp(max=size - 1)).masked_fill(columns >= size, 0.0)
    place, _ = _first_above(inside.cumsum(dim=-1), uniform[:, None] * upto[:, -1:] - before)
    return (block * _BLOCK + place).squeeze(1)


def _first_above(cumulative: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """The first column [R, 1] above a threshold [R, 1], and what stands before it; thresholds stay within the row."""
    most = cumulative[:, -1:]
    threshold = torch.minimum(threshold.clamp(min=0.0), most * (1 - torch.finfo(most.dtype).eps))
    column = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=cumulative.shape[1] - 1)
    before = torch.where(column > 0, cumulative.gather(1, (column - 1).clamp_(min=0)), 0.0)
    return column, before


def filtered(logits: Tensor, decode: Decode) -> Tensor:
    """Logits [R, V] with everything outside top-k and top-p at minus infinity; the same tensor where both are off."""
    if decode.top_k:
        kth = logits.topk(min(decode.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if decode.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        before = torch.softmax(ordered, dim=-1).cumsum(dim=-1) - torch.softmax(ordered, dim=-1)
        outside = torch.zeros_like(before, dtype=torch.bool).scatter(1, index, before >= decode.top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    return logits


def uniforms(decode: Decode, item_id: str, sample_index: int, n: int) -> npt.NDArray[np.float32]:
    """``n`` numbers in [0, 1) for one completion. They depend on nothing else, so batching and order change nothing."""
    generator = np.random.Generator(np.random.Philox(seed_sequence(decode, item_id, sample_index)))
    return generator.random(n, dtype=np.float32)
