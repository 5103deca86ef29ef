"""What a grader is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from reftcli.problems.record import Problem


class Verdict(StrEnum):
    """The four outcomes. "Cannot grade" is a problem of the data or the grader, never of the model."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    UNGRADABLE = "ungradable"


_SCORES: Mapping[Verdict, float | None] = {
    Verdict.CORRECT: 1.0,
    Verdict.WRONG: 0.0,
    Verdict.NO_ANSWER: 0.0,
    Verdict.UNGRADABLE: None,
}


@dataclass(frozen=True, slots=True)
class Grade:
    """A judgement with its evidence. ``score`` is in [0, 1], or None where the completion could not be graded."""

    verdict: Verdict
    score: float | None
    predicted_answer: str | None = None
    why: str = ""
    seconds: float = 0.0
    parts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, verdict: Verdict, predicted_answer: str | None = None, why: str = "", seconds: float = 0.0) -> Grade:
        """The grade of an answer that is simply right, wrong, absent or ungradable."""
        return cls(verdict, _SCORES[verdict], predicted_answer, why, seconds)


class Grader(Protocol):
    """Judges whole batches, because programs and remote judges are only fast in batches."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain data from which the same grader can be built again; saved beside the samples it graded."""
        ...

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Grade]:
        """One grade for each pair, in order. Never raises for what a completion contains."""
        ...

    def same_answer(self, problem: Problem, a: str, b: str) -> bool:
        """Whether two predicted answers are one candidate in a vote, by this grader's own rule of equality."""
        ...

    def close(self) -> None:
        """Ends worker processes, if any."""
        ...


_SLICE = 256


def grade_in_slices(
    grader: Grader, problems: Sequence[Problem], completions: Sequence[str], on_done: Callable[[int], None]
) -> list[Grade]:
    """`Grader.grade` a slice at a time, so that a progress bar can move; ``on_done`` gets the number just graded."""
    grades: list[Grade] = []
    for start in range(0, len(completions), _SLICE):
        grades += grader.grade(problems[start : start + _SLICE], completions[start : start + _SLICE])
        on_done(len(completions[start : start + _SLICE]))
    return grades
