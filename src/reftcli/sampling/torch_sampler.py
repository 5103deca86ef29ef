"""Decoding with the model itself: shared prefill, ended rows make room for waiting ones, a random stream for each."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedModel

from reftcli.models.attention import own_attention, takes_own_attention
from reftcli.models.onednn import prepacked
from reftcli.models.packing import packed
from reftcli.models.read_rows import reading_only
from reftcli.problems.prompts import Prompt
from reftcli.sampling.choosing import choose, uniforms
from reftcli.sampling.interface import Completion, Decode
from reftcli.sampling.slots import PromptShelf, SlotCache

_COMPACT_BELOW = 0.8
"""Ended rows are dropped when fewer than this share still runs: each drop copies the cache."""
_REFILL_AT = 0.25
"""Waiting prompts come in when this share of the slots is free: each coming-in is a prefill of its own."""
_SHARE_FROM = 4
"""Samples of a prompt from which its keys and values are held once, on a CPU: each prompt in the slots costs calls."""

ValueHead = Callable[[Tensor], Tensor]
"""Last hidden states [R, H] -> values [R, 1]."""


@dataclass(slots=True)
class _Row:
    """One completion while it grows."""

    prompt: Prompt
    sample_index: int
    limit: int
    """Most tokens it may get: the setting, or what the model's context leaves after the prompt."""
    random: npt.NDArray[np.float32]
    """One number for each token; empty for greedy decoding."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    ended: bool = False

    @property
    def running(self) -> bool:
        return not self.ended and len(self.token_ids) < self.limit

    def completion(self) -> Completion:
        return Completion(
            self.prompt,
            self.sample_index,
            tuple(self.token_ids),
            tuple(self.logprobs),
            self.ended,
            values=tuple(self.values),
            entropies=tuple(self.entropies),
        )


class TorchSampler:
    """Completes prompts with a causal language model.

    Args:
        model: any Hugging Face decoder that takes a `Cache`.
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
        self.model = model
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
        self.batch_size = batch_size
        self.own_attention = takes_own_attention(model)
        self.value_head: ValueHead | None = None
        self._context = context
        self._autocast = autocast or nullcontext

    def with_values(self, value_head: ValueHead) -> TorchSampler:
        """The same sampler, whose completions carry the value before each token.

        Only for models whose logits are head(backbone(x)).
        """
        sampler = copy.copy(self)
        sampler.value_head = value_head
        return sampler

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], n: int, decode: Decode, on_done: Callable[[int], None] | None = None
    ) -> list[Completion]:
        """See `reftcli.sampling.interface.Sampler.sample`."""
        total = min(self._context, decode.max_total_tokens or self._context)
        rows = [
            _new_row(prompt, index, min(decode.max_new_tokens, total - len(prompt.token_ids)), decode)
            for prompt in prompts
            for index in decode.sample_indices(n)
        ]
        # Rows of one prompt stay together (they share its prefill), prompts of like length too (less padding).
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt.token_ids), i // n, i))
        attention = own_attention(self.model) if self.own_attention else nullcontext()
        with _evaluating(self.model), attention, self._autocast(), prepacked(self.model, self.batch_size):
            _Decoder(self, decode, on_done or (lambda _: None)).run(deque(rows[i] for i in order))
        return [row.completion() for row in rows]

    def weights_changed(self) -> None:
        """See `reftcli.sampling.interface.Sampler.weights_changed`; here the model itself decodes."""

    def close(self) -> None:
        """See `reftcli.sampling.interface.Sampler.close`; here nothing is held."""


def _new_row(prompt: Prompt, index: int, limit: int, decode: Decode) -> _Row:
    drawn = 0 if decode.decoding == "greedy" else max(0, limit)
    return _Row(prompt, index, limit, uniforms(decode, prompt.problem.item_id, index, drawn))


class _Decoder:
    """One call of ``sample``: the rows in the slots, their cache, and where each row begins in it.

    All rows end in the same column. What a row's cache holds left of its beginning (``start`` [R]) is masked.
    """

    def __init__(self, sampler: TorchSampler, decode: Decode, on_done: Callable[[int], None]) -> None:
        self._sampler = sampler
        self._model = sampler.model
        self._decode = decode
        self._on_done = on_done
        self._rows: list[_Row] = []
        self._cache: SlotCache | None = None
        self._start = torch.zeros(0, dtype=torch.long, device=self._model.device)
        self._tokens = torch.zeros(0, dtype=torch.long, device=self._model.device)
        """What each row chose last and has not been fed yet."""
        self._shelf: PromptShelf | None = None
        self._waiting: deque[_Row] = deque()

    def run(self, waiting: deque[_Row]) -> None:
        """Until every row has ended or reached its limit."""
        slots = self._sampler.batch_size
        self._waiting = waiting
        prompts = {row.prompt.token_ids for row in waiting}
        if (
            self._sampler.own_attention
            and self._model.device.type == "cpu"
            and len(waiting) >= _SHARE_FROM * len(prompts)
        ):
            self._shelf = PromptShelf(self._model.config.num_hidden_layers)
        while True:
            running = [place for place, row in enumerate(self._rows) if row.running]
            free = slots - len(running)
            refill = bool(waiting) and (not running or free >= max(1, _REFILL_AT * slots))
            if not running and not refill:
                return
            if len(running) < len(self._rows) and (refill or len(running) <= _COMPACT_BELOW * len(self._rows)):
                self._keep(running)
            if refill:
                self._admit([waiting.popleft() for _ in range(min(free, len(waiting)))])
            else:
                self._step()

    def _keep(self, places: list[int]) -> None:
        """Drops the rows that ended, and the columns that no remaining row uses."""
        self._rows = [self._rows[place] for place in places]
        if self._shelf is not None:
            soon = {row.prompt.token_ids for row in itertools.islice(self._waiting, self._sampler.batch_size)}
            self._shelf.keep(places, soon)
        if not places:
            self._cache = None
            self._start, self._tokens = self._start[:0], self._tokens[:0]
            return
        assert self._cache is not None
        index = torch.tensor(places, device=self._model.device)
        start = self._start[index]
        first = int(start.min())
        self._cache.keep(index, first)
        self._start, self._tokens = start - first, self._tokens[index]

    def _admit(self, rows: list[_Row]) -> None:
        """Runs each distinct prompt once, repeats its cache for its rows, and lets them choose their first token."""
        if self._shelf is not None:
            return self._admit_sharing(rows, self._shelf)
        device = self._model.device
        distinct: dict[tuple[int, ...], int] = {}
        places = torch.tensor([distinct.setdefault(row.prompt.token_ids, len(distinct)) for row in rows], device=device)
        prompts = list(distinct)
        cache = SlotCache(self._model.config.num_hidden_layers)
        prefill = self._prefill_packed if self._sampler.own_attention else self._prefill_padded
        hidden, logits = prefill(prompts, cache)
        if len(prompts) < len(rows):
            cache.keep(places)
            logits, hidden = logits[places], None if hidden is None else hidden[places]
        start = cache.columns - torch.tensor([len(row.prompt.token_ids) for row in rows], device=device)
        self._join(rows, cache, start)
        self._tokens = torch.cat([self._tokens, self._choose(rows, logits, hidden)])

    def _admit_sharing(self, rows: list[_Row], shelf: PromptShelf) -> None:
        """The same, with each prompt run and held once for all its samples; rows begin without columns of their own."""
        prompts = [row.prompt.token_ids for row in rows]
        if missing := shelf.missing(prompts):
            packed_row = SlotCache(self._model.config.num_hidden_layers)
            shelf.put(missing, packed_row, *self._run_packed(missing, packed_row))
        hidden, logits = shelf.add_rows(prompts)
        if self._cache is None:
            self._cache = SlotCache(self._model.config.num_hidden_layers)
        else:
            self._cache.add_rows(len(rows))
        self._start = torch.cat([self._start, torch.full((len(rows),), self._cache.columns, device=self._model.device)])
        self._rows = self._rows + rows
        self._tokens = torch.cat([self._tokens, self._choose(rows, logits, hidden)])

    def _join(self, rows: list[_Row], cache: SlotCache, start: Tensor) -> None:
        if self._cache is None:
            self._cache, self._start = cache, start
        else:
            before, theirs = self._cache.columns, cache.columns
            self._cache.join(cache)
            after = self._cache.columns
            self._start = torch.cat([self._start + (after - before), start + (after - theirs)])
        self._rows = self._rows + rows

    def _prefill_packed(self, prompts: Sequence[Sequence[int]], cache: SlotCache) -> tuple[Tensor | None, Tensor]:
        """All prompts end to end in one row: nothing is computed for padding."""
        hidden, logits = self._run_packed(prompts, cache)
        cache.unpack([len(ids) for ids in prompts])
        return hidden, logits

    def _run_packed(self, prompts: Sequence[Sequence[int]], cache: SlotCache) -> tuple[Tensor | None, Tensor]:
        lengths = [len(ids) for ids in prompts]
        ids = torch.tensor([token for ids in prompts for token in ids], device=self._model.device)
        last = torch.tensor(lengths, device=self._model.device).cumsum(0) - 1
        with reading_only(self._model, last):
            return self._forward({**packed(ids, lengths), "past_key_values": cache}, last)

    def _prefill_padded(self, prompts: Sequence[Sequence[int]], cache: SlotCache) -> tuple[Tensor | None, Tensor]:
        longest = max(map(len, prompts))
        input_ids = torch.full((len(prompts), longest), self._sampler.pad_token_id)
        for place, ids in enumerate(prompts):
            input_ids[place, longest - len(ids) :] = torch.tensor(ids)
        start = longest - torch.tensor([len(ids) for ids in prompts])
        column = torch.arange(longest)
        arguments = {
            "input_ids": input_ids,
            # Explicit: a model with absolute positions would otherwise be shifted by the padding.
            "position_ids": (column - start[:, None]).clamp(min=0),
            "attention_mask": (column >= start[:, None]).long(),
        }
        on_device = {name: tensor.to(self._model.device) for name, tensor in arguments.items()}
        return self._forward({**on_device, "past_key_values": cache}, None)

    def _step(self) -> None:
        """Feeds every row its last token and lets it choose the next one."""
        assert self._cache is not None
        column = torch.arange(self._cache.columns + 1, device=self._model.device)
        seen = column >= self._start[:, None]
        mask: Tensor | None = seen.long()
        if self._sampler.own_attention:  # [R, 1, Q, N] to add, and none at all where every row fills its slot
            unseen = torch.zeros(seen.shape, device=self._model.device).masked_fill_(~seen, -torch.inf)
            mask = unseen[:, None, None] if bool(self._start.any()) else None
        position = self._cache.columns - self._start
        arguments: dict[str, Any] = {
            "input_ids": self._tokens[:, None],
            "position_ids": (position if self._shelf is None else position + self._shelf.lengths(position.device))[
                :, None
            ],
            "attention_mask": mask,
            "past_key_values": self._cache,
        }
        if self._shelf is not None:
            arguments["prefixes"] = self._shelf.prefixes
        hidden, logits = self._forward(arguments, None)
        self._tokens = self._choose(self._rows, logits, hidden)

    def _forward(self, arguments: dict[str, Any], last: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Last hidden states [R, H] (None without a value head) and logits [R, V] where the next token is predicted.

        ``last``: those positions, for prompts that lie end to end in one row; None: the end of every row.
        """
        if self._sampler.value_head is None:
            logits = self._model(**arguments, use_cache=True, logits_to_keep=1 if last is None else last).logits
            return None, (logits[:, -1] if last is None else logits[0]).float()
        states = self._model.base_model(**arguments, use_cache=True).last_hidden_state
        hidden = states[:, -1] if last is None else states[0, last]
        return hidden, self._model.get_output_embeddings()(hidden).float()

    def _choose(self, rows: list[_Row], logits: Tensor, hidden: Tensor | None) -> Tensor:
        """The next tokens, written down for the rows that still run."""
        choice = choose(logits, self._decode, self._random(rows))
        columns = [choice.logprobs, choice.entropies]
        if hidden is not None:
            assert self._sampler.value_head is not None
            columns.append(self._sampler.value_head(hidden).squeeze(-1).float())
        numbers = torch.stack(columns, dim=1).tolist()
        done = 0
        for row, token, (logprob, entropy, *value) in zip(rows, choice.tokens.tolist(), numbers, strict=True):
            if not row.running:
                continue  # it stays in its slot until the next compaction
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            row.entropies.append(entropy)
            row.values.extend(value)
            row.ended = token == self._sampler.eos_token_id
            done += not row.running
        if done:
            self._on_done(done)
        return choice.tokens

    def _random(self, rows: list[_Row]) -> Tensor | None:
        if self._decode.decoding == "greedy":
            return None
        drawn = [row.random[len(row.token_ids)] if row.running else 0.0 for row in rows]
        return torch.tensor(drawn, dtype=torch.float32, device=self._model.device)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off; the mode is restored afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
