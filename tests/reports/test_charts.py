from __future__ import annotations

import re

import pytest

from reftcli.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, line_chart, nice_ticks, thinned


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.8, [0, 0.2, 0.4, 0.6, 0.8]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.3, 0.9, [-0.5, 0, 0.5, 1]),
        (0, 700, [0, 200, 400, 600, 800]),
        (0, 3e-6, [0, 1e-6, 2e-6, 3e-6]),
    ],
)
def test_nice_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_ticks_of_steps_are_whole() -> None:
    assert nice_ticks(1, 3, whole=True) == [1, 2, 3]


def test_thinned_keeps_the_mean_and_the_count() -> None:
    points = [(float(i), float(i % 2)) for i in range(1000)]
    few = thinned(points, most=100)
    assert len(few) == 100
    assert few[0] == (4.5, 0.5)
    assert thinned(points[:50], most=100) == points[:50]


def test_the_corners_of_the_data_are_the_corners_of_the_chart() -> None:
    chart = line_chart("Accuracy", [Series("accuracy", [(10, 0.0), (20, 1.0)])])
    line = re.search(r'<polyline points="([^"]+)"', chart)
    assert line is not None
    assert line[1] == f"{LEFT}.0,{HEIGHT - BOTTOM}.0 {WIDTH - RIGHT}.0,{TOP}.0"


def test_a_marked_series_has_a_dot_with_its_value() -> None:
    chart = line_chart("Accuracy", [Series("validation", [(10, 0.25), (20, 0.7131)], marked=True)])
    assert chart.count("<circle") == 2
    assert "<title>step 20: 0.7131</title>" in chart


def test_a_single_point_is_visible() -> None:
    assert "<circle" in line_chart("KL", [Series("KL", [(1, 0.0)])])


def test_no_points_no_chart() -> None:
    assert line_chart("KL", [Series("KL", [])]) == ""
