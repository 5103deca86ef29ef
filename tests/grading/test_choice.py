"""The table of multiple-choice answers, as text and as values of programs."""

from __future__ import annotations

import pytest

from reftcli.grading.answers import NcotGrader
from reftcli.grading.interface import Verdict
from reftcli.grading.policy import AnswerPolicy
from reftcli.grading.rules import ChoiceRule
from reftcli.problems.record import Problem
from reftcli.sandbox.interface import OtherValue

NUMBERS = {"a": "24", "b": "120", "c": "625 ways", "d": "0.005", "e": "0.006"}
WORDS = {"A": "a dog", "B": "a cat", "C": "none of these", "D": "a dog and a cat"}

ROWS = [  # options, what stands behind the trigger, gold answer, verdict
    (NUMBERS, "c", "c", "correct"),
    (NUMBERS, "C", "c", "correct"),
    (NUMBERS, "c.", "c", "correct"),
    (NUMBERS, "(c)", "c", "correct"),
    (NUMBERS, "(C).", "C", "correct"),
    (NUMBERS, "c)", "c", "correct"),
    (NUMBERS, "c )", "c", "correct"),
    (NUMBERS, "[c]", "c", "correct"),
    (NUMBERS, "option c", "c", "correct"),
    (NUMBERS, "Option C", "c", "correct"),
    (NUMBERS, "choice (c)", "c", "correct"),
    (NUMBERS, "**C**", "c", "correct"),
    (NUMBERS, "$\\boxed{C}$", "c", "correct"),
    (NUMBERS, "\\boxed{\\text{C}}", "c", "correct"),
    (NUMBERS, "\\textbf{(C)}", "c", "correct"),
    (NUMBERS, "c) 625", "c", "correct"),
    (NUMBERS, "(c) 625 ways", "c", "correct"),
    (NUMBERS, "c ) 625 ways.", "c", "correct"),
    (NUMBERS, "C: 625", "c", "correct"),
    (NUMBERS, "C. 625", "c", "correct"),
    (NUMBERS, "c, 625", "c", "correct"),
    (NUMBERS, "C - 625", "c", "correct"),
    (NUMBERS, "625", "c", "correct"),
    (NUMBERS, "625 ways", "c", "correct"),
    (NUMBERS, "625.0", "c", "correct"),
    (NUMBERS, "a", "a", "correct"),
    (NUMBERS, "b", "c", "wrong"),
    (NUMBERS, "120", "c", "wrong"),
    (NUMBERS, "0.006", "d", "wrong"),
    (NUMBERS, "c) 120", "c", "wrong"),
    (NUMBERS, "c) 626", "c", "wrong"),
    (NUMBERS, "b) 625", "c", "wrong"),
    (NUMBERS, "b) 625", "b", "wrong"),
    (NUMBERS, "b or c", "c", "wrong"),
    (NUMBERS, "c or b", "c", "wrong"),
    (NUMBERS, "b, c", "c", "wrong"),
    (NUMBERS, "c, d", "c", "wrong"),
    (NUMBERS, "c/d", "c", "wrong"),
    (NUMBERS, "c and d", "c", "wrong"),
    (NUMBERS, "(b) (c)", "c", "wrong"),
    (NUMBERS, "(c) or (d)", "c", "wrong"),
    (NUMBERS, "not c", "c", "wrong"),
    (NUMBERS, "c) is wrong", "c", "wrong"),
    (NUMBERS, "c? d", "c", "wrong"),
    (NUMBERS, "option c or option d", "c", "wrong"),
    (NUMBERS, "f", "c", "no_answer"),
    (NUMBERS, "(f)", "c", "no_answer"),
    (NUMBERS, "7", "c", "no_answer"),
    (NUMBERS, "", "c", "no_answer"),
    (NUMBERS, "clear", "c", "no_answer"),
    (NUMBERS, "cat", "c", "no_answer"),
    (NUMBERS, "abcde", "c", "no_answer"),
    (NUMBERS, "a number", "a", "no_answer"),
    (NUMBERS, "a 24", "a", "no_answer"),
    (WORDS, "a dog", "A", "correct"),
    (WORDS, "A dog", "A", "correct"),
    (WORDS, "a cat", "B", "correct"),
    (WORDS, "a cat", "A", "wrong"),
    (WORDS, "a mouse", "A", "no_answer"),
    (WORDS, "A", "A", "correct"),
    (WORDS, "None of these.", "C", "correct"),
    (WORDS, "a dog and a cat", "D", "correct"),
    (WORDS, "(D) a dog and a cat", "D", "correct"),
    (WORDS, "(A) a cat", "A", "wrong"),
    ({}, "C", "C", "correct"),
    ({}, "B", "C", "wrong"),
    ({}, "Z", "C", "no_answer"),
]


def item(options: dict[str, str], gold: str) -> Problem:
    return Problem("p", "Which?", gold, "choice", options)


@pytest.mark.parametrize(("options", "text", "gold", "verdict"), ROWS)
def test_answer(options: dict[str, str], text: str, gold: str, verdict: str) -> None:
    (grade,) = NcotGrader("choice").grade([item(options, gold)], [f"Therefore, the answer is: {text}"])
    assert grade.verdict == verdict, grade


@pytest.mark.parametrize("gold", ["f", "625", "", "a or b"])
def test_a_gold_must_be_the_letter_of_an_option(gold: str) -> None:
    (grade,) = NcotGrader("choice").grade([item(NUMBERS, gold)], ["Therefore, the answer is: c"])
    assert grade.verdict is Verdict.UNGRADABLE


def test_the_text_of_an_option_can_be_refused() -> None:
    grader = NcotGrader("choice", AnswerPolicy(option_text=False))
    grades = grader.grade([item(NUMBERS, "c")] * 2, ["the answer is 625", "the answer is c) 625"])
    assert [grade.verdict for grade in grades] == ["no_answer", "correct"]


@pytest.mark.parametrize(
    ("value", "letter"),
    [
        ("c", "c"),
        ("C", "c"),
        ("(c)", "c"),
        ("625", "c"),
        (625, "c"),
        (624.999, "c"),
        (0.005, "d"),
        (0.0059, "e"),
        (0.0055, None),  # as near to d as to e
        (23.5, None),
        (float("nan"), None),
        (True, None),
        ("f", None),
        ("none", None),
        (OtherValue("a list of values"), None),
    ],
)
def test_values_of_programs(value: str | float | OtherValue, letter: str | None) -> None:
    reading = ChoiceRule(AnswerPolicy()).read_value(item(NUMBERS, "c"), value)
    assert reading.value == letter
    assert letter is not None or reading.verdict is Verdict.NO_ANSWER
