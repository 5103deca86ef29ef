from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from reftcli.metrics.compare import compare, mcnemar_exact, smallest_detectable


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),  # the doubled tail exceeds 1
        (1, 5, 2 * (1 + 6) / 64),
        (5, 1, 2 * (1 + 6) / 64),
        (0, 10, 2 / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
    ],
)
def test_mcnemar_hand_worked(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar_exact(only_a, only_b) == p


def test_mcnemar_survives_thousands_of_problems() -> None:
    assert 0 <= mcnemar_exact(100, 4000) < 1e-300
    assert mcnemar_exact(2000, 2000) == 1.0


def test_mcnemar_agrees_with_scipy() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for only_a, only_b in [(0, 1), (4, 9), (103, 87), (60, 31), (300, 412)]:
        theirs = binomtest(only_a, only_a + only_b, 0.5).pvalue
        assert mcnemar_exact(only_a, only_b) == pytest.approx(theirs, rel=1e-9)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        mcnemar_exact(-1, 3)


def test_smallest_detectable_hand_worked() -> None:
    # sqrt(.2) (1.95996 * 10 + .84162 sqrt(100 - 3.84146 + .70833)) / 100.70833
    assert smallest_detectable(100, 20) == pytest.approx(0.12382, abs=1e-5)


@pytest.mark.parametrize(("n", "discordant"), [(100, 20), (1319, 190), (500, 500), (60, 31)])
def test_smallest_detectable_solves_its_equation(n: int, discordant: int) -> None:
    d = smallest_detectable(n, discordant)
    assert d is not None
    psi, z = discordant / n, NormalDist().inv_cdf
    assert d * math.sqrt(n) == pytest.approx(z(0.975) * math.sqrt(psi) + z(0.8) * math.sqrt(psi - d * d))


def test_smallest_detectable_has_the_power_it_says() -> None:
    n, psi, runs = 1319, 0.15, 4000
    d = smallest_detectable(n, round(psi * n))
    assert d is not None
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [(psi + d) / 2, (psi - d) / 2, 1 - psi], size=runs)[:, :2]
    p_values = {(a, b): mcnemar_exact(a, b) for a, b in {tuple(row) for row in drawn.tolist()}}
    power = np.mean([p_values[a, b] < 0.05 for a, b in drawn.tolist()])
    assert 0.74 < power < 0.84  # the exact test is a little conservative


@pytest.mark.parametrize(("n", "discordant"), [(100, 0), (100, 3), (1, 1)])
def test_too_few_discordant_problems_detect_nothing(n: int, discordant: int) -> None:
    assert smallest_detectable(n, discordant) is None


def test_compare_counts_and_pairs_by_id() -> None:
    a = {"p1": 1.0, "p2": 1.0, "p3": 0.0, "p4": 1.0, "only in a": 1.0}
    b = {"p4": 0.0, "p3": 0.0, "p2": 1.0, "p1": 0.0}
    found = compare(a, b)
    assert (found.n, found.only_a, found.only_b, found.unpaired) == (4, 2, 0, 1)
    assert (found.accuracy_a, found.accuracy_b, found.difference) == (0.75, 0.25, 0.5)
    assert found.p_value == 0.5
    assert found.smallest_detectable is None


def test_the_sentence_can_be_quoted() -> None:
    a = {str(i): float(i < 60) for i in range(100)}
    b = {str(i): float(i < 40 or 60 <= i < 64) for i in range(100)}
    assert compare(a, b, "ReFT", "SFT").sentence == (
        "On the same 100 problems ReFT solves 60.0% and SFT 44.0%, a difference of +16.0 points "
        "(95% interval +7.0 to +25.0) that is hard to explain by chance "
        "(exact McNemar p = 0.002, 20 against 4 solved by only one); "
        "a difference of 13.6 points is the smallest found with power 80% (two-sided 5%)."
    )


def test_the_sentence_for_equal_runs_promises_nothing() -> None:
    sentence = compare({"a": 1, "b": 0}, {"a": 1, "b": 0, "c": 1}).sentence
    assert "difference of +0.0 points" in sentence
    assert "can be chance" in sentence
    assert "(1 that only one of them has are left out)" in sentence
    assert "no difference can be shown" in sentence


def test_runs_that_agree_on_all_problems_are_not_certain_to_be_equal() -> None:
    # 1.95996^2 / (96 + 1.95996^2) = 3.84146 / 99.84146
    found = compare({str(i): float(i < 40) for i in range(96)}, {str(i): float(i < 40) for i in range(96)})
    assert found.difference == 0
    assert found.interval == pytest.approx((-0.038476, 0.038476), abs=1e-6)
    assert "(95% interval -3.8 to +3.8)" in found.sentence


def test_compare_refuses_what_it_cannot_pair() -> None:
    with pytest.raises(ValueError, match="no problem in common"):
        compare({"a": 1.0}, {"b": 1.0})
    with pytest.raises(ValueError, match="0 or 1"):
        compare({"a": 0.5}, {"a": 1.0})
