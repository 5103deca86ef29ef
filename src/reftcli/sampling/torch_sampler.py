"""Decoding with the model itself: shared prefill, rows that end leave the batch, one random stream per completion."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from reftcli.problems.prompts import Prompt
from reftcli.sampling.interface import Completion, Decode

_COMPACT_BELOW = 0.8
"""Rows that ended are dropped from the batch when fewer than this share still runs: each drop copies the cache."""


@dataclass(slots=True)
class _Row:
    """One completion while it grows."""

    prompt: Prompt
    sample_index: int
    limit: int
    """Most tokens it may get: the setting, or what the model's context leaves after the prompt."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def running(self) -> bool:
        return not self.ended and len(self.token_ids) < self.limit


class TorchSampler:
    """Completes prompts with a causal language model.

    Args:
        model: any Hugging Face decoder with a `DynamicCache`.
        eos_token_id: ends a completion.
        pad_token_id: fills prompts on the left; may equal EOS, because masks come from lengths.
        batch_size: completions decoded at once.
        context: most tokens of prompt and completion together; prompts must be shorter.
        autocast: makes a context for the forward passes (bf16); None: as the weights are.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        eos_token_id: int,
        pad_token_id: int,
        batch_size: int,
        context: int,
        autocast: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self._model = model
        self._eos = eos_token_id
        self._pad = pad_token_id
        self._batch_size = batch_size
        self._context = context
        self._autocast = autocast or nullcontext

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], n: int, decode: Decode, on_done: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """See `reftcli.sampling.interface.Sampler.sample`."""
        total = min(self._context, decode.max_total_tokens or self._context)
        rows = [
            _Row(prompt, index, min(decode.max_new_tokens, total - len(prompt.token_ids)))
            for prompt in prompts
            for index in range(n)
        ]
        # Rows of one prompt stay together (they share its prefill), prompts of like length too (less padding).
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt.token_ids), i // n, i))
        with _evaluating(self._model), self._autocast():
            for start in range(0, len(order), self._batch_size):
                group = [rows[i] for i in order[start : start + self._batch_size]]
                self._decode_group(group, decode)
                if on_done:
                    on_done(len(group))
        return [Completion(r.prompt, r.sample_index, tuple(r.token_ids), tuple(r.logprobs), r.ended) for r in rows]

    def _decode_group(self, rows: list[_Row], decode: Decode) -> None:
        """Decodes rows together until each has ended or reached the limit."""
        uniforms = None if decode.decoding == "greedy" else self._uniforms(rows, decode)
        logits, cache, attention_mask = self._prefill(rows)
        lengths = torch.tensor([len(row.prompt.token_ids) for row in rows], device=self._model.device)
        alive = list(range(len(rows)))
        """Indices into ``rows``, in the order of the batch dimension."""
        for step in range(max(row.limit for row in rows)):
            uniform = None if uniforms is None else uniforms[alive, step]
            tokens, logprobs = _choose(logits, decode, uniform)
            self._append(rows, alive, tokens, logprobs)
            running = [place for place, i in enumerate(alive) if rows[i].running]
            if not running:
                break
            if len(running) <= _COMPACT_BELOW * len(alive):
                keep = torch.tensor(running, device=self._model.device)
                cache.batch_select_indices(keep)
                attention_mask, tokens = attention_mask[keep], tokens[keep]
                alive = [alive[place] for place in running]
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(len(alive), 1)], dim=1)
            logits = self._forward(tokens[:, None], (lengths[alive] + step)[:, None], attention_mask, cache)

    def _prefill(self, rows: list[_Row]) -> tuple[Tensor, DynamicCache, Tensor]:
        """Runs each distinct prompt once, then repeats its cache for its rows. Logits of the last position: [R, V]."""
        distinct: dict[tuple[int, ...], int] = {}
        place = [distinct.setdefault(row.prompt.token_ids, len(distinct)) for row in rows]
        longest = max(len(ids) for ids in distinct)
        input_ids = torch.full((len(distinct), longest), self._pad)
        attention_mask = torch.zeros((len(distinct), longest), dtype=torch.long)
        for i, ids in enumerate(distinct):
            input_ids[i, longest - len(ids) :] = torch.tensor(ids)
            attention_mask[i, longest - len(ids) :] = 1
        device = self._model.device
        attention_mask = attention_mask.to(device)
        position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        logits = self._forward(input_ids.to(device), position_ids, attention_mask, cache)
        if len(distinct) < len(rows):
            index = torch.tensor(place, device=device)
            cache.batch_select_indices(index)
            logits, attention_mask = logits[index], attention_mask[index]
        return logits, cache, attention_mask

    def _forward(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor, cache: DynamicCache) -> Tensor:
        # Positions are explicit: with left padding a model with absolute positions would otherwise be shifted.
        output = self._model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        last: Tensor = output.logits[:, -1]
        return last.float()

    def _append(self, rows: list[_Row], alive: list[int], tokens: Tensor, logprobs: Tensor) -> None:
        for i, token, logprob in zip(alive, tokens.tolist(), logprobs.tolist(), strict=True):
            row = rows[i]
            if not row.running:
                continue  # kept in the batch until the next compaction
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            row.ended = token == self._eos

    def _uniforms(self, rows: list[_Row], decode: Decode) -> Tensor:
        """[rows, longest limit] numbers in [0, 1), each row from a stream of its own."""
        width = max(0, *(row.limit for row in rows))
        table = np.empty((len(rows), width), dtype=np.float32)
        for i, row in enumerate(rows):
            item = zlib.crc32(row.prompt.problem.item_id.encode())
            seed = np.random.SeedSequence([decode.seed, decode.stream, item, row.sample_index])
            table[i] = np.random.Generator(np.random.Philox(seed)).random(width, dtype=np.float32)
        return torch.from_numpy(table).to(self._model.device)


def _choose(logits: Tensor, decode: Decode, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next tokens [R] and their log-probabilities [R] from logits [R, V]; greedy where there is no uniform number."""
    if uniform is None:
        tokens = logits.argmax(dim=-1)
        return tokens, torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None]).squeeze(1)
    scaled = logits / decode.temperature
    probabilities = torch.softmax(_filtered(scaled, decode), dim=-1)
    # Inverse of the cumulative distribution: one uniform number per row.
    cumulative = probabilities.cumsum(dim=-1)
    threshold = uniform[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp_(max=logits.shape[1] - 1)
    logprobs = torch.log_softmax(scaled, dim=-1).gather(1, tokens[:, None]).squeeze(1)
    return tokens, logprobs


def _filtered(logits: Tensor, decode: Decode) -> Tensor:
    """Logits [R, V] with everything outside top-k and top-p at minus infinity."""
    if decode.top_k:
        kth = logits.topk(min(decode.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if decode.top_p < 1:
        ordered, index = logits.sort(dim=-1, descending=True)
        before = torch.softmax(ordered, dim=-1).cumsum(dim=-1) - torch.softmax(ordered, dim=-1)
        outside = torch.zeros_like(before, dtype=torch.bool).scatter(1, index, before >= decode.top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    return logits


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off; the mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
