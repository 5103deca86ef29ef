"""How long work reports on itself, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work with a known number of units."""

    def advance(self, units: int = 1) -> None:
        """So many more units are done."""
        ...

    def show(self, values: Mapping[str, float]) -> None:
        """The newest numbers worth seeing; numbers shown before stay until they are given anew."""
        ...


class Progress(Protocol):
    """Makes tasks; the command line draws bars with rate and time left, tests and other ranks draw nothing."""

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Task]:
        """A context manager that yields the `Task`."""
        ...

    def say(self, line: str) -> None:
        """One line for people, on standard error."""
        ...


class _SilentTask:
    def advance(self, units: int = 1) -> None:
        return None

    def show(self, values: Mapping[str, float]) -> None:
        return None


class SilentProgress:
    """Shows nothing."""

    @contextmanager
    def _silent(self) -> Iterator[Task]:
        yield _SilentTask()

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Task]:
        return self._silent()

    def say(self, line: str) -> None:
        return None
