"""What a file format is: it recognises its rows and turns each into a problem, or says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from reftcli.problems.record import Problem

Row = Mapping[str, Any]


class BadRow(ValueError):
    """One row cannot become a problem; the message is the reason, without the place."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands. ``line`` counts from 1 (the line on which the row begins), ``index`` from 0."""

    name: str
    line: int
    index: int

    @property
    def source(self) -> str:
        """``file:line``, as errors print it."""
        return f"{self.name}:{self.line}"

    @property
    def item_id(self) -> str:
        """The name of a row that brings none of its own; the same wherever the file lies."""
        return f"{PurePath(self.name).stem}_{self.index}"


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One entry of the table. ``parse`` raises ``BadRow``; ``derive_program`` gives a P-CoT program or None."""

    name: str
    keys: str
    """The keys that a row needs, as shown to a person."""
    recognises: Callable[[Row], bool]
    parse: Callable[[Row, Place], Problem]
    derive_program: Callable[[Problem], str | None] | None = None
    derived_from: str = ""
