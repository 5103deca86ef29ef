"""Intervals: Wilson for one 0/1 per problem, a bootstrap over problems for everything else.

Samples of one problem are not independent, so problems are what is resampled, never samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_CELLS_AT_ONCE = 1_000_000
"""Resample counts held in memory at a time (8 MB), whatever the number of problems."""


class Interval(NamedTuple):
    """A confidence interval, both ends included, in the unit of the quantity it belongs to."""

    low: float
    high: float


class Difference(NamedTuple):
    """A mean difference and its interval."""

    mean: float
    interval: Interval


def wilson(correct: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n),  p = correct/n,  z = Phi^-1(1 - (1-confidence)/2)

    Source: Wilson 1927, JASA 22:209; it stays inside [0, 1] and keeps a width at 0 and at n correct.
    Raises ValueError unless 0 <= correct <= n, n >= 1 and 0 < confidence < 1.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"needs 0 <= correct <= n and n >= 1 (got correct={correct}, n={n})")
    z = NormalDist().inv_cdf(1 - _tail(confidence))
    p = correct / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # At the two ends the formula gives 0 and 1 up to rounding noise.
    return Interval(0.0 if correct == 0 else centre - half, 1.0 if correct == n else centre + half)


def bootstrap_mean(values: Sequence[float], seed: int, resamples: int = 10_000, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of a mean over problems.

    [Q(alpha/2), Q(1 - alpha/2)] of mean(v*_1..v*_n), v* drawn from values with replacement;  alpha = 1 - confidence

    Source: Efron & Tibshirani 1993, chapter 13. ``values``: [n], one finite number per problem, in any order.
    How often each distinct value is drawn is multinomial, so the counts are drawn in place of n indices: the same
    distribution in less time. With all values equal the interval has no width: use ``interval_of_mean`` for accuracies.
    Raises ValueError for no values, a value that is not finite, or resamples < 1.
    """
    array = _finite(values)
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1 (got {resamples})")
    tail = _tail(confidence)
    low, high = np.quantile(_resampled_means(array, seed, resamples), [tail, 1 - tail])
    return Interval(float(low), float(high))


def interval_of_mean(values: Sequence[float], seed: int) -> Interval:
    """95% interval of an accuracy: Wilson where each problem is 0 or 1, else the bootstrap over problems."""
    array = _finite(values)
    if np.all((array == 0) | (array == 1)):
        return wilson(int(array.sum()), array.size)
    return bootstrap_mean(values, seed)


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int, resamples: int = 10_000) -> Difference:
    """mean(a - b) with its 95% bootstrap interval over problems; a[i] and b[i] belong to the same problem.

    Raises ValueError where the lengths differ, and as ``bootstrap_mean`` does.
    """
    if len(a) != len(b):
        raise ValueError(f"a and b must pair problem by problem (got {len(a)} and {len(b)} values)")
    differences = _finite(a) - _finite(b)
    return Difference(float(differences.mean()), bootstrap_mean(differences.tolist(), seed, resamples))


def tango_without_discordance(n: int, confidence: float = 0.95) -> Interval:
    """Score interval of the difference of two paired proportions where all n pairs agree.

    -+ z^2 / (n + z^2),  z = Phi^-1(1 - (1-confidence)/2)

    Source: Tango 1998, Statistics in Medicine 17:891. Its limits solve (b - c - n d)^2 = z^2 n (2 q + d (1 - d)); with
    b = c = 0 the estimate q of the smaller discordant share is 0 for d > 0, so n d = z^2 (1 - d). A bootstrap of pairs
    that all agree has no width, as if n were infinite. Raises ValueError unless n >= 1 and 0 < confidence < 1.
    """
    if n < 1:
        raise ValueError(f"needs n >= 1 (got {n})")
    z = NormalDist().inv_cdf(1 - _tail(confidence))
    return Interval(-z * z / (n + z * z), z * z / (n + z * z))


def _resampled_means(values: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, _CELLS_AT_ONCE // distinct.size)
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(values.size, counts / values.size, size=min(rows, resamples - start))
        means[start : start + rows] = drawn @ distinct / values.size
    return means


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.all(np.isfinite(array)):
        raise ValueError("needs at least one value, every value a finite number")
    return array


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1 (got {confidence})")
    return (1 - confidence) / 2
