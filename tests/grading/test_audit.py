from __future__ import annotations

from typing import Any

import pytest

from reftcli.grading.audit import audit
from reftcli.grading.build import build_grader
from reftcli.problems.record import Problem

OPTIONS = {"a": "12", "b": "15", "c": "18"}


def findings(completion: str, gold: str = "18", form: Any = "ncot", options: dict[str, str] | None = None) -> list[str]:
    kind: Any = "choice" if options else "number"
    problem = Problem("p", "?", gold, kind, options or {})
    grader = build_grader(form, kind)
    try:
        grades = grader.grade([problem], [completion])
    finally:
        grader.close()
    return [finding.what for finding in audit([problem], [completion], grades, form).findings]


@pytest.mark.parametrize(
    ("completion", "options", "expected"),
    [
        ("9 + 9 = 18. Therefore, the answer is: 18", None, ""),
        ("The answer is 20.\nTherefore, the answer is: 18", None, "more than one final answer"),
        ("So she has 18", None, "the form is missing"),
        ("So she has 19", None, ""),
        ("9 * 2 = 18. Therefore, the answer is: c", OPTIONS, ""),
        ("5 * 3 = 15. Therefore, the answer is: c", OPTIONS, "last computed value 15"),
        ("Therefore, the answer is: c", OPTIONS, ""),
    ],
)
def test_what_is_odd_about_a_chain(completion: str, options: dict[str, str] | None, expected: str) -> None:
    found = findings(completion, "c" if options else "18", options=options)
    assert len(found) == bool(expected)
    assert expected in " ".join(found)


@pytest.mark.parametrize(
    ("program", "odd"),
    [
        ("def solution():\n    return 18", True),
        ("def solution():\n    result = 18\n    return result", True),
        ("def solution():\n    return 9 * 2", False),
        ("def solution():\n    return 17", False),
        ("    total = 9 + 9\n    return total", False),
        ("    return 18", True),
    ],
)
def test_a_program_that_computes_nothing_is_odd(program: str, odd: bool) -> None:
    assert bool(findings(program, form="pcot")) is odd


def test_reasons_are_counted_without_their_details() -> None:
    problems = [Problem(str(n), "?", "18") for n in range(4)]
    completions = ["the answer is 1", "the answer is 2", "none", "the answer is 18"]
    grades = build_grader("ncot", "number").grade(problems, completions)
    found = audit(problems, completions, grades, "ncot")
    assert [count for _, count in found.reasons] == [2, 1]
    assert found.to_json()["reasons"][0]["rows"] == 2
    assert found.to_json()["look_at"] == []
