"""Sequences of like length side by side, so that attention over all of them is one batched product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LIKE = 7 / 8
"""Sequences of a block have at least this share of its longest one's tokens."""
_MOST_SCORES = 1 << 19
"""Attention scores of a block, so that they stay in a core's cache and take 2 MB: more at once is no faster."""


@dataclass(frozen=True, slots=True)
class Block:
    """Sequences (places among all of them) that attention works on together."""

    sequences: list[int]
    longest: int


@dataclass(frozen=True, slots=True)
class Places:
    """Which rows of [N heads, D] blocks are made of, ``into`` [R]; and which rows of blocks [R, D] those are, ``back``.

    Shorter sequences are filled up at the end, with their own last token: numbers that are not finite stay in theirs.
    """

    into: Tensor
    back: Tensor


class Layout:
    """Between tokens end to end, [1, N, heads, D], and the blocks of their sequences one after another, [R, D].

    A block of S sequences, the longest of L tokens, takes G S matrices [P L, D]: the P heads of each of the G groups
    that share keys stand below one another, so that keys and values (P = 1) are not repeated.
    """

    def __init__(self, lengths: Sequence[int], positions: npt.NDArray[np.int64], heads: int, groups: int) -> None:
        self.heads, self.groups, self.per = heads, groups, heads // groups
        self.blocks = [Block(sequences, lengths[sequences[0]]) for sequences in _alike(lengths, heads)]
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}
        self._lengths, self._positions = lengths, positions
        # Keys stand where queries do if each head has its own.
        self._places = {count: self._find_places(count) for count in {heads, groups}}

    def laid_out(self, states: Tensor) -> Tensor:
        """[1, N, heads or groups, D] -> [R, D]"""
        heads, size = states.shape[2:]
        return states.reshape(-1, size).index_select(0, self._places[heads].into)

    def laid_out_among_zeros(self, states: Tensor) -> Tensor:
        """The same, and 0 where sequences are filled up."""
        heads, size = states.shape[2:]
        places = self._places[heads]
        return states.new_zeros(len(places.into), size).index_copy_(0, places.back, states.reshape(-1, size))

    def end_to_end(self, rows: Tensor, heads: int) -> Tensor:
        """[R, D] -> [1, N, heads, D], for as many heads or groups"""
        return rows.index_select(0, self._places[heads].back).view(1, -1, heads, rows.shape[1])

    def matrices(self, like_queries: Sequence[Tensor], like_keys: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Views of each block: [G S, P L, D] of what is laid out like queries, then [G S, L, D] of the others."""
        start = 0
        for block in self.blocks:
            matrices = self.groups * len(block.sequences)
            end = start + matrices * block.longest
            yield [
                *(x[start * self.per : end * self.per].view(matrices, -1, x.shape[1]) for x in like_queries),
                *(x[start:end].view(matrices, -1, x.shape[1]) for x in like_keys),
            ]
            start = end

    def mask(self, block: Block, dtype: torch.dtype) -> Tensor:
        """What to add to scores, [P L, L]: minus infinity where a token would see later ones."""
        kind = (block.longest, dtype)
        if kind not in self._masks:
            later = torch.ones(block.longest, block.longest, dtype=torch.bool).triu(1)
            self._masks[kind] = (
                torch.zeros(later.shape, dtype=dtype).masked_fill_(later, -torch.inf).repeat(self.per, 1)
            )
        return self._masks[kind]

    def _find_places(self, heads: int) -> Places:
        per = heads // self.groups
        group, member = np.divmod(np.arange(heads), per)
        first, rows = np.empty((len(self._lengths), heads), np.int64), 0  # of each sequence and head
        for block in self.blocks:
            n = len(block.sequences)
            matrix = group * n + np.arange(n)[:, None]
            first[block.sequences] = rows + (matrix * per + member) * block.longest
            rows += heads * n * block.longest
        back = (np.repeat(first, self._lengths, axis=0) + self._positions[:, None]).ravel()
        taken_from = np.zeros(rows, np.int64)
        taken_from[back] = np.arange(len(back))
        filled = np.zeros(rows, np.int64)
        filled[back] = back
        into = taken_from[np.maximum.accumulate(filled)]  # or from the last row before it that is a token
        return Places(torch.from_numpy(into), torch.from_numpy(back))


def _alike(lengths: Sequence[int], heads: int) -> list[list[int]]:
    """Places of sequences by block, the longest first."""
    blocks: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[blocks[-1][0]] if blocks else 0
        scores = (len(blocks[-1]) + 1) * heads * longest**2 if blocks else 0
        if blocks and lengths[place] >= _LIKE * longest and scores <= _MOST_SCORES:
            blocks[-1].append(place)
        else:
            blocks.append([place])
    return blocks
