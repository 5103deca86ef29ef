from __future__ import annotations

import pytest

from reftcli.errors import UsageError
from reftcli.evaluation.pairing import AskedProblem, refuse_other_problems


@pytest.mark.parametrize(
    ("a", "b", "differs"),
    [
        (AskedProblem("5", "aa"), AskedProblem("5", "aa"), None),
        (AskedProblem("5", "aa"), AskedProblem(" 5\n", "aa"), None),
        (AskedProblem("5", "aa"), AskedProblem("5"), None),  # early samples keep no question
        (AskedProblem("5"), AskedProblem("5"), None),
        (AskedProblem("1,000"), AskedProblem("1000.0"), None),
        (AskedProblem("B"), AskedProblem("B"), None),
        (AskedProblem(""), AskedProblem("6"), None),  # a file without golds
        (AskedProblem("B"), AskedProblem("C"), "gold answers 'B' and 'C'"),
        (AskedProblem("5", "aa"), AskedProblem("5", "bb"), "other questions"),
        (AskedProblem("5", "aa"), AskedProblem("6", "aa"), "gold answers '5' and '6'"),
        (AskedProblem("5"), AskedProblem("6", "bb"), "gold answers '5' and '6'"),
    ],
)
def test_what_differs(a: AskedProblem, b: AskedProblem, differs: str | None) -> None:
    assert a.is_other_than(b) == b.is_other_than(a) or differs is not None
    assert a.is_other_than(b) == differs


def test_equal_ids_of_other_problems_are_refused_with_an_example() -> None:
    a = {
        "p1": AskedProblem("5", "aa"),
        "p2": AskedProblem("6", "bb"),
        "p3": AskedProblem("7", "cc"),
        "only a": AskedProblem("1", "dd"),
    }
    b = {
        "p1": AskedProblem("5", "aa"),
        "p2": AskedProblem("6", "xx"),
        "p3": AskedProblem("8", "cc"),
        "only b": AskedProblem("2", "ee"),
    }
    with pytest.raises(UsageError) as refused:
        refuse_other_problems(a, b, "mine", "yours")
    assert str(refused.value) == (
        "mine and yours cannot be compared: 2 of their problems have the same id and are others "
        "(first: p2, other questions); evaluate both on the same problems"
    )
    refuse_other_problems(a, {key: asked for key, asked in b.items() if key not in ("p2", "p3")}, "mine", "yours")
