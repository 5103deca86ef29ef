"""Sequences that lie end to end in one row, so that nothing is computed for padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from reftcli.models.blocks import Layout


@dataclass(frozen=True, eq=False)
class Packing:
    """The lengths of the sequences in a row, and what every layer's attention wants to know of them."""

    lengths: tuple[int, ...]
    _layouts: dict[tuple[int, int], Layout] = field(default_factory=dict)

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """Of each token in its sequence, [N]."""
        lengths = np.asarray(self.lengths)
        positions: npt.NDArray[np.int64] = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        return positions

    def layout(self, heads: int, groups: int) -> Layout:
        """For attention with so many heads, of which so many groups share keys; made once."""
        if (heads, groups) not in self._layouts:
            self._layouts[heads, groups] = Layout(self.lengths, self.positions, heads, groups)
        return self._layouts[heads, groups]


def packed(ids: Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """The arguments of a forward pass over sequences that lie end to end: ids [N] with N the sum of ``lengths``.

    Sequences of token 0 may follow, so that shapes come again: see `in_multiples`. Their outputs mean nothing.
    """
    input_ids = in_multiples(ids)
    packing = Packing((*lengths, *_pieces(len(input_ids) - len(ids), max(lengths))))
    positions = torch.tensor(packing.positions, device=ids.device)  # its own memory: a model may change it
    return {"input_ids": input_ids[None], "position_ids": positions[None], "packing": packing}


def in_multiples(rows: Tensor) -> Tensor:
    """The rows of a tensor and up to 3% more of zeros, so that there are few different numbers of rows.

    oneDNN makes a program for each shape of a product when it first meets it, and keeps it: that takes a millisecond
    and a few hundred kilobytes, so shapes must come again.
    """
    step = 1 << max(0, (len(rows) // 32).bit_length() - 1)
    return functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, -len(rows) % step))


def _pieces(total: int, most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, most)
        total -= most
