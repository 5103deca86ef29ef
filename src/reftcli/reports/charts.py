"""Line charts as inline SVG, written by hand so that a page needs neither a script nor a network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from reftcli.reports.markup import text

Point = tuple[float, float]

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 22, 10, 26

MOST_POINTS = 120
"""Longer series are drawn as means of neighbouring points."""


@dataclass(frozen=True, slots=True)
class Series:
    """A named line. ``marked`` draws a dot at each point, with its value as a tooltip, and never thins the points."""

    label: str
    points: Sequence[Point]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps a value from [low, high] to a pixel from [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(title: str, series: Sequence[Series]) -> str:
    """A ``<figure>`` with title, legend (and each line's last value) and curves; "" where no series has a point.

    The vertical axis includes 0, so that a small wiggle does not look like a trend.
    """
    drawn = [s for s in series if s.points]
    if not drawn:
        return ""
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    y_ticks = nice_ticks(min(0.0, *ys), max(0.0, *ys))
    x_axis = _Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, WIDTH - RIGHT)
    y_axis = _Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    x_ticks = [t for t in nice_ticks(x_axis.low, x_axis.high, whole=True) if x_axis.low <= t <= x_axis.high]
    curves = "".join(_curve(s, number, x_axis, y_axis) for number, s in enumerate(drawn, start=1))
    return (
        f"<figure><figcaption>{text(title)}{_legend(drawn)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)} by training step">'
        f"{_grid(x_ticks, y_ticks, x_axis, y_axis)}{curves}</svg></figure>"
    )


def nice_ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """About ``count`` steps of 1, 2 or 5 times a power of ten that cover [low, high]; at least two ticks.

    ``whole`` keeps the step at 1 or more, for an axis of training steps.
    """
    high = high if high > low else low + 1.0
    span = high - low
    magnitude = 10.0 ** math.floor(math.log10(span / count))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= span / count * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most ``most`` points, each the mean of as many neighbours as the others (up to one)."""
    if len(points) <= most:
        return list(points)
    edges = [len(points) * i // most for i in range(most + 1)]
    buckets = [points[a:b] for a, b in itertools.pairwise(edges)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in buckets]


def number(value: float) -> str:
    """Four digits at most: 0.7131, 12.35, 1,319, 2.5e-06."""
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
    return f"{value:.4g}"


def _legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<li class="c{i}"><i></i>{text(s.label)} <b>{number(s.points[-1][1])}</b></li>'
        for i, s in enumerate(series, start=1)
    )
    return f'<ul class="legend" title="value at the last step">{items}</ul>'


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float], x_axis: _Axis, y_axis: _Axis) -> str:
    rows = "".join(
        f'<path class="grid" d="M{LEFT} {y_axis.at(t):.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y_axis.at(t) + 4:.1f}" text-anchor="end">{number(t)}</text>'
        for t in y_ticks
    )
    columns = "".join(
        f'<text x="{x_axis.at(t):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number(t)}</text>' for t in x_ticks
    )
    return rows + columns


def _curve(series: Series, number_: int, x_axis: _Axis, y_axis: _Axis) -> str:
    points = list(series.points) if series.marked else thinned(series.points)
    pixels = [(x_axis.at(x), y_axis.at(y)) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    dots = "".join(
        f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5"><title>step {number(x)}: {number(y)}</title></circle>'
        for (px, py), (x, y) in zip(pixels, points, strict=True)
        if series.marked or len(points) == 1
    )
    return f'<g class="c{number_}"><polyline points="{line}"/>{dots}</g>'
