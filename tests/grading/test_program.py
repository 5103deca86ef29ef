"""Programs: how they are assembled, run and judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reftcli.grading.interface import Verdict
from reftcli.grading.program import ProgramGrader, assemble
from reftcli.problems.record import Problem

SVAMP = Path(__file__).resolve().parents[3] / "shared/data/svamp/svamp_python_sdp.json"

WHOLE = "def solution():\n    a = 3\n    return a"

COMPLETIONS = [  # completion, gold answer, verdict
    (WHOLE, "3", "correct"),
    (WHOLE, "4", "wrong"),
    ("\n    a = 3\n    return a", "3", "correct"),
    ("    a = 3\n    return a", "3", "correct"),
    ("\n\n    a = 3\n\n    return a\n\n", "3", "correct"),
    (" \n    a = 3\n    return a", "3", "correct"),
    ("\r\n    a = 3\r\n    return a\r\n", "3", "correct"),
    ("\n    # a comment first\n    return 3", "3", "correct"),
    ("\n    def solution():\n        return 3\n    return solution()", "3", "correct"),
    ("\n    return 3\n\ndef helper():\n    return 4", "3", "correct"),
    ("\n    return helper()\n\ndef helper():\n    return 3", "3", "correct"),
    ("\n    return 3\n\ndef solution():\n    return 4", "4", "correct"),
    (
        "import math\n\ndef helper(x):\n    return math.floor(x)\n\n\ndef solution():\n    return helper(3.5)",
        "3",
        "correct",
    ),
    ("from fractions import Fraction\n\ndef solution():\n    return Fraction(1, 3)", "1/3", "correct"),
    ("```python\n" + WHOLE + "\n```", "3", "correct"),
    ("Here it is:\n```\n" + WHOLE + "\n```\nIt returns 4.", "3", "correct"),
    (
        "from __future__ import annotations\nimport threading, time, logging\ndef solution():\n    return 3",
        "3",
        "correct",
    ),
    ("X = 3\ndef solution ( ) :\n    return X", "3", "correct"),
    ("# first\n\ndef solution():\n    return 3\n\nprint(solution())", "3", "correct"),
    ("def solution(x=3):\n    return x", "3", "correct"),
    ('def solution():\n    """Say "hi""""\n    return 3', "3", "no_answer"),
    ("def solution():\n    text = 'sys.exit(0)'\n    return 3", "3", "correct"),
    ("def solution():\n    print('a' * 100)\n    return 3", "3", "correct"),
    ("if __name__ == '__main__':\n    raise SystemExit\ndef solution():\n    return 3", "3", "correct"),
    (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef solution():\n    return A(3).x",
        "3",
        "correct",
    ),
    ("def solution():\n    return math.ceil(2.5)", "3", "correct"),
    ("def solution():\n    return 3.0000001", "3", "correct"),
    ("def solution():\n    return '3'", "3", "correct"),
    ("def solution():\n    return '$3.00'", "3", "correct"),
    ("def solution():\n    return 3 + 0j", "3", "correct"),
    ("def solution():\n    return [3]", "3", "wrong"),
    ("def solution():\n    return (3, 4)", "3", "wrong"),
    ("def solution():\n    return {'a': 3}", "3", "wrong"),
    ("def solution():\n    return True", "1", "wrong"),
    ("def solution():\n    return float('nan')", "3", "wrong"),
    ("def solution():\n    return float('inf')", "3", "wrong"),
    ("def solution():\n    return 3j", "3", "wrong"),
    ("def solution():\n    return 10 ** 9000", "3", "wrong"),
    ("def solution():\n    return 10 ** 2000", "3", "wrong"),
    ("def solution():\n    return '3 or 4'", "3", "wrong"),
    ("def solution():\n    return (x for x in [3])", "3", "wrong"),
    ("def solution():\n    return None", "3", "no_answer"),
    ("def solution():\n    pass", "3", "no_answer"),
    ("def solution():\n    yield 3", "3", "wrong"),
    ("def solution(x):\n    return x", "3", "no_answer"),
    ("def solution():\n    return 1 / 0", "3", "no_answer"),
    ("def solution():\n    return a", "3", "no_answer"),
    ("def other():\n    return 3", "3", "no_answer"),
    ("def solution():\n    a = 3\n  return a", "3", "no_answer"),
    ("def solution():\n    a = 3\n    retu", "3", "no_answer"),
    ("", "3", "no_answer"),
    ("The answer is 3", "3", "no_answer"),
    ("\n    import scipy\n    return 3", "3", "no_answer"),
    ("from math import *\ndef solution():\n    return sqrt(9)", "3", "correct"),
    (WHOLE, "three", "ungradable"),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[ProgramGrader]:
    grader = ProgramGrader("number", workers=2)
    yield grader
    grader.close()


@pytest.mark.parametrize(("completion", "gold", "verdict"), COMPLETIONS)
def test_completion(grader: ProgramGrader, completion: str, gold: str, verdict: str) -> None:
    (grade,) = grader.grade([Problem("p", 'Who said "hi"?', gold)], [completion])
    assert grade.verdict == verdict, grade
    assert grade.why
    assert (grade.predicted_answer is None) == (verdict in ("no_answer", "ungradable"))


@pytest.mark.parametrize(
    "body",
    [
        "from decimal import Decimal\n    return Decimal('0.5')",
        "import sympy\n    x = sympy.symbols('x')\n    return sympy.solve(sympy.Eq(2 * x, 1))[0]",
        "from sympy import symbols, integrate, Rational\n    x = symbols('x')\n    return integrate(x, (x, 0, 1))",
        "import sympy as sp\n    return sp.N(sp.sqrt(2)) ** 2 / 4",
        "from sympy.stats import Die, E\n    return E(Die('X', 6)) / 7",
        "import numpy as np\n    return np.mean([0, 1])",
        "import numpy as np\n    return np.array([0.5]).sum()",
        "import numpy as np\n    return np.linalg.solve(np.array([[2.0]]), np.array([1.0]))[0]",
        "import statistics\n    return statistics.mean([0, 1])",
        "from datetime import datetime\n    return (datetime.strptime('2', '%d') - datetime(1900, 1, 1)).days / 2",
        "import itertools, functools, collections\n    return collections.Counter('ab')['a'] / 2",
        "import re, string, random\n    return round(0.5, 1)",
        "import heapq, bisect, calendar, cmath, operator, copy\n    return 0.5",
    ],
)
def test_libraries(grader: ProgramGrader, body: str) -> None:
    (grade,) = grader.grade([Problem("p", "q", "0.5")], [f"\n    {body}"])
    assert grade.verdict is Verdict.CORRECT, grade


def test_choices(grader: ProgramGrader) -> None:
    options = {"a": "24", "b": "120", "c": "625"}
    bodies = [
        "return 'c'",
        "return 625",
        "return 5 ** 4 + 0.001",
        "return 'b'",
        "return 24",
        "return 7",
        "return 1 / 0",
    ]
    choice = ProgramGrader("choice", workers=1)
    problems = [Problem("p", "q", "c", "choice", options)] * len(bodies)
    verdicts = [grade.verdict for grade in choice.grade(problems, [f"\n    {body}" for body in bodies])]
    choice.close()
    assert verdicts == ["correct", "correct", "correct", "wrong", "wrong", "no_answer", "no_answer"]


def test_texts_and_votes(grader: ProgramGrader) -> None:
    text = ProgramGrader("text", workers=1)
    (grade,) = text.grade([Problem("p", "q", "paris", "text")], ["\n    return 'Paris'"])
    text.close()
    assert grade.verdict is Verdict.CORRECT
    assert grader.same_answer(Problem("p", "q", "3"), "3.333", "3.3333")


def test_a_continuation_keeps_its_prompt() -> None:
    assert assemble("\n    return 3") == 'def solution():\n    """question"""\n    return 3'
    assert assemble("    return 3") == assemble("\n    return 3")
    assert assemble(WHOLE) == WHOLE


def test_why_names_the_error(grader: ProgramGrader) -> None:
    grades = grader.grade([Problem("p", "q", "3")] * 3, ["\n    return 1 / 0", "\n    retu rn", "x = 1"])
    assert "ZeroDivisionError: division by zero" in grades[0].why
    assert "SyntaxError" in grades[1].why
    assert grades[2].why == "the program returned None"


def test_all_svamp_programs_grade_correct(grader: ProgramGrader) -> None:
    if not SVAMP.is_file():
        pytest.skip(f"{SVAMP} is not here")
    rows = json.loads(SVAMP.read_text())
    assert len(rows) == 3043
    problems = [Problem(row["item_id"], row["question"], row["answer_value"]) for row in rows]
    grades = grader.grade(problems, [row["answer_cot"] for row in rows])
    wrong = [(problem.item_id, grade.why) for problem, grade in zip(problems, grades, strict=True) if grade.score != 1]
    assert not wrong


@pytest.mark.parametrize(
    ("value", "gold", "verdict"),
    [
        ("sympy.expand((x + 1) ** 2)", "(x+1)^2", "correct"),
        ("sympy.expand((x + 1) ** 2)", "(x+2)^2", "wrong"),
        ("x / 2", "\\frac{x}{2}", "correct"),
        ("sympy.Rational(1, 3)", "\\frac{1}{3}", "correct"),
        ("[x, 1]", "x", "wrong"),
    ],
)
def test_a_formula_can_be_an_answer_of_kind_math(value: str, gold: str, verdict: str) -> None:
    pytest.importorskip("math_verify")
    grader = ProgramGrader("math", workers=1)
    program = f"import sympy\nx = sympy.Symbol('x')\ndef solution():\n    return {value}"
    try:
        (grade,) = grader.grade([Problem("p", "?", gold, "math")], [program])
    finally:
        grader.close()
    assert grade.verdict == verdict, grade
