"""Which problems each update takes: a pure function of seed and update, so that a resumed run repeats it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


class ProblemOrder:
    """Batches from an endless chain of shuffled passes; no problem is left out of a pass, none comes twice in a batch.

    Args:
        n: number of problems, at least ``batch_size``.
        batch_size: problems per update, over all ranks.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        if n < batch_size:
            raise ValueError(f"{n} problems do not fill a batch of {batch_size}")
        self._n, self._batch_size, self._seed = n, batch_size, seed

    def batch(self, update: int) -> list[int]:
        """Indices of the problems of one update, counted from 0."""
        start = update * self._batch_size
        first, offset = divmod(start, self._n)
        head = _permutation(self._n, self._seed, first)[offset : offset + self._batch_size]
        missing = self._batch_size - len(head)
        if not missing:
            return list(head)
        # The batch reaches into the next pass. What it already holds is taken later there, so that nothing repeats.
        return list(head) + list(self._after(head, first + 1)[:missing])

    def _after(self, taken: tuple[int, ...], epoch: int) -> list[int]:
        already = set(taken)
        return [i for i in _permutation(self._n, self._seed, epoch) if i not in already]


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng([seed, epoch]).permutation(n).tolist())
