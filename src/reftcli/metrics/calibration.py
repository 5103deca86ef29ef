"""Whether probabilities are what they say: of the samples that were given 0.7, seven in ten should be correct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """The samples with low <= p(correct) < high (the last bin holds 1 too); ``mean_p`` and ``correct`` in [0, 1]."""

    low: float
    high: float
    samples: int
    mean_p: float
    correct: float
    """Share of correct samples."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """``brier`` and ``ece`` in [0, 1], 0 is best; ``bins`` ascend, empty ones are left out."""

    samples: int
    brier: float
    ece: float
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """``{"samples", "brier", "ece", "reliability": [{"low", "high", "samples", "mean_p", "correct"}]}``."""
        rows = [
            {"low": b.low, "high": b.high, "samples": b.samples, "mean_p": b.mean_p, "correct": b.correct}
            for b in self.bins
        ]
        return {"samples": self.samples, "brier": self.brier, "ece": self.ece, "reliability": rows}


def calibration(correct: Sequence[bool], probabilities: Sequence[float], bins: int = BINS) -> Calibration | None:
    """How far p(correct) is from what happened.

    Brier = 1/m sum_i (p_i - y_i)^2;    ECE = sum_b m_b/m |mean of p in b - share correct in b|,  b of equal width

    Sources: Brier 1950; Naeini et al. 2015. ``correct``, ``probabilities``: [m]. None for no sample. Raises ValueError
    where the lengths differ or a probability is not in [0, 1].
    """
    y, p = np.asarray(correct, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if y.shape != p.shape or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("needs one probability in [0, 1] for each sample")
    if p.size == 0:
        return None
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    table = tuple(
        Bin(b / bins, (b + 1) / bins, int(here.sum()), float(p[here].mean()), float(y[here].mean()))
        for b in range(bins)
        if (here := place == b).any()
    )
    ece = sum(b.samples * abs(b.mean_p - b.correct) for b in table) / p.size
    return Calibration(p.size, float(np.mean((p - y) ** 2)), float(ece), table)
