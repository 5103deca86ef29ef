"""Processes of one job, played by threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest


class ThreadRank:
    """One of several threads that meet wherever processes would."""

    def __init__(self, rank: int, barrier: threading.Barrier, table: list[Any]) -> None:
        self.rank, self.count, self.is_main = rank, barrier.parties, rank == 0
        self.was_at: list[str] = []
        self._barrier, self._table = barrier, table

    def gather(self, value: Any) -> list[Any]:
        self._table[self.rank] = value
        self._barrier.wait()
        found = list(self._table)
        self._barrier.wait()
        return found

    def from_main(self, value: Any) -> Any:
        return self.gather(value)[0]

    def is_at(self, what: str) -> None:
        self.was_at.append(what)


@pytest.fixture
def in_ranks() -> Callable[[int, Callable[[Any], Any]], list[Any]]:
    """Calls a function once for each rank, at the same time; returns what each returned, or the exception it raised."""

    def run(count: int, function: Callable[[Any], Any]) -> list[Any]:
        barrier, table = threading.Barrier(count, timeout=60), [None] * count
        found: list[Any] = [None] * count

        def call(rank: int) -> None:
            try:
                found[rank] = function(ThreadRank(rank, barrier, table))
            except Exception as error:  # noqa: BLE001 - whatever it was, the test looks at it
                found[rank] = error
                if not isinstance(error, threading.BrokenBarrierError) and type(error).__module__ == "builtins":
                    barrier.abort()

        threads = [threading.Thread(target=call, args=(rank,), name=f"rank-{rank}") for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        return found

    return run
