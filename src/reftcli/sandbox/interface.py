"""What a program is allowed, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction


class Status(StrEnum):
    """How a program ended. Only ``OK`` comes with a value."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Limits of one program. Time is CPU time, so that a verdict never depends on how busy the machine is."""

    timeout_s: float = 2.0
    memory_mb: int = 256
    result_bytes: int = 65536
    source_chars: int = 200_000


@dataclass(frozen=True, slots=True)
class OtherValue:
    """A value that is neither a number nor a text; ``name`` says what it was, for the reader of a grade.

    ``formula`` is the LaTeX of a sympy expression that is no number.
    """

    name: str
    formula: str = ""


Value = int | float | Fraction | complex | str | bool | OtherValue | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one program did. ``error`` is an exception's name, or a signal's; ``message`` its text, cut short."""

    status: Status
    value: Value = None
    error: str = ""
    message: str = ""
    cpu_s: float = 0.0
