from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from reftcli.metrics.intervals import (
    Interval,
    bootstrap_mean,
    interval_of_mean,
    paired_difference,
    tango_without_discordance,
    wilson,
)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.27753),  # 0 correct: z^2 / (n + z^2)
        (8, 10, 0.49016, 0.94332),
        (10, 10, 0.72247, 1.0),
        (50, 100, 0.40383, 0.59617),
        (1, 1, 0.20655, 1.0),
    ],
)
def test_wilson_hand_worked(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=1e-5)


def test_wilson_ends_are_exact() -> None:
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0


def test_wilson_agrees_with_scipy() -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for correct, n, confidence in [(3, 17, 0.95), (940, 1319, 0.95), (0, 5, 0.9), (5, 5, 0.99)]:
        theirs = binomtest(correct, n).proportion_ci(confidence, method="wilson")
        assert wilson(correct, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct <= n"):
        wilson(correct, n)


def test_confidence_is_checked() -> None:
    with pytest.raises(ValueError, match="confidence"):
        wilson(1, 2, confidence=95)


def test_bootstrap_of_two_values() -> None:
    # Resampled means are 0, 1/2, 1 with chances 1/4, 1/2, 1/4: both 2.5% tails end at the extremes.
    assert bootstrap_mean([0.0, 1.0], seed=0) == Interval(0.0, 1.0)


def test_bootstrap_width_is_the_standard_error() -> None:
    values = np.random.default_rng(0).random(500)
    low, high = bootstrap_mean(values.tolist(), seed=1)
    half = 1.96 * values.std() / np.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_bootstrap_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(3).integers(0, 5, 200) / 4
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert bootstrap_mean(values.tolist(), seed=0) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_bootstrap_depends_on_seed_and_not_on_order() -> None:
    values = [0.0, 0.25, 0.5, 1.0, 0.125, 0.75, 0.3]
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values[::-1], seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


def test_bootstrap_memory_is_bounded() -> None:
    values = np.random.default_rng(0).random(20_000)  # 500 x 20,000 counts at once would be 80 MB
    tracemalloc.start()
    bootstrap_mean(values.tolist(), seed=0, resamples=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_bootstrap_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean(values, seed=0)


def test_interval_of_mean_takes_wilson_for_zeros_and_ones() -> None:
    assert interval_of_mean([1.0, 0.0, 1.0, 1.0], seed=0) == wilson(3, 4)
    assert interval_of_mean([1.0] * 20, seed=0) == wilson(20, 20)  # a bootstrap would have no width
    assert interval_of_mean([0.5, 1.0, 0.0], seed=7) == bootstrap_mean([0.5, 1.0, 0.0], seed=7)


def test_paired_difference_uses_the_pairing() -> None:
    a = [1.0, 0.0] * 200
    b = [0.9, -0.1] * 200
    mean, interval = paired_difference(a, b, seed=0)
    assert mean == pytest.approx(0.1)
    assert interval == pytest.approx((0.1, 0.1))  # unpaired, it would be about 0.1 -+ 0.07


def test_paired_difference_is_a_minus_b() -> None:
    mean, interval = paired_difference([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0], seed=0)
    assert mean == 0.25
    assert interval.low <= 0.25 <= interval.high


def test_paired_difference_needs_pairs() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([1.0, 0.0], [1.0], seed=0)


@pytest.mark.parametrize(("n", "high"), [(1, 0.79345), (10, 0.27753), (96, 0.038476), (1319, 0.0029039)])
def test_tango_without_discordance_hand_worked(n: int, high: float) -> None:
    assert tango_without_discordance(n) == pytest.approx((-high, high), abs=1e-5)  # z^2 / (n + z^2), z = 1.95996


def test_tango_without_discordance_solves_the_score_equation() -> None:
    n, z = 57, 1.959963984540054
    d = tango_without_discordance(n).high
    # Tango 1998, equations 5 to 9, with b = c = 0
    a, b, c = 2 * n, 2 * n * d, 0.0
    q = ((b * b - 4 * a * c) ** 0.5 - b) / (2 * a)
    assert (0 - n * d) / (n * (2 * q + d * (1 - d))) ** 0.5 == pytest.approx(-z)


def test_tango_without_discordance_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="n >= 1"):
        tango_without_discordance(0)
