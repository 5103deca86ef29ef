"""Which of how many processes this is, and what they tell each other; a process alone needs no torch for that."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")


class Ranks(Protocol):
    """The processes of one job. Every method is called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the person: rank 0."""
        ...

    def gather(self, value: T) -> list[T]:
        """Everybody's value, in the order of ranks, on every rank."""
        ...

    def runs_in(self, folder: Path) -> None:
        """Notes which run this is: whoever started the processes writes there how they ended, if they cannot."""
        ...

    def is_at(self, what: str) -> None:
        """Notes what this process does now: said where the others wait for it in vain."""
        ...

    def from_main(self, value: T) -> T:
        """The main process's value, on every rank."""
        ...


class Alone:
    """One process is all there is."""

    rank, count, is_main = 0, 1, True

    def gather(self, value: T) -> list[T]:
        return [value]

    def runs_in(self, folder: Path) -> None:
        return None

    def is_at(self, what: str) -> None:
        return None

    def from_main(self, value: T) -> T:
        return value


ALONE: Ranks = Alone()
