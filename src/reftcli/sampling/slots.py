"""The key-value cache of rows that come and go: buffers written in place, every row aligned on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

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
            layer.keep(rows, first_column)

    def unpack(self, lengths: Sequence[int]) -> None:
        """Sequences that were run end to end in one row become rows of their own."""
        for layer in self.layers:
            layer.unpack(lengths)

    def join(self, other: SlotCache) -> None:
        """The rows of ``other`` behind these."""
        for ours, theirs in zip(self.layers, other.layers, strict=True):
            ours.join(theirs)
