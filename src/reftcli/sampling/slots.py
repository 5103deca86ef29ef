"""The key-value cache of rows that come and go: buffers written in place, every row aligned on the right."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from reftcli.models.attention import Prefixes, Run

_ROOM = 64
"""Columns that a buffer grows by at least: each growth copies it."""


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values [R, G, capacity, D] of one layer; columns up to ``filled`` are in use."""

    keys: Tensor
    values: Tensor
    is_initialized: bool

    def __init__(self) -> None:
        super().__init__()
        self.filled = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        end = self.filled + key_states.shape[2]
        if not self.is_initialized or end > self.keys.shape[2]:
            self._grow(key_states, value_states, end + _ROOM)
        self.keys[:, :, self.filled : end] = key_states
        self.values[:, :, self.filled : end] = value_states
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.filled

    def keep(self, rows: Tensor, first_column: int) -> None:
        """Only these rows, without the columns before ``first_column``."""
        self.keys, self.values = (
            with_room(buffer[rows, :, first_column : self.filled]) for buffer in (self.keys, self.values)
        )
        self.filled -= first_column

    def add_rows(self, rows: int) -> None:
        """Rows that have nothing in the columns so far."""
        self.keys, self.values = (
            torch.cat([buffer, buffer.new_zeros((rows, *buffer.shape[1:]))]) for buffer in (self.keys, self.values)
        )

    def unpack(self, lengths: Sequence[int]) -> None:
        """Sequences that lie end to end in one row become rows of their own."""
        width = max(lengths)
        self.keys, self.values = (
            with_room(
                torch.cat(
                    [_aligned(part, width) for part in torch.split(buffer[:, :, : sum(lengths)], list(lengths), 2)]
                )
            )
            for buffer in (self.keys, self.values)
        )
        self.filled = width

    def join(self, other: _SlotLayer) -> None:
        """The rows of ``other`` behind these; the shorter of the two gets unused columns on its left."""
        width = max(self.filled, other.filled)
        self.keys, self.values = (
            with_room(
                torch.cat([_aligned(ours[:, :, : self.filled], width), _aligned(theirs[:, :, : other.filled], width)])
            )
            for ours, theirs in ((self.keys, other.keys), (self.values, other.values))
        )
        self.filled = width

    def _grow(self, key_states: Tensor, value_states: Tensor, capacity: int) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        grown = []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            buffer = new.new_empty((*new.shape[:2], capacity, new.shape[3]))
            if self.is_initialized:
                buffer[:, :, : self.filled] = old[:, :, : self.filled]
            grown.append(buffer)
        self.keys, self.values = grown
        self.is_initialized = True


def with_room(states: Tensor) -> Tensor:
    """The same states at the left of a larger buffer."""
    rows, groups, columns, size = states.shape
    buffer = states.new_empty((rows, groups, columns + _ROOM, size))
    buffer[:, :, :columns] = states
    return buffer


def _aligned(states: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))


class SlotCache(Cache):  # type: ignore[misc]
    """A cache whose rows can be dropped and joined. Rows are aligned on the right, so all of them end in one column."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[_SlotLayer() for _ in range(layers)])

    @property
    def columns(self) -> int:
        """Columns in use."""
        return int(self.layers[0].filled)

    def keep(self, rows: Tensor, first_column: int = 0) -> None:
        """Only these rows (one may be given several times), without the columns before ``first_column``."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keep(rows, first_column)

    def add_rows(self, rows: int) -> None:
        """Rows behind these that have nothing in the columns so far."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.add_rows(rows)

    def unpack(self, lengths: Sequence[int]) -> None:
        """Sequences that were run end to end in one row become rows of their own."""
        for layer in self.layers:
            layer.unpack(lengths)

    def join(self, other: SlotCache) -> None:
        """The rows of ``other`` behind these."""
        for ours, theirs in zip(self.layers, other.layers, strict=True):
            ours.join(theirs)


class PromptShelf:
    """Prompts that were run once for all the rows that begin with them, and which of the rows in the slots do."""

    def __init__(self, layers: int) -> None:
        self.prefixes = Prefixes([[] for _ in range(layers)], [[] for _ in range(layers)])
        self._names: list[tuple[int, ...]] = []
        self._ends: list[tuple[Tensor | None, Tensor]] = []
        self._prefix_of_row: list[int] = []

    def missing(self, prompts: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Those that have to be run first."""
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._names]

    def put(self, prompts: Sequence[tuple[int, ...]], cache: SlotCache, hidden: Tensor | None, logits: Tensor) -> None:
        """Prompts that were run end to end in one row, with hidden states [P, H] and logits [P, V] of their ends."""
        lengths = [len(prompt) for prompt in prompts]
        for place, layer in enumerate(cache.layers):
            for shelf, buffer in ((self.prefixes.keys, layer.keys), (self.prefixes.values, layer.values)):
                shelf[place] += [part.clone() for part in buffer[0, :, : sum(lengths)].split(lengths, dim=1)]
        self._names += prompts
        self._ends += [(None if hidden is None else hidden[i], logits[i]) for i in range(len(prompts))]

    def add_rows(self, prompts: Sequence[tuple[int, ...]]) -> tuple[Tensor | None, Tensor]:
        """Rows behind the others, by the prompts that they begin with; returns hidden [R, H] and logits [R, V]."""
        added = [self._names.index(prompt) for prompt in prompts]
        self._prefix_of_row += added
        self._set_runs()
        hidden = [self._ends[prefix][0] for prefix in added]
        some = [state for state in hidden if state is not None]
        return torch.stack(some) if some else None, torch.stack([self._ends[prefix][1] for prefix in added])

    def keep(self, places: Sequence[int], wanted: Container[tuple[int, ...]]) -> None:
        """Only these rows, and the prompts of these and of those that are ``wanted`` later."""
        rows = [self._prefix_of_row[place] for place in places]
        kept = [i for i, name in enumerate(self._names) if i in rows or name in wanted]
        for shelf in (self.prefixes.keys, self.prefixes.values):
            shelf[:] = [[layer[i] for i in kept] for layer in shelf]
        self._names, self._ends = [self._names[i] for i in kept], [self._ends[i] for i in kept]
        self._prefix_of_row = [kept.index(prefix) for prefix in rows]
        self._set_runs()

    def lengths(self, device: torch.device) -> Tensor:
        """Tokens [R] of the prompt of each row."""
        return torch.tensor([len(self._names[prefix]) for prefix in self._prefix_of_row], device=device)

    def _set_runs(self) -> None:
        runs: list[Run] = []
        for row, prefix in enumerate(self._prefix_of_row):
            if runs and runs[-1].prefix == prefix:
                runs[-1] = Run(prefix, runs[-1].first, row + 1)
            else:
                runs.append(Run(prefix, row, row + 1))
        self.prefixes.runs = runs
