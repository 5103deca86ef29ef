"""Where the final answer is looked for, and in which order."""

from __future__ import annotations

import time

import pytest

from reftcli.grading.answers import NcotGrader
from reftcli.grading.extraction import find_answer
from reftcli.problems.record import AnswerKind, Problem

FOUND = [
    ("Therefore, the answer is: 18", "18"),
    ("Therefore, the answer is 18", "18"),
    ("therefore, THE ANSWER IS: 18", "18"),
    ("So the answer is 18.", "18."),
    ("The final answer is 18", "18"),
    ("The final answer is: $\\boxed{18}$", "$\\boxed{18}$"),
    ("Therefore, the answer is: 17\nTherefore, the answer is: 18", "18"),
    ("Therefore, the answer is <17>.\nTherefore, the answer is: 18", "18"),
    ("Therefore, the answer is: 17. The final answer is 18", "18"),
    ("Therefore, the answer is: 18\nBut that was only 20 of 30.", "18"),
    ("\\boxed{17} so the answer is 18", "18"),
    ("the answer is 18, as \\boxed{17}", "18, as \\boxed{17}"),
    ("It is \\boxed{17}, no, \\boxed{18}", "18"),
    ("It is \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ("It is \\boxed {18}", "18"),
    ("Steps\n#### 18", "18"),
    ("#### 17\n#### 18", "18"),
    ("#### 17\nIt is \\boxed{18}", "18"),
    ("Therefore, the answer is:\n\\boxed{18}", "18"),
    ("The answer is:\r\n#### 18\r\n", "18"),
    ("Therefore, the answer is: 18<|im_end|>", "18<|im_end|>"),
    ("My final answer is: 18", "18"),
    ("The answer to the question is 18", "18"),
    ("The correct option is (B)", "(B)"),
    ("So it ends.\nAnswer is: 18", "18"),
    ("She does not eat 3 of them, so the answer is 18", "18"),
    ("Is it 17? It is not. The answer is 18", "18"),
    ("I think the answer is 18", "18"),
    ("I don't think the answer is 18", "don't think the answer is 18"),
    ("It is false that the answer is 18", "false that the answer is 18"),
    ("Let me see whether the answer is 18", "whether the answer is 18"),
    ("Either the answer is 17 or the answer is 18", "or the answer is 18"),
    ("Suppose the answer is 18", "Suppose the answer is 18"),
]
ABSENT = [
    "",
    "18",
    "It is 18.",
    "The answer isn't 18",
    "the answers is 18 of them",
    "Therefore, the answer is:",
    "Therefore, the answer is:   \n",
    "Therefore, the answer is:\n18",
    "\\boxed{18",
    "\\boxed{}",
    "##### 18",
    "costs #### 18",
]


@pytest.mark.parametrize(("completion", "text"), FOUND)
def test_found(completion: str, text: str) -> None:
    found = find_answer(completion)
    assert found is not None
    assert found.text == text


@pytest.mark.parametrize("completion", ABSENT)
def test_absent_in_strict_mode(completion: str) -> None:
    assert find_answer(completion) is None


def test_the_last_number_is_taken_only_when_asked_for() -> None:
    found = find_answer("First 3, then $1,018.50 in all.", last_number=True)
    assert found is not None
    assert (found.text, found.mark) == ("$1,018.50", "the last number")
    assert find_answer("The answer is 5. Also 7", last_number=True) == find_answer("The answer is 5. Also 7")


def test_extraction_takes_no_time_on_long_and_nested_texts() -> None:
    started = time.perf_counter()
    for text in ("\\boxed{" * 20_000, "the answer is " * 20_000, "the " * 50_000, "#### " * 50_000, " \t" * 100_000):
        find_answer(text, last_number=True)
        NcotGrader("number").grade([Problem("p", "q", "1")], [text])
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("kind", ["number", "choice", "text"])
def test_no_text_is_graded_slowly(kind: AnswerKind) -> None:
    units = [
        "(",
        "$",
        "{",
        " ",
        "9",
        "9,",
        "*",
        "**",
        "__",
        "`",
        "\\frac{",
        "\\frac{ ",
        "<<",
        "= ",
        "a ",
        "B ",
        "\n*",
        "²",
    ]
    grader = NcotGrader(kind)
    for unit in units:
        for start in ("", "the answer is: ", "the answer is: 5 ", "the answer is: \\frac{", "\\boxed{"):
            for length in (190, 1_900, 100_000):
                text = start + (unit * length)[:length]
                started = time.process_time()
                grader.grade([Problem("p", "q", "B" if kind == "choice" else "1", kind, {"A": "1"})], [text])
                assert time.process_time() - started < 0.5, (unit, start, length)


def test_twenty_thousand_plain_answers_a_second() -> None:
    texts = [f"{i} + {i} = {2 * i}, so she has {2 * i}.\nTherefore, the answer is: {2 * i}" for i in range(5_000)]
    problems = [Problem("p", "q", str(2 * i)) for i in range(5_000)]
    started = time.process_time()
    grades = NcotGrader("number").grade(problems, texts)
    rate = len(texts) / (time.process_time() - started)
    assert all(grade.verdict == "correct" for grade in grades)
    assert rate > 10_000, f"{rate:.0f} answers/s (20,000 on an idle core)"
