from __future__ import annotations

import numpy as np
import pytest

from reftcli.metrics.calibration import Bin, calibration


def test_hand_worked() -> None:
    found = calibration([True, False, True, True], [0.9, 0.25, 0.25, 1.0])
    assert found is not None
    assert found.brier == pytest.approx((0.01 + 0.0625 + 0.5625 + 0) / 4)
    assert found.bins == (Bin(0.2, 0.3, 2, 0.25, 0.5), Bin(0.9, 1.0, 2, 0.95, 1.0))
    assert found.ece == pytest.approx((2 * 0.25 + 2 * 0.05) / 4)
    assert found.to_json()["reliability"][0] == {
        "low": 0.2, "high": 0.3, "samples": 2, "mean_p": 0.25, "correct": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("correct", "p", "brier", "ece"),
    [
        ([True, False], [1.0, 0.0], 0.0, 0.0),  # sure and right
        ([True, False], [0.0, 1.0], 1.0, 1.0),  # sure and wrong
        ([True, False], [0.5, 0.5], 0.25, 0.0),  # knows nothing, and says so
        ([True, True, True, False], [0.75] * 4, 0.1875, 0.0),
    ],
)
def test_extremes(correct: list[bool], p: list[float], brier: float, ece: float) -> None:
    found = calibration(correct, p)
    assert found is not None
    assert (found.brier, found.ece) == (pytest.approx(brier), pytest.approx(ece))


def test_honest_probabilities_are_calibrated_and_shifted_ones_are_off_by_the_shift() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(200_000) * 0.8
    correct = (rng.random(p.size) < p).tolist()
    honest, shifted = calibration(correct, p.tolist()), calibration(correct, (p + 0.2).tolist())
    assert honest is not None
    assert shifted is not None
    assert honest.ece < 0.01
    assert shifted.ece == pytest.approx(0.2, abs=0.01)
    # Brier = variance of the labels + squared error of p: Murphy's decomposition
    assert honest.brier == pytest.approx(float(np.mean(p * (1 - p))), abs=0.005)
    assert shifted.brier - honest.brier == pytest.approx(0.04, abs=0.005)
    assert sum(b.samples for b in honest.bins) == p.size


def test_no_sample_and_no_probability() -> None:
    assert calibration([], []) is None
    with pytest.raises(ValueError, match=r"one probability in \[0, 1\]"):
        calibration([True], [1.5])
    with pytest.raises(ValueError, match=r"one probability in \[0, 1\]"):
        calibration([True, False], [0.5])
    with pytest.raises(ValueError, match=r"one probability in \[0, 1\]"):
        calibration([True], [float("nan")])
