"""Numbers as people write them in golds, options and questions, read exactly. Text is matched, never evaluated."""

from __future__ import annotations

import re
from fractions import Fraction

_DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_IN_TEXT = re.compile(rf"(?<![A-Za-z])(?:{_DIGITS})")
_NUMBER = re.compile(
    rf"(?P<sign>[-+\u2212\u2013]\s*)?(?P<whole>{_DIGITS})(?P<exponent>e[-+]?\d{{1,2}}(?![\da-z]))?", re.I
)
_OVER = re.compile(r"\s*[/\u2044\u2215]\s*(\d+(?:\.\d+)?)")
_MIXED = re.compile(r"\s+(\d+)\s*[/\u2044\u2215]\s*(\d+)")
_BEFORE = re.compile(
    r"(?:about|approximately|approx\.?)?\s*(?:r?s\s*\.?\s*|re\s*\.?\s*|inr\s*|usd\s*|[$\u20ac\u00a3\u20b9]\s*)?", re.I
)
# A power of two or three may end a unit ("cm 2"); any other digit after the number makes it two numbers.
_UNIT = re.compile(r"\s*[%$\u20ac\u00a3\u20b9\u00b0A-Za-z./'\s]*(?:\^?\s*[23\u00b2\u00b3])?[\s.]*")
# What looks like a unit and is none: scales, alternatives, constants, variables.
_NO_UNIT = re.compile(
    r"\b(?:hundred|thousand|lakhs?|crores?|million|billion|trillion|dozen|half|and|or|to|than|none|not|pi|root|"
    r"[abdeijknopqrtuvwxyz])\b",
    re.I,
)
_MAX_CHARS = 200  # so that every value fits a float


def numbers_in(text: str) -> list[str]:
    """The unsigned numbers of a text in order, thousands commas removed; digits glued to a letter (``x2``) are none."""
    return [match[0].replace(",", "") for match in _IN_TEXT.finditer(text)]


def plain_number(text: str) -> Fraction | None:
    """The value of a text that is one bare number, fraction or mixed number; None for anything else."""
    value, rest = _leading(text.strip())
    return value if value is not None and not rest else None


def measured_number(text: str) -> Fraction | None:
    """The value of one number that may wear a currency before and a percent sign or unit after it; else None.

    ``"rs . 950"``, ``"36.8 seconds"``, ``"4 th"``, ``"335 cm 2"``, ``"13 1 / 2"`` are numbers; ratios, two numbers,
    scales (``"1 million"``) and anything with a variable are not.
    """
    stripped = text.strip()
    start = _BEFORE.match(stripped)
    value, rest = _leading(stripped[start.end() if start else 0 :])
    if value is None or _UNIT.fullmatch(rest) is None or _NO_UNIT.search(rest):
        return None
    return value


def _leading(text: str) -> tuple[Fraction | None, str]:
    match = _NUMBER.match(text)
    if match is None or len(text) > _MAX_CHARS:
        return None, text
    value = Fraction(match["whole"].replace(",", "") + (match["exponent"] or ""))
    sign = -1 if match["sign"] and match["sign"].strip() != "+" else 1
    rest = text[match.end() :]
    if mixed := _MIXED.match(rest):
        if Fraction(mixed[2]) == 0:
            return None, text
        return sign * (value + Fraction(mixed[1]) / Fraction(mixed[2])), rest[mixed.end() :]
    if over := _OVER.match(rest):
        if Fraction(over[1]) == 0:
            return None, text
        return sign * value / Fraction(over[1]), rest[over.end() :]
    return sign * value, rest


def canonical_gold(text: str) -> str:
    """A gold answer as the model should write it: ``"1,000"`` is ``"1000"``, ``"203.0"`` is ``"203"``.

    Only bare decimal numbers are touched; fractions, units and words stay as they are.
    """
    stripped = text.strip()
    if re.fullmatch(rf"[-+]?(?:{_DIGITS})", stripped) is None:
        return stripped
    digits = stripped.replace(",", "").removeprefix("+")
    return re.sub(r"\.0+\Z", "", digits)


def decimal_text(value: Fraction) -> str:
    """A value as an integer where it is one, else as the shortest decimal that reads back as the same float."""
    return str(value.numerator) if value.denominator == 1 else repr(float(value))
