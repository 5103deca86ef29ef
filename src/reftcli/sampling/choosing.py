"""From logits to the next token: greedy, or by the inverse of the cumulative distribution at a given random number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reftcli.sampling.interface import Decode
from reftcli.sampling.seeds import seed_sequence


@dataclass(frozen=True, slots=True)
class Choice:
    """Next tokens [R], their log-probabilities [R] and the entropy [R] of the distribution they come from, in nats.

    Log-probability and entropy are those at the sampling temperature (1 for greedy), before top-k and top-p.
    """

    tokens: Tensor
    logprobs: Tensor
    entropies: Tensor


def choose(logits: Tensor, decode: Decode, uniform: Tensor | None) -> Choice:
    """The next token of each row from logits [R, V]; greedy where there is no uniform number [R] in [0, 1)."""
    scaled = logits if uniform is None else logits / decode.temperature
    logprobs = torch.log_softmax(scaled, dim=-1)
    probabilities = logprobs.exp()
    if uniform is None:
        tokens = logits.argmax(dim=-1)
    else:
        kept = filtered(scaled, decode)
        cumulative = (probabilities if kept is scaled else torch.softmax(kept, dim=-1)).cumsum(dim=-1)
        threshold = uniform[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    # 0 * -inf is nan: a token that cannot come adds nothing
    entropies = -(probabilities * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(dim=-1)
    return Choice(tokens, logprobs.gather(1, tokens[:, None]).squeeze(1), entropies)


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
