"""Symbolic answers, where math-verify is installed; without it, the kind says what to install."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator

import pytest

from reftcli.errors import UsageError
from reftcli.grading.answers import NcotGrader
from reftcli.grading.interface import Grade
from reftcli.problems.record import Problem

INSTALLED = importlib.util.find_spec("math_verify") is not None
needs_math_verify = pytest.mark.skipif(not INSTALLED, reason="math-verify is not installed")


def grade(grader: NcotGrader, text: str, gold: str) -> Grade:
    return grader.grade([Problem("p", "q", gold, "math")], [f"Therefore, the answer is: {text}"])[0]


@pytest.fixture(scope="module")
def grader() -> Iterator[NcotGrader]:
    grader = NcotGrader("math", timeout_s=5.0)
    grade(grader, "x + 1", "1 + x")
    yield grader
    grader.close()


@needs_math_verify
@pytest.mark.parametrize(
    ("text", "gold", "verdict"),
    [
        ("18", "18", "correct"),
        ("$18$ apples", "18", "correct"),
        ("\\frac{1}{2}", "0.5", "correct"),
        ("x + 1", "1 + x", "correct"),
        ("$\\frac{\\sqrt{2}}{2}$", "\\frac{1}{\\sqrt{2}}", "correct"),
        ("\\boxed{2\\sqrt{3}}", "\\sqrt{12}", "correct"),
        ("(x+1)^2", "x^2 + 2x + 1", "correct"),
        ("x + 2", "1 + x", "wrong"),
        ("19", "18", "wrong"),
        ("18 or 20", "18", "wrong"),
        ("18? no. It is 20", "18", "wrong"),
        ("answer 18? no. It is 20", "18", "wrong"),
        ("9*2", "18", "wrong"),
        ("\\sqrt{3}", "\\sqrt{2}", "wrong"),
        ("not \\sqrt{2}", "\\sqrt{2}", "wrong"),
        ("\\sqrt{3} or \\sqrt{2}", "\\sqrt{2}", "wrong"),
        ("\\sqrt{4}", "2", "wrong"),
        ("x", "", "ungradable"),
    ],
)
def test_answer(grader: NcotGrader, text: str, gold: str, verdict: str) -> None:
    assert grade(grader, text, gold).verdict == verdict


@needs_math_verify
def test_a_bomb_is_stopped_within_its_limit_and_the_next_answer_is_graded_off_the_main_thread() -> None:
    bounded = NcotGrader("math", timeout_s=1.0)
    assert grade(bounded, "x + 1", "1 + x").verdict == "correct"
    started = time.monotonic()
    assert grade(bounded, "10^{10^{10^{10}}}", "\\sqrt{2}").verdict == "wrong"
    assert time.monotonic() - started < 4
    verdicts: list[str] = []
    thread = threading.Thread(target=lambda: verdicts.append(grade(bounded, "y + 1", "1 + y").verdict))
    thread.start()
    thread.join()
    bounded.close()
    assert verdicts == ["correct"]


@pytest.mark.skipif(INSTALLED, reason="math-verify is installed")
def test_without_the_package_the_message_says_what_to_install() -> None:
    with pytest.raises(UsageError, match="pip install math-verify"):
        NcotGrader("math")
