"""Two runs on the same problems: is the difference more than chance, and what could this n have shown?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from reftcli.metrics.intervals import Interval, paired_difference, tango_without_discordance


@dataclass(frozen=True, slots=True)
class Comparison:
    """A against B, paired by problem. Accuracies and ``difference`` (A - B) are fractions, not percent."""

    name_a: str
    name_b: str
    n: int
    """Problems that both answered for."""
    accuracy_a: float
    accuracy_b: float
    difference: float
    interval: Interval
    """95% interval of ``difference``: bootstrap over problems; Tango's where both agree on all of them."""
    only_a: int
    """Discordant problems that A solves and B does not."""
    only_b: int
    p_value: float
    """Exact two-sided McNemar."""
    smallest_detectable: float | None
    """Two-sided 5%, power 80%, at the observed discordance; None where no difference could reach that power."""
    unpaired: int
    """Problems that only one of the two has; they are left out."""

    @property
    def sentence(self) -> str:
        """What a person can quote."""
        left_out = f" ({self.unpaired:,} that only one of them has are left out)" if self.unpaired else ""
        chance = "is hard to explain by chance" if self.p_value < 0.05 else "can be chance"
        return (
            f"On the same {self.n:,} {_problems(self.n)}{left_out} {self.name_a} solves {self.accuracy_a:.1%} and "
            f"{self.name_b} {self.accuracy_b:.1%}, a difference of {_points(self.difference)} points "
            f"(95% interval {_points(self.interval.low)} to {_points(self.interval.high)}) that {chance} "
            f"(exact McNemar {_p_text(self.p_value)}, {self.only_a} against {self.only_b} solved by only one); "
            f"{self._power_clause()}."
        )

    def _power_clause(self) -> str:
        if self.smallest_detectable is None:
            return f"with {self.only_a + self.only_b} problems apart no difference can be shown with power 80%"
        points = 100 * self.smallest_detectable
        return f"a difference of {points:.1f} points is the smallest found with power 80% (two-sided 5%)"


def compare(
    a: Mapping[str, float], b: Mapping[str, float], name_a: str = "A", name_b: str = "B", seed: int = 0
) -> Comparison:
    """Pairs two runs by problem id. ``a``, ``b``: id -> 0 or 1.

    Raises ValueError where no problem is in both, or a value is neither 0 nor 1 (a mean over samples has no McNemar).
    """
    shared = [item_id for item_id in a if item_id in b]
    if not shared:
        raise ValueError(f"{name_a} and {name_b} have no problem in common")
    values_a, values_b = [float(a[i]) for i in shared], [float(b[i]) for i in shared]
    if not set(values_a) | set(values_b) <= {0.0, 1.0}:
        raise ValueError("a paired comparison needs 0 or 1 for each problem")
    only_a = sum(x > y for x, y in zip(values_a, values_b, strict=True))
    only_b = sum(x < y for x, y in zip(values_a, values_b, strict=True))
    difference, interval = paired_difference(values_a, values_b, seed)
    if only_a == only_b == 0:
        interval = tango_without_discordance(len(shared))
    return Comparison(
        name_a=name_a,
        name_b=name_b,
        n=len(shared),
        accuracy_a=sum(values_a) / len(shared),
        accuracy_b=sum(values_b) / len(shared),
        difference=difference,
        interval=interval,
        only_a=only_a,
        only_b=only_b,
        p_value=mcnemar_exact(only_a, only_b),
        smallest_detectable=smallest_detectable(len(shared), only_a + only_b),
        unpaired=len(a) + len(b) - 2 * len(shared),
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p-value from the discordant counts.

    p = min(1, 2 sum_{i=0}^{min(b,c)} C(m, i) / 2^m),  b = only_a, c = only_b, m = b + c

    Source: McNemar 1947 with the binomial tail, as scipy.stats.binomtest(b, m, 0.5). 1 where nothing is discordant.
    Integers throughout: no underflow until the last division. Raises ValueError for a negative count.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"discordant counts must be >= 0 (got {only_a} and {only_b})")
    m = only_a + only_b
    term = tail = 1
    for i in range(min(only_a, only_b)):
        term = term * (m - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << m))


def smallest_detectable(n: int, discordant: int, alpha: float = 0.05, power: float = 0.80) -> float | None:
    """The smallest true difference d in accuracy that a McNemar test on n problems finds with this power.

    Solves  d sqrt(n) = z_a sqrt(psi) + z_b sqrt(psi - d^2),  psi = discordant/n, z_a = Phi^-1(1 - alpha/2),
    z_b = Phi^-1(power), for d:  d = sqrt(psi) (z_a sqrt(n) + z_b sqrt(n - z_a^2 + z_b^2)) / (n + z_b^2)

    Source: Connor 1987, Biometrics 43:207 (normal approximation; the exact test needs slightly more).
    None where d > psi: with so few discordant problems not even all of them on one side would do.
    Raises ValueError unless 0 <= discordant <= n and n >= 1.
    """
    if n < 1 or not 0 <= discordant <= n:
        raise ValueError(f"needs 0 <= discordant <= n and n >= 1 (got discordant={discordant}, n={n})")
    z_a, z_b = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    psi = discordant / n
    under_root = n - z_a**2 + z_b**2
    if discordant == 0 or under_root < 0:
        return None
    d = math.sqrt(psi) * (z_a * math.sqrt(n) + z_b * math.sqrt(under_root)) / (n + z_b**2)
    return d if d <= psi else None


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def _problems(n: int) -> str:
    return "problem" if n == 1 else "problems"


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
