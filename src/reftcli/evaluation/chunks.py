"""A sampling pass cut into chunks that can be done anywhere, in any order, and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reftcli.sampling.interface import Decode


@dataclass(frozen=True, slots=True)
class Pass:
    """``n`` completions of every problem, drawn in one way."""

    decode: Decode
    n: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Problems ``start`` to ``end`` with ``n`` samples each, ``decode.first_sample`` the first of them.

    What is in a chunk depends on settings alone: done again, by whichever process, it is the same call of the sampler.
    """

    number: int
    decode: Decode
    n: int
    start: int
    end: int

    @property
    def completions(self) -> int:
        return (self.end - self.start) * self.n


def plan_chunks(problems: int, passes: Sequence[Pass], size: int) -> list[Chunk]:
    """Chunks of at most ``size`` completions, in the order of the rows: pass, problem, sample.

    As many whole problems as fit; where the samples of one problem are more than ``size``, several chunks for each.
    """
    chunks: list[Chunk] = []
    for one in passes:
        step = max(1, size // one.n)
        for start in range(0, problems, step):
            end = min(start + step, problems)
            for first in range(0, one.n, size):
                decode = replace(one.decode, first_sample=one.decode.first_sample + first)
                chunks.append(Chunk(len(chunks), decode, min(size, one.n - first), start, end))
    return chunks
