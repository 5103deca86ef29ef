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
MIXED = {"A": "12", "B": "18", "C": "none of these"}
SIGNED = {"a": "- 119", "b": "- 159", "c": "1 : 3", "d": "24 : 25"}
RUPEES = {"a": "rs . 300", "b": "rs . 400", "c": "1 / 2"}

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
    (NUMBERS, "c 625", "c", "correct"),
    (NUMBERS, "C (625)", "c", "correct"),
    (NUMBERS, "c (625 ways)", "c", "correct"),
    (NUMBERS, "letter C", "c", "correct"),
    (NUMBERS, "the option C", "c", "correct"),
    (NUMBERS, "the letter c", "c", "correct"),
    (NUMBERS, "Option: C", "c", "correct"),
    (NUMBERS, "C!", "c", "correct"),
    (NUMBERS, "c, which is 625", "c", "correct"),
    (NUMBERS, "c, because 5^4 = 625", "c", "correct"),
    (NUMBERS, "C, since 600 + 25 gives 625", "c", "correct"),
    (NUMBERS, "625 (C)", "c", "correct"),
    (NUMBERS, "Ｃ", "c", "correct"),
    (NUMBERS, "A (24)", "a", "correct"),
    (NUMBERS, "A 24", "a", "correct"),
    (NUMBERS, "E = 0.006", "e", "correct"),
    (NUMBERS, "c (120)", "c", "wrong"),
    (NUMBERS, "c, which is 120", "c", "wrong"),
    (NUMBERS, "c, because it is 120", "c", "wrong"),
    (NUMBERS, "c = 120", "c", "wrong"),
    (NUMBERS, "c) x = 120", "c", "wrong"),
    (NUMBERS, "b = 625", "c", "wrong"),
    (NUMBERS, "b (625)", "c", "wrong"),
    (NUMBERS, "120 (C)", "c", "wrong"),
    (NUMBERS, "C. 625 B. 120", "c", "wrong"),
    (NUMBERS, "C: 625 B: 120", "c", "wrong"),
    (NUMBERS, "c then b", "c", "wrong"),
    (NUMBERS, "C. Actually B", "c", "wrong"),
    (NUMBERS, "A/C", "c", "wrong"),
    (NUMBERS, "A and C", "c", "wrong"),
    (NUMBERS, "c) 9 * 2 = 18", "c", "wrong"),
    (NUMBERS, "c = 120", "b", "wrong"),
    (NUMBERS, "c) x = 120", "b", "wrong"),
    (NUMBERS, "120 (C)", "b", "wrong"),
    (NUMBERS, "A/B", "a", "wrong"),
    (NUMBERS, "С", "c", "no_answer"),
    (NUMBERS, "A (number)", "a", "no_answer"),
    (NUMBERS, "c 120", "c", "wrong"),
    (RUPEES, "rs. 400", "b", "correct"),
    (RUPEES, "400", "b", "correct"),
    (RUPEES, "Rs 400", "b", "correct"),
    (RUPEES, "b ) rs . 400", "b", "correct"),
    (RUPEES, "b ) 300", "b", "wrong"),
    (RUPEES, "1/2", "c", "correct"),
    (RUPEES, "c ) 1 / 2", "c", "correct"),
    (RUPEES, "c) 0.5", "c", "correct"),
    (NUMBERS, "(c)+(b)", "c", "wrong"),
    (NUMBERS, "c)|b", "c", "wrong"),
    (NUMBERS, "c->b", "c", "wrong"),
    (NUMBERS, "option c-b", "c", "wrong"),
    (NUMBERS, "option c: b", "c", "wrong"),
    (NUMBERS, "C) 625, 120", "c", "wrong"),
    (NUMBERS, "C) 625; 120", "c", "wrong"),
    (NUMBERS, "C) 625 to 120", "c", "wrong"),
    (NUMBERS, "c) 625 - 120", "c", "wrong"),
    (NUMBERS, "C) 625. Wait, 120", "c", "wrong"),
    (NUMBERS, "C) 625. Actually, 120", "c", "wrong"),
    (NUMBERS, "c) 625 because b", "c", "wrong"),
    (NUMBERS, "c) 625 and a", "c", "wrong"),
    (NUMBERS, "c) 625 = 120", "c", "wrong"),
    (NUMBERS, "c) 625 = 5^4 = 120", "c", "wrong"),
    (NUMBERS, "(c) rather than 120", "c", "wrong"),
    (NUMBERS, "c != 625", "c", "wrong"),
    (NUMBERS, "c) 9 * 69", "c", "wrong"),
    (NUMBERS, "c, twenty", "c", "wrong"),
    (NUMBERS, "120 = 625", "c", "wrong"),
    (NUMBERS, "120 eggs = 625", "c", "wrong"),
    (WORDS, "C) 3", "C", "correct"),
    (MIXED, "B. Wait, none of these", "B", "wrong"),
    (MIXED, "C, 18", "C", "wrong"),
    (MIXED, "C) none of these", "C", "correct"),
    (MIXED, "B, since 6 + 12 = 18", "B", "correct"),
    (MIXED, "B) eighteen", "B", "correct"),
    (MIXED, "B) twelve", "B", "wrong"),
    (WORDS, "(A) a dog, not a cat", "A", "wrong"),
    (WORDS, "(A) a dog, a cat", "A", "wrong"),
    (SIGNED, "b ) - 159", "b", "correct"),
    (SIGNED, "(b) -159", "b", "correct"),
    (SIGNED, "b. \u2212 159", "b", "correct"),
    (SIGNED, "- 159", "b", "correct"),
    ({"a": "– 2", "b": "– 1", "c": "4"}, "a ) – 1", "a", "wrong"),
    ({"a": "– 2", "b": "– 1", "c": "4"}, "b ) – 1", "b", "correct"),
    ({"a": "- 4 %", "b": "+ 4 %"}, "b ) - 4 %", "b", "wrong"),
    ({"a": "- 4 %", "b": "+ 4 %"}, "a ) - 4 %", "a", "correct"),
    (SIGNED, "b ) - 119", "b", "wrong"),
    (SIGNED, "d ) 24 : 25", "d", "correct"),
    (SIGNED, "d ) 1 : 3", "d", "wrong"),
    (NUMBERS, "c ) 625 ways , b ) 120", "c", "wrong"),
    (NUMBERS, "120 or 625", "c", "wrong"),
    (NUMBERS, "not 625", "c", "wrong"),
    (NUMBERS, "625, 120", "c", "wrong"),
    (WORDS, "a cat or a dog", "A", "wrong"),
    (WORDS, "not a cat", "B", "wrong"),
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
        ("c = 120", None),
        (OtherValue("a list of values"), None),
    ],
)
def test_values_of_programs(value: str | float | OtherValue, letter: str | None) -> None:
    reading = ChoiceRule(AnswerPolicy()).read_value(item(NUMBERS, "c"), value)
    assert reading.value == letter
    assert letter is not None or reading.verdict is (Verdict.WRONG if value == "c = 120" else Verdict.NO_ANSWER)
