"""Reads one number out of an answer's text, or nothing. It matches the whole text and never evaluates any of it.

What is accepted, and what is refused although it holds a number, is the table of ``tests/grading/test_number.py``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from reftcli.grading.dress import plain_text
from reftcli.grading.number_words import (
    IN_A_GLOSS,
    IN_A_NAME,
    SCALES,
    changes_the_number,
    counts_in_words,
    number_from_words,
)
from reftcli.grading.policy import AnswerPolicy

MAX_CHARS = 200
_MAX_EXPONENT = 300
"""1e999999999 is four bytes of text and gigabytes of integer."""

_PLAIN = re.compile(r"\s*(-?)\$?([1-9]\d{0,2}(?:,\d{3})+|\d{1,40})(?:\.(\d{1,40}))?\.?\s*", re.ASCII)

_CURRENCY = (
    r"(?:(?:US ?|A|C|NZ|HK|S|R)?\$|[€£¥₹₩₽₱₦₫₺₪₴¢]|[Rr][Ss](?:\s?\.(?=\s)|\.)?(?![A-Za-z])"
    r"|(?i:USD|EUR|GBP|INR|CAD|AUD|NZD|JPY|CNY|RMB|CHF|HKD|SGD)(?![A-Za-z])\s?\$?)"
)
_MONEY_WORDS = frozenset("$ dollar buck usd euro eur pound gbp rupee r inr yen".split())  # noqa: SIM905
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_DIGITS_COMMA = r"(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)"


def _number_pattern(digits: str, point: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<sign>[+-])?\s*(?P<currency>{_CURRENCY})?\s*(?P<inner>[+-](?=[\d.]))?"
        rf"(?:(?:(?P<whole>{digits})\s+)?(?P<top>{digits})\s*/\s*(?P<bottom>{digits})(?![\d{point}])"
        rf"|(?P<digits>{digits})?(?:{point}(?P<decimals>\d*))?(?:[eE](?P<exponent>[+-]?\d{{1,4}})(?!\d))?"
        r"(?:\s*[x×·]\s*10\s*\^\s*\{?(?P<power>[+-]?\d{1,4})(?!\d)\}?)?)"
        r"(?P<rest>.*)",
        re.ASCII | re.DOTALL,
    )


_NUMBER = _number_pattern(_DIGITS, r"\.")
_NUMBER_COMMA = _number_pattern(_DIGITS_COMMA, ",")

_LEADING = re.compile(
    r"(?:(?:about|approximately|approx\.?|around|roughly|exactly|therefore|thus|simply|just|equal to)(?![A-Za-z])"
    r"|[~≈=:])\s*",
    re.IGNORECASE,
)
_MINUS = re.compile(r"(?:minus|negative)\s+(?=[\d.$€£])|[\u2010-\u2013]\s?(?=[\d.$€£])", re.IGNORECASE)
_THAT_IS = re.compile(r"(?:i\.?e\.?|that is|namely|which is|a total of)(?![A-Za-z])[,:]?\s*", re.IGNORECASE)
_EQUALS = re.compile(r"[=≈]")
_REFUSED_LEFT = re.compile(
    r"[<>≠≤≥!;?]|,(?!\d{3})|\.\s|[±→⇒]|\bat (?:least|most)\b"
    r"|\\(?:\\|(?:neq?|leq?|geq?|lt|gt|not|lor|vee|pm|to|in|sim|implies|[Rr]ightarrow)(?![A-Za-z]))",
    re.IGNORECASE,
)
_GLOSS = re.compile(r"(?<=[\w.%$°])\s+[(\[]([^()\[\]]*)[)\]]$|(?<=[A-Za-z%$°])[(\[]([^()\[\]]*)[)\]]$")
_HOPE = re.compile(r"\.?\s*I hope it is correct\.?$", re.IGNORECASE)

_LETTER = "A-Za-zÀ-ÖØ-öø-ɏ"
_WORD = (
    rf"(?:(?:[kcdm]?m|ft|in|yd|mi)[23](?![{_LETTER}])"
    rf"|[{_LETTER}°µμΩ][{_LETTER}°µμΩ.'’&-]*(?:\s*\^\{{?[23]\}}?)?)"
)
_UNIT = re.compile(rf"{_WORD}(?:(?:\s*[/·]\s*|\s+){_WORD}){{0,5}}")
_WHOLE_WORDS = re.compile(rf"[{_LETTER}][{_LETTER}.'’&-]*")
_LETTERS = re.compile(rf"[{_LETTER}]+")
_GLUED_UNITS = frozenset(
    "km m cm mm kg g mg lb lbs oz ft in yd mi s sec h hr hrs min mins ms mph kph L l ml mL ° °C °F "  # noqa: SIM905
    "km/h m/s m^2 m^3 cm^2 cm^3 km^2 ft^2 m2 m3 cm2 cm3 km2 ft2 kW kWh Hz MB GB KB TB cal kcal yr yrs".split()
)
_LETTER_UNITS = frozenset("mgshLlNJWVAa")
_GOES_ON = frozenset("and then because also aka so since".split())  # noqa: SIM905
_TIMES_MONEY = frozenset("bcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") | {"mm", "MM"}  # $5 m is five million
_SCALES_IT = re.compile(r"(?:in\s+)?(?:dozens?|half)$|[×x*÷/^]\s*[\d(]|10\s*\^", re.IGNORECASE)
_VALUE = re.compile(r"[\d¼½¾⅓⅔]|\b(?:nan|inf|infinity|none|null|true|false)\b|∞|\\infty", re.IGNORECASE)
_LONE_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_CALCULATES = re.compile(r"[-+*/×·÷^√|\d]|\b(?:log|ln|sin|cos|tan|exp|det|abs)\b")
_PERCENT = re.compile(r"%|(?:per\s?cents?|percentage points?)(?![A-Za-z])", re.IGNORECASE)


class Quantity(NamedTuple):
    """A number with what it counts. ``percent``: the sign stood behind the number, whatever the policy made of it."""

    value: Fraction
    unit: str = ""
    percent: bool = False

    @classmethod
    def in_words(cls, text: str) -> Quantity | None:
        """A number in words with its unit, as people repeat a number in brackets."""
        words = text.split()
        for length in range(len(words), 0, -1):
            value = number_from_words(" ".join(words[:length]))
            if value is not None:
                return cls(value, " ".join(words[length:]))
        return None


@lru_cache(maxsize=65536)
def parse_number(text: str, policy: AnswerPolicy) -> Fraction | None:
    """The number that ``text`` states, exactly, or None where it does not state exactly one."""
    plain = None if policy.decimal_comma else _plain(text)
    if plain is not None:
        return plain
    if len(text) > MAX_CHARS:
        return None
    return _parse_dressed(_HOPE.sub("", plain_text(text)), policy)


def states_a_number(text: str) -> bool:
    """Whether ``text`` holds anything meant as a value: an answer was given then, though perhaps not a good one."""
    return _VALUE.search(text) is not None


def same_number(a: Fraction, b: Fraction, policy: AnswerPolicy) -> bool:
    """Equality of answers: an absolute difference of at most the policy's tolerance."""
    tolerance = _tolerance(policy.tolerance)
    # |a - b| <= t, multiplied by the denominators: fractions would look for common divisors first.
    apart = abs(a.numerator * b.denominator - b.numerator * a.denominator)
    return apart * tolerance.denominator <= tolerance.numerator * a.denominator * b.denominator


@lru_cache(maxsize=64)
def _tolerance(written: float) -> Fraction:
    """`AnswerPolicy.exact_tolerance`, made once: to make it takes as long as to read a number."""
    return Fraction(str(written))


def show_number(value: Fraction) -> str:
    """The shortest exact way to write it: an integer, a decimal that ends, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator) if abs(value.numerator) < 10**30 else f"{float_text(value)}"
    rest, places = value.denominator, 0
    for factor in (2, 5):
        count = 0
        while rest % factor == 0:
            rest, count = rest // factor, count + 1
        places = max(places, count)
    if rest != 1 or places > 20:
        return f"{value.numerator}/{value.denominator}" if value.denominator < 10**9 else float_text(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def float_text(value: Fraction) -> str:
    """As a float, for numbers too long to be read in full."""
    try:
        return repr(float(value))
    except OverflowError:
        return f"a number of {len(str(abs(value.numerator) // value.denominator))} digits"


def _decimal(digits: str, decimals: str, exponent: int, *, negative: bool) -> Fraction:
    number = int(digits + decimals)
    places = len(decimals) - exponent
    value = Fraction(number, 10**places) if places > 0 else Fraction(number * 10**-places)
    return -value if negative else value


def _parse_dressed(text: str, policy: AnswerPolicy) -> Fraction | None:
    text = text.rstrip(" .,;")
    gloss = _GLOSS.search(text)
    if gloss is not None:
        text = text[: gloss.start()]
    text = _right_side(text, policy)
    quantity = _quantity(text, policy)
    if quantity is None or gloss is None:
        return None if quantity is None else quantity.value
    return quantity.value if _is_mere_gloss(gloss[1] or gloss[2] or "", quantity, policy) else None


def _quantity(text: str, policy: AnswerPolicy) -> Quantity | None:
    """The number that ``text`` is, with its unit; nothing may stand before it but "about" and the like."""
    while leading := _LEADING.match(text):
        text = text[leading.end() :]
    return _match_whole(
        _MINUS.sub("-", text.strip(" *_`"), count=1) if _MINUS.match(text) else text.strip(" *_`"), policy
    )


def _right_side(text: str, policy: AnswerPolicy) -> str:
    """Behind the last equals sign, if what stands before it is a name or a sum; else a text that states no number."""
    parts = _EQUALS.split(text)
    if len(parts) == 1:
        return text
    left, right = " ".join(parts[:-1]), parts[-1].strip()
    if _REFUSED_LEFT.search(left) or changes_the_number(left, IN_A_NAME) or _is_equation(left):
        return ""
    if counts_in_words(left) and re.search(r"(?<![A-Za-z])[A-Za-z]$", left.rstrip()):
        return ""  # six: x = 5
    stated = [found for part in parts[:-1] if (found := _quantity(part, policy) or Quantity.in_words(part))]
    if stated and "≈" not in text and "/" not in left:  # 18 = 20 says two things; 16/3 = 5.3 rounds
        value = _quantity(right, policy)
        if value is None or not all(_may_stand_for(value, other, policy) for other in stated):
            return ""
    return right


def _is_equation(left: str) -> bool:
    """Whether a letter is computed with before the equals sign: from 2x = 18 it does not follow that x is 18."""
    plain = re.sub(r"_\{?\w+\}?|\([^()]*\)", "", left)  # x_1 and f(3) are names
    letters = [match for match in _LONE_LETTER.finditer(plain) if not _counts(plain, match)]
    if letters and _CALCULATES.search(plain):
        return True
    return re.search(r"\d\s*[A-Za-z](?![A-Za-z])", plain) is not None and re.search(r"[-+*/×·÷]", plain) is None


def _counts(text: str, letter: re.Match[str]) -> bool:
    """Whether a lone letter is a unit behind a number, as in 2 h * 60 km/h."""
    return letter[0] in _LETTER_UNITS and re.search(r"(?:\d\s*|/\s*)$", text[: letter.start()]) is not None


def _match_whole(text: str, policy: AnswerPolicy) -> Quantity | None:
    match = (_NUMBER_COMMA if policy.decimal_comma else _NUMBER).fullmatch(text)
    if policy.decimal_comma and match is not None and match["rest"].startswith("."):
        match = _NUMBER.fullmatch(text)  # 203.0 cannot group thousands, and gold answers are often written so
    value = None if match is None else _value(match)
    if match is None or value is None:
        words = number_from_words(text) if policy.number_words else None
        return None if words is None else Quantity(words)
    currency = match["currency"] or ""
    rest = match["rest"].rstrip(" .*_`")
    if currency:
        rest = rest.removesuffix("/-")  # Rs. 500/-
    if policy.number_words and (scale := SCALES.get(rest.strip().lower())):
        return Quantity(value * scale)
    percent = _PERCENT.match(rest.lstrip())
    if percent is not None:
        rest = rest.lstrip()[percent.end() :]
        value = value / 100 if policy.percent == "fraction" else value
    if not _is_unit(rest, currency=bool(currency)):
        return None
    return Quantity(value, currency or rest.strip(), percent is not None)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["sign"] and match["inner"]:
        return None
    negative = "-" in (match["sign"], match["inner"])
    if match["top"] is not None:
        whole, top, bottom = (int(re.sub(r"[.,]", "", match[part] or "0")) for part in ("whole", "top", "bottom"))
        if bottom == 0 or (match["whole"] is not None and top >= bottom):
            return None
        value = whole + Fraction(top, bottom)
        return -value if negative else value
    digits, decimals = (match["digits"] or "").replace(",", "").replace(".", ""), match["decimals"] or ""
    exponent = int(match["exponent"] or match["power"] or 0)
    if not digits + decimals or abs(exponent) > _MAX_EXPONENT:
        return None
    if match["power"] and (match["exponent"] or len(digits) != 1 or digits == "0"):
        return None  # 1.5 × 10^3 is how a number is written, 18 × 10^3 is a product
    return _decimal(digits, decimals, exponent, negative=negative)


def _is_unit(rest: str, *, currency: bool) -> bool:
    """Whether what follows the number only says what is counted."""
    unit = rest.strip()
    if not unit:
        return True
    money = None if currency and not re.fullmatch(_CURRENCY, unit) else re.match(_CURRENCY, unit)
    if money is not None:
        unit, currency = unit[money.end() :], True
        if not unit or unit[0] not in " /":
            return not unit
    elif not rest[0].isspace() and rest[0] not in "/°%" and (currency or unit.split()[0] not in _GLUED_UNITS):
        return False
    unit = unit.lstrip("/ ")
    if _UNIT.fullmatch(unit) is None or changes_the_number(unit) or counts_in_words(unit):
        return False
    words = _WHOLE_WORDS.findall(re.sub(r"°\s*[CF]\b", "°", unit))
    if words == ["a"] or (words and words[0].lower() in _GOES_ON) or (currency and words and words[0] in _TIMES_MONEY):
        return False
    return all(_names_a_thing(word) for word in words)


def _names_a_thing(word: str) -> bool:
    """Whether a word counts things: a lone letter is a variable, unless a unit, or a part as in T-shirt and M&Ms."""
    parts = _LETTERS.findall(re.sub(r"['’]s?\.?$", "", word))
    if all(len(part) > 1 or part in _LETTER_UNITS for part in parts):
        return True
    return any(mark in word and max(map(len, parts)) >= letters for mark, letters in (("-", 3), ("&", 2)))


def _is_mere_gloss(gloss: str, main: Quantity, policy: AnswerPolicy) -> bool:
    """A bracket behind the number may explain or convert it, and may not offer another one."""
    if "?" in gloss or changes_the_number(gloss, IN_A_GLOSS) or _SCALES_IT.match(gloss.strip()):
        return False
    last = _THAT_IS.sub("", gloss.rpartition("=")[2].strip(), count=1)
    other = _quantity(last, policy) or Quantity.in_words(last)
    if other is None:
        return True
    if "=" in gloss:
        return same_number(other.value, main.value, policy)
    return _may_stand_for(main, other, policy)


def _may_stand_for(main: Quantity, other: Quantity, policy: AnswerPolicy) -> bool:
    """Whether two quantities may be one: the same number, a percentage and its share, or one in two units."""
    if same_number(other.value, main.value, policy):
        return True
    if other.percent != main.percent:
        percent, share = (other, main) if other.percent else (main, other)
        return same_number(percent.value / 100, share.value, policy)
    units = _unit_name(main.unit), _unit_name(other.unit)
    return all(units) and units[0] != units[1]


def _unit_name(unit: str) -> str:
    """What is counted, so far as it matters for telling a conversion from another answer."""
    if re.match(_CURRENCY, unit):
        return "money"
    words = _LETTERS.findall(unit.lower())
    name = words[0].rstrip("s") if words else unit.strip()
    return "money" if name in _MONEY_WORDS else name


def _plain(text: str) -> Fraction | None:
    """A number with nothing around it but a dollar sign."""
    plain = _PLAIN.fullmatch(text)
    return None if plain is None else _decimal(plain[2].replace(",", ""), plain[3] or "", 0, negative=plain[1] == "-")
