"""The questions about answers on which people disagree, as settings with a stated default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any, Literal, get_args

from reftcli.errors import UsageError

Percent = Literal["drop", "fraction"]


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """How answers are read and compared. Gold answers and predicted ones are read by the same policy."""

    tolerance: float = 1e-2
    """Two numbers are equal when they differ by at most this much, absolutely."""
    percent: Percent = "drop"
    """``drop``: 5% is 5, the sign is a unit like any other. ``fraction``: 5% is 0.05."""
    decimal_comma: bool = False
    """Read 3,5 as three and a half (and 1.000 as a thousand). Off: a comma groups thousands, 3,5 is no number."""
    number_words: bool = False
    """Read "twenty-five" and "5 million". Off: the first is no number, the second is a wrong answer."""
    option_text: bool = True
    """In multiple choice, accept an option's text where its letter was asked for."""
    last_number: bool = False
    """Where nothing marks the final answer, take the last number of the text. Pays for guesses: keep it off in RL."""

    def __post_init__(self) -> None:
        if not (isinstance(self.tolerance, (int, float)) and 0 <= self.tolerance < float("inf")):
            raise UsageError(f"answer policy: tolerance must be a number >= 0 (got {self.tolerance!r})")
        if self.percent not in get_args(Percent):
            raise UsageError(f"answer policy: percent must be one of drop, fraction (got {self.percent!r})")
        for name in ("decimal_comma", "number_words", "option_text", "last_number"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"answer policy: {name} must be true or false (got {getattr(self, name)!r})")

    @property
    def exact_tolerance(self) -> Fraction:
        """The tolerance as it is written: 0.01 means one hundredth and not the float nearest to it."""
        return Fraction(str(self.tolerance))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> AnswerPolicy:
        """From plain data. Raises UsageError for an unknown name or an unusable value."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UsageError(f"answer policy: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data for a grader's specification."""
        return asdict(self)
