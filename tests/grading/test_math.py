"""Symbolic answers, where math-verify is installed; without it, the kind says what to install."""

from __future__ import annotations

import importlib.util
import os
import signal
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
        ("\\pi", "2\\pi", "wrong"),
        ("\\{2, 1\\}", "\\{1,2\\}", "correct"),
        ("1, 2", "\\{1,2\\}", "correct"),
        ("\\{1,2\\}", "(1,2)", "wrong"),
        ("1, 2", "(1,2)", "wrong"),
        ("(1, 2)", "(1,2)", "correct"),
        ("(2,1)", "(1,2)", "wrong"),
        ("[1,2)", "(1,2)", "wrong"),
        ("x \\in [0,1)", "[0,1)", "correct"),
        ("\\{\\sqrt{2}\\}", "\\sqrt{2}", "wrong"),
        ("(\\sqrt{2})", "\\sqrt{2}", "correct"),
        ("y = 5", "x = 5", "wrong"),
        ("5", "x = 5", "correct"),
        ("x = 5", "5", "correct"),
        ("y = 2x + 1", "y=2x+1", "correct"),
        ("y = 2x + 2", "y=2x+1", "wrong"),
        ("n", "n!", "wrong"),
        ("n!", "n!", "correct"),
        ("x+1/2", "\\frac{x+1}{2}", "wrong"),
        ("1/x+1", "\\frac{1}{x+1}", "wrong"),
        ("(x+1)/2", "\\frac{x+1}{2}", "correct"),
        ("2√3", "\\sqrt{12}", "correct"),
        ("√(3)", "\\sqrt{3}", "correct"),
        ("x**2", "x^2", "correct"),
        ("2pi", "2\\pi", "correct"),
        ("2 * pi", "2\\pi", "correct"),
        ("$x^2$ square units", "x^2", "correct"),
        ("\\sqrt{2}? no, \\sqrt{3}", "\\sqrt{2}", "wrong"),
        ("\\sqrt{3} = \\sqrt{2}", "\\sqrt{2}", "wrong"),
        ("x = \\sqrt{3}, x = \\sqrt{2}", "\\sqrt{2}", "wrong"),
        ("$\\sqrt{2}$ $\\sqrt{3}$", "\\sqrt{2}", "wrong"),
        ("\\sqrt{2} \\pm 1", "\\sqrt{2}", "wrong"),
        ("\\neq \\pi", "\\pi", "wrong"),
        ("x > \\pi", "\\pi", "wrong"),
        ("\\text{Even}", "even", "correct"),
        ("odd", "\\text{even}", "wrong"),
        ("18, 20", "18", "wrong"),
        ("18 (20)", "18", "wrong"),
        ("$18$ $20$", "18", "wrong"),
        ("1,000", "1000", "correct"),
        ("90", "90^\\circ", "correct"),
        ("-\\frac{1}{x}", "-1/x", "correct"),
        ("(-\\infty, 3]", "(-\\infty,3)", "wrong"),
        ("(-\\infty,3)", "(-\\infty,3) \\cup (5,\\infty)", "wrong"),
        ("(5,\\infty)\\cup(-\\infty,3)", "(-\\infty,3) \\cup (5,\\infty)", "correct"),
        ("B", "\\text{(B)}", "correct"),
        ("C", "\\text{(B)}", "wrong"),
        ("\\sqrt{3} but \\boxed{\\sqrt{2}}", "\\sqrt{2}", "wrong"),
        ("\\boxed{\\sqrt{3}} = \\boxed{\\sqrt{2}}", "\\sqrt{2}", "wrong"),
        ("$\\sqrt{2}$ but \\sqrt{3}", "\\sqrt{2}", "wrong"),
        ("$\\sqrt{2}$ \\pm \\sqrt{3}", "\\sqrt{2}", "wrong"),
        ("$\\sqrt{2}$, 5", "\\sqrt{2}", "wrong"),
        ("\\boxed{\\sqrt{2}}^5", "\\sqrt{2}", "wrong"),
        ("\\sqrt{2} \\approx \\sqrt{3}", "\\sqrt{2}", "wrong"),
        ("\\sqrt{2} \\approx 1.414", "\\sqrt{2}", "correct"),
        ("$\\sqrt{2}$ meters", "\\sqrt{2}", "correct"),
        ("\\boxed{\\sqrt{2}} square meters", "\\sqrt{2}", "correct"),
        ("$\\sqrt{2}$ or five", "\\sqrt{2}", "wrong"),
        ("$x = \\sqrt{2}$", "\\sqrt{2}", "correct"),
        ("x = \\boxed{\\sqrt{2}}", "\\sqrt{2}", "correct"),
        ("\\[\\boxed{\\sqrt{2}}\\]", "\\sqrt{2}", "correct"),
        ("$$\\sqrt{2}$$.", "\\sqrt{2}", "correct"),
        ("silent", "listen", "wrong"),
        ("\\text{dod}", "\\text{odd}", "wrong"),
        ("Listen", "listen", "correct"),
        ("ba", "ab", "correct"),
        ("x", "", "ungradable"),
        ("x", "???", "ungradable"),
        ("x", "\\frac{", "ungradable"),
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


@needs_math_verify
def test_every_bomb_costs_its_own_limit_once_and_a_lost_helper_costs_no_answer() -> None:
    bounded = NcotGrader("math", timeout_s=0.5)
    grade(bounded, "x + 1", "1 + x")
    started = time.monotonic()
    for bomb in ("10^{10^{10^{10}}}", "11^{10^{10^{10}}}"):
        for gold in ("\\sqrt{2}", "\\sqrt{3}", "\\sqrt{5}"):
            assert grade(bounded, bomb, gold).verdict == "wrong"
    assert time.monotonic() - started < 2 * (0.5 + 1)
    judge = bounded._rule.judge  # type: ignore[attr-defined]
    os.kill(judge._process.pid, signal.SIGKILL)
    assert grade(bounded, "z + 1", "1 + z").verdict == "correct"
    pid = judge._process.pid
    bounded.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


@needs_math_verify
def test_many_threads_share_one_helper() -> None:
    shared, verdicts = NcotGrader("math"), []

    def ask(n: int) -> None:
        verdicts.append(grade(shared, f"x + {n}", f"{n} + x").verdict == "correct")
        verdicts.append(grade(shared, f"x + {n}", f"{n + 1} + x").verdict == "wrong")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert verdicts == [True] * 16


@pytest.mark.skipif(INSTALLED, reason="math-verify is installed")
def test_without_the_package_the_message_says_what_to_install() -> None:
    with pytest.raises(UsageError, match="pip install math-verify"):
        NcotGrader("math")
