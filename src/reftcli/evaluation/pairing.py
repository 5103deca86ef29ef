"""Whether two evaluations are of the same problems: a pair of outcomes means nothing where an id means two things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from reftcli.errors import UsageError
from reftcli.grading.build import build_grader
from reftcli.grading.interface import Grader
from reftcli.problems.record import Problem


@dataclass(frozen=True, slots=True)
class AskedProblem:
    """What a problem asks: its gold answer, and its question's fingerprint where that is known ("" where not)."""

    gold_answer: str
    question_sha256: str = ""

    def is_other_than(self, asked: AskedProblem) -> str | None:
        """What differs, in words; None where nothing is known to. Prompts do not count: templates differ."""
        if self.question_sha256 and asked.question_sha256 and self.question_sha256 != asked.question_sha256:
            return "other questions"
        if not _same_gold(self.gold_answer.strip(), asked.gold_answer.strip()):
            return f"gold answers {self.gold_answer!r} and {asked.gold_answer!r}"
        return None


def _same_gold(a: str, b: str) -> bool:
    """1, 1.0 and 1,000/1,000 are one number, however a data set writes it. No gold in a file is no other gold."""
    return not a or not b or _numbers().same_answer(Problem("", "?", a), a, b)


@cache
def _numbers() -> Grader:
    return build_grader("ncot", "number")


def refuse_other_problems(
    a: Mapping[str, AskedProblem], b: Mapping[str, AskedProblem], name_a: str, name_b: str
) -> None:
    """Nothing happens where each id that both have means the same problem.

    Raises:
        UsageError: one does not.
    """
    differing = [(item_id, what) for item_id in a if item_id in b and (what := a[item_id].is_other_than(b[item_id]))]
    if differing:
        item_id, what = differing[0]
        raise UsageError(
            f"{name_a} and {name_b} cannot be compared: {len(differing)} of their problems have the same id and are "
            f"others (first: {item_id}, {what}); evaluate both on the same problems"
        )
