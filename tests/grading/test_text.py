"""Texts are equal when only their writing differs."""

from __future__ import annotations

import pytest

from reftcli.grading.answers import NcotGrader
from reftcli.problems.record import Problem


@pytest.mark.parametrize(
    ("text", "gold", "verdict"),
    [
        ("Paris", "Paris", "correct"),
        (" paris.", "Paris", "correct"),
        ("**Paris**", "Paris", "correct"),
        ('"Paris"', "Paris", "correct"),
        ("New   York", "new york", "correct"),
        ("Ｐａｒｉｓ", "Paris", "correct"),
        ("\\text{Paris}", "Paris", "correct"),
        ("Straße", "STRASSE", "correct"),
        ("Paris, Texas", "Paris", "wrong"),
        ("not Paris", "Paris", "wrong"),
        ("Paris or London", "Paris", "wrong"),
        ("", "Paris", "no_answer"),
        ("Paris", "  ", "ungradable"),
        ("Paris?", "Paris", "wrong"),
        ("Parisian", "Paris", "wrong"),
        ("Par", "Paris", "wrong"),
        ("25", "5", "wrong"),
        ("Paris!", "Paris", "correct"),
        ("x+1/2", "\\frac{x+1}{2}", "wrong"),
        ("(x+1)/2", "\\frac{x+1}{2}", "correct"),
    ],
)
def test_answer(text: str, gold: str, verdict: str) -> None:
    (grade,) = NcotGrader("text").grade([Problem("p", "q", gold, "text")], [f"Therefore, the answer is: {text}"])
    assert grade.verdict == verdict, grade
