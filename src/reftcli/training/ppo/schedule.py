"""Which problems each update takes: a pure function of seed and update, so that a resumed run repeats it."""

from __future__ import annotations

import math

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
        self._passes: dict[int, list[int]] = {}

    def batch(self, update: int) -> list[int]:
        """Indices of the problems of one update, counted from 0."""
        number, offset = divmod(update * self._batch_size, self._n)
        head = self._pass(number)[offset : offset + self._batch_size]
        missing = self._batch_size - len(head)
        return head + self._pass(number + 1)[:missing] if missing else head

    def _pass(self, number: int) -> list[int]:
        """The order of one pass. It depends on the one before, back to the last that began with a batch of its own."""
        if number not in self._passes:
            aligned = number - number % (self._batch_size // math.gcd(self._n, self._batch_size))
            start = max(aligned, number - 1) if number - 1 in self._passes else aligned
            order = self._passes.get(start) or _permutation(self._n, self._seed, start)
            for following in range(start + 1, number + 1):
                order = self._joined(order, following)
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1} | {number: order}
        return self._passes[number]

    def _joined(self, before: list[int], number: int) -> list[int]:
        """A pass that begins inside a batch. What that batch already holds is taken later, so that nothing repeats."""
        order = _permutation(self._n, self._seed, number)
        missing = -number * self._n % self._batch_size
        held = set(before[self._n - (self._batch_size - missing) :])
        first = [i for i in order if i not in held][:missing]
        taken = set(first)
        return first + [i for i in order if i not in taken]


def _permutation(n: int, seed: int, epoch: int) -> list[int]:
    return [int(i) for i in np.random.default_rng([seed, epoch]).permutation(n)]
