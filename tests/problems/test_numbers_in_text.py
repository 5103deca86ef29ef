from __future__ import annotations

from fractions import Fraction

import pytest

from reftcli.problems.numbers import canonical_gold, decimal_text, measured_number, numbers_in, plain_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        ("1,000", 1000),
        ("12,34", None),
        ("-3.5", Fraction(-7, 2)),
        ("- 9", -9),
        ("\u2013 5", -5),
        (".5", Fraction(1, 2)),
        ("3 / 4", Fraction(3, 4)),
        ("13 1 / 2", Fraction(27, 2)),
        ("1e3", 1000),
        ("1 / 0", None),
        ("5 apples", None),
        ("", None),
        ("2 3", None),
    ],
)
def test_plain_number(text: str, value: Fraction | None) -> None:
    assert plain_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$ 12.70", Fraction("12.7")),
        ("rs . 950", 950),
        ("s . 432", 432),
        ("36.8 seconds", Fraction("36.8")),
        ("6.5 %", Fraction("6.5")),
        ("4 th", 4),
        ("335 cm 2", 335),
        ("32 km / hr", 32),
        ("10 .", 10),
        ("15,600", 15600),
        ("1 / 2", Fraction(1, 2)),
        ("none of these", None),
        ("4 : 3", None),
        ("2 hr 24 mins", None),
        ("12 and 3", None),
        ("1 million km", None),
        ("19 a", None),
        ("14 \u03c0 cm", None),
        ("10 to", None),
    ],
)
def test_measured_number(text: str, value: Fraction | None) -> None:
    assert measured_number(text) == value


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("203.0", "203"),
        ("1,000", "1000"),
        (" 72 ", "72"),
        ("0.50", "0.50"),
        ("+5", "5"),
        ("1/2", "1/2"),
        ("5 kg", "5 kg"),
    ],
)
def test_canonical_gold(text: str, canonical: str) -> None:
    assert canonical_gold(text) == canonical


def test_numbers_in_a_text_are_the_unsigned_ones_in_order() -> None:
    text = "x2 pays $1,000 for 3 - digit 4,5 and .25 of 7.5km"
    assert numbers_in(text) == ["1000", "3", "4", "5", ".25", "7.5"]


def test_decimal_text_reads_back() -> None:
    assert decimal_text(Fraction(4)) == "4"
    assert decimal_text(Fraction(1, 3)) == "0.3333333333333333"
