"""The table of numeric answers. A bug in the grader adds a row."""

from __future__ import annotations

import pytest

from reftcli.grading.answers import NcotGrader
from reftcli.grading.interface import Verdict
from reftcli.grading.number import parse_number, show_number
from reftcli.grading.policy import AnswerPolicy
from reftcli.problems.record import Problem

RIGHT = [  # what stands behind the trigger, gold answer
    ("18", "18"),
    (" 18.", "18"),
    ("18.0", "18"),
    ("18", "18.0"),
    ("203.0", "203"),
    ("+18", "18"),
    ("-18", "-18"),
    ("- 18", "-18"),
    ("\u221218", "-18"),
    ("-$18", "-18"),
    ("$-18", "-18"),
    ("$18", "18"),
    ("$18.00", "18"),
    ("18$", "18"),
    ("€18", "18"),
    ("18 €", "18"),
    ("18 USD", "18"),
    ("1,000", "1000"),
    ("$1,234,567.50", "1234567.5"),
    ("1000", "1,000"),
    ("1{,}000", "1000"),
    ("1\\,000", "1000"),
    (".5", "0.5"),
    ("5.", "5"),
    ("1e3", "1000"),
    ("1.5E-3", "0.0015"),
    ("5%", "5"),
    ("5 %", "5"),
    ("5\\%", "5"),
    ("5 percent", "5"),
    ("1/2", "0.5"),
    ("1 / 2", "0.5"),
    ("-1/2", "-0.5"),
    ("1 1/2", "1.5"),
    ("-1 1/2", "-1.5"),
    ("½", "0.5"),
    ("1½", "1.5"),
    ("3 ¾", "3.75"),
    ("\\frac{1}{2}", "0.5"),
    ("-\\frac{1}{2}", "-0.5"),
    ("\\dfrac{3}{4}", "0.75"),
    ("\\frac12", "0.5"),
    ("1\\frac{1}{2}", "1.5"),
    ("$18$", "18"),
    ("$$18$$", "18"),
    ("\\(18\\)", "18"),
    ("\\[18\\]", "18"),
    ("$\\$18$", "18"),
    ("\\$18", "18"),
    ("\\boxed{18}", "18"),
    ("$\\boxed{18}$.", "18"),
    ("\\boxed{18} apples", "18"),
    ("\\boxed{18 \\text{ apples}}", "18"),
    ("18 \\text{ apples}", "18"),
    ("**18**", "18"),
    ("**18** apples", "18"),
    ("*18*", "18"),
    ("`18`", "18"),
    ("** 18", "18"),
    ("<203>.", "203"),
    ("１８", "18"),
    ("18 apples", "18"),
    ("18 apples in total", "18"),
    ("18 dollars per hour", "18"),
    ("$18 per hour", "18"),
    ("$18/hour", "18"),
    ("60 km/h", "60"),
    ("60km/h", "60"),
    ("12 m^2", "12"),
    ("12 m²", "12"),
    ("12 cm^3", "12"),
    ("12 square feet", "12"),
    ("5kg", "5"),
    ("45°", "45"),
    ("45^\\circ", "45"),
    ("45 degrees", "45"),
    ("20 °C", "20"),
    ("20°C", "20"),
    ("7 pairs of birds", "7"),
    ("about 18", "18"),
    ("approximately 3.33", "3.33"),
    ("≈ 3.33", "3.33"),
    ("3.333333", "3.33"),
    ("3.34", "3.33"),
    ("10/3", "3.3333"),
    ("x = 18", "18"),
    ("x_1 = 18", "18"),
    ("f(3) = 18", "18"),
    ("2 h * 9 km/h = 18 km", "18"),
    ("5% of 360 = 18", "18"),
    ("18\\,\\text{cm}^2", "18"),
    ("18^\\circ C", "18"),
    ("18 (x = 18)", "18"),
    ("$x = 18$", "18"),
    ("Total cost = $18", "18"),
    ("9*2 = 18", "18"),
    ("9 * 2 = 18 apples", "18"),
    ("12 + 6 = 18", "18"),
    ("<<18=18>>18.", "18"),
    ("15 gallons * 8 pints / gallon = <<15*8=120>>120 pints", "120"),
    ("$12 + $6 = $18", "18"),
    ("36/2 = 18", "18"),
    ("3 × 6 = 18", "18"),
    ("10/3 ≈ 3.33", "3.33"),
    ("18 (since 9*2 = 18)", "18"),
    ("18 (eighteen)", "18"),
    ("18 apples (in total).", "18"),
    ("0.5 (50%)", "0.5"),
    ("18. I hope it is correct.", "18"),
]
WRONG = [
    ("2x = 18", "18"),
    ("2m = 18", "18"),
    ("-x = 18", "18"),
    ("x + 2 = 18", "18"),
    ("x/y = 18", "18"),
    ("x^2 = 18", "18"),
    ("\\sqrt{x} = 18", "18"),
    ("log x = 18", "18"),
    ("18 (x = 20)", "18"),
    ("18 NaN", "18"),
    ("18 twice", "18"),
    ("0.5 (or half)", "0.5"),
    ("1\u00a0000", "1"),
    ("<<18=18>>20", "18"),
    ("0,125", "125"),
    ("20", "18"),
    ("18.02", "18"),
    ("3.345", "3.33"),
    ("-18", "18"),
    ("18", "-18"),
    ("18 or 20", "18"),
    ("20 or 18", "18"),
    ("18, 20", "18"),
    ("18 and 20", "18"),
    ("18; 20", "18"),
    ("18/20", "18"),
    ("18-20", "18"),
    ("18 - 20", "18"),
    ("18 to 20", "20"),
    ("between 18 and 20", "18"),
    ("18–20", "18"),
    ("not 18", "18"),
    ("18, not 20", "18"),
    ("18 is wrong", "18"),
    ("18? no. It is 20", "18"),
    ("18. No, it is 20", "18"),
    ("18. It is 20", "18"),
    ("18 no", "18"),
    ("18 (or 20)", "18"),
    ("18 (not sure)", "18"),
    ("18 (20)", "18"),
    ("9*2", "18"),
    ("9 + 9", "18"),
    ("2(9)", "18"),
    ("2(9)", "2"),
    ("2 (9)", "2"),
    ("10²", "102"),
    ("10²", "100"),
    ("10^2", "10"),
    ("10^2", "100"),
    ("2**3", "8"),
    ("2**3**4", "234"),
    ("\\sqrt{4}", "2"),
    ("\\sqrt{4}", "4"),
    ("√4", "4"),
    ("1½", "5.5"),
    ("11/2", "1.5"),
    ("1 1/2", "5.5"),
    ("1 1/2", "11"),
    ("1/0", "1"),
    ("1 000", "1"),
    ("1,00", "100"),
    ("1,00", "1"),
    ("3,5", "3.5"),
    ("3,5", "3"),
    ("1.000.000", "1"),
    ("12:30", "12"),
    ("3:4", "0.75"),
    ("5 million", "5"),
    ("5 thousand", "5"),
    ("5k", "5"),
    ("5K", "5"),
    ("5 K", "5"),
    ("$5m", "5"),
    ("$5 m", "5"),
    ("5M", "5"),
    ("5 dozen", "5"),
    ("5 hundredths", "5"),
    ("5 and a half", "5"),
    ("2 thirds", "2"),
    ("5 degrees below zero", "5"),
    ("5!", "5"),
    ("5x", "5"),
    ("5 x", "5"),
    ("5π", "5"),
    ("5 pi", "5"),
    ("5i", "5"),
    ("5 squared", "5"),
    ("x > 18", "18"),
    ("x ≠ 18", "18"),
    ("x != 18", "18"),
    ("x ≥ 18", "18"),
    (">18", "18"),
    ("at least 18", "18"),
    ("18 or more", "18"),
    ("x = 17, y = 18", "18"),
    ("x = 17 or x = 18", "18"),
    ("x = 18 or 20", "18"),
    ("x is not = 18", "18"),
    ("[18]", "18"),
    ("{18}", "18"),
    ("(18, 20)", "18"),
    ("\\{18\\}", "18"),
    ("--18", "18"),
    ("$-$18", "18"),
    ("-$-18", "18"),
    ("18 19", "18"),
    ("0x12", "18"),
    ("0x12", "0"),
    ("1_8", "18"),
    ("1e999999999", "1"),
    ("1e400", "1"),
    ("9" * 150, "9"),
    ("1" * 5000, "1"),
    ("nan", "18"),
    ("inf", "18"),
    ("-inf", "18"),
    ("True", "1"),
    ("None", "18"),
    ("18 = 20", "18"),
    ("#18 = #20 is false", "20"),
    ("25", "5"),
    ("118", "18"),
    ("1 8", "18"),
    ("1,8", "18"),
    ("181818", "18"),
    ("18.018", "18"),
    ("7 less than 25, so 18", "18"),
    ("0.05", "5"),
]
NO_ANSWER = [
    ("", "18"),
    ("unknown", "18"),
    ("I don't know", "18"),
    ("eighteen", "18"),
    ("\n18", "18"),
    ("**", "18"),
    ("banana", "18"),
]
ROWS = [(text, gold, "correct") for text, gold in RIGHT]
ROWS += [(text, gold, "wrong") for text, gold in WRONG] + [(text, gold, "no_answer") for text, gold in NO_ANSWER]

GRADER = NcotGrader("number")


def problem(gold: str) -> Problem:
    return Problem("p", "How many?", gold)


def test_the_table_is_large() -> None:
    assert len(ROWS) >= 200


@pytest.mark.parametrize(("text", "gold", "verdict"), ROWS)
def test_answer(text: str, gold: str, verdict: str) -> None:
    (grade,) = GRADER.grade([problem(gold)], [f"Some steps.\nTherefore, the answer is: {text}"])
    assert grade.verdict == verdict, grade
    assert grade.why
    assert grade.score == {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0}[verdict]
    assert (grade.predicted_answer is None) == (verdict == "no_answer")


@pytest.mark.parametrize("gold", ["", "many", "1 or 2", "nan", "1/0", "5 million", "x" * 300, "A"])
def test_a_gold_that_cannot_be_read_is_ungradable_and_never_wrong(gold: str) -> None:
    (grade,) = GRADER.grade([problem(gold)], ["Therefore, the answer is: 18"])
    assert grade.verdict is Verdict.UNGRADABLE
    assert grade.score is None
    assert "gold answer" in grade.why


POLICIES = [
    (AnswerPolicy(percent="fraction"), "5%", "0.05"),
    (AnswerPolicy(percent="fraction"), "5 percent", "0.05"),
    (AnswerPolicy(decimal_comma=True), "3,5", "3.5"),
    (AnswerPolicy(decimal_comma=True), "1.000,5", "1000.5"),
    (AnswerPolicy(decimal_comma=True), "1.000", "1000"),
    (AnswerPolicy(number_words=True), "twenty-five", "25"),
    (AnswerPolicy(number_words=True), "minus two thousand and six", "-2006"),
    (AnswerPolicy(number_words=True), "two hundred fifty thousand", "250000"),
    (AnswerPolicy(number_words=True), "5 million", "5000000"),
    (AnswerPolicy(number_words=True), "$1.5 million", "1500000"),
    (AnswerPolicy(tolerance=0.5), "18.5", "18"),
]


@pytest.mark.parametrize(("policy", "text", "gold"), POLICIES)
def test_policies_accept_what_the_default_refuses(policy: AnswerPolicy, text: str, gold: str) -> None:
    completion = f"Therefore, the answer is: {text}"
    assert NcotGrader("number", policy).grade([problem(gold)], [completion])[0].verdict is Verdict.CORRECT
    assert GRADER.grade([problem(gold)], [completion])[0].verdict is not Verdict.CORRECT


@pytest.mark.parametrize(
    ("text", "shown"),
    [("203.0", "203"), ("1/3", "1/3"), ("3.50", "3.5"), ("-.05", "-0.05"), ("1e40", "1e+40"), ("1/8", "0.125")],
)
def test_numbers_are_shown_exactly_and_short(text: str, shown: str) -> None:
    number = parse_number(text, AnswerPolicy())
    assert number is not None
    assert show_number(number) == shown


def test_votes_join_numbers_that_the_grader_calls_equal() -> None:
    assert GRADER.same_answer(problem("1"), "3.333", "3.3333")
    assert GRADER.same_answer(problem("1"), "10/3", "3.33")
    assert not GRADER.same_answer(problem("1"), "3.33", "3.35")
    assert not GRADER.same_answer(problem("1"), "18 or 20", "18")
    assert GRADER.same_answer(problem("1"), "18 or 20", "18 or 20")
