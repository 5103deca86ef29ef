"""What a person should look at before trusting grades: why answers failed, and right answers that look wrong.

Nothing here changes a grade. A finding is a reason to read that row, no verdict on it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reftcli.grading.answers import NcotGrader
from reftcli.grading.interface import Grade, Verdict
from reftcli.grading.number import parse_number
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.program import assemble
from reftcli.problems.record import CotForm, Problem

_REASONS = 10
_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|(?<=answered ).*|\d[\d,./e+-]*")
_MARK = re.compile(r"\bthe\s+(?:final\s+|correct\s+)?answer\s+is\b", re.IGNORECASE)
_RESULT = re.compile(r"=\s*\$?(-?\d[\d,]*(?:\.\d+)?)(?![\d.]*\s*[-+*/×÷])")


@dataclass(frozen=True, slots=True)
class Finding:
    """A row, counted from 1, and what is odd about it."""

    row: int
    what: str


@dataclass(frozen=True, slots=True)
class Audit:
    """``reasons``: why rows are not correct, details left out, most frequent first."""

    reasons: tuple[tuple[str, int], ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "reasons": [{"why": why, "rows": count} for why, count in self.reasons],
            "look_at": [{"row": finding.row, "what": finding.what} for finding in self.findings],
        }


def audit(problems: Sequence[Problem], completions: Sequence[str], grades: Sequence[Grade], form: CotForm) -> Audit:
    """The audit of graded rows."""
    reasons = Counter(_DETAIL.sub("…", grade.why) for grade in grades if grade.verdict is not Verdict.CORRECT)
    findings = [
        Finding(row, what)
        for row, (problem, completion, grade) in enumerate(zip(problems, completions, grades, strict=True), start=1)
        for what in _odd(problem, completion, grade, form)
    ]
    return Audit(tuple(reasons.most_common(_REASONS)), tuple(findings))


def _odd(problem: Problem, completion: str, grade: Grade, form: CotForm) -> Iterator[str]:
    if form == "pcot":
        if grade.verdict is Verdict.CORRECT and not _computes(completion):
            yield "correct, and the program computes nothing: its answer stands in it as a constant"
        return
    if grade.verdict is Verdict.CORRECT:
        if len(_MARK.findall(completion)) > 1:
            yield "correct, and the completion marks more than one final answer; the last one counts"
        if problem.answer_kind == "choice":
            yield from _letter_against_value(problem, completion)
    elif (
        grade.verdict is Verdict.NO_ANSWER and problem.answer_kind == "number" and _ends_with_gold(problem, completion)
    ):
        yield "no answer, and the last number of the completion is the gold answer: the form is missing, not the answer"


def _computes(completion: str) -> bool:
    try:
        tree = ast.parse(assemble(completion))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    working = (ast.BinOp, ast.Call, ast.AugAssign, ast.Compare, ast.For, ast.While)
    return any(isinstance(node, working) for node in ast.walk(tree))


def _letter_against_value(problem: Problem, completion: str) -> Iterator[str]:
    """A model that guesses letters is right one time in five, whatever it computed before."""
    option = parse_number(problem.options.get(problem.gold_answer.strip(), ""), AnswerPolicy())
    results = _RESULT.findall(completion)
    last = parse_number(results[-1], AnswerPolicy()) if results else None
    if option is not None and last is not None and option != last:
        yield f"the letter is right, and the last computed value {results[-1]} is not the option's"


def _ends_with_gold(problem: Problem, completion: str) -> bool:
    (grade,) = NcotGrader("number", AnswerPolicy(last_number=True)).grade([problem], [completion])
    return grade.verdict is Verdict.CORRECT
